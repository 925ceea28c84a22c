//! Mode `auto`: memory and disk where memory is possible, else the disks alone with the reason, also when only the dump
//! finds out.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use cryopod_command::Cancel;
use cryopod_zfs::Bytes;

use super::*;
use crate::fault::test_hook;
use crate::kind::Kind;
use crate::refusal::NO_SPACE;

/// The second container's dump is refused, when the first one's memory and disks are captured already.
fn refusing(kind: StoreKind) -> World {
    let world = World::new(kind);
    world.pod.lock().refuses = Some("side-id");
    world
}

fn disk_alone(world: &World, captured: &Captured, code: &str) {
    let manifest = &captured.manifest;
    assert_eq!(manifest.mode, CapturedMode::Disk);
    assert_eq!(manifest.memory_refused.as_ref().map(|refusal| refusal.code.as_str()), Some(code));
    assert!(manifest.members.iter().all(|record| record.memory.is_none()));
    let images = world.store.content(&captured.id).dir().join("images");
    assert_eq!(std::fs::read_dir(images).unwrap().count(), 0, "half images are left");
    assert_eq!(world.store.list(&none()).unwrap().len(), 1);
}

#[test]
fn a_dump_that_is_refused_becomes_a_capture_of_the_disks_that_says_so() {
    for kind in KINDS {
        for exit in [false, true] {
            let world = refusing(kind);
            // The pod runs whenever it may, so that remains of the first instant would show.
            let pod = Arc::clone(&world.pod);
            let hooked = test_hook::set(move |_| {
                pod.tick();
                Ok(())
            });
            let captured = run(&world, CaptureOptions { exit, ..world.options() }).unwrap();
            drop(hooked);
            disk_alone(&world, &captured, "tty");
            assert_eq!(world.pod.lock().frozen, exit);
            let calls = world.pod.lock().calls.clone();
            assert_eq!(calls.iter().filter(|call| *call == "freeze pod").count(), 2, "{calls:?}");
            assert_eq!(calls.iter().filter(|call| call.starts_with("put-right")).count(), 2, "{calls:?}");
            // Whoever asked for the end has ended it.
            world.pod.thaw().unwrap();
            if let Some(ending) = captured.ending {
                ending.ended();
            }
            world.recovered("refused dump");
        }
    }
}

