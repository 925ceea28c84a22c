//! What another room that keeps things in the store needs of it: places, locks, short mounts, the hash and the copy of a
//! tree, and the root of a container. Its datasets carry [`KIND`], as everything in the store does.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cryopod_command::Limits;
use cryopod_zfs::{DatasetName, Error as ZfsError, Properties, SnapshotName, Zfs};

use crate::digest::Sha256;
use crate::durable;
use crate::lock::Lock;
use crate::restore::{Replacement, RootfsPlacement, boot, forget};
use crate::scratch::Scratch;
use crate::store::{BOOT, ID, Store, StoreError, ZfsStore};
use crate::tree::{self, Existing};

pub use crate::durable::{private_dir, sync_dir, write as write_durably};
pub use crate::store::KIND;

/// Where things are kept.
#[derive(Debug)]
pub enum Place<'a> {
    /// Below a dataset.
    Zfs {
        /// ZFS.
        zfs: &'a Arc<dyn Zfs>,
        /// The store's root.
        root: &'a DatasetName,
    },
    /// Below a directory.
    Dir(&'a Path),
}

/// What a tree holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TreeDigest {
    /// Hash of everything that makes it: names, contents, owners, modes, times, attributes.
    pub hash: Sha256,
    /// Entries of every kind.
    pub entries: u64,
    /// Sum of the file contents, holes left out.
    pub bytes: u64,
}

/// Where a container's root file system is taken from.
#[derive(Debug)]
pub enum RootSource<'a> {
    /// A clone of this snapshot.
    Snapshot(&'a SnapshotName),
    /// A copy of this tree, by shared blocks where the file system can.
    Tree(&'a Path),
}

/// A dataset or snapshot mounted for a moment; without set-id bits, devices and programs.
pub struct View<'a>(Scratch<'a>);

impl View<'_> {
    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Store {
    /// Where things are kept.
    pub fn tenancy(&self) -> Place<'_> {
        match self {
            Self::Zfs(store) => Place::Zfs { zfs: &store.zfs, root: store.root() },
            Self::Dir(store) => Place::Dir(store.dir()),
        }
    }

    /// A directory of the store on the file system of the node: the directory store, or the mount base of ZFS.
    pub fn dir(&self) -> &Path {
        match self {
            Self::Zfs(store) => store.dir(),
            Self::Dir(store) => store.dir(),
        }
    }

    /// Waits for a lock between all processes that use the store.
    pub fn lock(&self, name: &str, limits: &Limits) -> Result<Lock, StoreError> {
        Ok(self.locks().lock(name, limits)?)
    }

    /// Mounts a dataset with legacy mountpoint, to be written.
    pub fn view(&self, dataset: &DatasetName, limits: &Limits) -> Result<View<'_>, StoreError> {
        Ok(View(Scratch::of_dataset(self.zfs_store()?, dataset, limits)?))
    }

    /// Mounts a snapshot, to be read.
    pub fn view_snapshot(&self, snapshot: &SnapshotName, limits: &Limits) -> Result<View<'_>, StoreError> {
        Ok(View(Scratch::of_snapshot(self.zfs_store()?, snapshot, limits)?))
    }

    /// Makes the root file system of a container, which goes with it ([`forget`]); `origin` says of what.
    pub fn make_root(
        &self,
        container: &str,
        source: &RootSource<'_>,
        origin: &str,
        limits: &Limits,
    ) -> Result<RootfsPlacement, StoreError> {
        match (self, source) {
            (Self::Zfs(store), RootSource::Snapshot(snapshot)) => {
                let dataset = store.container(container)?;
                let properties = Properties::new()
                    .with("mountpoint", "legacy")
                    .with("readonly", "off")
                    .with(BOOT, boot())
                    .with(KIND, "clone")
                    .with(ID, origin);
                match store.zfs.clone_snapshot(snapshot, &dataset, &properties, limits) {
                    // Of a container of that name before this one.
                    Err(ZfsError::Exists { .. }) => {
                        forget(self, container, limits)?;
                        store.zfs.clone_snapshot(snapshot, &dataset, &properties, limits)?;
                    }
                    other => other?,
                }
                Ok(RootfsPlacement::MountInstead(Replacement::Zfs { dataset }))
            }
            (Self::Dir(store), RootSource::Tree(tree)) => {
                forget(self, container, limits)?;
                let path = store.container(container);
                private_dir(&path).map_err(StoreError::io("create", &path))?;
                if let Err(error) = tree::copy(tree, &path, Existing::Refuse, u64::MAX, limits) {
                    if let Err(left) = forget(self, container, limits) {
                        tracing::warn!(container, error = %left, "a half-made root stays");
                    }
                    return Err(error.into());
                }
                Ok(RootfsPlacement::MountInstead(Replacement::Bind { path }))
            }
            _ => Err(unsupported(self.dir())),
        }
    }

    fn zfs_store(&self) -> Result<&ZfsStore, StoreError> {
        match self {
            Self::Zfs(store) => Ok(store),
            Self::Dir(store) => Err(unsupported(store.dir())),
        }
    }
}

/// Reads a whole tree.
pub fn tree_digest(root: &Path, limits: &Limits) -> Result<TreeDigest, StoreError> {
    let (hash, copied) = tree::codec::digest(root, limits)?;
    Ok(TreeDigest { hash, entries: copied.entries, bytes: copied.bytes })
}

/// Removes a directory with everything in it; absent is success.
pub fn remove_tree(path: &Path) -> Result<(), StoreError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StoreError::io("remove", path)(error)),
        _ => durable::sync_parent(path).map_err(StoreError::io("sync", path)),
    }
}

/// Gives a finished directory its name, durably.
pub fn rename_durably(from: &Path, to: &Path) -> Result<(), StoreError> {
    fs::rename(from, to).map_err(StoreError::io("rename", from))?;
    durable::sync_parent(to).map_err(StoreError::io("sync", to))
}

fn unsupported(dir: &Path) -> StoreError {
    let path = PathBuf::from(dir);
    StoreError::Io { action: "use ZFS in", path, source: io::ErrorKind::Unsupported.into() }
}
