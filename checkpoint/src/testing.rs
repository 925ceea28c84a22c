//! A small world for tests: a pod that counts in memory and in files, on fake ZFS or in directories, and the check of
//! the invariants after whatever was done to it.

mod invariants;
mod pod;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cryopod_command::Limits;
use cryopod_zfs::{
    CreateRequest, DatasetName, Entry, Fake, Filter, Kinds, Properties, ReceiveRequest, SendRequest,
    SnapshotName, Zfs,
};

use crate::capture::CaptureOptions;
use crate::facts::NodeFacts;
use crate::id::CheckpointId;
use crate::journal::{Entry as JournalEntry, Journal};
use crate::kind::Kind;
use crate::manifest::samples;
use crate::progress::Silent;
use crate::recover::{Report, recover};
use crate::refusal::Refusal;
use crate::restore::{LiveRootfs, LiveVolume, PlaceRequest, Replacement, RootfsPlacement, place};
use crate::settle;
use crate::store::{self, Store, StoreChoice, StoreConfig, StoreKind, ZfsStore};
use crate::target::*;

pub(crate) use pod::FakePod;

pub(crate) fn none() -> Limits {
    // A test that hangs should fail.
    Limits::within(Duration::from_secs(30))
}

/// A node with a pod on it.
pub(crate) struct World {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) fake: Fake,
    pub(crate) store: Arc<Store>,
    pub(crate) journal: Journal,
    pub(crate) pod: Arc<FakePod>,
    /// Everything ZFS is expected to have beside the store.
    pub(crate) baseline: BTreeSet<String>,
}

pub(crate) fn name(text: &str) -> DatasetName {
    text.parse().unwrap()
}

impl World {
    /// `kind` decides the store and on what the roots are; the shared volume is always a directory.
    pub(crate) fn new(kind: StoreKind) -> Self {
        Self::with_volume(kind, false)
    }

    /// The same, with the shared volume on ZFS if that is asked for.
    pub(crate) fn with_volume(kind: StoreKind, on_zfs: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let fake = Fake::new(&["tank", "other"]).unwrap();
        let zfs: Arc<dyn Zfs> = Arc::new(fake.clone());
        let config = StoreConfig {
            choice: if kind == StoreKind::Zfs { StoreChoice::Zfs } else { StoreChoice::Dir },
            root: Some(name("tank/cryopod")),
            dir: dir.path().join("store"),
            locks: dir.path().join("locks"),
            snapshotter: None,
        };
        let (store, _) = store::open(&config, Some(Arc::clone(&zfs)), &none()).unwrap();
        let journal = Journal::open(dir.path().join("journal")).unwrap();
        create(&zfs, "tank/snaps", &[("mountpoint", "none")]);
        create(&zfs, "tank/snaps/1", &[("mountpoint", "legacy")]);
        let image = fake.content_dir(&name("tank/snaps/1")).unwrap();
        fs::write(image.join("image"), "from the image").unwrap();
        zfs.snapshot_set(&["tank/snaps/1@snapshot".parse().unwrap()], &Properties::new(), &none()).unwrap();
        let volume = dir.path().join("volume");
        fs::create_dir(&volume).unwrap();
        let mut shared = DiskSource::Tree { path: volume.clone() };
        if on_zfs {
            let dataset = name("tank/volume");
            create(&zfs, dataset.as_str(), &[("mountpoint", "legacy")]);
            zfs.mount_at(&dataset, &volume, Default::default(), &none()).unwrap();
            shared = DiskSource::Zfs { dataset, mountpoint: volume.clone() };
        }
        let members = ["web", "side"].map(|member| {
            let mut found = samples::member(member, &format!("tank/snaps/{member}"));
            found.rss_bytes = 100 << 20;
            let rootfs = dir.path().join("run").join(member);
            fs::create_dir_all(&rootfs).unwrap();
            found.disks[0].source = if kind == StoreKind::Zfs {
                let dataset = name(&format!("tank/snaps/{member}"));
                container(&zfs, &dataset);
                zfs.mount_at(&dataset, &rootfs, Default::default(), &none()).unwrap();
                DiskSource::Zfs { dataset, mountpoint: rootfs }
            } else {
                DiskSource::Overlay { upper: rootfs.clone(), merged: rootfs }
            };
            found.disks.push(Disk {
                name: "volume-0".into(),
                role: DiskRole::Volume { destination: "/data".into(), name: "data".into() },
                source: shared.clone(),
            });
            found.spec["mounts"] = serde_json::json!([
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/data", "type": "bind", "source": volume},
            ]);
            found
        });
        let pod = Arc::new(FakePod {
            pod: PodIdentity { name: "web".into(), ..PodIdentity::default() },
            members: members.to_vec(),
            state: Mutex::default(),
        });
        pod.tick();
        let mut world = Self { dir, fake, store, journal, pod, baseline: BTreeSet::new() };
        world.baseline = world.everything();
        world
    }

