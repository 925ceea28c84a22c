use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cryopod_checkpoint::progress::Silent;
use cryopod_checkpoint::restore::{Replacement, RootfsPlacement, forget};
use cryopod_checkpoint::store::{self, StoreChoice, StoreConfig, StoreKind};
use cryopod_zfs::fake::Fault;
use cryopod_zfs::{Fake, Filter, Kinds, Zfs};
use serde_json::json;

use super::*;
use crate::manifest::architecture;
use crate::source::Access;
use crate::testing::{Archive, gzip};

/// A node with a store and a place for images.
struct World {
    dir: tempfile::TempDir,
    fake: Fake,
    store: Arc<Store>,
}

fn patience() -> Limits {
    Limits::within(Duration::from_secs(60))
}

impl World {
    fn new(kind: StoreKind) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let fake = Fake::new(&["tank"]).unwrap();
        let choice = if kind == StoreKind::Zfs { StoreChoice::Zfs } else { StoreChoice::Dir };
        let config = StoreConfig {
            choice,
            root: Some("tank/cryopod".parse().unwrap()),
            dir: dir.path().join("store"),
            locks: dir.path().join("locks"),
            snapshotter: None,
        };
        let zfs: Arc<dyn Zfs> = Arc::new(fake.clone());
        let (store, _) = store::open(&config, Some(zfs), &patience()).unwrap();
        Self { dir, fake, store }
    }

    fn templates(&self) -> Templates<'_> {
        Templates::of(&self.store)
    }

    fn options(&self) -> Options {
        Options {
            namespace: "k8s.io".into(),
            access: Access::default(),
            scratch: self.dir.path().to_owned(),
            most: 1 << 30,
        }
    }

    fn create(&self, name: &str, image: &str) -> Result<Created, TemplateError> {
        let (name, options) = (name.parse().unwrap(), self.options());
        let request = Request {
            name: &name,
            image: &image.parse().unwrap(),
            asked: image,
            options: &options,
            bounds: Bounds::default(),
        };
        self.templates().create(&request, &Silent, &patience())
    }

    /// An OCI layout with an image of these layers.
    fn image(&self, name: &str, layers: &[Vec<u8>]) -> String {
        let dir = self.dir.path().join(name);
        layout(&dir, layers);
        format!("oci:{}", dir.display())
    }

    /// Everything below `layers` and `templates`.
    fn datasets(&self) -> BTreeSet<String> {
        if self.store.kind() == StoreKind::Dir {
            return BTreeSet::new();
        }
        let filter =
            Filter::below(&"tank/cryopod".parse().unwrap(), Kinds { snapshots: true, ..Kinds::DATASETS });
        let all = self.fake.list(&filter, &patience()).unwrap();
        let names = all.iter().map(|entry| entry.name().to_string());
        names.filter(|name| name.matches('/').count() > 2).collect()
    }

    /// A container of it finds what the image has. The fake keeps neither times nor owners, so `verify` has its tests in
    /// the directory store and on a node.
    fn is_whole(&self, name: &str, version: &str) {
        let (_, placed) = self.templates().make_root(&name.parse().unwrap(), "look", &patience()).unwrap();
        let root = root_of(self, &placed);
        assert_eq!(fs::read_to_string(root.join("etc/version")).unwrap(), version);
        assert!(!root.join("bin/app").exists());
        forget(&self.store, "look", &patience()).unwrap();
    }

    /// As after SIGKILL: locks are free.
    fn process_died(&self) {
        for item in fs::read_dir(self.dir.path().join("locks")).unwrap() {
            fs::remove_file(item.unwrap().path()).unwrap();
        }
    }
}

fn layout(dir: &Path, layers: &[Vec<u8>]) {
    let blobs = dir.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let put = |bytes: &[u8], kind: &str| {
        let digest = Digest::of(bytes);
        fs::write(blobs.join(digest.hex()), bytes).unwrap();
        json!({ "mediaType": kind, "digest": digest, "size": bytes.len() })
    };
    let diff_ids: Vec<Digest> = layers.iter().map(|layer| Digest::of(layer)).collect();
    let config = json!({
        "os": "linux", "architecture": architecture(), "rootfs": { "type": "layers", "diff_ids": diff_ids },
        "config": { "Entrypoint": ["/bin/app"], "Cmd": ["serve"], "Labels": { "name": dir.file_name().unwrap().to_str() } },
    });
    let config = put(config.to_string().as_bytes(), "application/vnd.oci.image.config.v1+json");
    let kind = "application/vnd.oci.image.layer.v1.tar+gzip";
    let layers: Vec<_> = layers.iter().map(|layer| put(&gzip(layer), kind)).collect();
    let manifest = json!({ "schemaVersion": 2, "config": config, "layers": layers });
    let manifest = put(manifest.to_string().as_bytes(), "application/vnd.oci.image.manifest.v1+json");
    fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    fs::write(dir.join("index.json"), json!({ "schemaVersion": 2, "manifests": [manifest] }).to_string())
        .unwrap();
}

