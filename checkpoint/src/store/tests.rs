use std::thread;
use std::time::Duration;

use super::*;
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
