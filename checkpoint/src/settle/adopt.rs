//! Keeps the disks of unsettled checkpoints when their owner deletes the dataset they are on.

use std::time::Duration;

use cryopod_command::Limits;
use cryopod_zfs::{
    CreateRequest, DatasetName, Entry, Error as ZfsError, Filter, Guid, Name, Properties, Rename, Snapshot,
    Wanted,
};

use super::{SettleError, dataset_lock};
use crate::fault;
use crate::id::CheckpointId;
use crate::journal::{Journal, Operation};
use crate::store::{KIND, SNAPSHOT_PREFIX, Store, StoreError, ZfsStore};

/// For a rename and a create, of which a busy node may make seconds.
const EXCHANGE: Duration = Duration::from_secs(60);

/// What became of a dataset that is about to be destroyed by its owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Adopted {
    /// Nothing of ours was on it (any more): its owner may destroy it.
    Nothing,
    /// It lives on under this name until its checkpoints are settled; an empty one has its old name. The caller
    /// should start settling these.
    Moved {
        /// Its name now.
        to: DatasetName,
        /// Checkpoints to be settled.
        checkpoints: Vec<CheckpointId>,
    },
}

/// Called before the owner of `dataset` destroys it plainly, with the dataset unmounted. Afterwards no snapshot of ours
/// is on it.
pub fn adopt(
    store: &Store,
    dataset: &DatasetName,
    journal: &Journal,
    limits: &Limits,
) -> Result<Adopted, SettleError> {
    let Store::Zfs(store) = store else { return Ok(Adopted::Nothing) };
    let Some(found) = store.zfs.dataset(dataset, limits)? else { return Ok(Adopted::Nothing) };
    if snapshots(store, dataset, limits)?.is_empty() {
        return Ok(Adopted::Nothing);
    }
    let key = dataset_lock(found.guid);
    let _wish = store.locks.want(&key)?;
    let _lock = store.locks.lock(&key, limits)?;
    let mut needed = Vec::new();
    for (snapshot, id) in snapshots(store, dataset, limits)? {
        if store.needs_source(&id, snapshot.guid, limits)? {
            needed.push(id);
        } else {
            store.drop_source(&snapshot.name, limits)?;
        }
    }
    if needed.is_empty() {
        return Ok(Adopted::Nothing);
    }
    let to = store.aside(dataset, found.guid)?;
    let operation = Operation::Adopt { dataset: dataset.clone(), guid: found.guid, adopted: to.clone() };
    let entry = journal.begin(operation)?;
    // Begun, it is done: cut off between rename and create by the caller's deadline, it would leave the owner without
    // a dataset, and containerd's collection of garbage stops for good at one that is missing.
    let limits = &Limits::within(EXCHANGE);
    store.zfs.set(&Name::from(dataset), &Properties::new().with(KIND, "adopted"), limits)?;
    fault::step("adopt.rename")?;
    store.zfs.rename(dataset, &to, Rename { keep_mounts: true, parents: false }, limits)?;
    fault::step("adopt.replace")?;
    replace(store, dataset, limits)?;
    fault::step("adopt.adopted")?;
    entry.finish()?;
    Ok(Adopted::Moved { to, checkpoints: needed })
}

/// An empty dataset for the owner to destroy.
fn replace(store: &ZfsStore, dataset: &DatasetName, limits: &Limits) -> Result<(), StoreError> {
    let properties = Properties::new().with("mountpoint", "legacy");
    match store.zfs.create(&CreateRequest::filesystem(dataset, properties), limits) {
        Err(ZfsError::Exists { .. }) => Ok(()),
        other => Ok(other?),
    }
}

/// Finishes an adoption that was interrupted.
pub(crate) fn finish_adopt(
    store: &ZfsStore,
    dataset: &DatasetName,
    guid: Guid,
    adopted: &DatasetName,
    limits: &Limits,
) -> Result<(), StoreError> {
    match store.zfs.dataset(dataset, limits)? {
        // Not moved yet: whoever deletes the container comes again.
        Some(there) if there.guid == guid => Ok(store.zfs.inherit(&Name::from(dataset), KIND, limits)?),
        Some(_) => Ok(()),
        None if store.zfs.dataset(adopted, limits)?.is_some() => replace(store, dataset, limits),
        None => Ok(()),
    }
}

/// Our snapshots of a dataset with the checkpoints they belong to.
fn snapshots(
    store: &ZfsStore,
    dataset: &DatasetName,
    limits: &Limits,
) -> Result<Vec<(Snapshot, CheckpointId)>, StoreError> {
    let entries = store.zfs.list(&Filter::snapshots_of(dataset), limits)?;
    let ours = entries.into_iter().filter_map(Entry::into_snapshot).filter_map(|snapshot| {
        let id = snapshot.name.leaf().strip_prefix(SNAPSHOT_PREFIX)?.parse().ok()?;
        // Destroyed already, waiting for its last hold or clone.
        (!snapshot.defer_destroy).then_some((snapshot, id))
    });
    Ok(ours.collect())
}

/// Destroys an adopted dataset when no checkpoint needs it any more; anything else is left alone.
pub(super) fn drop_if_done(
    store: &ZfsStore,
    dataset: &DatasetName,
    limits: &Limits,
) -> Result<(), StoreError> {
    let Some(found) = store.zfs.dataset(dataset, limits)? else { return Ok(()) };
    if found.properties.own(KIND) != Some("adopted") || *dataset != store.aside(dataset, found.guid)? {
        return Ok(());
    }
    for (snapshot, id) in snapshots(store, dataset, limits)? {
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
