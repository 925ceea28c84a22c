//! Whatever fails or is killed while a checkpoint is placed: the name has its dataset, and nothing is left.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use cryopod_zfs::fake::Fault;

use super::*;
use crate::fault::test_hook;

fn fresh_or_clone(world: &World, fresh: &DatasetName, context: &str) {
    assert!(world.fake.dataset(fresh, &none()).unwrap().is_some(), "{context}: the name is gone");
    world.recovered(context);
    world.fake.destroy(fresh, false, &none()).unwrap_or_else(|error| panic!("{context}: {error}"));
}

#[test]
fn every_step_of_placing_may_fail_or_be_its_last() {
    for step in fault::STEPS.iter().copied().filter(|step| step.starts_with("place.")) {
        // What was there before the restore, in a volume of the new pod.
        let volume = || {
            let volume = tempfile::tempdir().unwrap();
            fs::write(volume.path().join("stale"), "").unwrap();
            let live =
                LiveVolume { destination: "/data".into(), source: volume.path().to_owned(), replace: true };
            (volume, [live])
        };
        // Volumes come first, and are empty again when the root fails.
        let untouched = |volume: &tempfile::TempDir, context: &str| {
            let expected = step == "place.volumes";
            assert_eq!(volume.path().join("stale").exists(), expected, "{context}: the volume");
        };

        let (world, id, fresh) = with_fresh();
        let original = world.fake.dataset(&fresh, &none()).unwrap().unwrap().guid;
        let (dir, volumes) = volume();
        let request_ =
            PlaceRequest { volumes: &volumes, ..request(&id, LiveRootfs::Zfs { dataset: fresh.clone() }) };
        let hooked = test_hook::fail_at(step, 0);
        place(&world.store, &world.journal, &request_, &none()).unwrap_err();
        drop(hooked);
        untouched(&dir, step);
        if step != "place.clean" {
            let now = world.fake.dataset(&fresh, &none()).unwrap().unwrap().guid;
            assert_eq!(now, original, "{step}: the fresh dataset has its name back at once");
        }
        fresh_or_clone(&world, &fresh, step);

        let (world, id, fresh) = with_fresh();
        let world = Arc::new(world);
        let (dir, volumes) = volume();
        let (died, met) = mpsc::channel();
        let (theirs, dataset) = (Arc::clone(&world), fresh.clone());
        thread::spawn(move || {
            let _hooked = test_hook::die_at(step, died);
            let request = PlaceRequest { volumes: &volumes, ..request(&id, LiveRootfs::Zfs { dataset }) };
            place(&theirs.store, &theirs.journal, &request, &none()).map(drop)
        });
        met.recv_timeout(Duration::from_secs(20)).unwrap_or_else(|_| panic!("{step} was not met"));
        world.process_died();
        let context = format!("killed at {step}");
        untouched(&dir, &context);
        fresh_or_clone_after_recovery(&world, &fresh, &context);
        std::mem::forget(world);
    }
}

fn fresh_or_clone_after_recovery(world: &World, fresh: &DatasetName, context: &str) {
    let report = world.recover();
    assert!(report.failures.is_empty(), "{context}: {report:?}");
    fresh_or_clone(world, fresh, context);
}

#[test]
fn every_call_to_zfs_may_fail_while_placing() {
    for lose in [false, true] {
        for nth in 0.. {
            let (world, id, fresh) = with_fresh();
            let before = world.fake.calls().len();
            let fault = if lose {
                Fault::LoseReply
            } else {
                Fault::Fail(Box::new(|op| cryopod_zfs::Error::NoSpace { op, quota: false }))
            };
            world.fake.inject(None, nth, fault);
            place(
                &world.store,
                &world.journal,
                &request(&id, LiveRootfs::Zfs { dataset: fresh.clone() }),
                &none(),
            )
            .ok();
            let calls = world.fake.calls();
            let Some(call) = calls.get(before + nth) else { break };
            if lose && ["get", "list"].iter().any(|verb| call.starts_with(verb)) {
                continue;
            }
            fresh_or_clone_after_recovery(&world, &fresh, &format!("call {nth} ({call}), lose {lose}"));
        }
    }
}

#[test]
fn a_swap_that_a_crash_interrupts_is_undone() {
    for nth in 0.. {
        let world = World::new(StoreKind::Zfs);
        let id = world.capture();
        let dataset = name("tank/snaps/web");
        let before = world.fake.calls().len();
        world.fake.inject(None, nth, Fault::LoseReply);
        // Dropped without being swapped back, as by a crash.
        drop(crate::swap::Swap::out(&world.store, &world.journal, &dataset, &id, &none()));
        if world.fake.calls().len() - before <= nth {
            break;
        }
        let report = world.recover();
        assert!(report.failures.is_empty(), "{nth}: {report:?}");
        let found = world.fake.dataset(&dataset, &none()).unwrap().unwrap();
        assert_eq!(found.properties.own("cryopod:kind"), None, "{nth}");
        world.recovered(&format!("swap interrupted at call {nth}"));
    }
}

