//! The snapshots on foreign datasets that a draft is going to take, noted on its own dataset: recovery finds them without
//! the journal.

use cryopod_zfs::{Dataset, Properties, SnapshotName};

use super::MAX_VALUE;
use crate::journal::PlannedSnapshot;

/// `dataset@snapshot` separated by commas; numbered from 0 when one value is too short.
const SNAPSHOTS: &str = "cryopod:snapshots";

/// Notes them.
pub(super) fn note(planned: &[PlannedSnapshot], properties: &mut Properties) {
    for (number, value) in values(planned).into_iter().enumerate() {
        properties.set(format!("{SNAPSHOTS}.{number}"), value);
    }
}

/// Planned snapshots as property values.
fn values(planned: &[PlannedSnapshot]) -> Vec<String> {
    let mut values: Vec<String> = Vec::new();
    for PlannedSnapshot { dataset, snapshot } in planned {
        let name = format!("{dataset}@{snapshot}");
        match values.last_mut() {
            Some(last) if last.len() + 1 + name.len() <= MAX_VALUE => {
                last.push(',');
                last.push_str(&name);
            }
            _ => values.push(name),
        }
    }
    values
}

/// The planned snapshots that a checkpoint dataset names.
pub(super) fn planned(dataset: &Dataset) -> Vec<SnapshotName> {
    let mut found = Vec::new();
    for number in 0.. {
        let Some(value) = dataset.properties.own(&format!("{SNAPSHOTS}.{number}")) else { break };
        found.extend(value.split(',').filter_map(|name| name.parse().ok()));
    }
    found
}
