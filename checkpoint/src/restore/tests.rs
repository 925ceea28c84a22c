mod faults;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use cryopod_zfs::{DatasetName, Properties, Zfs};

use super::*;
use crate::capture::{CaptureOptions, Mode};
use crate::facts::NodeFacts;
use crate::fault::test_hook;
use crate::id::CheckpointId;
use crate::kind::Kind;
use crate::retention::Reason;
use crate::store::{Deleted, Pruned, StoreKind};
use crate::testing::{World, container, create, name, none, replacement_path};

fn request<'a>(id: &'a CheckpointId, rootfs: LiveRootfs) -> PlaceRequest<'a> {
    PlaceRequest {
        checkpoint: id,
        member: "web",
        container: "new",
        rootfs,
        volumes: &[],
        filled: &[],
        on_filled: &|_| (),
        facts: None,
        backend: None,
        requested_by: None,
    }
}

/// A world with a settled checkpoint and a fresh dataset `tank/snaps/new`.
fn with_fresh() -> (World, CheckpointId, DatasetName) {
    let mut world = World::new(StoreKind::Zfs);
    let id = world.capture();
    settle::settle(&world.store, &id, &Silent, &none()).unwrap();
    let fresh = name("tank/snaps/new");
    container(&zfs(&world), &fresh);
    world.baseline.insert(fresh.to_string());
    (world, id, fresh)
}

fn zfs(world: &World) -> Arc<dyn Zfs> {
    Arc::new(world.fake.clone())
}

fn count(world: &World, dataset: &DatasetName) -> Option<String> {
    fs::read_to_string(world.fake.content_dir(dataset).unwrap().join("count")).ok()
}

#[test]
fn a_clone_takes_the_name_of_the_fresh_dataset_and_its_settings() {
    let (world, id, fresh) = with_fresh();
    world.fake.set(&(&fresh).into(), &Properties::new().with("quota", "1G"), &none()).unwrap();
    let before = world.fake.dataset(&fresh, &none()).unwrap().unwrap();
    let placed = place(
        &world.store,
        &world.journal,
        &request(&id, LiveRootfs::Zfs { dataset: fresh.clone() }),
        &none(),
    )
    .unwrap();
    assert_eq!(placed.rootfs, RootfsPlacement::InPlace);
    assert!(placed.images.unwrap().join("parent/parent/pages-1.img").exists(), "the rounds are linked");
    let after = world.fake.dataset(&fresh, &none()).unwrap().unwrap();
    assert_ne!(before.guid, after.guid);
    assert_eq!(after.properties.own("quota"), Some("1G"));
    assert_eq!(after.mountpoint, Some(cryopod_zfs::Mountpoint::Legacy));
    assert_eq!(count(&world, &fresh).as_deref(), Some("1"));
    drop(placed.reading);
    world.recovered("placed");
    // Plainly, as containerd does.
    world.fake.destroy(&fresh, false, &none()).unwrap();
}

#[test]
fn a_checkpoint_is_settled_before_it_is_placed() {
    let world = World::new(StoreKind::Zfs);
    let id = world.capture();
    world.same_instant(&id, "unsettled");
    assert!(world.store.info(&id, &none()).unwrap().settled);
}

#[test]
fn another_pool_gets_what_changed_or_everything() {
    for with_image in [true, false] {
        let (mut world, id, _) = with_fresh();
        let zfs = zfs(&world);
        create(&zfs, "other/snaps", &[]);
        let fresh = name("other/snaps/new");
        if with_image {
            let send = cryopod_zfs::SendRequest::full(&"tank/snaps/1@snapshot".parse().unwrap());
            let mut receive = cryopod_zfs::ReceiveRequest::new(&name("other/snaps/1"));
            receive.resumable = false;
            zfs.copy(&send, &receive, &none()).unwrap();
            let image = "other/snaps/1@snapshot".parse().unwrap();
            let legacy = Properties::new().with("mountpoint", "legacy");
            zfs.clone_snapshot(&image, &fresh, &legacy, &none()).unwrap();
        } else {
            create(&zfs, fresh.as_str(), &[("mountpoint", "legacy")]);
        }
        world.baseline = world.everything();
        world
            .baseline
            .retain(|name| !name.starts_with("tank/cryopod/checkpoints/") && !name.contains("/bases/"));
        let request = request(&id, LiveRootfs::Zfs { dataset: fresh.clone() });
        place(&world.store, &world.journal, &request, &none()).unwrap();
        assert_eq!(count(&world, &fresh).as_deref(), Some("1"));
        let found = zfs.dataset(&fresh, &none()).unwrap().unwrap();
        assert_eq!(found.origin.is_some(), with_image);
        world.recovered("another pool");
        zfs.destroy(&fresh, false, &none()).unwrap();
    }
}

