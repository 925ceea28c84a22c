//! Where checkpoints live: a ZFS subtree, or a directory where there is no ZFS.
//!
//! ```text
//! <root> = store.zfs.root, e.g. rpool/cryopod     <dir> = /var/lib/cryopod/store
//! ├ bases/<guid>              image roots          ├ checkpoints/<id>/committed   marker with the summary
//! ├ checkpoints/<id>          state, summary       │                ├ held        a person keeps it
//! │                                                │                ├ imported    it came in a stream
//! │ ├ memory → <dir>/checkpoints/<id>/memory  ≙    │                └ memory/     the content directory
//! │ └ <member>-<disk>         settled disks        ├ containers/<key>
//! ├ containers/<key>          roots we made        ├ templates/<name>             as the image room has it
//! ├ adopted/<guid>            sources whose owner  └ trash/<id>.<n>               deleted, being removed
//! │                           is gone
//! ├ layers, templates         of the image room
//! └ trash/<id>.<n>            deleted, still shared
//!
//! content directory: manifest.json · images/<member>/<round>/… · disks/<member>-<disk>/…
//! ```
//!
//! A checkpoint is visible once its marker says `committed` (user property `cryopod:state`, or the marker file). A draft
//! says that it is one (state `capturing`, or the file `cryopod`) and is garbage unless a live journal entry owns it.
//! What says nothing is somebody else's and stays.

mod choose;
mod config;
pub(crate) mod content;
mod dir;
mod error;
mod zfs;

use std::sync::Arc;

use cryopod_command::Limits;
use cryopod_zfs::SnapshotName;
use serde::Serialize;

use crate::audit::{self, Entry, Operation};
use crate::digest::Sha256;
use crate::id::{CheckpointId, Reference};
use crate::info::CheckpointInfo;
use crate::journal::PlannedSnapshot;
use crate::lock::{Locks, Share};
use crate::manifest::{DiskContent, Manifest};
use crate::progress::Progress;
use crate::retention::{self, Reason};
use crate::settle;

use content::Content;

pub use choose::{Chosen, look, open};
pub use config::{StoreChoice, StoreConfig, StoreKind};
pub use dir::DirStore;
pub use error::zfs_kind;
pub use error::{Damage, StoreError};
pub use zfs::KIND;
pub use zfs::ZfsStore;
pub(crate) use zfs::{BOOT, Found, ID, SNAPSHOT_PREFIX, hold_tag};

/// What became of a deleted checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Deleted {
    /// All its space is free.
    Gone,
    /// It has disappeared; its space is freed when the last of these goes.
    Deferred {
        /// Datasets that live on its disks, or mounts that keep it busy.
        sharers: Vec<String>,
    },
    /// It has disappeared, and nothing of ours knows of the snapshots that it has on pools that are not imported. They
    /// keep their datasets from being destroyed plainly, so a person has to destroy them once the pool is back.
    GivenUp {
        /// Those snapshots.
        snapshots: Vec<SnapshotName>,
        /// As for one that is deferred; none when its space in the store is free.
        sharers: Vec<String>,
    },
}

impl Deleted {
    /// The same, with snapshots that could not be reached.
    pub(crate) fn giving_up(self, snapshots: Vec<SnapshotName>) -> Self {
        match self {
            other if snapshots.is_empty() => other,
            Self::Gone => Self::GivenUp { snapshots, sharers: Vec::new() },
            Self::Deferred { sharers } | Self::GivenUp { sharers, .. } => {
                Self::GivenUp { snapshots, sharers }
            }
        }
    }
}

/// What became of a checkpoint that no rule keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pruned {
    /// It was deleted.
    Deleted(Deleted),
    /// It is needed by now.
    Kept(Reason),
}

/// A checkpoint whose every byte was read and compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Memory image files.
    pub files: u64,
    /// Disks: copied trees by hash, ZFS snapshots by guid (ZFS checks its own blocks; see `zpool scrub`).
    pub disks: u64,
    /// Bytes read and hashed.
    pub bytes: u64,
}

