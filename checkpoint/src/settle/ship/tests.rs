use cryopod_zfs::Zfs as _;

use super::super::{Adopted, settle};
use crate::fault::test_hook;
use crate::id::CheckpointId;
use crate::progress::Silent;
use crate::store::StoreKind;
use crate::testing::{World, cut, name, none};
use cryopod_zfs::{Name, Properties, SendRequest, SnapshotName};

const REST: &str = "send the rest of an interrupted stream";

fn image() -> SnapshotName {
    "tank/snaps/1@snapshot".parse().unwrap()
}

/// A checkpoint whose base has arrived, and the first disk half.
fn half_settled() -> (World, CheckpointId) {
    let world = World::new(StoreKind::Zfs);
    let id = world.capture();
    let hooked = test_hook::fail_at("settle.send", 0);
    settle(&world.store, &id, &Silent, &none()).unwrap_err();
    drop(hooked);
    let base = world.fake.snapshot(&image(), &none()).unwrap().unwrap().guid;
    let base = format!("tank/cryopod/bases/{base}@snapshot").parse().unwrap();
    let source = format!("tank/snaps/web@cryopod-{id}").parse().unwrap();
    let target = name(&format!("tank/cryopod/checkpoints/{id}/web-rootfs"));
    cut(&world, &SendRequest::incremental(&image(), &source), &target, Some(base));
    (world, id)
}

fn count(world: &World, call: &str) -> usize {
    world.fake.calls().iter().filter(|made| *made == call).count()
}

fn settled(world: &World, id: &CheckpointId) {
    assert_eq!(settle(&world.store, id, &Silent, &none()).unwrap().disks, 2);
}

#[test]
fn a_disk_that_had_half_arrived_is_gone_on_with() {
    let (world, id) = half_settled();
    settled(&world, &id);
    assert_eq!(count(&world, REST), 1, "{:?}", world.fake.calls());
    let whole = format!("send {}..cryopod-{id}", image());
    // Once by the test; and the other disk, which has the same subject.
    assert_eq!(count(&world, &whole), 2, "{:?}", world.fake.calls());
    world.recovered("resumed");
}

#[test]
fn a_base_that_had_half_arrived_is_gone_on_with() {
    let world = World::new(StoreKind::Zfs);
    let id = world.capture();
    let guid = world.fake.snapshot(&image(), &none()).unwrap().unwrap().guid;
    cut(&world, &SendRequest::full(&image()), &name(&format!("tank/cryopod/bases/{guid}")), None);
    settled(&world, &id);
    assert_eq!(count(&world, REST), 1, "{:?}", world.fake.calls());
    world.recovered("base resumed");
}

#[test]
fn what_had_arrived_is_of_use_also_when_the_source_was_adopted_meanwhile() {
    let (mut world, id) = half_settled();
    assert!(matches!(world.delete_container("web"), Adopted::Moved { .. }));
    settled(&world, &id);
    assert_eq!(count(&world, REST), 1, "{:?}", world.fake.calls());
    world.recovered("adopted and resumed");
}

#[test]
fn a_rest_whose_token_is_no_longer_valid_is_discarded_and_the_whole_is_sent() {
    let world = World::new(StoreKind::Zfs);
    let id = world.capture();
    let other: SnapshotName = "tank/snaps/web@other".parse().unwrap();
    world.fake.snapshot_set(std::slice::from_ref(&other), &Properties::new(), &none()).unwrap();
    let target = name(&format!("tank/cryopod/checkpoints/{id}/web-rootfs"));
    cut(&world, &SendRequest::full(&other), &target, None);
    world.fake.destroy_snapshots(&[other], false, &none()).unwrap();
    settled(&world, &id);
    world.recovered("token of something else");
}

#[test]
fn a_rest_that_is_not_resumable_is_discarded() {
    let (world, id) = half_settled();
    let target = name(&format!("tank/cryopod/checkpoints/{id}/web-rootfs"));
    world.fake.abort_receive(&target, &none()).unwrap();
    let legacy = Properties::new().with("mountpoint", "legacy");
    world.fake.create(&cryopod_zfs::CreateRequest::filesystem(&target, legacy), &none()).unwrap();
    settled(&world, &id);
    world.recovered("no token");
}

#[test]
fn a_pool_that_is_full_keeps_what_has_arrived() {
    let (world, id) = half_settled();
    let full =
        cryopod_zfs::fake::Fault::Fail(Box::new(|op| cryopod_zfs::Error::NoSpace { op, quota: false }));
    world.fake.inject(Some("receive"), 0, full);
    settle(&world.store, &id, &Silent, &none()).unwrap_err();
    settled(&world, &id);
    assert_eq!(count(&world, REST), 2, "{:?}", world.fake.calls());
    world.recovered("full");
}

#[test]
fn a_resumed_disk_is_marked_like_any_other() {
    let (world, id) = half_settled();
    settled(&world, &id);
    let target = name(&format!("tank/cryopod/checkpoints/{id}/web-rootfs"));
    let found = world.fake.dataset(&target, &none()).unwrap().unwrap();
    assert_eq!(found.properties.own("cryopod:kind"), Some("disk"), "{}", Name::from(&target));
    assert_eq!(found.properties.own("canmount"), Some("noauto"));
}
