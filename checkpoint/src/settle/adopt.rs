//! Keeps what is still needed of a dataset that its owner is about to destroy.
//!
//! ```text
//! look (one call) → journal entry → D becomes adopted/<guid> → empty D → mark it adopted → entry removed
//!                   from here on it is done, whoever goes on with it
//! ```
//!
//! The owner gives it seconds and comes again, so nothing slow stands before the entry, and a try that was cut off is
//! gone on with by the next one, by recovery or by itself in the background. The mark comes last: nobody destroys an
//! adopted dataset before its owner has its empty one, so when both are gone nothing is missing. Whether a snapshot is
//! needed at all is asked by whoever settles afterwards.

use std::time::Duration;

use cryopod_command::Limits;
use cryopod_zfs::{
    CreateRequest, Dataset, DatasetName, Entry, Error as ZfsError, Filter, Guid, Kinds, Name, Properties,
    Rename, Snapshot, Wanted,
};

use super::{SettleError, dataset_lock};
use crate::fault;
use crate::id::CheckpointId;
use crate::journal::{Journal, Operation};
use crate::lock::Lock;
use crate::restore;
use crate::store::{KIND, SNAPSHOT_PREFIX, Store, StoreError, ZfsStore};
use crate::swap;

/// For a rename and a create, of which a busy node may make seconds.
const EXCHANGE: Duration = Duration::from_secs(if cfg!(test) { 2 } else { 60 });
/// What an adopted dataset is marked as.
pub(crate) const ADOPTED: &str = "adopted";
const KEEP_MOUNTS: Rename = Rename { keep_mounts: true, parents: false };

/// What became of a dataset that is about to be destroyed by its owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Adopted {
    /// Nothing of ours was on it (any more): its owner may destroy it.
    Nothing,
    /// It lives on under this name until nothing needs it; where it had an owner, an empty one has its old name. The
    /// caller should start settling these, or just [`super::tidy`] when there are none.
    Moved {
        /// Its name now.
        to: DatasetName,
        /// Checkpoints to be settled.
        checkpoints: Vec<CheckpointId>,
    },
}

/// Called before the owner of `dataset` destroys it plainly, with the dataset unmounted. Afterwards no snapshot of ours
/// is on it, and it keeps nothing in the trash. When it fails it may be repeated; what a try before this one has begun
/// is finished first, also a placement or swap of this dataset.
pub fn adopt(
    store: &Store,
    dataset: &DatasetName,
    journal: &Journal,
    limits: &Limits,
) -> Result<Adopted, SettleError> {
    let Store::Zfs(store) = store else { return Ok(Adopted::Nothing) };
    // A try that is still going on is waited for.
    let _turn = turn(store, dataset, limits)?;
    let resumed = resume(store, dataset, journal, limits)?;
    let Some(Seen { found, checkpoints }) = look(store, dataset, limits)? else { return Ok(resumed) };
    if checkpoints.is_empty() && !shares_trash(store, &found)? {
        return Ok(resumed);
    }
    let to = store.aside(dataset, found.guid)?;
    let operation = Operation::Adopt { dataset: dataset.clone(), guid: found.guid, adopted: to.clone() };
    let entry = journal.begin(operation)?;
    // Begun, it is done: cut off between rename and create by the caller's deadline, it would leave the owner without
    // a dataset, and containerd's collection of garbage stops for good at one that is missing.
    let limits = &Limits::within(EXCHANGE);
    let _sender = stop_sender(store, found.guid, limits)?;
    fault::step("adopt.rename")?;
    store.zfs.rename(dataset, &to, KEEP_MOUNTS, limits)?;
    fault::step("adopt.replace")?;
    replace(store, dataset, limits)?;
    mark(store, &to, limits)?;
    fault::step("adopt.adopted")?;
    entry.finish()?;
    Ok(Adopted::Moved { to, checkpoints })
}