fn base() -> Vec<u8> {
    Archive::new().dir("bin").file("bin/app", b"app").dir("etc").file("etc/version", b"1").finish()
}

fn upper(text: &str) -> Vec<u8> {
    Archive::new().file("etc/version", text.as_bytes()).file("bin/.wh.app", b"").finish()
}

fn root_of(world: &World, placed: &RootfsPlacement) -> PathBuf {
    match placed {
        RootfsPlacement::MountInstead(Replacement::Zfs { dataset }) => {
            world.fake.content_dir(dataset).unwrap()
        }
        RootfsPlacement::MountInstead(Replacement::Bind { path }) => path.clone(),
        RootfsPlacement::InPlace => panic!("a container of a template has a root of its own"),
    }
}

#[test]
fn images_with_a_base_in_common_have_it_once() {
    let world = World::new(StoreKind::Zfs);
    let one = world.create("one", &world.image("first", &[base(), upper("2")])).unwrap();
    assert_eq!((one.layers_made, one.layers_shared), (2, 0));
    let two = world.create("two", &world.image("second", &[base(), upper("3")])).unwrap();
    assert_eq!((two.layers_made, two.layers_shared), (1, 1));
    let again = world.create("again", &world.image("first", &[base(), upper("2")])).unwrap();
    assert_eq!((again.layers_made, again.layers_shared), (0, 2));
    assert_eq!(world.datasets().iter().filter(|name| name.ends_with("@layer")).count(), 3);
    let names: Vec<String> = world
        .templates()
        .list(&patience())
        .unwrap()
        .iter()
        .map(|stored| stored.template.name.to_string())
        .collect();
    assert_eq!(names, ["again", "one", "two"]);
    assert!(matches!(world.create("one", "oci:/nothing"), Err(TemplateError::Exists { .. })));
}

#[test]
fn a_container_gets_a_root_of_its_own_and_keeps_its_template() {
    for kind in [StoreKind::Zfs, StoreKind::Dir] {
        let world = World::new(kind);
        let made = world.create("web", &world.image("web", &[base(), upper("2")])).unwrap().template;
        assert_eq!(made.config.argv(&[]), ["/bin/app", "serve"]);
        let name = "web".parse().unwrap();
        let templates = world.templates();
        let (template, placed) = templates.make_root(&name, "c1", &patience()).unwrap();
        assert_eq!(template, made);
        let root = root_of(&world, &placed);
        assert_eq!(fs::read_to_string(root.join("etc/version")).unwrap(), "2");
        assert!(!root.join("bin/app").exists());
        fs::write(root.join("etc/version"), "changed").unwrap();
        if kind == StoreKind::Dir {
            templates.verify(&name, &patience()).unwrap();
        } else {
            let error = templates.delete(&name, &patience()).unwrap_err();
            assert!(error.to_string().contains("container c1"), "{error}");
        }
        forget(&world.store, "c1", &patience()).unwrap();
        templates.delete(&name, &patience()).unwrap();
        assert!(matches!(templates.show(&name, &patience()), Err(TemplateError::NotFound { .. })));
        let before = world.datasets();
        assert_eq!(
            templates.prune(true, &patience()).unwrap().layers.len(),
            if kind == StoreKind::Zfs { 2 } else { 0 }
        );
        assert_eq!(world.datasets(), before);
        templates.prune(false, &patience()).unwrap();
        assert_eq!(world.datasets(), BTreeSet::new());
    }
}

/// An archive with these members.
fn packed(members: &[(String, Vec<u8>)]) -> Vec<u8> {
    members.iter().fold(Archive::new(), |archive, (name, data)| archive.file(name, data)).finish()
}

