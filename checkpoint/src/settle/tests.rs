use std::collections::BTreeSet;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use cryopod_zfs::fake::Fault;
use cryopod_zfs::{Entry, Filter, Kinds, Zfs as _};

use super::*;
use crate::fault::test_hook;
use crate::progress::Silent;
use crate::store::{self, SNAPSHOT_PREFIX, StoreChoice, StoreConfig, StoreKind};
use crate::testing::{World, container, name, none};

fn world() -> (World, CheckpointId) {
    let world = World::new(StoreKind::Zfs);
    let id = world.capture();
    (world, id)
}

fn settle_it(world: &World, id: &CheckpointId) -> Result<Settled, SettleError> {
    settle(&world.store, id, &Silent, &none())
}

#[test]
fn a_settled_checkpoint_is_independent_of_its_source() {
    let (mut world, id) = world();
    assert!(!world.store.info(&id, &none()).unwrap().settled);
    assert_eq!(settle_it(&world, &id).unwrap().disks, 2);
    assert_eq!(settle_it(&world, &id).unwrap().disks, 0, "settling is idempotent");
    assert!(world.store.info(&id, &none()).unwrap().settled);
    for member in ["web", "side"] {
        assert_eq!(world.delete_container(member), Adopted::Nothing);
    }
    world.recovered("sources gone");
}

#[test]
fn an_image_is_received_once_for_all_its_containers() {
    let (world, id) = world();
    settle_it(&world, &id).unwrap();
    let second = world.capture();
    settle_it(&world, &second).unwrap();
    let bases = world.zfs_store().children(&name("tank/cryopod/bases"), Default::default(), &none()).unwrap();
    assert_eq!(bases.len(), 1);
    let sends = world.fake.calls().iter().filter(|call| *call == "send tank/snaps/1@snapshot").count();
    assert_eq!(sends, 1, "{:?}", world.fake.calls());
    world.recovered("two checkpoints");
}

#[test]
fn a_source_deleted_before_settling_is_kept_and_its_owner_destroys_an_empty_one() {
    let (mut world, id) = world();
    for member in ["web", "side"] {
        let Adopted::Moved { to, checkpoints } = world.delete_container(member) else { panic!("lost") };
        assert!(to.as_str().starts_with("tank/cryopod/adopted/"), "{to}");
        assert_eq!(checkpoints, std::slice::from_ref(&id));
    }
    world.store.verify(&id, &Silent, &none()).unwrap();
    assert_eq!(settle_it(&world, &id).unwrap().disks, 2);
    world.recovered("adopted and settled");
}

#[test]
fn a_running_send_gives_way_to_the_owner_and_goes_on_from_where_the_disk_is_then() {
    let (mut world, id) = world();
    world.fake.inject(Some("send"), 0, Fault::Hang);
    let (store, theirs) = (Arc::clone(&world.store), id.clone());
    let settling = thread::spawn(move || settle(&store, &theirs, &Silent, &none()));
    // The base or the disk of `web` is being sent.
    while !world.fake.calls().iter().any(|call| call.starts_with("send ")) {
        thread::sleep(Duration::from_millis(5));
    }
    thread::sleep(Duration::from_millis(30));
    assert!(matches!(world.delete_container("web"), Adopted::Moved { .. }));
    assert_eq!(settling.join().unwrap().unwrap().disks, 2);
    world.recovered("gave way");
}

#[test]
fn a_checkpoint_can_be_deleted_while_it_is_settled() {
    let (world, id) = world();
    world.fake.inject(Some("send"), 0, Fault::Hang);
    let (store, theirs) = (Arc::clone(&world.store), id.clone());
    let settling = thread::spawn(move || settle(&store, &theirs, &Silent, &none()));
    while !world.fake.calls().iter().any(|call| call.starts_with("send ")) {
        thread::sleep(Duration::from_millis(5));
    }
    world.store.delete(&id, &none()).unwrap();
    settling.join().unwrap().unwrap_err();
    assert!(world.store.list(&none()).unwrap().is_empty());
    world.recovered("deleted while settling");
}

#[test]
fn deleting_an_unsettled_checkpoint_frees_its_source() {
    let (mut world, id) = world();
    assert!(matches!(world.delete_container("web"), Adopted::Moved { .. }));
    world.store.delete(&id, &none()).unwrap();
    world.recovered("deleted unsettled");
    assert_eq!(world.delete_container("side"), Adopted::Nothing);
}

