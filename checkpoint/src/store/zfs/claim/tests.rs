use std::sync::Arc;

use cryopod_zfs::{Fake, Zfs as _};

use super::*;
use crate::kind::Kind;
use crate::lock::Locks;
use crate::store::StoreKind;
use crate::testing::{World, name, none};

struct Pool {
    fake: Fake,
    dir: tempfile::TempDir,
}

impl Pool {
    fn with(datasets: &[(&str, &str)]) -> Self {
        let pool = Self { fake: Fake::new(&["tank"]).unwrap(), dir: tempfile::tempdir().unwrap() };
        for (dataset, kind) in datasets {
            let mut properties = Properties::new().with("canmount", "off");
            if !kind.is_empty() {
                properties.set(KIND, *kind);
            }
            let request = CreateRequest::filesystem(&name(dataset), properties);
            pool.fake.create(&request, &none()).unwrap();
        }
        pool
    }

    fn open(&self) -> Result<ZfsStore, StoreError> {
        let dir = self.dir.path();
        let locks = Locks::open(dir.join("locks")).unwrap();
        ZfsStore::open(Arc::new(self.fake.clone()), name("tank/ml"), dir.join("store"), locks, &none())
    }

    fn everything(&self) -> Vec<String> {
        let filter = Filter::below(&name("tank"), Kinds::DATASETS);
        let all = self.fake.list(&filter, &none()).unwrap().into_iter();
        all.map(|entry| entry.into_dataset().unwrap().name.to_string()).collect()
    }

    fn look(&self) -> Result<Option<u64>, StoreError> {
        ZfsStore::free_at(&self.fake, &name("tank/ml"), &none())
    }

    fn kind_of(&self, dataset: &str) -> Option<String> {
        let filter = Filter::below(&name(dataset), Kinds::DATASETS).wanting(marks());
        let found = self.fake.list(&filter, &none()).unwrap().remove(0).into_dataset().unwrap();
        found.properties.own(KIND).map(str::to_owned)
    }
}

#[test]
fn a_root_in_which_somebody_has_something_is_refused_with_advice_and_nothing_is_changed() {
    for datasets in [
        &[("tank/ml", ""), ("tank/ml/checkpoints", ""), ("tank/ml/checkpoints/llama-7b", "")][..],
        &[("tank/ml", ""), ("tank/ml/photos", "")],
        &[("tank/ml", "checkpoint")],
        &[("tank/ml", "root"), ("tank/ml/trash", ""), ("tank/ml/trash/old", "")],
    ] {
        let pool = Pool::with(datasets);
        assert!(matches!(pool.look().unwrap_err(), StoreError::NotOurs { .. }));
        let error = pool.open().unwrap_err();
        assert!(matches!(error, StoreError::NotOurs { .. }), "{error}");
        assert_eq!(error.kind(), Kind::FailedPrecondition);
        assert!(error.to_string().contains("zfs set cryopod:kind=root tank/ml"), "{error}");
    }
    let pool = Pool::with(&[("tank/ml", "")]);
    let files = pool.fake.content_dir(&name("tank/ml")).unwrap();
    std::fs::File::create(files.join("model")).unwrap().set_len(EMPTY + 1).unwrap();
    assert!(matches!(pool.open().unwrap_err(), StoreError::NotOurs { .. }));
}

#[test]
fn a_root_that_is_empty_or_has_marked_parts_is_taken_and_marked() {
    for datasets in [
        &[][..],
        &[("tank/ml", "")],
        &[("tank/ml", "root")],
        &[("tank/ml", "root"), ("tank/ml/trash", "")],
        // Made by hand, and used by a version that did not mark what it had not made.
        &[("tank/ml", ""), ("tank/ml/bases", "root"), ("tank/ml/checkpoints", "root")],
    ] {
        let pool = Pool::with(datasets);
        for _ in 0..2 {
            pool.open().unwrap();
        }
        for dataset in ["tank/ml", "tank/ml/checkpoints", "tank/ml/trash"] {
            assert_eq!(pool.kind_of(dataset).as_deref(), Some("root"), "{dataset}");
        }
    }
}

#[test]
fn recovery_leaves_alone_and_names_what_has_no_mark() {
    let mut world = World::new(StoreKind::Zfs);
    for part in ["checkpoints/llama-7b", "checkpoints/llama-7b/epoch-1", "trash/old.1", "bases/7"] {
        let dataset = format!("tank/cryopod/{part}");
        let request = CreateRequest::filesystem(&name(&dataset), Properties::new().with("canmount", "off"));
        world.fake.create(&request, &none()).unwrap();
        world.baseline.insert(dataset);
    }
    let mut named = world.recover().strangers;
    named.sort();
    let expected =
        ["bases/7", "checkpoints/llama-7b", "trash/old.1"].map(|part| format!("tank/cryopod/{part}"));
    assert_eq!(named, expected);
    // Nor does a journal that names it make it ours.
    world.store.abort(&"llama-7b".parse().unwrap(), &[], &none()).unwrap();
    world.recovered("strangers");
}

#[test]
fn checkpoints_that_lost_their_marks_are_not_taken_for_drafts() {
    let mut world = World::new(StoreKind::Zfs);
    let id = world.capture();
    crate::settle::settle(&world.store, &id, &crate::progress::Silent, &none()).unwrap();
    let dataset = format!("tank/cryopod/checkpoints/{id}");
    for (lost, mark) in [(&dataset, STATE), (&format!("{dataset}/memory"), ID)] {
        world.fake.inherit(&Name::from(&name(lost)), mark, &none()).unwrap();
        assert_eq!(world.recover().strangers, std::slice::from_ref(&dataset));
    }
    world.baseline = world.everything();
    world.recovered("marks lost");
}

#[test]
fn a_draft_of_an_earlier_version_and_one_that_never_got_its_mark_are_removed() {
    let world = World::new(StoreKind::Zfs);
    let create = |dataset: &str, properties: Properties| {
        world.fake.create(&CreateRequest::filesystem(&name(dataset), properties), &none()).unwrap();
    };
    create("tank/cryopod/checkpoints/old", Properties::new().with("canmount", "off"));
    let memory = Properties::new().with(KIND, "memory").with(ID, "old").with("mountpoint", "legacy");
    create("tank/cryopod/checkpoints/old/memory", memory);
    assert_eq!(world.recover().removed, ["old".parse().unwrap()]);
    create("tank/cryopod/checkpoints/cut", Properties::new().with("canmount", "off"));
    world.journal.begin(crate::journal::Operation::Import { checkpoint: "cut".parse().unwrap() }).unwrap();
    world.process_died();
    world.recovered("a power cut before the mark");
}

#[test]
fn a_look_makes_and_marks_nothing() {
    let pool = Pool::with(&[]);
    assert!(pool.look().unwrap().is_some_and(|free| free > 0));
    assert_eq!(pool.everything(), ["tank"]);
    let pool = Pool::with(&[("tank/ml", "")]);
    assert!(pool.look().unwrap().is_some_and(|free| free > 0));
    assert_eq!((pool.everything().len(), pool.kind_of("tank/ml")), (2, None));
    pool.open().unwrap();
    assert!(pool.look().unwrap().is_some());
}