/// The same for a dataset in the store that was made for a container and goes with it: nobody needs its name, so it is
/// moved or destroyed.
pub(crate) fn let_go(
    store: &ZfsStore,
    dataset: &DatasetName,
    limits: &Limits,
) -> Result<Adopted, StoreError> {
    let _turn = turn(store, dataset, limits)?;
    let Some(Seen { found, checkpoints }) = look(store, dataset, limits)? else {
        return Ok(Adopted::Nothing);
    };
    if checkpoints.is_empty() {
        store.destroy_if_there(dataset, limits)?;
        return Ok(Adopted::Nothing);
    }
    let to = store.aside(dataset, found.guid)?;
    let _sender = stop_sender(store, found.guid, limits)?;
    store.zfs.unmount(dataset, limits)?;
    // Marked before it moves: one transaction makes it an adopted one, and before that it is found here again.
    let properties = Properties::new().with(KIND, ADOPTED).with("mountpoint", "legacy");
    store.zfs.set(&Name::from(dataset), &properties, limits)?;
    fault::step("forget.rename")?;
    store.zfs.rename(dataset, &to, KEEP_MOUNTS, limits)?;
    Ok(Adopted::Moved { to, checkpoints })
}

/// One at a time for a dataset, by its name, since its guid is not known yet and changes.
fn turn(store: &ZfsStore, dataset: &DatasetName, limits: &Limits) -> Result<Lock, StoreError> {
    let name = format!("adopt-{}", crate::digest::of(dataset.as_str().as_bytes()));
    Ok(store.locks.lock(&name, limits)?)
}

/// Asks a sender to let go of the dataset and waits until it has.
fn stop_sender(store: &ZfsStore, guid: Guid, limits: &Limits) -> Result<Lock, StoreError> {
    let key = dataset_lock(guid);
    let _wish = store.locks.want(&key)?;
    Ok(store.locks.lock(&key, limits)?)
}

/// Goes on with what was begun on this dataset and is in nobody's hands.
fn resume(
    store: &ZfsStore,
    dataset: &DatasetName,
    journal: &Journal,
    limits: &Limits,
) -> Result<Adopted, SettleError> {
    let mut resumed = Adopted::Nothing;
    let begun = journal.scan_for(|operation| match operation {
        Operation::Adopt { dataset: known, .. }
        | Operation::Place { dataset: known, .. }
        | Operation::Swap { dataset: known, .. } => known == dataset,
        Operation::Capture { .. } | Operation::Import { .. } => false,
    })?;
    for open in begun.orphans {
        match open.operation() {
            Operation::Adopt { guid, adopted, .. } => {
                // As in `adopt`: begun, it is done.
                finish(store, dataset, *guid, adopted, &Limits::within(EXCHANGE))?;
                if let Some(Seen { checkpoints, .. }) = look(store, adopted, limits)? {
                    resumed = Adopted::Moved { to: adopted.clone(), checkpoints };
                }
            }
            operation @ Operation::Place { .. } => restore::undo_or_finish(store, operation, limits)?,
            operation => swap::undo(store, operation, limits)?,
        }
        open.finish()?;
    }
    Ok(resumed)
}

/// Finishes an adoption that was interrupted.
pub(crate) fn finish_adopt(
    store: &ZfsStore,
    dataset: &DatasetName,
    guid: Guid,
    adopted: &DatasetName,
    limits: &Limits,
) -> Result<(), StoreError> {
    let _turn = turn(store, dataset, limits)?;
    finish(store, dataset, guid, adopted, limits)
}

fn finish(
    store: &ZfsStore,
    dataset: &DatasetName,
    guid: Guid,
    adopted: &DatasetName,
    limits: &Limits,
) -> Result<(), StoreError> {
    // Not there: not moved yet, and whoever deletes the container comes again; or dropped, which the mark allowed.
    let Some(moved) = store.zfs.dataset(adopted, limits)?.filter(|found| found.guid == guid) else {
        return Ok(());
    };
    // Marked: the owner had its empty one, and may have destroyed it since.
    if moved.properties.own(KIND) == Some(ADOPTED) {
        return Ok(());
    }
    replace(store, dataset, limits)?;
    mark(store, adopted, limits)
}

/// An empty dataset for the owner to destroy.
fn replace(store: &ZfsStore, dataset: &DatasetName, limits: &Limits) -> Result<(), StoreError> {
    let properties = Properties::new().with("mountpoint", "legacy").with(KIND, "placeholder");
    match store.zfs.create(&CreateRequest::filesystem(dataset, properties), limits) {
        Err(ZfsError::Exists { .. }) => Ok(()),
        // What it was in is gone as well: nobody will ask for it.
        Err(error) if error.is_not_found() => Ok(()),
        other => Ok(other?),
    }
}