#[test]
fn a_root_that_is_not_zfs_is_replaced_by_a_clone_until_it_is_forgotten() {
    let (mut world, id, fresh) = with_fresh();
    world.fake.destroy(&fresh, false, &none()).unwrap();
    world.baseline.remove(fresh.as_str());
    let upper = tempfile::tempdir().unwrap();
    for rootfs in [
        LiveRootfs::Overlay { upper: upper.path().to_owned() },
        LiveRootfs::Tree { path: upper.path().to_owned() },
    ] {
        let placed = place(&world.store, &world.journal, &request(&id, rootfs), &none()).unwrap();
        let RootfsPlacement::MountInstead(replacement) = placed.rootfs else { panic!("in place") };
        let path = replacement_path(&world, &replacement);
        assert_eq!(fs::read_to_string(path.join("count")).unwrap(), "1");
        assert!(
            world
                .store
                .info(&id, &none())
                .unwrap()
                .sharers
                .contains(&"tank/cryopod/containers/new".to_owned())
        );
        forget(&world.store, "new", &none()).unwrap();
        forget(&world.store, "new", &none()).unwrap();
        drop(placed.reading);
        world.recovered("forgotten");
    }
}

#[test]
fn a_root_that_a_power_cut_left_goes_with_the_next_recovery_and_what_a_checkpoint_needs_of_it_stays() {
    let (mut world, id, _) = with_fresh();
    let upper = tempfile::tempdir().unwrap();
    let rootfs = LiveRootfs::Overlay { upper: upper.path().to_owned() };
    place(&world.store, &world.journal, &request(&id, rootfs), &none()).unwrap();
    let root = name("tank/cryopod/containers/new");
    let there = |world: &World| world.fake.dataset(&root, &none()).unwrap().is_some();
    assert_eq!(world.recover().reaped, 0);
    assert!(there(&world), "its container runs");
    let set = |boot: &str| {
        let earlier = Properties::new().with("cryopod:boot", boot);
        world.fake.set(&cryopod_zfs::Name::from(&root), &earlier, &none()).unwrap();
    };
    set("an earlier boot");
    assert_eq!(world.recover().reaped, 1);
    assert!(!there(&world));
    world.baseline.remove("tank/snaps/new");
    world.fake.destroy(&name("tank/snaps/new"), false, &none()).unwrap();
    world.recovered("power cut");

    // The only copy of an unsettled checkpoint's disk is on such a root.
    let second = world.capture();
    world.fake.unmount_at(&world.dir.path().join("run/web"), false, &none()).unwrap();
    world.fake.rename(&name("tank/snaps/web"), &root, Default::default(), &none()).unwrap();
    let earlier = Properties::new().with("cryopod:boot", "an earlier boot");
    world.fake.set(&cryopod_zfs::Name::from(&root), &earlier, &none()).unwrap();
    assert_eq!(world.recover().unsettled, [second]);
    assert!(!there(&world));
    world.baseline.remove("tank/snaps/web");
    world.recovered("unsettled on a left root");
}

