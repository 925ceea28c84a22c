//! What a capture that succeeds holds, and when it is visible.

use super::*;
use crate::fault::test_hook;
use crate::kind::Kind;
use crate::manifest::DiskContent;
use crate::refusal::Refusal;

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
        CaptureOptions { pre_dump_min_rss: (100 << 20) + 1, ..world.options() },
    ] {
        let captured = run(&world, options).unwrap();
        assert_eq!(captured.manifest.members[0].memory.as_ref().unwrap().rounds, ["dump"]);
    }
}

#[test]
fn a_pod_of_exactly_the_configured_bound_has_rounds() {
    let world = World::new(StoreKind::Dir);
    let captured = run(&world, CaptureOptions { pre_dump_min_rss: 100 << 20, ..world.options() }).unwrap();
    assert_eq!(captured.manifest.members[0].memory.as_ref().unwrap().rounds, ["1", "2", "dump"]);
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
        let captured = run(&world, options).unwrap();
        assert!(world.pod.lock().frozen, "the caller ends it");
        assert!(world.recover().ended.is_empty(), "recovery was faster than the caller");
        captured.ending.unwrap().ended();
        assert!(world.recover().is_clean());
    }
}

#[test]
fn a_caller_that_does_not_end_the_pod_leaves_that_to_recovery_until_it_has_worked() {
    let world = World::new(StoreKind::Zfs);
    let captured = run(&world, CaptureOptions { exit: true, ..world.options() }).unwrap();
    drop(captured);
    world.pod.lock().fail = vec![("end", 1)];
    let report = world.recover();
    assert_eq!((report.failures.len(), report.ended.len()), (1, 1), "{report:?}");
    assert_eq!(world.recover().ended, ["side-id"]);
    world.recovered("ended");
}

#[test]
fn a_journal_that_cannot_forget_a_committed_capture_does_not_make_it_fail() {
    let world = World::new(StoreKind::Dir);
    let journal = world.dir.path().join("journal");
    let hooked = test_hook::set(move |step| {
        if step == "capture.committed" {
            let mut files = std::fs::read_dir(&journal).unwrap().map(|item| item.unwrap().path());
            let entry = files.find(|path| path.extension().is_some_and(|ending| ending == "json")).unwrap();
            std::fs::remove_file(&entry).unwrap();
            // Which cannot be removed as a file is.
            std::fs::create_dir(&entry).unwrap();
        }
        Ok(())
    });
    let captured = run(&world, world.options()).unwrap();
    drop(hooked);
    assert_eq!(world.store.list(&none()).unwrap()[0].id, captured.id);
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

/// As overlayfs notes two deleted files: one inode, two names.
#[test]
fn a_container_that_deleted_files_of_its_image_is_captured() {
    use nix::sys::stat::{Mode as Permissions, SFlag, mknod};
    let world = World::new(StoreKind::Dir);
    let upper = world.dir.path().join("run/web");
    mknod(&upper.join("one"), SFlag::S_IFCHR, Permissions::empty(), 0)
        .expect("a whiteout can be made (needs root, or Linux 5.8)");
    std::fs::hard_link(upper.join("one"), upper.join("two")).unwrap();
    run(&world, world.options()).unwrap();
    world.recovered("whiteouts");
}