/// From now on it may be destroyed as soon as nothing needs it.
fn mark(store: &ZfsStore, adopted: &DatasetName, limits: &Limits) -> Result<(), StoreError> {
    Ok(store.zfs.set(&Name::from(adopted), &Properties::new().with(KIND, ADOPTED), limits)?)
}

/// A dataset and the checkpoints that have snapshots on it.
struct Seen {
    found: Dataset,
    checkpoints: Vec<CheckpointId>,
}

/// All that has to be known before the first step, in one call.
fn look(store: &ZfsStore, dataset: &DatasetName, limits: &Limits) -> Result<Option<Seen>, StoreError> {
    let kinds = Kinds { snapshots: true, ..Kinds::DATASETS };
    let filter = Filter { depth: Some(1), ..Filter::below(dataset, kinds) };
    let entries = match store.zfs.list(&filter, limits) {
        Err(error) if error.is_not_found() => return Ok(None),
        other => other?,
    };
    let (mut found, mut checkpoints) = (None, Vec::new());
    for entry in entries {
        match entry {
            Entry::Dataset(entry) if entry.name == *dataset => found = Some(entry),
            Entry::Snapshot(entry) if entry.name.dataset() == *dataset => {
                checkpoints.extend(ours(entry).map(|(_, id)| id));
            }
            _ => {}
        }
    }
    Ok(found.map(|found| Seen { found, checkpoints }))
}

/// Whether it is the clone of a disk that is deleted already, whose space goes with it.
fn shares_trash(store: &ZfsStore, found: &Dataset) -> Result<bool, StoreError> {
    let trash = store.root().child("trash")?;
    Ok(found.origin.as_ref().is_some_and(|origin| origin.dataset().is_within(&trash)))
}

fn ours(snapshot: Snapshot) -> Option<(Snapshot, CheckpointId)> {
    let id = snapshot.name.leaf().strip_prefix(SNAPSHOT_PREFIX)?.parse().ok()?;
    // Destroyed already, waiting for its last hold or clone.
    (!snapshot.defer_destroy).then_some((snapshot, id))
}

/// Our snapshots of a dataset with the checkpoints they belong to.
fn snapshots(
    store: &ZfsStore,
    dataset: &DatasetName,
    limits: &Limits,
) -> Result<Vec<(Snapshot, CheckpointId)>, StoreError> {
    let entries = store.zfs.list(&Filter::snapshots_of(dataset), limits)?;
    Ok(entries.into_iter().filter_map(Entry::into_snapshot).filter_map(ours).collect())
}

/// Destroys an adopted dataset when no checkpoint needs it any more; anything else is left alone.
pub(super) fn drop_if_done(
    store: &ZfsStore,
    dataset: &DatasetName,
    limits: &Limits,
) -> Result<(), StoreError> {
    let Some(found) = store.zfs.dataset(dataset, limits)? else { return Ok(()) };
    if found.properties.own(KIND) != Some(ADOPTED) || *dataset != store.aside(dataset, found.guid)? {
        return Ok(());
    }
    let snapshots = match snapshots(store, dataset, limits) {
        // Whoever settles the last of its checkpoints destroys it as well, and was faster.
        Err(StoreError::Zfs(error)) if error.is_not_found() => return Ok(()),
        other => other?,
    };
    for (snapshot, id) in snapshots {
        if store.needs_source(&id, snapshot.guid, limits)? {
            return Ok(());
        }
    }
    match store.zfs.destroy(dataset, true, limits) {
        // Still shared (a clone of the container) or in use: the next recovery tries again.
        Ok(()) | Err(ZfsError::HasDependents { .. } | ZfsError::Busy { .. }) => Ok(()),
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Destroys every adopted dataset of the store's pool that no checkpoint needs.
pub(crate) fn reap_adopted(store: &ZfsStore, limits: &Limits) -> Result<(), StoreError> {
    for dataset in store.children(&store.root().child("adopted")?, Wanted::TypedOnly, limits)? {
        drop_if_done(store, &dataset.name, limits)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