#[test]
fn an_overlay_layer_is_restored_into_every_kind_of_root() {
    // Into an overlay mount: see `same_instant`. Here into a directory, and by the ZFS store into a dataset.
    let world = World::new(StoreKind::Dir);
    let id = world.capture();
    let live = tempfile::tempdir().unwrap();
    fs::write(live.path().join("image"), "image").unwrap();
    fs::write(live.path().join("count"), "old").unwrap();
    let rootfs = LiveRootfs::Tree { path: live.path().to_owned() };
    let placed = place(&world.store, &world.journal, &request(&id, rootfs), &none()).unwrap();
    let RootfsPlacement::MountInstead(Replacement::Bind { path }) = placed.rootfs else { panic!("in place") };
    assert_eq!(fs::read_to_string(path.join("count")).unwrap(), "1");
    assert_eq!(fs::read_to_string(path.join("image")).unwrap(), "image");
    assert_eq!(fs::read_to_string(live.path().join("count")).unwrap(), "old", "the bundle is not ours");
    forget(&world.store, "new", &none()).unwrap();
    assert!(!path.exists());

    let world = World::new(StoreKind::Zfs);
    let layer = world.dir.path().join("volume");
    let fresh = name("tank/snaps/new");
    container(&zfs(&world), &fresh);
    let id: CheckpointId = "none".parse().unwrap();
    let request = request(&id, LiveRootfs::Zfs { dataset: fresh.clone() });
    files::rootfs(&world.store, &request, &layer, true, &none()).unwrap();
    assert_eq!(count(&world, &fresh).as_deref(), Some("1"));
    world.fake.destroy(&fresh, false, &none()).unwrap();
    world.recovered("layer");
}

#[test]
fn volumes_are_filled_once_for_all_containers_of_the_pod() {
    let (world, id, fresh) = with_fresh();
    let volume = tempfile::tempdir().unwrap();
    fs::write(volume.path().join("stale"), "").unwrap();
    let volumes =
        [LiveVolume { destination: "/data".into(), source: volume.path().to_owned(), replace: true }];
    let mut first = request(&id, LiveRootfs::Zfs { dataset: fresh.clone() });
    first.volumes = &volumes;
    let placed = place(&world.store, &world.journal, &first, &none()).unwrap();
    assert_eq!(placed.volumes, [volume.path()]);
    assert!(!volume.path().join("stale").exists());
    // The first container runs and writes; the second must not take that back.
    fs::write(volume.path().join("count"), "2").unwrap();
    let filled: Vec<PathBuf> = placed.volumes;
    let second = PlaceRequest { member: "side", filled: &filled, ..first };
    let placed = place(&world.store, &world.journal, &second, &none()).unwrap();
    assert!(placed.volumes.is_empty());
    assert_eq!(fs::read_to_string(volume.path().join("count")).unwrap(), "2");
}

#[test]
fn what_the_person_should_know_is_said() {
    let (world, _, fresh) = with_fresh();
    let id = world.capture_with(CaptureOptions { mode: Mode::Disk, ..world.options() });
    let request = request(&id, LiveRootfs::Zfs { dataset: fresh });
    let placed = place(&world.store, &world.journal, &request, &none()).unwrap();
    assert_eq!(placed.images, None);
    assert!(
        placed.notes.iter().any(|note| note.contains("volume data is not mounted at /data")),
        "{:?}",
        placed.notes
    );
    assert!(placed.notes.iter().any(|note| note.contains("starts afresh")), "{:?}", placed.notes);
}

#[test]
fn refusals_touch_nothing() {
    let (world, id, fresh) = with_fresh();
    let before = world.everything();
    let live = LiveRootfs::Zfs { dataset: fresh.clone() };
    let at = |request: &PlaceRequest<'_>| place(&world.store, &world.journal, request, &none()).unwrap_err();
    let unknown: CheckpointId = "nothing".parse().unwrap();
    assert_eq!(at(&request(&unknown, live.clone())).kind(), Kind::NotFound);
    let error = at(&PlaceRequest { member: "db", ..request(&id, live.clone()) });
    assert!(error.to_string().contains("no container db, it has web, side"), "{error}");
    let facts = NodeFacts { arch: "aarch64".into(), ..NodeFacts::default() };
    let error = at(&PlaceRequest { facts: Some(&facts), ..request(&id, live.clone()) });
    assert!(matches!(error, PlaceError::Incompatible { .. }), "{error}");
    let gone = LiveRootfs::Zfs { dataset: name("tank/snaps/gone") };
    assert_eq!(at(&request(&id, gone)).kind(), Kind::NotFound);
    let mount = world.dir.path().join("mounted");
    fs::create_dir(&mount).unwrap();
    world.fake.mount_at(&fresh, &mount, Default::default(), &none()).unwrap();
    assert!(matches!(at(&request(&id, live)), PlaceError::Mounted { .. }));
    world.fake.unmount_at(&mount, false, &none()).unwrap();
    assert_eq!(world.everything(), before);
    world.recovered("refused");
}

