//! Finds snapshots of disks by guid, wherever their dataset is by now, and names for datasets that move away.

use cryopod_command::Limits;
use cryopod_zfs::{DatasetName, Entry, Filter, Guid, Kinds, Snapshot, SnapshotName};

use super::list::state;
use super::{State, ZfsStore};
use crate::id::CheckpointId;
use crate::manifest::{DiskContent, DiskRecord, MemberRecord};
use crate::store::StoreError;
use crate::target::DiskSource;

/// Where the snapshot of a disk is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// In the store: settled.
    Store(SnapshotName),
    /// On the dataset it was taken of, under whatever name that has now.
    Source(SnapshotName),
}

impl ZfsStore {
    /// Where the contents of a ZFS disk are; None when they are gone. `stored` is the disk's stored name.
    pub(crate) fn find(
        &self,
        id: &CheckpointId,
        stored: &str,
        record: &MemberRecord,
        disk: &DiskRecord,
        limits: &Limits,
    ) -> Result<Option<Found>, StoreError> {
        let DiskContent::Zfs { snapshot, guid, .. } = &disk.content else { return Ok(None) };
        let settled = self.disk(id, stored)?.snapshot(snapshot)?;
        if self.is_guid(&settled, *guid, limits)?.is_some() {
            return Ok(Some(Found::Store(settled)));
        }
        let source =
            record.member.disks.iter().find(|known| known.name == disk.name).map(|known| &known.source);
        let Some(DiskSource::Zfs { dataset, .. }) = source else { return Ok(None) };
        self.find_source(dataset, snapshot, *guid, limits).map(|found| found.map(Found::Source))
    }

    /// The snapshot on the dataset it was taken of: under its old name, or where datasets are moved to.
    pub(crate) fn find_source(
        &self,
        dataset: &DatasetName,
        snapshot: &str,
        guid: Guid,
        limits: &Limits,
    ) -> Result<Option<SnapshotName>, StoreError> {
        let named = dataset.snapshot(snapshot)?;
        if self.is_guid(&named, guid, limits)?.is_some() {
            return Ok(Some(named));
        }
        let mut roots = vec![self.root.child("adopted")?];
        if dataset.pool() != self.root.pool() {
            roots.extend(dataset.parent());
        }
        for root in roots {
            let filter = Filter { depth: Some(2), ..Filter::below(&root, Kinds::SNAPSHOTS) };
            let entries = match self.zfs.list(&filter, limits) {
                Err(error) if error.is_not_found() => continue,
                other => other?,
            };
            let mut snapshots = entries.into_iter().filter_map(Entry::into_snapshot);
            if let Some(found) = snapshots.find(|found| found.guid == guid && found.name.leaf() == snapshot) {
                return Ok(Some(found.name));
            }
        }
        Ok(None)
    }

    /// The snapshot of a dataset that has this guid, whatever its name.
    pub(crate) fn snapshot_with(
        &self,
        dataset: &DatasetName,
        guid: Guid,
        limits: &Limits,
    ) -> Result<Option<SnapshotName>, StoreError> {
        if self.zfs.dataset(dataset, limits)?.is_none() {
            return Ok(None);
        }
        let entries = self.zfs.list(&Filter::snapshots_of(dataset), limits)?;
        let mut snapshots = entries.into_iter().filter_map(Entry::into_snapshot);
        Ok(snapshots.find(|found| found.guid == guid).map(|found| found.name))
    }

    /// A snapshot, if it exists and is the one meant.
    pub(crate) fn is_guid(
        &self,
        name: &SnapshotName,
        guid: Guid,
        limits: &Limits,
    ) -> Result<Option<Snapshot>, StoreError> {
        Ok(self.zfs.snapshot(name, limits)?.filter(|found| found.guid == guid))
    }

    /// Whether a checkpoint exists whose disk with this guid is not in the store yet: a committed one, or a draft that
    /// may still be committed.
    pub(crate) fn needs_source(
        &self,
        id: &CheckpointId,
        guid: Guid,
        limits: &Limits,
    ) -> Result<bool, StoreError> {
        let Some(dataset) = self.dataset(id, limits)? else { return Ok(false) };
        if state(&dataset) == Some(State::Trash) {
            return Ok(false);
        }
        let entries = self.zfs.list(&Filter::below(&dataset.name, Kinds::SNAPSHOTS), limits)?;
        Ok(!entries.iter().any(|entry| entry.guid() == guid))
    }

    /// Where a dataset waits while something else has its name: in the store, or beside itself on another pool.
    pub(crate) fn aside(&self, dataset: &DatasetName, guid: Guid) -> Result<DatasetName, StoreError> {
        if dataset.pool() == self.root.pool() {
            return Ok(self.root.child(&format!("adopted/{guid}"))?);
        }
        let parent = dataset.parent().unwrap_or_else(|| dataset.clone());
        Ok(parent.child(&format!("cryopod-{guid}"))?)
    }
}