#[test]
fn a_deleted_checkpoint_disappears_at_once_and_its_space_goes_with_the_last_that_shares_it() {
    let (world, id) = world();
    settle_it(&world, &id).unwrap();
    let snapshot = format!("tank/cryopod/checkpoints/{id}/web-rootfs@cryopod-{id}").parse().unwrap();
    let clone = name("tank/snaps/restored");
    let legacy = cryopod_zfs::Properties::new().with("mountpoint", "legacy");
    world.fake.clone_snapshot(&snapshot, &clone, &legacy, &none()).unwrap();
    assert_eq!(world.store.info(&id, &none()).unwrap().sharers, ["tank/snaps/restored"]);
    let deleted = world.store.delete(&id, &none()).unwrap();
    assert_eq!(deleted, Deleted::Deferred { sharers: vec!["tank/snaps/restored".into()] });
    assert!(world.store.list(&none()).unwrap().is_empty());
    assert_eq!(world.store.delete(&id, &none()).unwrap_err().kind(), Kind::NotFound);
    let left = world.everything().iter().filter(|name| name.contains("/trash/")).count();
    assert_eq!(left, 3, "memory and the other disk are free: {:?}", world.everything());
    world.store.reap(&none()).unwrap();
    world.fake.destroy(&clone, false, &none()).unwrap();
    world.recovered("shared");
}

#[test]
fn a_restored_pod_captured_again_needs_no_copy_of_its_base_and_outlives_the_first_checkpoint() {
    let (world, first) = world();
    settle_it(&world, &first).unwrap();
    world.same_instant(&first, "first");
    // The dataset of `web` becomes a clone of the first checkpoint, as after a restore.
    let dataset = name("tank/snaps/web");
    let rootfs = world.dir.path().join("run/web");
    world.fake.unmount_at(&rootfs, false, &none()).unwrap();
    world.fake.destroy(&dataset, false, &none()).unwrap();
    let snapshot = format!("tank/cryopod/checkpoints/{first}/web-rootfs@cryopod-{first}").parse().unwrap();
    let legacy = cryopod_zfs::Properties::new().with("mountpoint", "legacy");
    world.fake.clone_snapshot(&snapshot, &dataset, &legacy, &none()).unwrap();
    world.fake.mount_at(&dataset, &rootfs, Default::default(), &none()).unwrap();
    world.pod.tick();
    let second = world.capture();
    settle_it(&world, &second).unwrap();
    let Deleted::Deferred { sharers } = world.store.delete(&first, &none()).unwrap() else { panic!("gone") };
    assert_eq!(sharers.len(), 2, "the pod and the second checkpoint: {sharers:?}");
    world.store.verify(&second, &Silent, &none()).unwrap();
    world.same_instant(&second, "second");
    world.store.delete(&second, &none()).unwrap();
    world.fake.unmount_at(&rootfs, false, &none()).unwrap();
    world.fake.destroy(&dataset, false, &none()).unwrap();
    container(&(Arc::new(world.fake.clone()) as Arc<dyn cryopod_zfs::Zfs>), &dataset);
    world.recovered("both deleted");
}

#[test]
fn a_hold_left_by_a_killed_settling_is_in_nobodys_way() {
    let (mut world, id) = world();
    let snapshot: SnapshotName = format!("tank/snaps/web@cryopod-{id}").parse().unwrap();
    let tag = format!("cryopod-settle-{id}").parse().unwrap();
    world.fake.hold(std::slice::from_ref(&snapshot), &tag, &none()).unwrap();
    settle_it(&world, &id).unwrap();
    world.recovered("stale hold");
    assert_eq!(world.delete_container("web"), Adopted::Nothing);
}

#[test]
fn a_lost_source_is_said_and_the_checkpoint_can_still_be_deleted() {
    let (world, id) = world();
    let snapshot: SnapshotName = format!("tank/snaps/web@cryopod-{id}").parse().unwrap();
    world.fake.destroy_snapshots(&[snapshot], false, &none()).unwrap();
    let error = settle_it(&world, &id).unwrap_err();
    assert!(matches!(&error, SettleError::Lost { disk, .. } if disk == "web-rootfs"), "{error}");
    assert_eq!(world.store.verify(&id, &Silent, &none()).unwrap_err().kind(), Kind::DataLoss);
    world.store.delete(&id, &none()).unwrap();
    world.recovered("lost");
}