#[test]
fn changed_images_are_not_restored() {
    let world = World::new(StoreKind::Dir);
    let id = world.capture();
    let upper = tempfile::tempdir().unwrap();
    let live = LiveRootfs::Overlay { upper: upper.path().to_owned() };
    let images = world.store.content(&id).round("web", "dump");
    let place_it = || place(&world.store, &world.journal, &request(&id, live.clone()), &none());
    let original = fs::read(images.join("inventory.img")).unwrap();
    fs::write(images.join("inventory.img"), "inventorY").unwrap();
    assert_eq!(place_it().unwrap_err().kind(), Kind::DataLoss);
    fs::write(images.join("inventory.img"), original).unwrap();
    fs::write(images.join("extra.img"), "").unwrap();
    assert_eq!(place_it().unwrap_err().kind(), Kind::DataLoss);
    fs::remove_file(images.join("extra.img")).unwrap();
    place_it().unwrap();
    fs::remove_file(images.join("pages-1.img")).unwrap();
    assert_eq!(place_it().unwrap_err().kind(), Kind::DataLoss);
}

#[test]
fn a_scratch_mount_left_by_a_crash_is_removed() {
    let (world, id, _) = with_fresh();
    let store = world.zfs_store();
    let snapshot = format!("tank/cryopod/checkpoints/{id}/web-rootfs@cryopod-{id}").parse().unwrap();
    let view = crate::scratch::Scratch::of_snapshot(store, &snapshot, &none()).unwrap();
    assert_eq!(fs::read_to_string(view.path().join("count")).unwrap(), "1");
    assert_eq!(world.recover().reaped, 0, "one in use is left alone");
    std::mem::forget(view);
    world.process_died();
    world.recovered("scratch");
}

#[test]
fn a_swap_lets_containerd_read_while_the_container_runs_on() {
    let world = World::new(StoreKind::Zfs);
    let id = world.capture();
    let dataset = name("tank/snaps/web");
    let rootfs = world.dir.path().join("run/web");
    let swap = crate::swap::Swap::out(&world.store, &world.journal, &dataset, &id, &none()).unwrap().unwrap();
    // containerd mounts the clone read-only, which ZFS refuses for the dataset in use.
    world.pod.tick();
    assert_eq!(count(&world, &dataset).as_deref(), Some("1"), "the clone is the captured instant");
    assert_eq!(fs::read_to_string(rootfs.join("count")).unwrap(), "2", "the container goes on");
    settle::settle(&world.store, &id, &Silent, &none()).unwrap();
    swap.back(&world.store, &none()).unwrap();
    assert_eq!(count(&world, &dataset).as_deref(), Some("2"));
    world.recovered("swapped back");
}

#[test]
fn a_volume_with_something_mounted_below_is_refused_before_any_is_emptied() {
    let world = World::new(StoreKind::Dir);
    let id = world.capture();
    let (root, volume) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(volume.path().join("mine"), "").unwrap();
    // Nothing below /dev can be a restored volume; it is here for what is mounted there, and must only be looked at.
    let volumes = [
        LiveVolume { destination: "/data".into(), source: volume.path().to_owned(), replace: true },
        LiveVolume { destination: "/data".into(), source: "/dev".into(), replace: true },
    ];
    let rootfs = LiveRootfs::Overlay { upper: root.path().to_owned() };
    let request = PlaceRequest { volumes: &volumes, ..request(&id, rootfs) };
    let error = place(&world.store, &world.journal, &request, &none()).unwrap_err();
    assert!(error.to_string().contains("mounted below"), "{error}");
    assert_eq!(error.kind(), Kind::FailedPrecondition);
    assert!(volume.path().join("mine").exists());
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
}

