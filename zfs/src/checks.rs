//! What can be said about a request without looking at a pool; the same for every implementation.

use std::collections::BTreeSet;

use crate::error::Op;
use crate::properties::{is_user_property, key_fault};
use crate::{BookmarkName, DatasetName, Error, Filter, Properties, SnapshotName, Wanted};

pub(crate) fn properties(op: &Op, properties: &Properties) -> Result<(), Error> {
    match properties.fault() {
        Some(said) => Err(Error::InvalidProperty { op: op.clone(), said }),
        None => Ok(()),
    }
}

/// Snapshots take user properties only.
pub(crate) fn user_properties(op: &Op, set: &Properties) -> Result<(), Error> {
    properties(op, set)?;
    match set.iter().find(|(key, _)| !is_user_property(key)) {
        Some((key, _)) => {
            let said = format!("{key} is no user property, and snapshots take no others");
            Err(Error::InvalidProperty { op: op.clone(), said })
        }
        None => Ok(()),
    }
}

pub(crate) fn key(op: &Op, key: &str) -> Result<(), Error> {
    match key_fault(key) {
        Some(fault) => {
            Err(Error::InvalidProperty { op: op.clone(), said: format!("property {key:?} {fault}") })
        }
        None => Ok(()),
    }
}

pub(crate) fn filter(op: &Op, filter: &Filter) -> Result<(), Error> {
    if filter.roots.is_empty() {
        return Err(invalid(op, "a listing needs at least one root"));
    }
    match &filter.wanted {
        Wanted::Named(keys) => keys.iter().try_for_each(|name| key(op, name)),
        Wanted::TypedOnly | Wanted::All => Ok(()),
    }
}

pub(crate) fn one_pool(op: &Op, snapshots: &[SnapshotName]) -> Result<(), Error> {
    let pools: BTreeSet<_> = snapshots.iter().map(|snapshot| snapshot.dataset().pool()).collect();
    if pools.len() > 1 { Err(Error::CrossesPools { op: op.clone() }) } else { Ok(()) }
}

pub(crate) fn snapshot_set(op: &Op, snapshots: &[SnapshotName]) -> Result<(), Error> {
    one_pool(op, snapshots)?;
    let mut seen = BTreeSet::new();
    match snapshots.iter().map(SnapshotName::dataset).find(|dataset| !seen.insert(dataset.clone())) {
        Some(twice) => {
            Err(invalid(op, &format!("{twice} is in it twice, and one call takes one snapshot of each")))
        }
        None => Ok(()),
    }
}

pub(crate) fn destroy(op: &Op, name: &DatasetName) -> Result<(), Error> {
    if name.is_pool_root() { Err(invalid(op, "it is the root of a pool")) } else { Ok(()) }
}

pub(crate) fn rename(op: &Op, from: &DatasetName, to: &DatasetName) -> Result<(), Error> {
    if from.pool() != to.pool() {
        Err(Error::CrossesPools { op: op.clone() })
    } else if from.is_pool_root() || to.is_within(from) {
        Err(invalid(op, "a dataset cannot move below itself, nor a pool's root at all"))
    } else {
        Ok(())
    }
}

pub(crate) fn clone(op: &Op, snapshot: &SnapshotName, target: &DatasetName) -> Result<(), Error> {
    if snapshot.dataset().pool() == target.pool() {
        Ok(())
    } else {
        Err(Error::CrossesPools { op: op.clone() })
    }
}

pub(crate) fn bookmark(op: &Op, snapshot: &SnapshotName, bookmark: &BookmarkName) -> Result<(), Error> {
    if snapshot.dataset() == bookmark.dataset() {
        Ok(())
    } else {
        Err(invalid(op, "a bookmark belongs to the dataset of its snapshot"))
    }
}

fn invalid(op: &Op, why: &str) -> Error {
    Error::InvalidRequest { op: op.clone(), why: why.to_owned() }
}
