//! Short-lived mounts of the ZFS store: a snapshot or dataset made readable at a path for as long as a copy takes.
//!
//! Names say what they are (`scratch.<n>`) and a lock of that name is held while they are used, so whatever a crash
//! leaves is found and removed by [`reap`] without any journal.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cryopod_command::Limits;
use cryopod_zfs::{DatasetName, Error as ZfsError, MountOptions, Properties, SnapshotName, Wanted};
use jiff::Timestamp;

use crate::durable;
use crate::lock::Lock;
use crate::store::{KIND, StoreError, ZfsStore};

const PREFIX: &str = "scratch.";
/// What a clone for this is marked as.
const SCRATCH: &str = "scratch";
/// Unmounting and destroying a clone: a few transactions of the pool.
const CLEANUP: Duration = Duration::from_secs(30);

/// Something mounted; unmounted, and destroyed if it was a clone made for this, when dropped.
pub(crate) struct Scratch<'a> {
    store: &'a ZfsStore,
    path: PathBuf,
    clone: Option<DatasetName>,
    _lock: Lock,
}

impl<'a> Scratch<'a> {
    /// A read-only view of a snapshot.
    pub(crate) fn of_snapshot(
        store: &'a ZfsStore,
        snapshot: &SnapshotName,
        limits: &Limits,
    ) -> Result<Self, StoreError> {
        let mut scratch = Self::reserve(store)?;
        let name = store.root().child(&format!("containers/{}", leaf(&scratch.path)))?;
        scratch.clone = Some(name.clone());
        let properties = Properties::new().with(KIND, SCRATCH).with("mountpoint", "legacy");
        store.zfs.clone_snapshot(snapshot, &name, &properties, limits)?;
        let options = MountOptions { read_only: true, nosuid: true, nodev: true, noexec: true };
        store.zfs.mount_at(&name, &scratch.path, options, limits)?;
        Ok(scratch)
    }

    /// A dataset with legacy mountpoint that nobody has mounted.
    pub(crate) fn of_dataset(
        store: &'a ZfsStore,
        dataset: &DatasetName,
        limits: &Limits,
    ) -> Result<Self, StoreError> {
        let scratch = Self::reserve(store)?;
        let options = MountOptions { nosuid: true, nodev: true, noexec: true, ..MountOptions::default() };
        store.zfs.mount_at(dataset, &scratch.path, options, limits)?;
        Ok(scratch)
    }

    fn reserve(store: &'a ZfsStore) -> Result<Self, StoreError> {
        loop {
            let name = format!("{PREFIX}{}", Timestamp::now().as_nanosecond());
            let Some(lock) = store.locks.try_lock(&name)? else { continue };
            let path = mounts(store).join(name);
            durable::private_dir(&path).map_err(StoreError::io("create", &path))?;
            return Ok(Self { store, path, clone: None, _lock: lock });
        }
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch<'_> {
    fn drop(&mut self) {
        if let Err(error) = remove(self.store, &self.path, self.clone.as_ref(), &Limits::within(CLEANUP)) {
            tracing::warn!(path = %self.path.display(), %error, "a scratch mount is left to recovery");
        }
    }
}

fn mounts(store: &ZfsStore) -> PathBuf {
    store.dir().join("mnt")
}

fn leaf(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn remove(
    store: &ZfsStore,
    path: &Path,
    clone: Option<&DatasetName>,
    limits: &Limits,
) -> Result<(), StoreError> {
    if path.exists() {
        store.zfs.unmount_at(path, true, limits)?;
        fs::remove_dir(path).map_err(StoreError::io("remove", path))?;
    }
    if let Some(clone) = clone {
        match store.zfs.destroy(clone, false, limits) {
            Err(error) if error.is_not_found() => {}
            other => other?,
        }
    }
    Ok(())
}

/// Removes what crashes have left; returns how many.
pub(crate) fn reap(store: &ZfsStore, limits: &Limits) -> Result<u64, StoreError> {
    let mut reaped = 0;
    let dir = mounts(store);
    let paths: Vec<PathBuf> = match fs::read_dir(&dir) {
        Ok(items) => items.filter_map(|item| item.ok().map(|item| item.path())).collect(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(StoreError::io("list", &dir)(error)),
    };
    for path in paths {
        let Some(_lock) = store.locks.try_lock(&leaf(&path))? else { continue };
        if leaf(&path).starts_with(PREFIX) {
            remove(store, &path, None, limits)?;
            reaped += 1;
        }
    }
    let wanted = Wanted::Named(vec![KIND.to_owned()]);
    for dataset in store.children(&store.root().child("containers")?, wanted, limits)? {
        let name = dataset.name.leaf();
        if !name.starts_with(PREFIX) || dataset.properties.own(KIND) != Some(SCRATCH) {
            continue;
        }
        let Some(_lock) = store.locks.try_lock(name)? else { continue };
        match store.zfs.destroy(&dataset.name, false, limits) {
            Ok(()) => reaped += 1,
            Err(ZfsError::Busy { .. }) => {}
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(reaped)
}