/// What the marker of a committed checkpoint says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Committed {
    /// Hash of the manifest.
    pub(crate) manifest: Sha256,
    /// Whether it is independent of its source.
    pub(crate) settled: bool,
}

/// Where a checkpoint that is committed comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// Captured here; its disks are at their sources.
    Unsettled,
    /// Captured here, and independent of its sources.
    Settled,
    /// From a stream, and so independent.
    Imported,
}

/// The store of a node. Cheap to clone by `Arc`; every call asks the disk, nothing is cached.
#[derive(Debug)]
pub enum Store {
    /// ZFS.
    Zfs(ZfsStore),
    /// Directory.
    Dir(DirStore),
}

/// Shared by all who use it.
pub type SharedStore = Arc<Store>;

impl Store {
    /// Which kind it is.
    pub fn kind(&self) -> StoreKind {
        match self {
            Self::Zfs(_) => StoreKind::Zfs,
            Self::Dir(_) => StoreKind::Dir,
        }
    }

    /// Root dataset or directory.
    pub fn place(&self) -> String {
        match self {
            Self::Zfs(store) => store.root().to_string(),
            Self::Dir(store) => store.dir().display().to_string(),
        }
    }

    /// Bytes that can still be written.
    pub fn available(&self, limits: &Limits) -> Result<u64, StoreError> {
        match self {
            Self::Zfs(store) => store.available(limits),
            Self::Dir(store) => store.available(),
        }
    }

    /// The committed checkpoints, oldest first.
    pub fn list(&self, limits: &Limits) -> Result<Vec<CheckpointInfo>, StoreError> {
        match self {
            Self::Zfs(store) => store.list(limits),
            Self::Dir(store) => store.list(),
        }
    }

    /// One committed checkpoint.
    pub fn info(&self, id: &CheckpointId, limits: &Limits) -> Result<CheckpointInfo, StoreError> {
        let info = match self {
            Self::Zfs(store) => store.info(id, limits)?,
            Self::Dir(store) => store.info(id)?,
        };
        info.ok_or_else(|| self.not_found(id))
    }

    /// The committed checkpoint that a pod of this Kubernetes namespace (empty outside of it) means.
    ///
    /// # Errors
    /// As [`Store::info`]; where there is none, the error names what the pod wrote.
    pub fn find(
        &self,
        reference: &Reference,
        namespace: &str,
        limits: &Limits,
    ) -> Result<CheckpointId, StoreError> {
        for id in reference.candidates(namespace) {
            if self.committed(&id, limits)?.is_some() {
                return Ok(id);
            }
        }
        Err(StoreError::NotHere { reference: reference.as_str().to_owned(), store: self.place() })
    }

    /// Its manifest.
    pub fn manifest(&self, id: &CheckpointId, limits: &Limits) -> Result<Manifest, StoreError> {
        self.open(id, limits).map(|(manifest, _)| manifest)
    }

    /// Reads and compares everything that is stored of a checkpoint.
    pub fn verify(
        &self,
        id: &CheckpointId,
        progress: &dyn Progress,
        limits: &Limits,
    ) -> Result<Verified, StoreError> {
        let committed = self.committed(id, limits)?.ok_or_else(|| self.not_found(id))?;
        let (manifest, content) = self.open_as(id, &committed, limits)?;
        let mut verified = content.verify(&manifest, progress, limits)?;
        if let Self::Zfs(store) = self {
            for (stored, record, disk) in manifest.stored_disks() {
                let DiskContent::Zfs { guid, .. } = &disk.content else { continue };
                let found = store.find(id, &stored, record, disk, limits)?;
                // A restore of a settled one looks nowhere else, and its source may go at any time.
                let there = match found {
                    Some(Found::Store(_)) => true,
                    Some(Found::Source(_)) => !committed.settled,
                    None => false,
                };
                if !there {
                    let damage = Damage::Snapshot { disk: stored, guid: guid.0 };
                    return Err(StoreError::Damaged { id: id.clone(), damage });
                }
                verified.disks += 1;
            }
        }
        Ok(verified)
    }

