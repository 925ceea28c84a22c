use std::sync::{Arc, mpsc};
use std::thread;

use cryopod_zfs::Zfs as _;
use cryopod_zfs::fake::Fault;

use super::super::{settle, tidy};
use super::*;
use crate::fault::test_hook;
use crate::progress::Silent;
use crate::restore::forget;
use crate::store::{Deleted, StoreKind};
use crate::testing::{World, name, none};

const WEB: &str = "tank/snaps/web";

/// A captured container that has ended: unmounted, about to be deleted.
fn ended() -> (World, CheckpointId) {
    let world = World::new(StoreKind::Zfs);
    let id = world.capture();
    world.fake.unmount_at(&world.dir.path().join("run/web"), false, &none()).unwrap();
    (world, id)
}

fn adopt_it(world: &World) -> Result<Adopted, SettleError> {
    adopt(&world.store, &name(WEB), &world.journal, &none())
}

/// As containerd does: plainly, and it must be there.
fn owner_destroys(world: &mut World) {
    world.fake.destroy(&name(WEB), false, &none()).unwrap();
    world.baseline.remove(WEB);
}

fn there(world: &World, dataset: &str) -> bool {
    world.fake.dataset(&name(dataset), &none()).unwrap().is_some()
}

#[test]
fn one_call_to_zfs_stands_before_the_entry_and_three_make_the_exchange() {
    let (mut world, _) = ended();
    // A second checkpoint: what is on the dataset must not make the first step longer.
    world.fake.mount_at(&name(WEB), &world.dir.path().join("run/web"), Default::default(), &none()).unwrap();
    world.capture();
    world.fake.unmount_at(&world.dir.path().join("run/web"), false, &none()).unwrap();
    let before = world.fake.calls().len();
    let (fake, journal) = (world.fake.clone(), world.dir.path().join("journal"));
    let hooked = test_hook::set(move |step| {
        if step == "adopt.rename" {
            assert_eq!(fake.calls().len() - before, 1, "{:?}", fake.calls());
            let entries = std::fs::read_dir(&journal).unwrap().flatten();
            assert!(entries.map(|entry| entry.path()).any(|path| path.extension() == Some("json".as_ref())));
        }
        Ok(())
    });
    let Adopted::Moved { checkpoints, .. } = adopt_it(&world).unwrap() else { panic!("not moved") };
    drop(hooked);
    assert_eq!(checkpoints.len(), 2);
    let calls = world.fake.calls().split_off(before);
    assert_eq!(calls.len(), 4, "{calls:?}");
    owner_destroys(&mut world);
    world.recovered("adopted");
}

#[test]
fn a_try_that_was_cut_off_is_gone_on_with_by_the_next_without_any_recovery() {
    let steps = fault::STEPS.iter().copied().filter(|step| step.starts_with("adopt."));
    for step in steps {
        let (mut world, id) = ended();
        let hooked = test_hook::fail_at(step, 0);
        adopt_it(&world).unwrap_err();
        drop(hooked);
        let Adopted::Moved { checkpoints, .. } = adopt_it(&world).unwrap() else {
            panic!("{step}: nobody would settle it")
        };
        assert_eq!(checkpoints, [id], "{step}");
        assert_eq!(adopt_it(&world).unwrap(), Adopted::Nothing, "{step}: it is done");
        owner_destroys(&mut world);
        world.recovered(step);
    }
}

#[test]
fn a_retry_waits_for_the_try_before_it_and_finds_it_done() {
    let (world, _) = ended();
    world.fake.inject(Some("rename"), 0, Fault::Hang);
    let mut world = Arc::new(world);
    let theirs = Arc::clone(&world);
    let first = thread::spawn(move || adopt_it(&theirs));
    while !world.fake.calls().iter().any(|call| call.starts_with("rename ")) {
        thread::sleep(Duration::from_millis(2));
    }
    // containerd's 10 s are over; the first try goes on.
    let short = Limits::within(Duration::from_millis(50));
    let error = adopt(&world.store, &name(WEB), &world.journal, &short).unwrap_err();
    assert!(error.to_string().contains("still held"), "{error}");
    first.join().unwrap().unwrap_err();
    assert!(matches!(adopt_it(&world).unwrap(), Adopted::Moved { .. }));
    owner_destroys(Arc::get_mut(&mut world).unwrap());
    world.recovered("retried");
}

