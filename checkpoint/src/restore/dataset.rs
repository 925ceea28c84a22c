//! Puts a clone of a checkpoint's disk under the name of a container's dataset.

use cryopod_command::Limits;
use cryopod_zfs::{
    Dataset, DatasetName, Guid, Properties, ReceiveRequest, Rename, SendRequest, SnapshotName, Source,
};

use super::roots::boot;
use super::{PlaceError, PlaceRequest, Replacement};
use crate::fault;
use crate::journal::{Journal, Operation};
use crate::settle;
use crate::stand_in;
use crate::store::{BOOT, ID, KIND, StoreError, ZfsStore};

/// Settings of the fresh dataset that its owner may have made and the clone keeps.
const KEPT: [&str; 14] = [
    "atime",
    "compression",
    "devices",
    "exec",
    "logbias",
    "primarycache",
    "quota",
    "readonly",
    "recordsize",
    "refquota",
    "relatime",
    "secondarycache",
    "setuid",
    "sync",
];
/// The fresh dataset moves only after the clone is possible, and its name is missing for two transactions.
const KEEP_MOUNTS: Rename = Rename { keep_mounts: true, parents: false };

/// Replaces the dataset by the snapshot's contents; on error it is as it was, or the journal knows.
pub(super) fn in_place(
    store: &ZfsStore,
    journal: &Journal,
    request: &PlaceRequest<'_>,
    dataset: &DatasetName,
    snapshot: &SnapshotName,
    base: Option<Guid>,
    limits: &Limits,
) -> Result<(), PlaceError> {
    let zfs = store.zfs.as_ref();
    let fresh = zfs.dataset(dataset, limits)?.ok_or_else(|| PlaceError::Gone { dataset: dataset.clone() })?;
    if fresh.mounted {
        return Err(PlaceError::Mounted { dataset: dataset.clone() });
    }
    let aside = store.aside(dataset, fresh.guid)?;
    let elsewhere = dataset.pool() != store.root().pool();
    let incoming = if elsewhere { Some(incoming_name(dataset, fresh.guid)?) } else { None };
    fault::step("place.journal")?;
    let mut entry = journal.begin(Operation::Place {
        checkpoint: request.checkpoint.clone(),
        dataset: dataset.clone(),
        fresh: fresh.guid,
        aside: aside.clone(),
        incoming: incoming.clone(),
        placed: false,
    })?;
    let properties =
        kept(&fresh).with("mountpoint", "legacy").with(KIND, "clone").with(ID, request.checkpoint.as_str());
    let done = (|| -> Result<(), PlaceError> {
        if let Some(incoming) = &incoming {
            receive(store, &fresh, snapshot, base, incoming, &properties, limits)?;
        }
        fault::step("place.aside")?;
        zfs.rename(dataset, &aside, KEEP_MOUNTS, limits)?;
        fault::step("place.clone")?;
        match &incoming {
            Some(incoming) => zfs.rename(incoming, dataset, KEEP_MOUNTS, limits)?,
            None => zfs.clone_snapshot(snapshot, dataset, &properties, limits)?,
        }
        fault::step("place.cloned")?;
        Ok(())
    })();
    if let Err(error) = done {
        let undone =
            undo_or_finish(store, entry.operation(), &Limits::within(std::time::Duration::from_secs(60)));
        match undone {
            Ok(()) => entry.finish()?,
            Err(left) => tracing::error!(%dataset, error = %left, "a half-placed root is left to recovery"),
        }
        return Err(error);
    }
    entry.update(|operation| {
        if let Operation::Place { placed, .. } = operation {
            *placed = true;
        }
    })?;
    fault::step("place.clean")?;
    store.destroy_if_there(&aside, limits)?;
    entry.finish()?;
    Ok(())
}

