use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::*;
use crate::fault::{self, test_hook};
use crate::progress::Silent;
use crate::testing::{World, name, none};

fn prune(world: &World, id: &CheckpointId) -> Pruned {
    world.store.delete_unless_used(id, &none()).unwrap()
}

#[test]
fn what_became_needed_after_the_list_was_read_is_not_pruned() {
    for kind in [StoreKind::Zfs, StoreKind::Dir] {
        let world = World::new(kind);
        let id = world.capture();
        if kind == StoreKind::Zfs {
            assert_eq!(prune(&world, &id), Pruned::Kept(Reason::Settling));
            settle::settle(&world.store, &id, &Silent, &none()).unwrap();
            let snapshot = format!("tank/cryopod/checkpoints/{id}/web-rootfs@cryopod-{id}").parse().unwrap();
            let (zfs, clone) = (&world.zfs_store().zfs, name("tank/restored"));
            zfs.clone_snapshot(&snapshot, &clone, &Default::default(), &none()).unwrap();
            assert_eq!(prune(&world, &id), Pruned::Kept(Reason::InUse));
            zfs.destroy(&clone, false, &none()).unwrap();
        }
        world.store.set_held(&id, true, &none()).unwrap();
        assert_eq!(prune(&world, &id), Pruned::Kept(Reason::Held));
        world.store.set_held(&id, false, &none()).unwrap();
        let settling = world.store.locks().try_lock(&settle::lock_name(&id)).unwrap();
        assert_eq!(prune(&world, &id), Pruned::Kept(Reason::Settling));
        drop(settling);
        assert_eq!(world.store.list(&none()).unwrap().len(), 1);
        assert_eq!(prune(&world, &id), Pruned::Deleted(Deleted::Gone));
        world.recovered("pruned");
    }
}

#[test]
fn verify_asks_for_the_links_between_rounds_that_criu_follows() {
    let spoil: [fn(&std::path::Path); 3] = [
        |link| std::fs::remove_file(link).unwrap(),
        |link| {
            std::fs::remove_file(link).unwrap();
            std::os::unix::fs::symlink("../../side/1", link).unwrap();
        },
        |link| std::os::unix::fs::symlink("../dump", link.with_file_name("../1/parent")).unwrap(),
    ];
    for spoil in spoil {
        let world = World::new(StoreKind::Dir);
        let id = world.capture();
        world.store.verify(&id, &Silent, &none()).unwrap();
        let link = world.store.content(&id).round("web", "dump").join("parent");
        spoil(&link);
        let error = world.store.verify(&id, &Silent, &none()).unwrap_err();
        assert!(error.to_string().contains("/parent"), "{error}");
    }
}

#[test]
fn a_settled_disk_that_is_gone_from_the_store_is_damage_even_where_its_source_is_there() {
    let world = World::new(StoreKind::Zfs);
    let id = world.capture();
    world.store.verify(&id, &Silent, &none()).unwrap();
    world.zfs_store().set_settled(&id, &none()).unwrap();
    let error = world.store.verify(&id, &Silent, &none()).unwrap_err();
    assert!(matches!(error, StoreError::Damaged { damage: Damage::Snapshot { .. }, .. }), "{error}");
}

#[test]
fn a_person_who_holds_and_a_prune_wait_for_each_other() {
    let world = World::new(StoreKind::Dir);
    let id = world.capture();
    let deciding = world.store.locks().try_lock(&keep_lock(&id)).unwrap();
    thread::scope(|scope| {
        let pruning = scope.spawn(|| prune(&world, &id));
        thread::sleep(Duration::from_millis(50));
        assert!(!pruning.is_finished());
        let Store::Dir(store) = world.store.as_ref() else { panic!() };
        store.set_held(&id, true).unwrap();
        drop(deciding);
        assert_eq!(pruning.join().unwrap(), Pruned::Kept(Reason::Held));
    });
}

#[test]
fn a_deletion_that_ends_at_any_step_leaves_the_checkpoint_whole_or_gone() {
    let mut cases = 0;
    for (kind, settled) in [(StoreKind::Zfs, false), (StoreKind::Zfs, true), (StoreKind::Dir, true)] {
        for step in fault::STEPS.iter().copied().filter(|step| step.starts_with("delete.")) {
            for die in [false, true] {
                let context = format!("{kind:?}, settled {settled}, {step}, die {die}");
                let world = Arc::new(World::new(kind));
                let id = world.capture();
                if settled {
                    settle::settle(&world.store, &id, &Silent, &none()).unwrap();
                }
                if die {
                    let (died, met) = mpsc::channel();
                    let (store, theirs) = (Arc::clone(&world.store), id.clone());
                    thread::spawn(move || {
                        let _hooked = test_hook::die_at(step, died);
                        store.delete(&theirs, &none())
                    });
                    met.recv_timeout(Duration::from_secs(20))
                        .unwrap_or_else(|_| panic!("{context}: not met"));
                    world.process_died();
                } else {
                    let hooked = test_hook::fail_at(step, 0);
                    world.store.delete(&id, &none()).unwrap_err();
                    drop(hooked);
                }
                // It disappears by one step: the mark on ZFS, the move of a directory.
                let whole = match kind {
                    StoreKind::Zfs => step == "delete.mark",
                    StoreKind::Dir => step != "delete.destroy",
                };
                assert!(world.recover().failures.is_empty(), "{context}");
                assert_eq!(world.store.list(&none()).unwrap().len(), usize::from(whole), "{context}");
                // Restored, when it is whole; nothing of it, when it is gone.
                world.recovered(&context);
                if whole {
                    assert_eq!(world.store.delete(&id, &none()).unwrap(), Deleted::Gone, "{context}");
                    world.recovered(&context);
                }
                cases += 1;
                if die {
                    // The thread that stands for the dead process has it too.
                    std::mem::forget(world);
                }
            }
        }
    }
    assert_eq!(cases, 18);
}
