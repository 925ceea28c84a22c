//! Removing drafts and checkpoints. A deleted checkpoint disappears by one `zfs set`; what restored pods still share
//! moves to `trash` and goes with the last of them. Every step may be repeated after a crash.

use cryopod_command::Limits;
use cryopod_zfs::{
    Dataset, DatasetName, Entry, Error as ZfsError, Filter, Kinds, Properties, Rename, SnapshotName, Wanted,
};

use super::claim::{is_base, is_trash, marks};
use super::list::{clones_outside, state};
use super::planned::planned;
use super::{SNAPSHOT_PREFIX, STATE, State, ZfsStore, hold_tag};
use crate::fault;
use crate::id::CheckpointId;
use crate::store::{Deleted, StoreError};

impl ZfsStore {
    /// Deletes a committed checkpoint or removes a draft; absent is success. `sources` are snapshots on foreign
    /// datasets beyond those that the draft itself names.
    pub(crate) fn remove(
        &self,
        id: &CheckpointId,
        sources: &[SnapshotName],
        limits: &Limits,
    ) -> Result<Deleted, StoreError> {
        let Some(dataset) = self.dataset(id, limits)? else {
            // Killed between the snapshot and the draft, or after the draft was removed.
            self.drop_sources(sources, limits)?;
            self.clear_mountpoint(id);
            return Ok(Deleted::Gone);
        };
        fault::step("delete.mark")?;
        if state(&dataset) != Some(State::Trash) {
            self.set(id, &Properties::new().with(STATE, "trash"), limits)?;
        }
        let memory = self.zfs.dataset(&self.memory(id)?, limits)?;
        let mut names = memory.as_ref().map(planned).unwrap_or_default();
        names.extend(sources.iter().filter(|source| !names.contains(source)).cloned().collect::<Vec<_>>());
        self.drop_sources(&names, limits)?;
        fault::step("delete.move")?;
        let trash = self.fresh_name("trash", id.as_str())?;
        // Images that a restore still reads stay readable to it; their dataset goes with the reaping.
        let content = self.content(id);
        self.zfs.unmount_at(content.dir(), true, limits)?;
        self.zfs.rename(&dataset.name, &trash, Rename { keep_mounts: true, parents: false }, limits)?;
        self.clear_mountpoint(id);
        fault::step("delete.destroy")?;
        self.reap_one(&trash, limits)
    }

    /// Removes the directories that the memory dataset was mounted on. They are empty; were they not, they would be
    /// somebody's.
    fn clear_mountpoint(&self, id: &CheckpointId) {
        let content = self.content(id);
        for dir in content.dir().ancestors().take(2) {
            match std::fs::remove_dir(dir) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    tracing::warn!(path = %dir.display(), %error, "a mount point stays");
                }
                _ => {}
            }
        }
    }

    pub(super) fn drop_sources(&self, names: &[SnapshotName], limits: &Limits) -> Result<(), StoreError> {
        names.iter().try_for_each(|name| self.drop_source(name, limits))
    }

    /// Destroys one of our snapshots on a dataset of others; one that is gone is no error. One that is cloned is marked
    /// and goes with its last clone. A hold that a killed settling left is released, since it would keep the dataset
    /// from its owner.
    pub(crate) fn drop_source(&self, name: &SnapshotName, limits: &Limits) -> Result<(), StoreError> {
        let names = std::slice::from_ref(name);
        let destroyed = match self.zfs.destroy_snapshots(names, false, limits) {
            Err(ZfsError::Busy { .. } | ZfsError::HasDependents { .. }) => {
                if let Some(id) = name.leaf().strip_prefix(SNAPSHOT_PREFIX).and_then(|id| id.parse().ok()) {
                    match self.zfs.release(names, &hold_tag(&id)?, limits) {
                        Err(ZfsError::HoldMissing { .. }) => {}
                        Err(error) if error.is_not_found() => return Ok(()),
                        other => other?,
                    }
                }
                self.zfs.destroy_snapshots(names, true, limits)
            }
            other => other,
        };
        match destroyed {
            Err(error) if error.is_not_found() => Ok(()),
            // The pool was exported or destroyed, and the snapshot with it.
            Err(ZfsError::PoolMissing { .. }) => Ok(()),
            other => Ok(other?),
        }
    }

    /// Destroys a dataset with everything below it; absent is success.
    pub(crate) fn destroy_if_there(&self, dataset: &DatasetName, limits: &Limits) -> Result<(), StoreError> {
        match self.zfs.destroy(dataset, true, limits) {
            Err(error) if error.is_not_found() => Ok(()),
            other => Ok(other?),
        }
    }

    /// Frees as much of a trashed checkpoint as nobody uses.
    fn reap_one(&self, trash: &DatasetName, limits: &Limits) -> Result<Deleted, StoreError> {
        match self.zfs.destroy(trash, true, limits) {
            Ok(()) => return Ok(Deleted::Gone),
            Err(error) if error.is_not_found() => return Ok(Deleted::Gone),
            Err(ZfsError::HasDependents { .. } | ZfsError::Busy { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        // Piece by piece: memory and the disks that no clone needs.
        for child in self.children(trash, Wanted::TypedOnly, limits)? {
            match self.zfs.destroy(&child.name, true, limits) {
                Ok(()) | Err(ZfsError::HasDependents { .. } | ZfsError::Busy { .. }) => {}
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error.into()),
            }
        }
        let sharers = self.users_of(trash, limits)?;
        if !sharers.is_empty() {
            return Ok(Deleted::Deferred { sharers });
        }
        match self.zfs.destroy(trash, true, limits) {
            Ok(()) => Ok(Deleted::Gone),
            Err(error) if error.is_not_found() => Ok(Deleted::Gone),
            Err(error @ (ZfsError::HasDependents { .. } | ZfsError::Busy { .. })) => {
                Ok(Deleted::Deferred { sharers: vec![error.to_string()] })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Clones of snapshots below a dataset.
    fn users_of(&self, root: &DatasetName, limits: &Limits) -> Result<Vec<String>, StoreError> {
        let entries = match self.zfs.list(&Filter::below(root, Kinds::SNAPSHOTS), limits) {
            Err(error) if error.is_not_found() => return Ok(Vec::new()),
            other => other?,
        };
        let snapshots = entries.into_iter().filter_map(Entry::into_snapshot);
        Ok(snapshots.flat_map(|found| clones_outside(&found, root)).collect())
    }

    /// Frees what was deleted earlier and is no longer shared, and bases without checkpoints; what has no mark stays.
    /// Returns how many datasets went.
    pub(in crate::store) fn reap(&self, limits: &Limits) -> Result<u64, StoreError> {
        let mut reaped = 0;
        let marked = |part: &str, ours: fn(&Dataset) -> bool| -> Result<Vec<Dataset>, StoreError> {
            let found = self.children(&self.root.child(part)?, marks(), limits)?;
            Ok(found.into_iter().filter(ours).collect())
        };
        for trash in marked("trash", is_trash)? {
            reaped += u64::from(self.reap_one(&trash.name, limits)? == Deleted::Gone);
        }
        for base in marked("bases", is_base)? {
            // Whoever settles on this base holds its lock until its disk is a clone of it.
            let Some(_lock) = self.locks.try_lock(&format!("base-{}", base.name.leaf()))? else { continue };
            if !self.users_of(&base.name, limits)?.is_empty() {
                continue;
            }
            match self.zfs.destroy(&base.name, true, limits) {
                Ok(()) => reaped += 1,
                Err(ZfsError::HasDependents { .. } | ZfsError::Busy { .. }) => {}
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(reaped)
    }
}