#[test]
fn the_freeze_window_is_that_of_the_disks_and_the_total_holds_the_refused_dump() {
    let world = refusing(StoreKind::Zfs);
    let hooked = test_hook::set(|step| {
        if step == "capture.dump" {
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    });
    let timeline = run(&world, world.options()).unwrap().timeline;
    drop(hooked);
    let names: Vec<&str> = timeline.phases.iter().map(|phase| phase.name.as_str()).collect();
    assert_eq!(names.first(), Some(&"refused dump"), "{names:?}");
    assert_eq!(names.iter().filter(|name| **name == "freeze").count(), 1, "{names:?}");
    assert!(timeline.phases[0].duration_us >= 100_000 && timeline.total_us >= 100_000);
    assert!(timeline.freeze_us < timeline.total_us - timeline.phases[0].duration_us);
}

#[test]
fn mode_full_fails_with_the_refusal_and_nothing_is_left() {
    for kind in KINDS {
        let world = refusing(kind);
        let error = run(&world, CaptureOptions { mode: Mode::Full, ..world.options() }).unwrap_err();
        assert_eq!(error.kind(), Kind::FailedPrecondition, "{error}");
        assert!(world.recover().is_clean());
        world.check("full refused");
        assert!(world.store.list(&none()).unwrap().is_empty());
    }
}

#[test]
fn any_other_failure_of_the_dump_is_an_error_in_mode_auto_too() {
    for kind in [Kind::Internal, Kind::Cancelled, Kind::DeadlineExceeded, Kind::FailedPrecondition] {
        let world = World::new(StoreKind::Zfs);
        world.pod.lock().fail_as = Some(kind);
        world.pod.lock().fail = vec![("dump", 1)];
        assert_eq!(run(&world, world.options()).unwrap_err().kind(), kind);
        assert!(world.store.list(&none()).unwrap().is_empty());
        world.recovered("failed dump");
    }
}

#[test]
fn without_room_for_the_memory_the_disks_are_captured_as_long_as_they_fit() {
    let world = World::new(StoreKind::Zfs);
    world.fake.set_pool_size(&"tank".parse().unwrap(), Bytes(100 << 20));
    let captured = run(&world, world.options()).unwrap();
    disk_alone(&world, &captured, NO_SPACE);
    assert!(!world.pod.lock().calls.iter().any(|call| call.contains("dump")), "no attempt was needed");
    world.recovered("no space for memory");

    let world = World::new(StoreKind::Zfs);
    std::fs::write(world.dir.path().join("volume/big"), vec![1; 300_000]).unwrap();
    world.fake.set_pool_size(&"tank".parse().unwrap(), Bytes(200_000));
    let error = run(&world, world.options()).unwrap_err();
    assert!(matches!(&error, CaptureError::Refused(refusal) if refusal.code == NO_SPACE), "{error}");
    assert!(world.pod.lock().calls.is_empty());
}

#[test]
fn a_first_attempt_that_leaves_something_to_recovery_is_not_followed_by_another() {
    let world = refusing(StoreKind::Zfs);
    world.pod.lock().fail = vec![("put-right", 0)];
    let error = run(&world, world.options()).unwrap_err();
    assert_eq!(error.kind(), Kind::FailedPrecondition, "{error}");
    assert_eq!(world.recover().repaired.len(), 2);
    world.recovered("not put right");
}

#[test]
fn a_capture_that_is_cancelled_after_the_refusal_ends_there() {
    let world = refusing(StoreKind::Zfs);
    let cancel = Cancel::new();
    let limits = none().with_cancel(cancel.clone());
    let seen = std::cell::Cell::new(0);
    let hooked = test_hook::set(move |step| {
        seen.set(seen.get() + usize::from(step == "capture.begin"));
        if seen.get() == 2 {
            cancel.cancel();
        }
        Ok(())
    });
    let target: Arc<dyn Target> = world.pod.clone();
    let error = capture(target, &world.store, &world.journal, world.options(), &limits).unwrap_err();
    drop(hooked);
    assert_eq!(error.kind(), Kind::Cancelled, "{error}");
    world.recovered("cancelled");
}

/// Every step of both attempts fails, or the process is killed there.
#[test]
fn every_step_of_both_attempts_may_fail_and_be_the_last() {
    for kind in KINDS {
        for exit in [false, true] {
            let world = refusing(kind);
            let steps = test_hook::met(|| {
                run(&world, CaptureOptions { exit, ..world.options() }).unwrap();
            });
            let both = ["capture.journal", "capture.begin", "capture.freeze", "capture.snapshot"];
            for step in both {
                assert_eq!(steps.iter().filter(|met| *met == step).count(), 2, "{step} in {steps:?}");
            }
            for (nth, step) in steps.iter().enumerate() {
                let context = format!("{step} as number {nth}, {kind:?}, exit {exit}");
                fails_at(nth, &refusing(kind), exit, &context);
                is_killed_at(nth, refusing(kind), exit, &context);
            }
        }
    }
}

fn fails_at(nth: usize, world: &World, exit: bool, context: &str) {
    let hooked = test_hook::fail_nth(nth);
    let result = run(world, CaptureOptions { exit, ..world.options() });
    drop(hooked);
    assert!(result.is_err(), "{context}");
    assert!(!world.pod.lock().frozen, "{context}: frozen after the error");
    world.recovered(context);
}

fn is_killed_at(nth: usize, world: World, exit: bool, context: &str) {
    let world = Arc::new(world);
    let (died, met) = mpsc::channel();
    let theirs = Arc::clone(&world);
    let running = thread::spawn(move || {
        let _hooked = test_hook::die_nth(nth, died);
        run(&theirs, CaptureOptions { exit, ..theirs.options() }).map(|captured| captured.id)
    });
    if met.recv_timeout(Duration::from_secs(20)).is_err() {
        panic!("{context}: not met: {:?}", running.join().map(|result| result.is_ok()));
    }
    let alive = world.recover();
    assert!(alive.repaired.is_empty() && alive.removed.is_empty(), "{context}: touched a live capture");
    world.process_died();
    let committed = !world.store.list(&none()).unwrap().is_empty();
    if exit && committed {
        // Nobody is left to end it.
        let report = world.recover();
        assert_eq!(report.ended, ["web-id", "side-id"], "{context}");
        assert!(report.repaired.is_empty() && report.failures.is_empty(), "{context}");
    }
    world.recovered(context);
    // The leaked thread still has its world.
    std::mem::forget(world);
}