#[test]
fn a_checkpoint_whose_settling_was_killed_stays_listed_and_the_next_settling_of_any_takes_it_along() {
    let world = Arc::new(World::new(StoreKind::Zfs));
    let id = world.capture();
    let (died, met) = mpsc::channel();
    let (theirs, theirs_id) = (Arc::clone(&world), id.clone());
    thread::spawn(move || {
        let _hooked = test_hook::die_at("settle.send", died);
        settle_it(&theirs, &theirs_id)
    });
    met.recv_timeout(Duration::from_secs(20)).unwrap();
    // While it lives it is left alone; with it dead every recovery lists it, until somebody has settled it.
    rest(&world.store, &Silent, &none()).unwrap();
    assert!(!world.store.info(&id, &none()).unwrap().settled);
    world.process_died();
    for _ in 0..2 {
        assert_eq!(world.recover().unsettled, std::slice::from_ref(&id));
    }
    let second = world.capture();
    settle_it(&world, &second).unwrap();
    rest(&world.store, &Silent, &none()).unwrap();
    assert!(world.store.info(&id, &none()).unwrap().settled);
    assert!(world.recover().unsettled.is_empty());
    world.recovered("taken along");
    std::mem::forget(world);
}

#[test]
fn one_checkpoint_that_cannot_settle_does_not_keep_the_others_from_it() {
    let (world, id) = world();
    let snapshot: SnapshotName = format!("tank/snaps/web@cryopod-{id}").parse().unwrap();
    world.fake.destroy_snapshots(&[snapshot], false, &none()).unwrap();
    let second = world.capture();
    rest(&world.store, &Silent, &none()).unwrap();
    assert!(world.store.info(&second, &none()).unwrap().settled);
    world.store.delete(&id, &none()).unwrap();
    world.recovered("one lost");
}

#[test]
fn every_step_of_settling_may_fail_or_be_its_last() {
    let steps = fault::STEPS.iter().copied().filter(|step| step.starts_with("settle."));
    for step in steps {
        let (world, id) = world();
        let hooked = test_hook::fail_at(step, 0);
        settle_it(&world, &id).unwrap_err();
        drop(hooked);
        world.recovered(step);

        let world = Arc::new(World::new(StoreKind::Zfs));
        let id = world.capture();
        let (died, met) = mpsc::channel();
        let (theirs, theirs_id) = (Arc::clone(&world), id.clone());
        thread::spawn(move || {
            let _hooked = test_hook::die_at(step, died);
            settle_it(&theirs, &theirs_id)
        });
        met.recv_timeout(Duration::from_secs(20)).unwrap_or_else(|_| panic!("{step} was not met"));
        world.process_died();
        world.recovered(&format!("killed at {step}"));
        std::mem::forget(world);
    }
}

#[test]
fn every_step_of_adopting_may_fail_or_be_its_last() {
    let steps = fault::STEPS.iter().copied().filter(|step| step.starts_with("adopt."));
    for step in steps {
        for die in [false, true] {
            let mut world = World::new(StoreKind::Zfs);
            world.capture();
            let dataset = name("tank/snaps/web");
            world.fake.unmount_at(&world.dir.path().join("run/web"), false, &none()).unwrap();
            if die {
                let (died, met) = mpsc::channel();
                let (store, journal) = (Arc::clone(&world.store), world.journal.clone());
                let theirs = dataset.clone();
                thread::spawn(move || {
                    let _hooked = test_hook::die_at(step, died);
                    adopt(&store, &theirs, &journal, &none())
                });
                met.recv_timeout(Duration::from_secs(20)).unwrap_or_else(|_| panic!("{step} was not met"));
                world.process_died();
            } else {
                let hooked = test_hook::fail_at(step, 0);
                adopt(&world.store, &dataset, &world.journal, &none()).unwrap_err();
                drop(hooked);
            }
            // Whoever deletes a container comes again: after recovery it adopts and destroys as if nothing had been.
            let report = world.recover();
            assert!(report.failures.is_empty(), "{step}: {report:?}");
            adopt(&world.store, &dataset, &world.journal, &none()).unwrap();
            world.fake.destroy(&dataset, false, &none()).unwrap();
            world.baseline.remove(dataset.as_str());
            world.recovered(&format!("{step} die {die}"));
        }
    }
}

