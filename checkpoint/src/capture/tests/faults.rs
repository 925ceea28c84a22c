//! Whatever fails, is cancelled or is killed on the way: the pod runs and nothing is left (I1–I3).

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use cryopod_command::Cancel;
use cryopod_zfs::fake::Fault;

use super::*;
use crate::fault::test_hook;
use crate::kind::Kind;

#[test]
fn every_step_of_a_capture_may_fail() {
    let mut cases = 0;
    for kind in KINDS {
        for exit in [false, true] {
            for step in steps(exit) {
                for nth in 0..3 {
                    let world = World::new(kind);
                    let options = CaptureOptions { exit, ..world.options() };
                    let hooked = test_hook::fail_at(step, nth);
                    let result = run(&world, options);
                    drop(hooked);
                    let context = format!("{kind:?} exit {exit} {step} the {nth}th time");
                    match result {
                        // The step is not met that often.
                        Ok(_) => assert!(nth > 0, "{context}: not met"),
                        Err(_) => {
                            // Before recovery already: I1 does not wait for it.
                            assert!(!world.pod.lock().frozen, "{context}: frozen after the error");
                            world.recovered(&context);
                            cases += 1;
                        }
                    }
                }
            }
        }
    }
    assert!(cases >= 2 * (steps(false).len() + steps(true).len()), "{cases} cases");
}

#[test]
fn every_call_to_the_backend_may_fail() {
    for kind in KINDS {
        for call in ["freeze", "pre-dump", "dump", "hook", "dumped"] {
            for nth in 0..2 {
                let world = World::new(kind);
                world.pod.lock().fail = vec![(call, nth)];
                let result = run(&world, world.options());
                let context = format!("{kind:?} {call} {nth}");
                assert!(
                    result.is_ok() == (call == "pre-dump" || call == "freeze" && nth == 1),
                    "{context}: {result:?}"
                );
                world.recovered(&context);
            }
        }
    }
}

#[test]
fn a_thaw_that_fails_is_tried_again_and_then_left_to_recovery() {
    let world = World::new(StoreKind::Zfs);
    world.pod.lock().fail = vec![("thaw", 0), ("thaw", 0)];
    run(&world, world.options()).unwrap();
    assert!(!world.pod.lock().frozen);
    world.pod.lock().fail = vec![("thaw", 0); 20];
    let error = run(&world, world.options()).unwrap_err();
    assert!(matches!(error, CaptureError::Thaw(_)), "{error}");
    world.pod.lock().fail.clear();
    assert!(world.pod.lock().frozen);
    world.recovered("stuck");
    assert_eq!(world.pod.lock().repaired, ["web-id", "side-id"]);
}

#[test]
fn a_roll_back_that_failed_keeps_its_journal_entry_until_a_repair_has_succeeded() {
    for at in ["pre-dump", "dump", "hook", "dumped"] {
        let world = World::new(StoreKind::Zfs);
        // A pre-dump that merely fails is gone on without; one that is cancelled ends the capture.
        world.pod.lock().fail_as = (at == "pre-dump").then_some(Kind::Cancelled);
        world.pod.lock().fail = vec![(at, 0), ("put-right", 0), ("repair", 0)];
        run(&world, world.options()).unwrap_err();
        let calls = world.pod.lock().calls.clone();
        assert_eq!(calls.iter().filter(|call| call.starts_with("put-right")).count(), 2, "{at}: {calls:?}");
        // Its first repair fails: it has to stay for another one.
        let report = world.recover();
        assert_eq!(report.failures.len(), 1, "{at}: {report:?}");
        let report = world.recover();
        assert!(report.failures.is_empty() && report.repaired.len() == 2, "{at}: {report:?}");
        world.recovered(at);
    }
}

#[test]
fn a_failed_dump_that_is_put_right_at_once_leaves_nothing_to_recovery() {
    let world = World::new(StoreKind::Zfs);
    world.pod.lock().fail = vec![("dump", 1)];
    run(&world, world.options()).unwrap_err();
    assert!(world.recover().is_clean());
    world.check("put right");
}

#[test]
fn a_thaw_that_fails_after_a_failed_commit_is_left_to_recovery() {
    let world = World::new(StoreKind::Zfs);
    let hooked = test_hook::fail_at("capture.manifest", 0);
    world.pod.lock().fail = (0..5).map(|_| ("thaw", 0)).collect();
    run(&world, CaptureOptions { exit: true, ..world.options() }).unwrap_err();
    drop(hooked);
    assert!(world.pod.lock().frozen);
    let report = world.recover();
    assert_eq!(report.repaired.len(), 2, "{report:?}");
    world.recovered("thawed by recovery");
}

#[test]
fn a_panic_while_frozen_thaws_and_leaves_nothing() {
    let world = World::new(StoreKind::Zfs);
    for step in ["capture.frozen", "capture.snapshot", "capture.dumped", "capture.hash"] {
        let hooked = test_hook::set(move |name| {
            assert!(name != step, "planned panic");
            Ok(())
        });
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(&world, world.options())));
        drop(hooked);
        assert!(result.is_err());
        assert!(!world.pod.lock().frozen, "{step}");
        world.recovered(step);
    }
}

