use super::*;
use crate::kind::Kind;
use crate::lock::Locks;
use crate::store::StoreKind;
use crate::store::dir::DirStore;
use crate::testing::{World, none};

fn open(dir: &Path) -> Result<DirStore, StoreError> {
    let locks = Locks::open(dir.with_extension("locks")).unwrap();
    DirStore::open(dir.to_owned(), locks)
}

fn with(files: &[&str]) -> (tempfile::TempDir, PathBuf) {
    let scene = tempfile::tempdir().unwrap();
    let dir = scene.path().join("ml");
    for file in files {
        let path = dir.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "theirs").unwrap();
    }
    (scene, dir)
}

#[test]
fn a_directory_in_which_somebody_has_something_is_refused_with_advice() {
    for files in [
        &["checkpoints/llama-7b/model.bin"][..],
        &["notes.txt"],
        &["containers/web/image.tar"],
        &["trash/old/photo.jpg"],
    ] {
        let (_scene, dir) = with(files);
        let error = open(&dir).unwrap_err();
        assert!(matches!(error, StoreError::NotOurs { .. }), "{error}");
        assert_eq!(error.kind(), Kind::FailedPrecondition);
        assert!(error.to_string().contains("touch "), "{error}");
        mark(&dir).unwrap();
        open(&dir).unwrap();
    }
}

#[test]
fn an_empty_directory_and_the_store_of_an_earlier_version_are_taken() {
    let trash = "trash/web-1.17/memory/x";
    for files in [
        &[][..],
        &["checkpoints/web-1/committed", "checkpoints/web-1/memory/manifest.json", "containers/a/bin/sh"],
        &["checkpoints/web-1/memory/images/x", trash],
    ] {
        let (_scene, dir) = with(files);
        open(&dir).unwrap();
        fs::create_dir_all(dir.join("checkpoints/llama-7b/epoch-1")).unwrap();
        open(&dir).unwrap();
    }
}

#[test]
fn recovery_leaves_alone_and_names_what_has_no_mark() {
    let world = World::new(StoreKind::Dir);
    let store = world.dir.path().join("store");
    let id = world.capture();
    for dir in ["checkpoints/llama-7b/epoch-1", "trash/old.1/x"] {
        fs::create_dir_all(store.join(dir)).unwrap();
        fs::write(store.join(dir).join("file"), "theirs").unwrap();
    }
    world.store.abort(&"llama-7b".parse().unwrap(), &[], &none()).unwrap();
    let report = world.recover();
    let named = ["checkpoints/llama-7b", "trash/old.1"].map(|dir| store.join(dir).display().to_string());
    assert_eq!(report.strangers, named);
    assert!(report.removed.is_empty() && report.reaped == 0, "{report:?}");
    assert!(store.join("checkpoints/llama-7b/epoch-1/file").exists());
    world.store.delete(&id, &none()).unwrap();
    world.recovered("strangers");
}

#[test]
fn a_removal_that_was_cut_off_is_gone_on_with() {
    let world = World::new(StoreKind::Dir);
    let id = world.capture();
    let store = world.dir.path().join("store");
    let trash = store.join(format!("trash/{id}.1"));
    fs::rename(store.join(format!("checkpoints/{id}")), &trash).unwrap();
    fs::remove_dir_all(trash.join("memory/images")).unwrap();
    assert_eq!(world.recover().reaped, 1);
    assert!(!trash.exists());
    // Killed before anything was in it.
    fs::create_dir(store.join("checkpoints/empty")).unwrap();
    world.recovered("empty draft");
}