    pub(crate) fn zfs_store(&self) -> &ZfsStore {
        match self.store.as_ref() {
            Store::Zfs(store) => store,
            Store::Dir(_) => panic!("not the ZFS store"),
        }
    }

    pub(crate) fn capture(&self) -> CheckpointId {
        self.capture_with(self.options())
    }

    pub(crate) fn capture_with(&self, options: CaptureOptions<'_>) -> CheckpointId {
        let target: Arc<dyn Target> = self.pod.clone();
        crate::capture::capture(target, &self.store, &self.journal, options, &none()).unwrap().id
    }

    /// What the shim and then containerd do with a container's dataset: unmount, adopt, destroy plainly.
    pub(crate) fn delete_container(&mut self, member: &str) -> settle::Adopted {
        let dataset = name(&format!("tank/snaps/{member}"));
        self.fake.unmount_at(&self.dir.path().join("run").join(member), false, &none()).unwrap();
        let adopted = settle::adopt(&self.store, &dataset, &self.journal, &none()).unwrap();
        self.fake.destroy(&dataset, false, &none()).unwrap();
        self.baseline.remove(dataset.as_str());
        adopted
    }

    pub(crate) fn options(&self) -> CaptureOptions<'static> {
        CaptureOptions::new(NodeFacts::default(), &Silent)
    }

    /// Every dataset and snapshot, by name.
    pub(crate) fn everything(&self) -> BTreeSet<String> {
        let roots = vec![name("tank"), name("other")];
        let kinds = Kinds { snapshots: true, ..Kinds::DATASETS };
        let filter = Filter { roots, ..Filter::below(&name("tank"), kinds) };
        self.fake.list(&filter, &none()).unwrap().iter().map(|entry| entry.name().to_string()).collect()
    }

    /// As after SIGKILL and the next start: locks are free, the journal's owner is dead.
    pub(crate) fn process_died(&self) {
        for dir in ["locks", "journal"] {
            for item in fs::read_dir(self.dir.path().join(dir)).unwrap() {
                let path = item.unwrap().path();
                match path.extension().and_then(|ending| ending.to_str()) {
                    Some("lock" | "wanted") => fs::remove_file(path).unwrap(),
                    Some("json") => {
                        let mut entry = JournalEntry::parse(&fs::read(&path).unwrap()).unwrap();
                        if let Some(owner) = &mut entry.owner {
                            owner.start_ticks += 1;
                        }
                        fs::write(path, serde_json::to_vec(&entry).unwrap()).unwrap();
                    }
                    _ => {}
                }
            }
        }
    }

    pub(crate) fn recover(&self) -> Report {
        recover(&self.journal, &self.store, self.pod.as_ref(), &none()).unwrap()
    }
}

pub(crate) fn create(zfs: &Arc<dyn Zfs>, dataset: &str, properties: &[(&str, &str)]) {
    let properties = properties.iter().copied().collect();
    zfs.create(&CreateRequest::filesystem(&name(dataset), properties), &none()).unwrap();
}

/// A container's dataset as containerd makes it.
pub(crate) fn container(zfs: &Arc<dyn Zfs>, dataset: &DatasetName) {
    let properties = Properties::new().with("mountpoint", "legacy");
    let image = "tank/snaps/1@snapshot".parse().unwrap();
    zfs.clone_snapshot(&image, dataset, &properties, &none()).unwrap();
}

/// Where a replacement root's files are.
pub(crate) fn replacement_path(world: &World, replacement: &Replacement) -> PathBuf {
    match replacement {
        Replacement::Zfs { dataset } => world.fake.content_dir(dataset).unwrap(),
        Replacement::Bind { path } => path.clone(),
    }
}

/// What is there when the power goes half-way through a receive.
pub(crate) fn cut(world: &World, send: &SendRequest, target: &DatasetName, origin: Option<SnapshotName>) {
    use std::io::{Read, Seek, SeekFrom, Write};

    let mut file = tempfile::tempfile().unwrap();
    world.fake.send(send, file.try_clone().unwrap().into(), &none()).unwrap();
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.read_to_end(&mut bytes).unwrap();
    let mut half = tempfile::tempfile().unwrap();
    // What the fake sends here is little more than a header.
    half.write_all(&bytes[..bytes.len() - 10]).unwrap();
    half.seek(SeekFrom::Start(0)).unwrap();
    let receive = ReceiveRequest { origin, ..ReceiveRequest::new(target) };
    world.fake.receive(&receive, half.into(), &none()).unwrap_err();
    assert!(world.fake.dataset(target, &none()).unwrap().unwrap().resume_token.is_some());
}