/// Between moving a dataset aside and making the clone the power fails, and its owner makes a new one under the name.
#[test]
fn a_dataset_that_was_made_anew_under_the_name_is_not_destroyed_for_a_clone() {
    let aside_to_recovery = |world: &World, dataset: &DatasetName, journalled: &dyn Fn()| {
        journalled();
        world.process_died();
        if zfs(world).dataset(dataset, &none()).unwrap().is_some() {
            world.fake.destroy(dataset, true, &none()).unwrap();
        }
        container(&zfs(world), dataset);
        fs::write(world.fake.content_dir(dataset).unwrap().join("new"), "data").unwrap();
        let report = world.recover();
        let [failure] = &report.failures[..] else { panic!("{report:?}") };
        let text = failure.to_string();
        assert!(text.contains(dataset.as_str()) && text.contains("not destroyed"), "{text}");
        assert!(world.fake.content_dir(dataset).unwrap().join("new").exists());
        // As the message says.
        world.fake.destroy(dataset, true, &none()).unwrap();
        world.recovered("the name is given back");
        assert!(zfs(world).dataset(dataset, &none()).unwrap().is_some());
    };

    let (world, id, fresh) = with_fresh();
    aside_to_recovery(&world, &fresh, &|| {
        let (died, met) = mpsc::channel();
        let (store, journal) = (Arc::clone(&world.store), world.journal.clone());
        let (id, dataset) = (id.clone(), fresh.clone());
        thread::spawn(move || {
            let _hooked = test_hook::die_at("place.cloned", died);
            place(&store, &journal, &request(&id, LiveRootfs::Zfs { dataset }), &none()).map(drop)
        });
        met.recv_timeout(Duration::from_secs(20)).unwrap();
    });

    let world = World::new(StoreKind::Zfs);
    let id = world.capture();
    let dataset = name("tank/snaps/web");
    aside_to_recovery(&world, &dataset, &|| {
        drop(crate::swap::Swap::out(&world.store, &world.journal, &dataset, &id, &none()).unwrap());
    });
}

/// With the journal gone, nothing else says whose the datasets are that wait in the store.
#[test]
fn a_dataset_that_waits_for_its_name_and_is_in_no_journal_is_named_and_stays() {
    let lose_journal = |world: &World| {
        world.process_died();
        for item in fs::read_dir(world.dir.path().join("journal")).unwrap() {
            let path = item.unwrap().path();
            if path.extension().is_some_and(|ending| ending == "json") {
                fs::remove_file(path).unwrap();
            }
        }
    };
    let named = |world: &World, aside: &DatasetName, what: &str| {
        for _ in 0..2 {
            let report = world.recover();
            let [stranger] = &report.strangers[..] else { panic!("{report:?}") };
            assert!(stranger.starts_with(&format!("{aside} (")), "{stranger}");
            assert!(stranger.contains("a clone of tank/snaps/1@snapshot"), "{stranger}");
            assert!(stranger.contains(what) && report.failures.is_empty(), "{report:?}");
            assert!(world.fake.dataset(aside, &none()).unwrap().is_some());
        }
    };

    let (world, id, fresh) = with_fresh();
    let guid = world.fake.dataset(&fresh, &none()).unwrap().unwrap().guid;
    let (died, met) = mpsc::channel();
    let (store, journal, dataset) = (Arc::clone(&world.store), world.journal.clone(), fresh.clone());
    thread::spawn(move || {
        let _hooked = test_hook::die_at("place.clone", died);
        place(&store, &journal, &request(&id, LiveRootfs::Zfs { dataset }), &none()).map(drop)
    });
    met.recv_timeout(Duration::from_secs(20)).unwrap();
    assert!(world.recover().strangers.is_empty(), "its restore goes on");
    lose_journal(&world);
    let aside = world.zfs_store().aside(&fresh, guid).unwrap();
    named(&world, &aside, "for a restore");
    // A person gives it back.
    world.fake.rename(&aside, &fresh, Default::default(), &none()).unwrap();
    world.recovered("given back");

    let world = World::new(StoreKind::Zfs);
    let (id, dataset) = (world.capture(), name("tank/snaps/web"));
    let guid = world.fake.dataset(&dataset, &none()).unwrap().unwrap().guid;
    let swap = crate::swap::Swap::out(&world.store, &world.journal, &dataset, &id, &none()).unwrap();
    assert!(world.recover().strangers.is_empty(), "its checkpoint goes on");
    drop(swap);
    lose_journal(&world);
    named(&world, &world.zfs_store().aside(&dataset, guid).unwrap(), "by containerd");
}
