use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use cryopod_command::{Cancel, Limits};
use cryopod_zfs::Bytes;
use cryopod_zfs::fake::Fault;

use super::*;
use crate::fault::test_hook;
use crate::kind::Kind;
use crate::manifest::DiskContent;
use crate::refusal::{COPY_TOO_LARGE, NO_SPACE, Refusal};
use crate::store::StoreKind;
use crate::testing::{World, none};

const KINDS: [StoreKind; 2] = [StoreKind::Zfs, StoreKind::Dir];

fn run(world: &World, options: CaptureOptions<'_>) -> Result<Captured, CaptureError> {
    let target: Arc<dyn Target> = world.pod.clone();
    capture(target, &world.store, &world.journal, options, &none())
}

/// The steps of a whole capture; one that ends the pod does not thaw it.
fn steps(exit: bool) -> Vec<&'static str> {
    let met = |step: &&str| step.starts_with("capture.") && !(exit && *step == "capture.thaw");
    fault::STEPS.iter().copied().filter(met).collect()
}

#[test]
fn a_captured_pod_runs_on_and_its_checkpoint_is_one_instant() {
    for kind in KINDS {
        let world = World::new(kind);
        // The pod runs whenever it may: between all steps.
        let pod = Arc::clone(&world.pod);
        let hooked = test_hook::set(move |_| {
            pod.tick();
            Ok(())
        });
        let captured = run(&world, world.options()).unwrap();
        drop(hooked);
        let before = world.pod.lock().count;
        world.pod.tick();
        assert_eq!(world.pod.lock().count, before + 1);
        world.recovered("captured");
        let list = world.store.list(&none()).unwrap();
        assert_eq!((list.len(), &list[0].id, list[0].settled), (1, &captured.id, true));
        assert_eq!(captured.manifest.mode, CapturedMode::Full);
        assert_eq!(captured.manifest.members[0].memory.as_ref().unwrap().rounds, ["1", "2", "dump"]);
        assert!(captured.timeline.freeze_us > 0 && captured.timeline.total_us >= captured.timeline.freeze_us);
        assert!(captured.timeline.memory_bytes > 0);
    }
}

#[test]
fn a_volume_of_two_containers_is_captured_once() {
    let world = World::new(StoreKind::Zfs);
    let captured = run(&world, world.options()).unwrap();
    let contents: Vec<&DiskContent> =
        captured.manifest.members.iter().map(|record| &record.disk("volume-0").unwrap().content).collect();
    assert!(matches!(contents[0], DiskContent::Tree { .. }), "{contents:?}");
    assert!(matches!(contents[1], DiskContent::Shared { .. }), "{contents:?}");
}

#[test]
fn mode_disk_dumps_nothing_and_mode_auto_says_why_it_did_not() {
    for kind in KINDS {
        let world = World::new(kind);
        run(&world, CaptureOptions { mode: Mode::Disk, ..world.options() }).unwrap();
        assert!(!world.pod.lock().calls.iter().any(|call| call.starts_with("dump")));
        let refusal = Refusal::new("io-uring", "web uses io_uring", "use mode disk");
        let memory_preflight = Err(refusal.clone());
        let options = CaptureOptions { memory_preflight, ..world.options() };
        let captured = run(&world, options.clone()).unwrap();
        assert_eq!(captured.manifest.memory_refused, Some(refusal));
        world.recovered("mode disk");
        let error = run(&world, CaptureOptions { mode: Mode::Full, ..options }).unwrap_err();
        assert!(matches!(&error, CaptureError::Refused(refusal) if refusal.code == "io-uring"), "{error}");
    }
}

#[test]
fn flat_images_and_small_pods_have_no_rounds() {
    let world = World::new(StoreKind::Dir);
    for options in [
        CaptureOptions { flat: true, ..world.options() },
        CaptureOptions { pre_dump: PreDump::Never, ..world.options() },
    ] {
        let captured = run(&world, options).unwrap();
        assert_eq!(captured.manifest.members[0].memory.as_ref().unwrap().rounds, ["dump"]);
    }
}