    /// Deletes a checkpoint: it disappears at once; space that restored pods share is freed with the last of them.
    /// A held one is deleted too, since only `prune` asks for holds.
    pub fn delete(&self, id: &CheckpointId, limits: &Limits) -> Result<Deleted, StoreError> {
        let deleted = self.delete_it(id, limits);
        audit::note(Entry::new(Operation::Delete).checkpoint(id).result(&deleted));
        deleted
    }

    fn delete_it(&self, id: &CheckpointId, limits: &Limits) -> Result<Deleted, StoreError> {
        self.info(id, limits)?;
        let _unread =
            self.locks().try_lock(&read_lock(id))?.ok_or_else(|| StoreError::InUse { id: id.clone() })?;
        match self {
            Self::Zfs(store) => settle::stop_and_remove(store, id, limits),
            Self::Dir(store) => store.remove(id),
        }
    }

    /// The same, unless it is held, shared or not settled by now: for those who decided from a list that may be old.
    pub fn delete_unless_used(&self, id: &CheckpointId, limits: &Limits) -> Result<Pruned, StoreError> {
        let Some(_settling) = self.locks().try_lock(&settle::lock_name(id))? else {
            return Ok(Pruned::Kept(Reason::Settling));
        };
        let _keeping = self.locks().lock(&keep_lock(id), limits)?;
        if let Some(reason) = retention::in_use(&self.info(id, limits)?) {
            return Ok(Pruned::Kept(reason));
        }
        let Some(_unread) = self.locks().try_lock(&read_lock(id))? else {
            return Ok(Pruned::Kept(Reason::BeingRead));
        };
        let deleted = match self {
            // Settled, so it has nothing outside of the store.
            Self::Zfs(store) => store.remove(id, &[], limits),
            Self::Dir(store) => store.remove(id),
        };
        audit::note(Entry::new(Operation::Delete).checkpoint(id).result(&deleted));
        deleted.map(Pruned::Deleted)
    }

    /// Keeps a checkpoint from being deleted by anybody, while this process lives and has the result.
    pub fn reading(&self, id: &CheckpointId, limits: &Limits) -> Result<Share, StoreError> {
        Ok(self.locks().share(&read_lock(id), limits)?)
    }

    /// Keeps a checkpoint from being pruned, or lets it go again.
    pub fn set_held(&self, id: &CheckpointId, held: bool, limits: &Limits) -> Result<(), StoreError> {
        let _keeping = self.locks().lock(&keep_lock(id), limits)?;
        self.info(id, limits)?;
        let done = match self {
            Self::Zfs(store) => store.set_held(id, held, limits),
            Self::Dir(store) => store.set_held(id, held),
        };
        let operation = if held { Operation::Hold } else { Operation::Release };
        audit::note(Entry::new(operation).checkpoint(id).result(&done));
        done
    }

    /// Frees what was deleted and is no longer shared; returns how many pieces went.
    pub fn reap(&self, limits: &Limits) -> Result<u64, StoreError> {
        match self {
            Self::Zfs(store) => store.reap(limits),
            Self::Dir(store) => store.reap(limits),
        }
    }

    pub(crate) fn locks(&self) -> &Locks {
        match self {
            Self::Zfs(store) => &store.locks,
            Self::Dir(store) => &store.locks,
        }
    }

    pub(crate) fn not_found(&self, id: &CheckpointId) -> StoreError {
        StoreError::NotFound { id: id.clone(), store: self.place() }
    }

    /// The content directory of a draft or committed checkpoint, wherever it is.
    pub(crate) fn content(&self, id: &CheckpointId) -> Content {
        match self {
            Self::Zfs(store) => store.content(id),
            Self::Dir(store) => store.content(id),
        }
    }

    /// Manifest and content directory of a committed checkpoint, ready to be read.
    pub(crate) fn open(&self, id: &CheckpointId, limits: &Limits) -> Result<(Manifest, Content), StoreError> {
        let committed = self.committed(id, limits)?.ok_or_else(|| self.not_found(id))?;
        self.open_as(id, &committed, limits)
    }