#[test]
fn the_same_image_in_every_form_gives_the_same_template() {
    let world = World::new(StoreKind::Dir);
    let layers = [base(), upper("2")];
    let image = world.image("web", &layers);
    let dir = world.dir.path().join("web");
    let mut members = Vec::new();
    for name in ["oci-layout", "index.json"] {
        members.push((name.to_owned(), fs::read(dir.join(name)).unwrap()));
    }
    for blob in fs::read_dir(dir.join("blobs/sha256")).unwrap() {
        let path = blob.unwrap().path();
        let name = path.strip_prefix(&dir).unwrap().to_str().unwrap().to_owned();
        members.push((name, fs::read(path).unwrap()));
    }
    let write = |name: &str, bytes: &[u8]| {
        let path = world.dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        path.display().to_string()
    };
    let oci = write("oci.tar", &packed(&members));
    let diff_ids: Vec<Digest> = layers.iter().map(|layer| Digest::of(layer)).collect();
    let config = json!({ "os": "linux", "architecture": architecture(), "rootfs": { "diff_ids": diff_ids } });
    let config = config.to_string().into_bytes();
    let name = format!("{}.json", Digest::of(&config).hex());
    let listed = json!([{ "Config": name, "RepoTags": ["web:1"], "Layers": ["a/layer.tar", "b/layer.tar"] }]);
    let docker = [
        ("a/layer.tar".to_owned(), layers[0].clone()),
        ("b/layer.tar".to_owned(), gzip(&layers[1])),
        (name, config),
        ("manifest.json".to_owned(), listed.to_string().into_bytes()),
    ];
    let docker = write("docker.tar.gz", &gzip(&packed(&docker)));
    let first = world.create("first", &image).unwrap().template;
    let forms = [format!("oci-archive:{oci}"), oci, format!("docker-archive:{docker}:web:1"), docker.clone()];
    for (number, form) in forms.iter().enumerate() {
        let made = world.create(&format!("t{number}"), form).unwrap().template;
        assert_eq!((made.tree, made.layers), (first.tree, first.layers.clone()), "{form}");
    }
    let error = world.create("none", &format!("docker-archive:{docker}:other:1")).unwrap_err();
    assert!(error.to_string().contains("has 1 images (web:1)"), "{error}");
}

#[test]
fn a_root_file_system_in_an_archive_is_an_image_of_one_layer() {
    let world = World::new(StoreKind::Dir);
    let path = world.dir.path().join("root.tar.zst");
    fs::write(&path, crate::testing::zstd(&base())).unwrap();
    let made = world.create("root", path.to_str().unwrap()).unwrap().template;
    assert_eq!(made.layers, [Digest::of(&base())]);
    assert!(made.config.argv(&[]).is_empty());
}

#[test]
fn a_layer_that_a_template_or_another_layer_needs_is_never_pruned() {
    let world = World::new(StoreKind::Zfs);
    world.create("one", &world.image("first", &[base(), upper("2")])).unwrap();
    world.create("two", &world.image("second", &[base(), upper("3")])).unwrap();
    world.templates().delete(&"one".parse().unwrap(), &patience()).unwrap();
    let pruned = world.templates().prune(false, &patience()).unwrap();
    assert_eq!((pruned.layers.len(), pruned.half_made.len()), (1, 0));
    world.is_whole("two", "3");
}

#[test]
fn a_flipped_byte_is_found() {
    let world = World::new(StoreKind::Dir);
    world.create("web", &world.image("web", &[base()])).unwrap();
    let file = world.dir.path().join("store/templates/web/rootfs/bin/app");
    let time = filetime(&file);
    fs::write(&file, "apq").unwrap();
    set_filetime(&file, time);
    let error = world.templates().verify(&"web".parse().unwrap(), &patience()).unwrap_err();
    assert!(matches!(error, TemplateError::Damaged { .. }), "{error}");
}

fn filetime(path: &Path) -> std::time::SystemTime {
    path.metadata().unwrap().modified().unwrap()
}