/// A clone of our own for a root that is not ZFS.
pub(super) fn beside(
    store: &ZfsStore,
    request: &PlaceRequest<'_>,
    snapshot: &SnapshotName,
    limits: &Limits,
) -> Result<Replacement, PlaceError> {
    let dataset = store.container(request.container)?;
    // Of a container of that id before this one; its checkpoints keep what they need.
    settle::let_go(store, &dataset, limits)?;
    let properties = Properties::new()
        .with("mountpoint", "legacy")
        .with("readonly", "off")
        .with(BOOT, boot())
        .with(KIND, "clone")
        .with(ID, request.checkpoint.as_str());
    store.zfs.clone_snapshot(snapshot, &dataset, &properties, limits)?;
    Ok(Replacement::Zfs { dataset })
}

fn incoming_name(dataset: &DatasetName, guid: Guid) -> Result<DatasetName, StoreError> {
    let parent = dataset.parent().unwrap_or_else(|| dataset.clone());
    Ok(parent.child(&format!("cryopod-incoming-{guid}"))?)
}

fn kept(fresh: &Dataset) -> Properties {
    fresh
        .properties
        .iter()
        .filter(|(key, property)| property.source == Source::Local && KEPT.contains(key))
        .map(|(key, property)| (key, property.value.as_str()))
        .collect()
}

/// Another pool: what the checkpoint changed since the image, if the fresh dataset is a clone of that image, else all.
fn receive(
    store: &ZfsStore,
    fresh: &Dataset,
    snapshot: &SnapshotName,
    base: Option<Guid>,
    incoming: &DatasetName,
    properties: &Properties,
    limits: &Limits,
) -> Result<(), PlaceError> {
    let zfs = store.zfs.as_ref();
    let mut request = ReceiveRequest::new(incoming);
    request.resumable = false;
    request.set = properties.clone();
    let ours = zfs.dataset(&snapshot.dataset(), limits)?.and_then(|dataset| dataset.origin);
    let theirs = match &fresh.origin {
        Some(origin) => zfs.snapshot(origin, limits)?,
        None => None,
    };
    let send = match (ours, theirs) {
        (Some(ours), Some(theirs)) if Some(theirs.guid) == base => {
            request.origin = Some(theirs.name);
            SendRequest::incremental(&ours, snapshot)
        }
        _ => SendRequest::full(snapshot),
    };
    let received = zfs.copy(&send, &request, limits)?;
    // Its owner destroys it plainly, so no snapshot may stay on it.
    zfs.destroy_snapshots(&[received.snapshot], false, limits)?;
    Ok(())
}

/// Undoes a placement that is not complete, or cleans up after one that is. Idempotent.
pub(crate) fn undo_or_finish(
    store: &ZfsStore,
    operation: &Operation,
    limits: &Limits,
) -> Result<(), StoreError> {
    let Operation::Place { checkpoint, dataset, fresh, aside, incoming, placed } = operation else {
        return Ok(());
    };
    let zfs = store.zfs.as_ref();
    let waiting = zfs.dataset(aside, limits)?.filter(|found| found.guid == *fresh).is_some();
    if *placed {
        return if waiting { Ok(zfs.destroy(aside, true, limits)?) } else { Ok(()) };
    }
    if waiting {
        // What has its name is our clone; nothing ran on it yet.
        let ours = |found: &Dataset| {
            // What came from another pool has the image there as its origin, or none.
            let origin = found.origin.as_ref().map(SnapshotName::dataset);
            incoming.is_some() || origin.is_some_and(|origin| is_below(&origin, store.root()))
        };
        stand_in::destroy(store, dataset, checkpoint.as_str(), aside, ours, limits)?;
        zfs.rename(aside, dataset, KEEP_MOUNTS, limits)?;
    }
    if let Some(incoming) = incoming {
        store.destroy_if_there(incoming, limits)?;
    }
    Ok(())
}

fn is_below(dataset: &DatasetName, root: &DatasetName) -> bool {
    dataset.as_str().strip_prefix(root.as_str()).is_some_and(|rest| rest.starts_with('/'))
}