    /// The same when its marker is known already.
    pub(crate) fn open_as(
        &self,
        id: &CheckpointId,
        committed: &Committed,
        limits: &Limits,
    ) -> Result<(Manifest, Content), StoreError> {
        let content = match self {
            Self::Zfs(store) => store.open_content(id, limits)?,
            Self::Dir(store) => store.content(id),
        };
        let manifest = content.read_manifest(id, committed.manifest)?;
        Ok((manifest, content))
    }

    /// The marker, if the checkpoint is committed.
    pub(crate) fn committed(
        &self,
        id: &CheckpointId,
        limits: &Limits,
    ) -> Result<Option<Committed>, StoreError> {
        match self {
            Self::Zfs(store) => store.committed(id, limits),
            Self::Dir(store) => store.committed(id),
        }
    }

    /// Makes an invisible draft.
    pub(crate) fn begin(
        &self,
        id: &CheckpointId,
        planned: &[PlannedSnapshot],
        limits: &Limits,
    ) -> Result<Content, StoreError> {
        match self {
            Self::Zfs(store) => store.begin(id, planned, limits),
            Self::Dir(store) => store.begin(id),
        }
    }

    /// Writes the manifest and makes a checkpoint of this node visible.
    pub(crate) fn commit(
        &self,
        manifest: &Manifest,
        settled: bool,
        limits: &Limits,
    ) -> Result<(), StoreError> {
        let origin = if settled { Origin::Settled } else { Origin::Unsettled };
        self.commit_as(manifest, origin, limits)
    }

    /// The same for one that came in a stream.
    pub(crate) fn commit_import(&self, manifest: &Manifest, limits: &Limits) -> Result<(), StoreError> {
        self.commit_as(manifest, Origin::Imported, limits)
    }

    fn commit_as(&self, manifest: &Manifest, origin: Origin, limits: &Limits) -> Result<(), StoreError> {
        let id = &manifest.id;
        let hash = self.content(id).write_manifest(manifest)?;
        crate::fault::step("capture.commit")?;
        match self {
            Self::Zfs(store) => store.commit(id, &manifest.summary(), hash, origin, limits),
            Self::Dir(store) => store.commit(id, &manifest.summary(), hash, origin),
        }
    }

    /// Removes a draft with its snapshots on foreign datasets. Idempotent; never removes what is committed, or what does
    /// not say that it is a draft.
    pub(crate) fn abort(
        &self,
        id: &CheckpointId,
        planned: &[PlannedSnapshot],
        limits: &Limits,
    ) -> Result<(), StoreError> {
        if self.committed(id, limits)?.is_some() {
            return Ok(());
        }
        match self {
            Self::Zfs(store) => {
                let sources: Result<Vec<_>, _> =
                    planned.iter().map(|plan| plan.dataset.snapshot(&plan.snapshot)).collect();
                store.abort(id, &sources?, limits)
            }
            Self::Dir(store) => store.abort(id),
        }
    }

    /// What is in places of the store and does not say that it is ours; nothing touches it.
    pub(crate) fn strangers(&self, limits: &Limits) -> Result<Vec<String>, StoreError> {
        match self {
            Self::Zfs(store) => store.strangers(limits),
            Self::Dir(store) => store.strangers(),
        }
    }

    /// Ids of the drafts.
    pub(crate) fn drafts(&self, limits: &Limits) -> Result<Vec<CheckpointId>, StoreError> {
        match self {
            Self::Zfs(store) => store.drafts(limits),
            Self::Dir(store) => store.drafts(),
        }
    }
}

/// Shared by those who read a checkpoint, whole for who deletes it.
fn read_lock(id: &CheckpointId) -> String {
    format!("read-{id}")
}

/// Taken for the moment in which it is decided whether a person holds a checkpoint.
fn keep_lock(id: &CheckpointId) -> String {
    format!("keep-{id}")
}

#[cfg(test)]
mod tests;