fn set_filetime(path: &Path, time: std::time::SystemTime) {
    fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

#[test]
fn an_image_that_is_refused_leaves_nothing_but_whole_layers() {
    for kind in [StoreKind::Zfs, StoreKind::Dir] {
        let world = World::new(kind);
        let hostile = Archive::new().file("../evil", b"").finish();
        let image = world.image("bad", &[base(), hostile]);
        let error = world.create("bad", &image).unwrap_err();
        assert!(error.to_string().contains("entry ../evil is refused"), "{error}");
        assert!(world.templates().list(&patience()).unwrap().is_empty());
        let left = world.datasets();
        assert_eq!(left.len(), if kind == StoreKind::Zfs { 2 } else { 0 }, "{left:?}");
        assert_eq!(world.templates().prune(false, &patience()).unwrap().half_made, Vec::<String>::new());
        let templates = world.dir.path().join("store/templates");
        assert_eq!(fs::read_dir(templates).map_or(0, Iterator::count), 0);
    }
}

#[test]
fn a_blob_that_was_changed_is_refused() {
    let world = World::new(StoreKind::Zfs);
    let image = world.image("web", &[base()]);
    let blobs = world.dir.path().join("web/blobs/sha256");
    let other = gzip(&upper("evil"));
    let layer = blobs.join(Digest::of(&gzip(&base())).hex());
    fs::write(layer, other).unwrap();
    let error = world.create("web", &image).unwrap_err();
    assert!(error.to_string().contains("was expected: it was changed"), "{error}");
    assert_eq!(world.datasets(), BTreeSet::new());
}

#[test]
fn one_record_that_cannot_be_read_is_named() {
    let world = World::new(StoreKind::Dir);
    world.create("web", &world.image("web", &[base()])).unwrap();
    fs::write(world.dir.path().join("store/templates/web/template.json"), "{").unwrap();
    let error = world.templates().list(&patience()).unwrap_err();
    assert!(error.to_string().starts_with("the record of template 'web' is damaged"), "{error}");
}

/// The process is killed at every call of ZFS, one after the other: afterwards nothing that is half is taken for a
/// template, the next `create` makes the same one, and nothing that is half is left.
#[test]
fn a_create_that_is_killed_at_any_step_leaves_nothing_that_stays() {
    for nth in 0.. {
        let world = Arc::new(World::new(StoreKind::Zfs));
        let image = world.image("web", &[base(), upper("2")]);
        let before = world.fake.calls().len();
        world.fake.inject(None, nth, Fault::Hang);
        let (sender, ended) = std::sync::mpsc::channel();
        let (theirs, asked) = (Arc::clone(&world), image.clone());
        // Without limits it hangs for ever, like one that was killed: nothing of it is cleaned up.
        std::thread::spawn(move || {
            let (name, options) = ("web".parse().unwrap(), theirs.options());
            let request = Request {
                name: &name,
                image: &asked.parse().unwrap(),
                asked: &asked,
                options: &options,
                bounds: Bounds::default(),
            };
            let done = theirs.templates().create(&request, &Silent, &Limits::none());
            sender.send(done.is_ok()).ok();
        });
        loop {
            if let Ok(done) = ended.recv_timeout(Duration::from_millis(20)) {
                assert!(done, "call {nth} was not reached, so it has to succeed");
                assert!(nth > 10, "only {nth} calls of ZFS");
                return;
            }
            if world.fake.calls().len() > before + nth {
                break;
            }
        }
        std::thread::sleep(Duration::from_millis(20));
        world.process_died();
        let templates = world.templates();
        let listed = templates.list(&patience()).unwrap();
        match world.create("web", &image) {
            Ok(_) => assert!(listed.is_empty(), "call {nth}"),
            Err(TemplateError::Exists { .. }) => assert_eq!(listed.len(), 1, "call {nth}"),
            Err(error) => panic!("call {nth}: {error}"),
        }
        world.is_whole("web", "2");
        assert_eq!(templates.prune(false, &patience()).unwrap(), Pruned::default(), "call {nth}");
        templates.delete(&"web".parse().unwrap(), &patience()).unwrap();
        templates.prune(false, &patience()).unwrap();
        let left: Vec<String> =
            world.datasets().into_iter().filter(|name| !name.contains("scratch.")).collect();
        assert!(left.is_empty(), "call {nth}: {left:?}");
    }
}

/// Every call of ZFS fails once: the error is reported, and a whole try later works.
#[test]
fn a_create_that_fails_at_any_step_can_be_tried_again() {
    for nth in 0.. {
        let world = World::new(StoreKind::Zfs);
        let image = world.image("web", &[base(), upper("2")]);
        let no_space = |op| cryopod_zfs::Error::NoSpace { op, quota: false };
        world.fake.inject(None, nth, Fault::Fail(Box::new(no_space)));
        let calls = world.fake.calls().len();
        let first = world.create("web", &image);
        if world.fake.calls().len() <= calls + nth {
            assert!(first.is_ok() && nth > 10);
            return;
        }
        if first.is_err() {
            world.create("web", &image).unwrap();
        }
        world.is_whole("web", "2");
    }
}