#[test]
fn a_pre_dump_that_fails_only_costs_its_round() {
    let world = World::new(StoreKind::Zfs);
    world.pod.lock().fail = vec![("pre-dump", 1)];
    let captured = run(&world, world.options()).unwrap();
    assert_eq!(captured.manifest.members[0].memory.as_ref().unwrap().rounds, ["dump"]);
    assert_eq!(captured.manifest.members[1].memory.as_ref().unwrap().rounds, ["1", "2", "dump"]);
    world.recovered("pre-dump failed");
}

#[test]
fn without_room_for_the_memory_nothing_is_touched() {
    let world = World::new(StoreKind::Zfs);
    world.fake.set_pool_size(&"tank".parse().unwrap(), Bytes(100 << 20));
    let error = run(&world, world.options()).unwrap_err();
    assert!(matches!(&error, CaptureError::Refused(refusal) if refusal.code == NO_SPACE), "{error}");
    assert!(world.pod.lock().calls.is_empty());
    world.check("no space");
}

#[test]
fn a_volume_beyond_the_copy_bound_is_refused_before_the_freeze_and_named() {
    let world = World::new(StoreKind::Zfs);
    std::fs::write(world.dir.path().join("volume/big"), vec![1; 300_000]).unwrap();
    let error = run(&world, CaptureOptions { copy_limit: 100_000, ..world.options() }).unwrap_err();
    let CaptureError::Refused(refusal) = error else { panic!("{error}") };
    assert_eq!(refusal.code, COPY_TOO_LARGE);
    assert!(refusal.text.contains("volume-0 of web"), "{refusal}");
    assert!(world.pod.lock().calls.is_empty());
}

#[test]
fn a_volume_that_grows_beyond_the_bound_after_preflight_ends_the_capture_and_the_pod_runs() {
    let world = World::new(StoreKind::Zfs);
    let big = world.dir.path().join("volume/big");
    let hooked = test_hook::set(move |step| {
        if step == "capture.freeze" {
            std::fs::write(&big, vec![1; 300_000]).unwrap();
        }
        Ok(())
    });
    let error = run(&world, CaptureOptions { copy_limit: 100_000, ..world.options() }).unwrap_err();
    drop(hooked);
    assert!(matches!(&error, CaptureError::Refused(refusal) if refusal.code == COPY_TOO_LARGE), "{error}");
    world.recovered("grown");
}

#[test]
fn two_captures_with_one_id_do_not_meet() {
    for kind in KINDS {
        let world = World::new(kind);
        let options = CaptureOptions { id: Some("mine".parse().unwrap()), ..world.options() };
        let target: Arc<dyn Target> = world.pod.clone();
        let first = take(target, &world.store, &world.journal, options.clone(), &none()).unwrap();
        assert_eq!(run(&world, options.clone()).unwrap_err().kind(), Kind::AlreadyExists);
        first.commit(&crate::progress::Silent, &none()).unwrap();
        assert_eq!(run(&world, options).unwrap_err().kind(), Kind::AlreadyExists);
        world.recovered("one id");
        assert_eq!(world.store.list(&none()).unwrap().len(), 1);
    }
}

#[test]
fn a_capture_that_is_dropped_before_its_commit_leaves_nothing() {
    for kind in KINDS {
        let world = World::new(kind);
        let target: Arc<dyn Target> = world.pod.clone();
        let taken = take(target, &world.store, &world.journal, world.options(), &none()).unwrap();
        assert!(!world.pod.lock().frozen, "captured means thawed");
        assert!(world.store.list(&none()).unwrap().is_empty(), "captured is not visible");
        assert!(taken.images("web").unwrap().join("inventory.img").exists());
        drop(taken);
        world.check("dropped");
    }
}

#[test]
fn an_exiting_capture_stays_frozen_until_the_commit_and_is_thawed_when_that_fails() {
    for kind in KINDS {
        let world = World::new(kind);
        let options = CaptureOptions { exit: true, ..world.options() };
        let target: Arc<dyn Target> = world.pod.clone();
        let taken = take(target, &world.store, &world.journal, options.clone(), &none()).unwrap();
        assert!(world.pod.lock().frozen);
        drop(taken);
        assert!(!world.pod.lock().frozen);
        let hooked = test_hook::fail_at("capture.manifest", 0);
        run(&world, options.clone()).unwrap_err();
        drop(hooked);
        world.recovered("exit failed");
        run(&world, options).unwrap();
        assert!(world.pod.lock().frozen, "the caller ends it");
    }
}