#[test]
fn settling_that_is_faster_than_the_exchange_does_not_take_the_owner_s_dataset() {
    // Killed after the rename; the checkpoint settles from the adopted dataset before anybody recovers.
    let (world, id) = ended();
    let world = Arc::new(world);
    let (died, met) = mpsc::channel();
    let theirs = Arc::clone(&world);
    thread::spawn(move || {
        let _hooked = test_hook::die_at("adopt.replace", died);
        adopt_it(&theirs)
    });
    met.recv_timeout(Duration::from_secs(20)).unwrap();
    world.process_died();
    assert!(!there(&world, WEB));
    settle(&world.store, &id, &Silent, &none()).unwrap();
    tidy(&world.store, &none()).unwrap();
    let report = world.recover();
    assert!(report.failures.is_empty(), "{report:?}");
    assert!(there(&world, WEB), "containerd's collection of garbage would stop for good");
    world.fake.destroy(&name(WEB), false, &none()).unwrap();
    assert!(world.recover().is_clean());
    assert!(!there(&world, WEB), "it was given once and must not come back");
    assert!(!world.everything().iter().any(|name| name.contains("/adopted/")), "{:?}", world.everything());
    std::mem::forget(world);
}

#[test]
fn an_owner_that_was_faster_than_the_end_of_the_entry_gets_no_second_dataset() {
    let (mut world, id) = ended();
    let hooked = test_hook::fail_at("adopt.adopted", 0);
    adopt_it(&world).unwrap_err();
    drop(hooked);
    owner_destroys(&mut world);
    settle(&world.store, &id, &Silent, &none()).unwrap();
    world.recovered("the owner was faster");
}

#[test]
fn a_dataset_whose_place_is_gone_as_well_is_not_given_back_for_ever() {
    let (mut world, _) = ended();
    let hooked = test_hook::fail_at("adopt.replace", 0);
    adopt_it(&world).unwrap_err();
    drop(hooked);
    // The administrator moved containerd's root elsewhere.
    world.fake.rename(&name("tank/snaps"), &name("tank/other"), Rename::default(), &none()).unwrap();
    let report = world.recover();
    assert!(report.failures.is_empty(), "{report:?}");
    world.fake.rename(&name("tank/other"), &name("tank/snaps"), Rename::default(), &none()).unwrap();
    world.baseline.remove(WEB);
    world.recovered("moved");
}

#[test]
fn a_swap_or_placement_that_was_left_open_is_finished_before_its_dataset_goes() {
    let (mut world, id) = ended();
    let swap = swap::Swap::out(&world.store, &world.journal, &name(WEB), &id, &none()).unwrap();
    // Resume could not swap back; now the container is deleted.
    drop(swap);
    assert!(matches!(adopt_it(&world).unwrap(), Adopted::Moved { .. }));
    owner_destroys(&mut world);
    world.recovered("swapped");
}

/// A container's dataset that is a clone of a deleted checkpoint's disk.
fn restored_and_deleted() -> (World, CheckpointId) {
    let (world, id) = ended();
    settle(&world.store, &id, &Silent, &none()).unwrap();
    let snapshot = format!("tank/cryopod/checkpoints/{id}/web-rootfs@cryopod-{id}").parse().unwrap();
    world.fake.destroy(&name(WEB), false, &none()).unwrap();
    let legacy = Properties::new().with("mountpoint", "legacy");
    world.fake.clone_snapshot(&snapshot, &name(WEB), &legacy, &none()).unwrap();
    let deleted = world.store.delete(&id, &none()).unwrap();
    assert_eq!(deleted, Deleted::Deferred { sharers: vec![WEB.into()] });
    (world, id)
}

