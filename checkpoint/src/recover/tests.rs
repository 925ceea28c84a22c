use std::fs;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use super::*;
use crate::capture::{CaptureOptions, capture};
use crate::fault::test_hook;
use crate::store::StoreKind;
use crate::target::Target;
use crate::testing::{World, none};

const KINDS: [StoreKind; 2] = [StoreKind::Zfs, StoreKind::Dir];

/// A world whose capture was killed at that step; the leaked thread has it too.
fn killed_at(step: &'static str, exit: bool, kind: StoreKind) -> Arc<World> {
    let world = Arc::new(World::new(kind));
    let (died, met) = mpsc::channel();
    let theirs = Arc::clone(&world);
    thread::spawn(move || {
        let _hooked = test_hook::die_at(step, died);
        let options = CaptureOptions { exit, ..theirs.options() };
        let target: Arc<dyn Target> = theirs.pod.clone();
        capture(target, &theirs.store, &theirs.journal, options, &none()).map(|captured| captured.id)
    });
    met.recv_timeout(Duration::from_secs(20)).expect("the step is met");
    world.process_died();
    std::mem::forget(Arc::clone(&world));
    world
}

fn suspend(world: &World, suspended: bool) {
    world.fake.suspend(&"tank".parse().unwrap(), suspended);
}

#[test]
fn a_pod_is_thawed_although_the_store_fails_or_cannot_be_opened() {
    for exit in [false, true] {
        for step in ["capture.frozen", "capture.dumped", "capture.thawed"] {
            let context = format!("{step}, exit {exit}");
            let world = killed_at(step, exit, StoreKind::Zfs);
            suspend(&world, true);
            let begun = Recovery::begin(&world.journal, world.pod.as_ref()).unwrap();
            assert!(!world.pod.lock().frozen, "{context}: it waits for the store");
            let report = begun.without_store();
            assert_eq!(report.repaired.len(), 2, "{context}");
            assert!(matches!(report.failures[..], [Failure::NoStore { .. }]), "{context}: {report:?}");
            let report = world.recover();
            assert!(report.operations.is_empty() && !report.failures.is_empty(), "{context}: {report:?}");
            suspend(&world, false);
            world.recovered(&context);
            assert!(world.store.list(&none()).unwrap().is_empty(), "{context}");
        }
    }
}

#[test]
fn a_pod_that_may_be_committed_and_was_to_end_waits_until_the_store_says_so() {
    for (step, committed) in [("capture.commit", false), ("capture.committed", true)] {
        let world = killed_at(step, true, StoreKind::Zfs);
        suspend(&world, true);
        let report = world.recover();
        assert!(world.pod.lock().frozen && report.repaired.is_empty(), "{step}: {report:?}");
        assert!(!report.failures.is_empty(), "{step}: it is not said");
        suspend(&world, false);
        let report = world.recover();
        assert_eq!((report.ended.len(), report.repaired.len()), if committed { (2, 0) } else { (0, 2) });
        world.recovered(step);
    }
}

#[test]
fn an_entry_that_cannot_be_read_is_reported_and_does_not_keep_the_others_waiting() {
    for kind in KINDS {
        let world = killed_at("capture.frozen", false, kind);
        let journal = world.dir.path().join("journal");
        // Nobody can lock a directory.
        fs::create_dir(journal.join("a-first.lock")).unwrap();
        fs::write(journal.join("a-first.json"), "{}").unwrap();
        let report = world.recover();
        assert!(!world.pod.lock().frozen, "{report:?}");
        assert_eq!((report.repaired.len(), report.removed.len()), (2, 1), "{report:?}");
        assert!(matches!(report.failures[..], [Failure::Journal(_)]), "{report:?}");
        fs::remove_dir(journal.join("a-first.lock")).unwrap();
        fs::remove_file(journal.join("a-first.json")).unwrap();
        world.recovered("unreadable");
    }
}

#[test]
fn a_draft_that_somebody_else_has_locked_is_not_removed() {
    for kind in KINDS {
        let world = killed_at("capture.dumped", false, kind);
        let id = world.store.drafts(&none()).unwrap().remove(0);
        let lock = world.store.locks().try_lock(&draft_lock(&id)).unwrap().unwrap();
        let report = world.recover();
        assert!(!world.pod.lock().frozen && report.repaired.len() == 2, "{report:?}");
        assert!(report.removed.is_empty() && report.operations.is_empty(), "{report:?}");
        assert_eq!((report.alive.len(), report.failures.len()), (1, 0), "{report:?}");
        assert_eq!(world.store.drafts(&none()).unwrap(), [id]);
        drop(lock);
        world.recovered("unlocked");
    }
}

#[test]
fn a_capture_on_zfs_is_not_forgotten_by_a_directory_store() {
    let world = killed_at("capture.dumped", false, StoreKind::Zfs);
    let other = World::new(StoreKind::Dir);
    let report = recover(&world.journal, &other.store, world.pod.as_ref(), &none()).unwrap();
    assert!(!world.pod.lock().frozen);
    assert!(matches!(report.failures[..], [Failure::NeedsZfs { .. }]), "{report:?}");
    world.recovered("with its own store");
}

#[test]
fn a_second_capture_of_a_container_is_told_of_the_first_and_finds_no_freeze_of_a_dead_one() {
    let world = World::new(StoreKind::Zfs);
    let turn = || turn("web-id", &world.store, &world.journal, world.pod.as_ref(), &none());
    let first = turn().unwrap();
    let error = turn().unwrap_err();
    assert!(matches!(error, TurnError::UnderWay { .. }), "{error}");
    drop(first);
    // One that does not ask for its turn, as that of a shim.
    let target: Arc<dyn Target> = world.pod.clone();
    let options = CaptureOptions { exit: true, ..world.options() };
    let taken = crate::capture::take(target, &world.store, &world.journal, options, &none()).unwrap();
    let error = turn().unwrap_err();
    assert!(matches!(error, TurnError::UnderWay { .. }), "{error}");
    drop(taken);
    drop(turn().unwrap());

    let world = killed_at("capture.frozen", false, StoreKind::Zfs);
    let turn = || super::turn("web-id", &world.store, &world.journal, world.pod.as_ref(), &none());
    world.pod.lock().fail = vec![("repair", 0)];
    let error = turn().unwrap_err();
    assert!(matches!(&error, TurnError::Left { reasons, .. } if reasons.contains("repair")), "{error}");
    drop(turn().unwrap());
    assert!(!world.pod.lock().frozen);
}
