//! What checkpoints there are, read from the user properties of their datasets in one call to ZFS.

use std::collections::BTreeMap;

use cryopod_command::Limits;
use cryopod_zfs::{Dataset, DatasetName, Entry, Filter, Kinds, Snapshot, Wanted};

use super::claim::{is_draft, marks};
use super::{HELD, ID, IMPORTED, SETTLED, STATE, SUMMARY, State, ZfsStore};
use crate::id::CheckpointId;
use crate::info::{CheckpointInfo, Summary};
use crate::store::StoreError;

impl ZfsStore {
    /// Everything about the committed checkpoints, in one call to ZFS.
    pub(crate) fn list(&self, limits: &Limits) -> Result<Vec<CheckpointInfo>, StoreError> {
        let root = self.root.child("checkpoints")?;
        self.infos(&root, 3, limits)
    }

    pub(in crate::store) fn info(
        &self,
        id: &CheckpointId,
        limits: &Limits,
    ) -> Result<Option<CheckpointInfo>, StoreError> {
        let name = self.checkpoint(id)?;
        match self.infos(&name, 2, limits) {
            Ok(list) => Ok(list.into_iter().find(|info| info.id == *id)),
            Err(StoreError::Zfs(error)) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn infos(
        &self,
        root: &DatasetName,
        depth: u32,
        limits: &Limits,
    ) -> Result<Vec<CheckpointInfo>, StoreError> {
        let wanted = [ID, STATE, SETTLED, IMPORTED, HELD, SUMMARY].map(str::to_owned).to_vec();
        let kinds = Kinds { snapshots: true, ..Kinds::DATASETS };
        let filter =
            Filter { roots: vec![root.clone()], depth: Some(depth), kinds, wanted: Wanted::Named(wanted) };
        let mut list = Vec::new();
        let mut sharers: BTreeMap<DatasetName, Vec<String>> = BTreeMap::new();
        for entry in self.zfs.list(&filter, limits)? {
            match entry {
                Entry::Dataset(dataset) => list.extend(info(&dataset)),
                Entry::Snapshot(snapshot) => {
                    if let Some(checkpoint) = snapshot.name.dataset().parent() {
                        let outside = clones_outside(&snapshot, &checkpoint);
                        sharers.entry(checkpoint).or_default().extend(outside);
                    }
                }
                Entry::Bookmark(_) => {}
            }
        }
        for info in &mut list {
            info.sharers = sharers.remove(&self.checkpoint(&info.id)?).unwrap_or_default();
        }
        list.sort_by(|a, b| a.created.cmp(&b.created).then_with(|| a.id.cmp(&b.id)));
        Ok(list)
    }

    /// Ids of the drafts below `checkpoints`.
    pub(in crate::store) fn drafts(&self, limits: &Limits) -> Result<Vec<CheckpointId>, StoreError> {
        let mut uncommitted = self.uncommitted(limits)?;
        uncommitted.retain(|(dataset, children)| is_draft(dataset, children));
        Ok(uncommitted.iter().filter_map(|(dataset, _)| dataset.name.leaf().parse().ok()).collect())
    }

    /// Datasets below `checkpoints` that are not committed, whosever they are, each with what is directly below it.
    pub(super) fn uncommitted(&self, limits: &Limits) -> Result<Vec<(Dataset, Vec<Dataset>)>, StoreError> {
        let root = self.root.child("checkpoints")?;
        let filter = Filter { depth: Some(2), ..Filter::below(&root, Kinds::DATASETS) };
        let entries = self.zfs.list(&filter.wanting(marks()), limits)?;
        let mut below: BTreeMap<DatasetName, Vec<Dataset>> = BTreeMap::new();
        for dataset in entries.into_iter().filter_map(Entry::into_dataset) {
            if let Some(parent) = dataset.name.parent() {
                below.entry(parent).or_default().push(dataset);
            }
        }
        let mut found = below.remove(&root).unwrap_or_default();
        found.retain(|dataset| state(dataset) != Some(State::Committed));
        Ok(found
            .into_iter()
            .map(|dataset| {
                let children = below.remove(&dataset.name).unwrap_or_default();
                (dataset, children)
            })
            .collect())
    }
}

pub(super) fn state(dataset: &Dataset) -> Option<State> {
    match dataset.properties.own(STATE)? {
        "capturing" => Some(State::Capturing),
        "committed" => Some(State::Committed),
        "trash" => Some(State::Trash),
        _ => None,
    }
}

/// The info of a committed checkpoint's dataset; None for everything else.
fn info(dataset: &Dataset) -> Option<CheckpointInfo> {
    if state(dataset) != Some(State::Committed) {
        return None;
    }
    let own = |key| dataset.properties.own(key);
    let id: CheckpointId = own(ID)?.parse().ok()?;
    let summary: Summary = match serde_json::from_str(own(SUMMARY)?) {
        Ok(summary) => summary,
        Err(error) => {
            // One damaged checkpoint must not hide the others.
            tracing::error!(checkpoint = %id, %error, "left out of the list");
            return None;
        }
    };
    Some(CheckpointInfo {
        id,
        created: summary.created,
        mode: summary.mode,
        pod: summary.pod,
        members: summary.members,
        settled: own(SETTLED) == Some("yes"),
        imported: own(IMPORTED) == Some("yes"),
        held: own(HELD) == Some("yes"),
        memory_bytes: summary.memory_bytes,
        disk_bytes: summary.disk_bytes,
        sharers: Vec::new(),
    })
}

/// Clones of a snapshot that are not below `root` themselves.
pub(super) fn clones_outside(snapshot: &Snapshot, root: &DatasetName) -> Vec<String> {
    snapshot.clones.iter().filter(|clone| !clone.is_within(root)).map(ToString::to_string).collect()
}
