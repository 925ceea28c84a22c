//! What is refused for the size or the state of the disks, and what can still be captured of them.

use std::thread;
use std::time::Duration;

use cryopod_command::Cancel;
use cryopod_zfs::Bytes;

use super::*;
use crate::fault::test_hook;
use crate::kind::Kind;
use crate::refusal::{COPY_TOO_LARGE, NO_SPACE};

#[test]
fn without_room_for_the_memory_nothing_is_touched() {
    let world = World::new(StoreKind::Zfs);
    world.fake.set_pool_size(&"tank".parse().unwrap(), Bytes(100 << 20));
    let options = CaptureOptions { mode: Mode::Full, ..world.options() };
    let error = run(&world, options).unwrap_err();
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
    assert!(refusal.advice.contains("checkpoint.volume_copy_limit"), "{refusal}");
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
        let full = CaptureOptions { mode: Mode::Full, ..world.options() };
        let CaptureError::Refused(refusal) = run(&world, full).unwrap_err() else { panic!() };
        assert_eq!(refusal.code, "shared-unlinked-file");
        assert!(
            refusal.text.contains("container side") && refusal.text.contains("link_remap.6"),
            "{refusal}"
        );
        assert!(!world.pod.lock().frozen);
        let alone = run(&world, world.options()).unwrap();
        assert_eq!(alone.manifest.memory_refused, Some(refusal), "auto needs no link");
        std::fs::remove_file(log).unwrap();
        world.recovered("refused");
        // Nothing of the kind, or the disk alone: it is captured.
        world.pod.lock().remaps.clear();
        run(&world, world.options()).unwrap();
    }
}

#[test]
fn a_file_system_that_hangs_in_the_freeze_does_not_hold_the_pod_beyond_the_limits() {
    let world = World::with_volume(StoreKind::Zfs, true);
    let (volume, aside) = (world.dir.path().join("volume"), world.dir.path().join("aside"));
    let cancel = Cancel::new();
    let limits = none().with_cancel(cancel.clone());
    let (hangs, away) = (volume.clone(), aside.clone());
    let hooked = test_hook::set(move |step| {
        if step == "capture.snapshot" {
            // Nobody will ever write to it: opening it for `syncfs` sleeps in the kernel.
            std::fs::rename(&hangs, &away).unwrap();
            nix::unistd::mkfifo(&hangs, nix::sys::stat::Mode::S_IRWXU).unwrap();
            let cancel = cancel.clone();
            thread::spawn(move || {
                thread::sleep(Duration::from_millis(100));
                cancel.cancel();
            });
        }
        Ok(())
    });
    let target: Arc<dyn Target> = world.pod.clone();
    let result = capture(target, &world.store, &world.journal, world.options(), &limits);
    drop(hooked);
    assert!(!world.pod.lock().frozen);
    assert_eq!(result.unwrap_err().kind(), Kind::Cancelled);
    std::fs::remove_file(&volume).unwrap();
    std::fs::rename(&aside, &volume).unwrap();
    world.recovered("hung");
}