#[test]
fn the_trash_goes_with_the_last_pod_that_shares_it() {
    let (mut world, _) = restored_and_deleted();
    assert!(
        matches!(adopt_it(&world).unwrap(), Adopted::Moved { checkpoints, .. } if checkpoints.is_empty())
    );
    tidy(&world.store, &none()).unwrap();
    let left: Vec<_> = world.everything().into_iter().filter(|name| name.contains("/trash/")).collect();
    assert!(left.is_empty(), "{left:?}");
    owner_destroys(&mut world);
    assert!(world.everything().is_subset(&world.baseline), "without any recovery");
    world.recovered("last sharer");
}

#[test]
fn a_pod_that_shares_with_a_living_checkpoint_is_left_to_its_owner() {
    let (mut world, id) = ended();
    settle(&world.store, &id, &Silent, &none()).unwrap();
    let snapshot = format!("tank/cryopod/checkpoints/{id}/web-rootfs@cryopod-{id}").parse().unwrap();
    world.fake.destroy(&name(WEB), false, &none()).unwrap();
    let legacy = Properties::new().with("mountpoint", "legacy");
    world.fake.clone_snapshot(&snapshot, &name(WEB), &legacy, &none()).unwrap();
    assert_eq!(adopt_it(&world).unwrap(), Adopted::Nothing);
    owner_destroys(&mut world);
    world.recovered("shared with the checkpoint");
}

/// A root that the store made, with a snapshot that only an unsettled checkpoint has.
fn own_root() -> (World, CheckpointId) {
    let (world, id) = ended();
    let own = name("tank/cryopod/containers/new");
    world.fake.rename(&name(WEB), &own, Rename::default(), &none()).unwrap();
    (world, id)
}

#[test]
fn forgetting_a_root_keeps_what_unsettled_checkpoints_have_on_it() {
    let (mut world, id) = own_root();
    let Adopted::Moved { checkpoints, .. } = forget(&world.store, "new", &none()).unwrap() else {
        panic!("the only copy is destroyed")
    };
    assert_eq!(checkpoints, std::slice::from_ref(&id));
    assert!(!there(&world, "tank/cryopod/containers/new"));
    assert_eq!(forget(&world.store, "new", &none()).unwrap(), Adopted::Nothing);
    assert_eq!(settle(&world.store, &id, &Silent, &none()).unwrap().disks, 2);
    world.baseline.remove(WEB);
    world.recovered("forgotten");
}

#[test]
fn every_step_and_call_of_forgetting_may_fail() {
    for lose in [false, true] {
        for nth in 0.. {
            let (mut world, id) = own_root();
            let before = world.fake.calls().len();
            let fault = if lose {
                Fault::LoseReply
            } else {
                Fault::Fail(Box::new(|op| ZfsError::NoSpace { op, quota: false }))
            };
            world.fake.inject(None, nth, fault);
            forget(&world.store, "new", &none()).ok();
            let calls = world.fake.calls();
            let Some(call) = calls.get(before + nth) else { break };
            if lose && call.starts_with("list") {
                continue;
            }
            forget(&world.store, "new", &none()).unwrap();
            settle(&world.store, &id, &Silent, &none()).unwrap_or_else(|error| panic!("{call}: {error}"));
            world.baseline.remove(WEB);
            world.recovered(call);
        }
    }
    let (mut world, _) = own_root();
    let hooked = test_hook::fail_at("forget.rename", 0);
    forget(&world.store, "new", &none()).unwrap_err();
    drop(hooked);
    forget(&world.store, "new", &none()).unwrap();
    world.baseline.remove(WEB);
    world.recovered("forget.rename");
}