#[test]
fn a_cancelled_capture_ends_between_steps_and_the_pod_runs() {
    for step in steps(false) {
        let world = World::new(StoreKind::Zfs);
        let cancel = Cancel::new();
        let limits = none().with_cancel(cancel.clone());
        let hooked = test_hook::set(move |name| {
            if name == step {
                cancel.cancel();
            }
            Ok(())
        });
        let target: Arc<dyn Target> = world.pod.clone();
        let result = capture(target, &world.store, &world.journal, world.options(), &limits);
        drop(hooked);
        if let Err(error) = &result {
            assert_eq!(error.kind(), Kind::Cancelled, "{step}: {error}");
        }
        assert!(!world.pod.lock().frozen, "{step}");
        world.recovered(step);
    }
}

/// Every call to ZFS, one after the other, fails or loses its reply.
#[test]
fn every_call_to_zfs_may_fail_or_lose_its_reply() {
    let mut cases = 0;
    for lose in [false, true] {
        for nth in 0.. {
            let world = World::new(StoreKind::Zfs);
            let before = world.fake.calls().len();
            let fault = if lose {
                Fault::LoseReply
            } else {
                Fault::Fail(Box::new(|op| cryopod_zfs::Error::NoSpace { op, quota: false }))
            };
            world.fake.inject(None, nth, fault);
            let result = run(&world, world.options());
            let calls = world.fake.calls();
            let Some(call) = calls.get(before + nth) else {
                assert!(result.is_ok());
                break;
            };
            assert!(!world.pod.lock().frozen, "call {nth} ({call})");
            // An answer that is lost is the same as one that never came.
            if lose && ["get", "list"].iter().any(|verb| call.starts_with(verb)) {
                continue;
            }
            world.recovered(&format!("zfs call {nth} ({call}), lose {lose}"));
            cases += 1;
        }
    }
    assert!(cases > 10, "{cases}");
}

/// The process is killed at each step: its thread stops for ever, with all it holds.
#[test]
fn the_process_may_be_killed_at_every_step() {
    for kind in KINDS {
        for exit in [false, true] {
            for step in steps(exit) {
                let world = Arc::new(World::new(kind));
                let (died, met) = mpsc::channel();
                let theirs = Arc::clone(&world);
                let running = thread::spawn(move || {
                    let _hooked = test_hook::die_at(step, died);
                    let options = CaptureOptions { exit, ..theirs.options() };
                    run(&theirs, options).map(|captured| captured.id)
                });
                if met.recv_timeout(Duration::from_secs(20)).is_err() {
                    panic!("{step} was not met: {:?}", running.join().map(|result| result.is_ok()));
                }
                let alive = world.recover();
                assert!(
                    alive.repaired.is_empty() && alive.removed.is_empty(),
                    "{step}: recovery touched a live capture"
                );
                world.process_died();
                let context = format!("killed at {step}, {kind:?}, exit {exit}");
                if exit && step == "capture.committed" {
                    // Committed, and nobody is left to end it.
                    let report = world.recover();
                    assert_eq!(report.ended, ["web-id", "side-id"], "{context}");
                    assert!(report.repaired.is_empty() && report.failures.is_empty(), "{context}");
                }
                world.recovered(&context);
                // The leaked thread still has its world.
                std::mem::forget(world);
            }
        }
    }
}

#[test]
fn a_store_that_disappears_while_the_pod_is_frozen_does_not_keep_it_frozen() {
    let world = World::new(StoreKind::Zfs);
    let fake = world.fake.clone();
    let hooked = test_hook::set(move |step| {
        if step == "capture.frozen" {
            fake.suspend(&"tank".parse().unwrap(), true);
        }
        Ok(())
    });
    let error = run(&world, world.options()).unwrap_err();
    drop(hooked);
    assert_eq!(error.kind(), Kind::Unavailable, "{error}");
    assert!(!world.pod.lock().frozen);
    world.fake.suspend(&"tank".parse().unwrap(), false);
    world.recovered("suspended");
}

#[test]
fn a_checkpoint_whose_draft_was_destroyed_under_our_feet_is_an_error_and_nothing_is_left() {
    let world = World::new(StoreKind::Zfs);
    let fake = world.fake.clone();
    let hooked = test_hook::set(move |step| {
        if step == "capture.dumped" {
            use cryopod_zfs::Zfs as _;
            fake.destroy(&"tank/cryopod/checkpoints".parse().unwrap(), true, &none()).unwrap();
            let request = cryopod_zfs::CreateRequest::filesystem(
                &"tank/cryopod/checkpoints".parse().unwrap(),
                cryopod_zfs::Properties::new().with("canmount", "off"),
            );
            fake.create(&request, &none()).unwrap();
        }
        Ok(())
    });
    run(&world, world.options()).unwrap_err();
    drop(hooked);
    world.recovered("destroyed");
}