#[test]
fn every_call_to_zfs_may_fail_while_settling_adopting_and_deleting() {
    type Work = fn(&World, &CheckpointId) -> bool;
    let works: [(&str, Work); 3] = [
        ("settle", |world, id| settle_it(world, id).is_ok()),
        ("adopt", |world, _| {
            world.fake.unmount_at(&world.dir.path().join("run/web"), false, &none()).ok();
            adopt(&world.store, &name("tank/snaps/web"), &world.journal, &none()).is_ok()
        }),
        ("delete", |world, id| world.store.delete(id, &none()).is_ok()),
    ];
    for (what, work) in works {
        for lose in [false, true] {
            for nth in 0.. {
                let (mut world, id) = world();
                let before = world.fake.calls().len();
                let fault = if lose {
                    Fault::LoseReply
                } else {
                    Fault::Fail(Box::new(|op| cryopod_zfs::Error::NoSpace { op, quota: false }))
                };
                world.fake.inject(None, nth, fault);
                work(&world, &id);
                let calls = world.fake.calls();
                let Some(call) = calls.get(before + nth) else { break };
                // An answer that is lost is the same as one that never came.
                if lose && ["get", "list", "estimate"].iter().any(|verb| call.starts_with(verb)) {
                    continue;
                }
                let context = format!("{what}, call {nth} ({call}), lose {lose}");
                if what == "adopt" {
                    let report = world.recover();
                    assert!(report.failures.is_empty(), "{context}: {report:?}");
                    work(&world, &id);
                    world
                        .fake
                        .destroy(&name("tank/snaps/web"), false, &none())
                        .unwrap_or_else(|e| panic!("{context}: {e}"));
                    world.baseline.remove("tank/snaps/web");
                }
                world.recovered(&context);
                if what != "delete" {
                    assert_eq!(
                        world.store.list(&none()).unwrap().len(),
                        1,
                        "{context}: the checkpoint is lost"
                    );
                }
            }
        }
    }
}

/// The store is on one pool, the containers on another that is gone before their checkpoint is settled.
#[test]
fn a_checkpoint_whose_sources_are_on_a_pool_that_is_gone_cannot_be_settled_but_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::new(StoreKind::Zfs);
    let config = StoreConfig {
        choice: StoreChoice::Zfs,
        root: Some(name("other/cryopod")),
        dir: dir.path().join("store"),
        locks: dir.path().join("locks"),
        snapshotter: None,
    };
    let (store, _) = store::open(&config, Some(Arc::new(world.fake.clone())), &none()).unwrap();
    let target: Arc<dyn crate::target::Target> = world.pod.clone();
    let id = crate::capture::capture(target, &store, &world.journal, world.options(), &none()).unwrap().id;
    world.fake.set_imported(&"tank".parse().unwrap(), false);
    let error = settle(&store, &id, &Silent, &none()).unwrap_err();
    assert!(error.to_string().contains("pool tank is not imported"), "{error}");
    assert_eq!(error.kind(), Kind::Unavailable);
    let error = store.verify(&id, &Silent, &none()).unwrap_err();
    assert!(error.to_string().contains("pool tank is not imported"), "{error}");
    let Deleted::GivenUp { snapshots, sharers } = store.delete(&id, &none()).unwrap() else {
        panic!("it does not say what stays")
    };
    assert!(store.list(&none()).unwrap().is_empty() && sharers.is_empty());
    // With the pool back, what it named is all that is left of the checkpoint there.
    world.fake.set_imported(&"tank".parse().unwrap(), true);
    let ours = || {
        let filter = Filter::below(&name("tank"), Kinds::SNAPSHOTS);
        let found = world.fake.list(&filter, &none()).unwrap();
        let found = found.into_iter().filter_map(Entry::into_snapshot).map(|found| found.name);
        found.filter(|name| name.leaf().starts_with(SNAPSHOT_PREFIX)).collect::<BTreeSet<_>>()
    };
    assert!(!snapshots.is_empty());
    assert_eq!(ours(), snapshots.iter().cloned().collect());
    world.fake.destroy_snapshots(&snapshots, false, &none()).unwrap();
}
