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
    waiting.retain(|dataset| !is_adopted(dataset));
    of_nobody(waiting, store, journal, limits)
}

/// Those of `waiting` that nobody knows, and that were not only in somebody's hands when they were listed.
fn of_nobody(
    mut waiting: Vec<Dataset>,
    store: &ZfsStore,
    journal: &Journal,
    limits: &Limits,
) -> Result<Vec<String>, Failure> {
    if waiting.is_empty() {
        return Ok(Vec::new());
    }
    // In this order: an operation is written down before its dataset moves, and forgotten after that has moved back, is
    // marked as adopted or is destroyed.
    let known = journal.operations()?;
    waiting.retain(|dataset| !known.iter().any(|operation| place(operation) == Some(&dataset.name)));
    let mut unknown = Vec::new();
    for dataset in waiting {
        let there = store.zfs.dataset(&dataset.name, limits).map_err(StoreError::from)?;
        if there.is_some_and(|there| there.guid == dataset.guid && !is_adopted(&there)) {
            unknown.push(format!("{} ({})", dataset.name, what(&dataset)));
        }
    }
    Ok(unknown)
}

fn is_adopted(dataset: &Dataset) -> bool {
    dataset.properties.own(KIND) == Some(ADOPTED)
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

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;
    use std::sync::Arc;

    use cryopod_zfs::{Name, Properties, Zfs as _};

    use super::*;
    use crate::fault::test_hook;
    use crate::settle;
    use crate::store::{Store, StoreKind};
    use crate::testing::{World, name, none};

    #[test]
    fn a_dataset_that_is_adopted_between_the_two_looks_is_no_stranger() {
        let world = World::new(StoreKind::Zfs);
        world.capture();
        world.fake.unmount_at(&world.dir.path().join("run/web"), false, &none()).unwrap();
        let list = |store: &Store| {
            let Store::Zfs(store) = store else { return Vec::new() };
            let part = store.root().child("adopted").unwrap();
            store.children(&part, Wanted::Named(vec![KIND.to_owned()]), &none()).unwrap()
        };
        // The first look, just after the rename.
        let first = Rc::new(RefCell::new(Vec::new()));
        let (seen, store) = (Rc::clone(&first), Arc::clone(&world.store));
        let hooked = test_hook::set(move |step| {
            if step == "adopt.replace" {
                seen.replace(list(&store));
            }
            Ok(())
        });
        settle::adopt(&world.store, &name("tank/snaps/web"), &world.journal, &none()).unwrap();
        drop(hooked);
        let waiting = first.take();
        assert!(waiting.len() == 1 && !is_adopted(&waiting[0]), "{waiting:?}");
        let unknown = of_nobody(waiting.clone(), world.zfs_store(), &world.journal, &none()).unwrap();
        assert!(unknown.is_empty(), "{unknown:?}");
        // One without the mark and without an entry is named.
        let other = Properties::new().with(KIND, "swapped");
        world.fake.set(&Name::from(&waiting[0].name), &other, &none()).unwrap();
        let unknown = of_nobody(waiting, world.zfs_store(), &world.journal, &none()).unwrap();
        assert_eq!(unknown.len(), 1);
    }
}
