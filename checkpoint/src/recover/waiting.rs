//! Datasets that wait in the store while something else has their name, and that no operation of the journal knows.
//!
//! They belong to containers and may be the only copy of something, so they are named for a person to look at and never
//! destroyed. One that was moved by a restore has no mark: it says nothing, so the journal is asked instead.

use cryopod_command::Limits;
use cryopod_zfs::{Dataset, DatasetName, Wanted};

use super::Failure;
use crate::journal::{Journal, Operation};
use crate::settle::ADOPTED;
use crate::store::{KIND, StoreError, ZfsStore};

/// Names them, each with what it is.
pub(super) fn unknown(store: &ZfsStore, journal: &Journal, limits: &Limits) -> Result<Vec<String>, Failure> {
    let part = store.root().child("adopted").map_err(StoreError::from)?;
    let mut waiting = store.children(&part, Wanted::Named(vec![KIND.to_owned()]), limits)?;
    waiting.retain(|dataset| dataset.properties.own(KIND) != Some(ADOPTED));
    if waiting.is_empty() {
        return Ok(Vec::new());
    }
    // In this order: an operation is written down before its dataset moves, and forgotten after that has moved back or
    // is destroyed.
    let known = journal.operations()?;
    waiting.retain(|dataset| !known.iter().any(|operation| place(operation) == Some(&dataset.name)));
    let mut unknown = Vec::new();
    for dataset in waiting {
        let there = store.zfs.dataset(&dataset.name, limits).map_err(StoreError::from)?;
        if there.is_some_and(|there| there.guid == dataset.guid) {
            unknown.push(format!("{} ({})", dataset.name, what(&dataset)));
        }
    }
    Ok(unknown)
}

/// Where a dataset waits for its name.
fn place(operation: &Operation) -> Option<&DatasetName> {
    match operation {
        Operation::Place { aside, .. } | Operation::Swap { aside, .. } => Some(aside),
        Operation::Adopt { adopted, .. } => Some(adopted),
        Operation::Capture { .. } | Operation::Import { .. } => None,
    }
}

fn what(dataset: &Dataset) -> String {
    let why = match dataset.properties.own(KIND) {
        Some("swapped") => "which may run on it, moved aside for a checkpoint by containerd",
        _ => "moved aside for a restore or a deletion",
    };
    let image = dataset.origin.as_ref().map(|origin| format!(", a clone of {origin}"));
    let image = image.unwrap_or_default();
    format!("the root of a container{image}, {why}; nothing in the journal says what its name was")
}