#[test]
fn a_volume_that_others_may_use_is_not_emptied() {
    let world = World::new(StoreKind::Dir);
    let id = world.capture();
    let (root, volume) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let live =
        |replace| [LiveVolume { destination: "/data".into(), source: volume.path().to_owned(), replace }];
    let rootfs = LiveRootfs::Overlay { upper: root.path().to_owned() };
    let place_with = |volumes: &[LiveVolume]| {
        let request = PlaceRequest { volumes, ..request(&id, rootfs.clone()) };
        place(&world.store, &world.journal, &request, &none())
    };
    fs::create_dir(volume.path().join("lost+found")).unwrap();
    place_with(&live(false)).unwrap();
    assert!(volume.path().join("count").exists(), "a new file system is empty");
    fs::write(volume.path().join("mine"), "").unwrap();
    let error = place_with(&live(false)).unwrap_err();
    assert!(
        error.to_string().contains("not empty") && error.to_string().contains("restore-volumes"),
        "{error}"
    );
    assert_eq!(error.kind(), Kind::FailedPrecondition);
    assert!(volume.path().join("mine").exists());
    place_with(&live(true)).unwrap();
    assert!(!volume.path().join("mine").exists());
}

#[test]
fn volumes_that_were_filled_are_told_although_the_root_fails() {
    let (world, id, fresh) = with_fresh();
    let volume = tempfile::tempdir().unwrap();
    let volumes =
        [LiveVolume { destination: "/data".into(), source: volume.path().to_owned(), replace: false }];
    let told = std::cell::RefCell::new(Vec::new());
    let on_filled = |live: &LiveVolume| told.borrow_mut().push(live.source.clone());
    let request = PlaceRequest {
        volumes: &volumes,
        on_filled: &on_filled,
        ..request(&id, LiveRootfs::Zfs { dataset: fresh })
    };
    let hooked = test_hook::fail_at("place.clone", 0);
    place(&world.store, &world.journal, &request, &none()).unwrap_err();
    drop(hooked);
    assert_eq!(*told.borrow(), [volume.path()]);
    assert!(volume.path().join("count").exists(), "others may use it already");
    let again = PlaceRequest { filled: &told.borrow().clone(), ..request };
    assert!(place(&world.store, &world.journal, &again, &none()).unwrap().volumes.is_empty());
}

#[test]
fn one_id_in_two_namespaces_is_two_containers() {
    for kind in [StoreKind::Dir, StoreKind::Zfs] {
        let world = World::new(kind);
        let id = world.capture();
        let image = tempfile::tempdir().unwrap();
        let place_in = |namespace| {
            let rootfs = LiveRootfs::Tree { path: image.path().to_owned() };
            let key = container_key(namespace, "web");
            let request = PlaceRequest { container: &key, ..request(&id, rootfs) };
            let placed = place(&world.store, &world.journal, &request, &none()).unwrap();
            let RootfsPlacement::MountInstead(instead) = placed.rootfs else { panic!("{:?}", placed.rootfs) };
            replacement_path(&world, &instead)
        };
        let (first, second) = (place_in("default"), place_in("k8s.io"));
        assert_ne!(first, second);
        forget(&world.store, &container_key("k8s.io", "web"), &none()).unwrap();
        assert!(first.join("count").exists(), "{kind:?}: the root of the other one is gone");
    }
}

#[test]
fn a_checkpoint_is_not_deleted_between_its_placing_and_its_restore() {
    for kind in [StoreKind::Dir, StoreKind::Zfs] {
        let world = World::new(kind);
        let id = world.capture();
        settle::settle(&world.store, &id, &Silent, &none()).unwrap();
        let image = tempfile::tempdir().unwrap();
        let rootfs = LiveRootfs::Tree { path: image.path().to_owned() };
        let placed = place(&world.store, &world.journal, &request(&id, rootfs), &none()).unwrap();
        forget(&world.store, "new", &none()).unwrap();
        let error = world.store.delete(&id, &none()).unwrap_err();
        assert!(matches!(error, StoreError::InUse { .. }), "{error}");
        let pruned = world.store.delete_unless_used(&id, &none()).unwrap();
        assert_eq!(pruned, Pruned::Kept(Reason::BeingRead), "{kind:?}");
        assert!(placed.images.as_ref().unwrap().is_dir());
        drop(placed);
        assert_eq!(world.store.delete(&id, &none()).unwrap(), Deleted::Gone, "{kind:?}");
    }
}