#[test]
fn a_dump_without_its_instant_is_no_checkpoint() {
    struct Forgetful(Arc<crate::testing::FakePod>);
    impl Target for Forgetful {
        fn pod(&self) -> &crate::target::PodIdentity {
            self.0.pod()
        }
        fn members(&self) -> &[crate::target::Member] {
            self.0.members()
        }
        fn freeze(&self, limits: &Limits) -> Result<(), crate::target::TargetError> {
            self.0.freeze(limits)
        }
        fn thaw(&self) -> Result<(), crate::target::TargetError> {
            self.0.thaw()
        }
        fn put_right(
            &self,
            member: &crate::target::Member,
            frozen_by_us: bool,
        ) -> Result<(), crate::target::TargetError> {
            self.0.put_right(member, frozen_by_us)
        }
        fn pre_dump(
            &self,
            member: &crate::target::Member,
            images: &crate::target::ImageDir,
            limits: &Limits,
        ) -> Result<crate::target::DumpStats, crate::target::TargetError> {
            self.0.pre_dump(member, images, limits)
        }
        fn dump(
            &self,
            _: &crate::target::Member,
            _: &crate::target::ImageDir,
            _: &crate::target::DumpOptions,
            _: &crate::target::AtInstant<'_>,
            _: &Limits,
        ) -> Result<crate::target::DumpStats, crate::target::TargetError> {
            Ok(crate::target::DumpStats::default())
        }
    }
    let world = World::new(StoreKind::Zfs);
    let target: Arc<dyn Target> = Arc::new(Forgetful(Arc::clone(&world.pod)));
    let error = capture(target, &world.store, &world.journal, world.options(), &none()).unwrap_err();
    assert!(matches!(error, CaptureError::NoInstant { .. }), "{error}");
    world.recovered("no instant");
}

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

fn volume_file(world: &World, name: &str) -> std::path::PathBuf {
    let path = world.dir.path().join("volume").join(name);
    std::fs::write(&path, name).unwrap();
    path
}

#[test]
fn a_deleted_file_that_the_second_container_has_open_on_the_shared_volume_can_be_restored() {
    use std::os::unix::fs::MetadataExt;
    for kind in KINDS {
        let world = World::new(kind);
        volume_file(&world, "log.1");
        world.pod.lock().remaps =
            vec![("web-id", "count", "link_remap.4"), ("side-id", "log.1", "link_remap.6")];
        let id = world.capture();
        let copy = world.store.content(&id).disk("web-volume-0");
        let inode = |name: &str| std::fs::metadata(copy.join(name)).unwrap().ino();
        assert_eq!(inode("link_remap.4"), inode("count"));
        assert_eq!(inode("link_remap.6"), inode("log.1"), "CRIU opens the file by this name");
        world.recovered("linked");
    }
}

#[test]
fn a_deleted_file_that_the_capture_of_the_shared_volume_cannot_hold_is_refused_with_its_name() {
    // Two dumps count from the same number; a snapshot is taken once.
    let same_number = vec![("web-id", "count", "link_remap.6"), ("side-id", "log.1", "link_remap.6")];
    let late = vec![("side-id", "log.1", "link_remap.6")];
    for (on_zfs, remaps) in [(false, same_number), (true, late)] {
        let world = World::with_volume(StoreKind::Zfs, on_zfs);
        let log = volume_file(&world, "log.1");
        world.pod.lock().remaps = remaps;
        let CaptureError::Refused(refusal) = run(&world, world.options()).unwrap_err() else { panic!() };
        assert_eq!(refusal.code, "shared-unlinked-file");
        assert!(
            refusal.text.contains("container side") && refusal.text.contains("link_remap.6"),
            "{refusal}"
        );
        assert!(!world.pod.lock().frozen);
        std::fs::remove_file(log).unwrap();
        world.recovered("refused");
        // Nothing of the kind, or the disk alone: it is captured.
        world.pod.lock().remaps.clear();
        run(&world, world.options()).unwrap();
    }
}
