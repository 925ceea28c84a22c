//! A small world for tests: a pod that counts in memory and in files, on fake ZFS or in directories, and the check of
//! the invariants after whatever was done to it.

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

pub(crate) fn none() -> Limits {
    // A test that hangs should fail.
    Limits::within(Duration::from_secs(30))
}

/// What the fake pod does; shared with its repair, as the kernel would be.
#[derive(Debug, Default)]
pub(crate) struct PodState {
    pub(crate) count: u64,
    pub(crate) frozen: bool,
    pub(crate) repaired: Vec<String>,
    pub(crate) ended: Vec<String>,
    /// The next calls of this name fail.
    pub(crate) fail: Vec<(&'static str, usize)>,
    /// Links that CRIU makes on the shared volume during the dump of a container: its id, a name, the link to it.
    pub(crate) remaps: Vec<(&'static str, &'static str, &'static str)>,
    /// The container whose dumps CRIU refuses, with images half written.
    pub(crate) refuses: Option<&'static str>,
    /// As what they fail; Internal unless told otherwise.
    pub(crate) fail_as: Option<Kind>,
    pub(crate) calls: Vec<String>,
}

/// Two containers; each writes the common count into its root and into the shared volume.
pub(crate) struct FakePod {
    pod: PodIdentity,
    members: Vec<Member>,
    pub(crate) state: Mutex<PodState>,
}

impl FakePod {
    pub(crate) fn lock(&self) -> std::sync::MutexGuard<'_, PodState> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The pod runs for a moment; nothing happens while it is frozen.
    pub(crate) fn tick(&self) {
        let mut state = self.lock();
        if state.frozen || !state.ended.is_empty() {
            return;
        }
        state.count += 1;
        for member in &self.members {
            for disk in &member.disks {
                fs::write(live_path(&disk.source).join("count"), state.count.to_string()).unwrap();
            }
        }
    }

    fn call(&self, name: &'static str, container: &str) -> Result<(), TargetError> {
        let mut state = self.lock();
        state.calls.push(format!("{name} {container}"));
        let Some(at) = state.fail.iter().position(|(what, _)| *what == name) else { return Ok(()) };
        if state.fail[at].1 > 0 {
            state.fail[at].1 -= 1;
            return Ok(());
        }
        state.fail.remove(at);
        let kind = state.fail_as.unwrap_or(Kind::Internal);
        Err(TargetError { kind, ..failure(name, container) })
    }
}

fn failure(step: &'static str, container: &str) -> TargetError {
    let source = "planned".into();
    TargetError { step, container: container.into(), kind: Kind::Internal, refused: None, source }
}

pub(crate) fn live_path(source: &DiskSource) -> &Path {
    match source {
        DiskSource::Zfs { mountpoint: path, .. }
        | DiskSource::Tree { path }
        | DiskSource::Overlay { upper: path, .. } => path,
    }
}

impl Target for FakePod {
    fn pod(&self) -> &PodIdentity {
        &self.pod
    }

    fn members(&self) -> &[Member] {
        &self.members
    }

    fn freeze(&self, _limits: &Limits) -> Result<(), TargetError> {
        self.call("freeze", "pod")?;
        self.lock().frozen = true;
        Ok(())
    }

    fn thaw(&self) -> Result<(), TargetError> {
        self.call("thaw", "pod")?;
        self.lock().frozen = false;
        Ok(())
    }

    fn put_right(&self, member: &Member, frozen_by_us: bool) -> Result<(), TargetError> {
        self.call("put-right", &member.id)?;
        if frozen_by_us {
            self.lock().frozen = false;
        }
        Ok(())
    }

    fn pre_dump(&self, member: &Member, images: &ImageDir, _: &Limits) -> Result<DumpStats, TargetError> {
        self.call("pre-dump", &member.id)?;
        assert!(!self.lock().frozen, "pre-dump of a frozen pod");
        write_images(images, self.lock().count)
            .map_err(|error| TargetError { source: error.into(), ..failure("write", &member.id) })?;
        Ok(DumpStats { frozen_us: 1, pages_written: 100_000, ..DumpStats::default() })
    }

    fn dump(
        &self,
        member: &Member,
        images: &ImageDir,
        _options: &DumpOptions,
        at_instant: &AtInstant<'_>,
        _limits: &Limits,
    ) -> Result<DumpStats, TargetError> {
        self.call("dump", &member.id)?;
        assert!(self.lock().frozen, "dump of a running pod");
        write_images(images, self.lock().count)
            .map_err(|error| TargetError { source: error.into(), ..failure("write", &member.id) })?;
        if self.lock().refuses == Some(member.id.as_str()) {
            let refusal =
                Refusal::new("tty", format!("dump of {}: dangling tty", member.id), "use mode disk");
            let kind = Kind::FailedPrecondition;
            return Err(TargetError {
                kind,
                refused: Some(Box::new(refusal)),
                ..failure("dump", &member.id)
            });
        }
        self.call("hook", &member.id)?;
        let volume = live_path(&self.members[0].disks[1].source);
        let remaps: Vec<_> =
            self.lock().remaps.iter().filter(|(of, _, _)| *of == member.id).copied().collect();
        for (_, name, link) in &remaps {
            fs::hard_link(volume.join(name), volume.join(link)).unwrap();
        }
        // CRIU may run a hook twice (experiments.md E0).
        let answers = [at_instant(), at_instant()];
        for (_, _, link) in &remaps {
            fs::remove_file(volume.join(link)).unwrap();
        }
        for answer in answers {
            answer.map_err(|text| TargetError { source: text.into(), ..failure("dump", &member.id) })?;
        }
        self.call("dumped", &member.id)?;
        Ok(DumpStats { frozen_us: 7, pages_written: 1, ..DumpStats::default() })
    }
}

/// Fails as CRIU does when the directory is gone.
fn write_images(images: &ImageDir, count: u64) -> Result<(), std::io::Error> {
    assert_eq!(fs::read_dir(&images.dir)?.count(), 0);
    fs::write(images.dir.join("pages-1.img"), count.to_string())?;
    fs::write(images.dir.join("inventory.img"), "inventory")?;
    if let Some(parent) = &images.parent {
        std::os::unix::fs::symlink(parent, images.dir.join("parent"))?;
        assert!(images.dir.join("parent/pages-1.img").exists(), "the parent link leads nowhere");
    }
    Ok(())
}

impl Repair for FakePod {
    fn repair(&self, member: &Member, frozen_by_us: bool, _patience: Duration) -> Result<(), TargetError> {
        self.call("repair", &member.id)?;
        let mut state = self.lock();
        state.repaired.push(member.id.clone());
        if frozen_by_us {
            state.frozen = false;
        }
        Ok(())
    }

    fn end(&self, member: &Member, _patience: Duration) -> Result<bool, TargetError> {
        self.call("end", &member.id)?;
        let mut state = self.lock();
        if !state.frozen && state.ended.is_empty() || state.ended.contains(&member.id) {
            return Ok(false);
        }
        state.ended.push(member.id.clone());
        // A dead pod is not a frozen one.
        state.frozen = state.ended.len() < self.members.len();
        Ok(true)
    }
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

    /// Recovers, settles what is left to settle, and checks I1, I2, I3 and I6.
    pub(crate) fn recovered(&self, context: &str) {
        let report = self.recover();
        assert!(report.failures.is_empty(), "{context}: {:?}", report.failures);
        assert!(report.damaged.is_empty() && report.alive.is_empty(), "{context}: {report:?}");
        for id in &report.unsettled {
            settle::settle(&self.store, id, &Silent, &none())
                .unwrap_or_else(|e| panic!("{context}: settle: {e}"));
        }
        assert!(self.recover().is_clean(), "{context}: a second recovery found something");
        self.check(context);
    }

    /// The invariants, with nothing in progress.
    pub(crate) fn check(&self, context: &str) {
        assert!(!self.pod.lock().frozen, "{context}: I1 the pod is frozen");
        assert!(self.store.drafts(&none()).unwrap().is_empty(), "{context}: I2 a draft is left");
        let list = self.store.list(&none()).unwrap();
        let mut expected = self.baseline.clone();
        for info in &list {
            self.store.verify(&info.id, &Silent, &none()).unwrap_or_else(|e| panic!("{context}: I2 {e}"));
            self.expect_checkpoint(&info.id, &mut expected);
        }
        let journal: Vec<_> = fs::read_dir(self.dir.path().join("journal")).unwrap().collect();
        assert_eq!(journal.len(), 1, "{context}: I3 journal {journal:?}");
        let locks: Vec<_> = fs::read_dir(self.dir.path().join("locks")).unwrap().collect();
        assert!(locks.is_empty(), "{context}: I3 locks {locks:?}");
        let found = self.everything();
        let left: Vec<_> = found.difference(&expected).collect();
        let lost: Vec<_> = expected.difference(&found).collect();
        assert!(left.is_empty() && lost.is_empty(), "{context}: I3 left over {left:?}, lost {lost:?}");
        for entry in self.fake.list(&Filter::below(&name("tank"), Kinds::SNAPSHOTS), &none()).unwrap() {
            let Entry::Snapshot(snapshot) = entry else { continue };
            assert_eq!(snapshot.userrefs, 0, "{context}: I3 hold on {}", snapshot.name);
            assert!(!snapshot.defer_destroy, "{context}: I3 {} is deferred", snapshot.name);
        }
        for info in &list {
            self.same_instant(&info.id, context);
        }
    }

    fn expect_checkpoint(&self, id: &CheckpointId, expected: &mut BTreeSet<String>) {
        let Store::Zfs(store) = self.store.as_ref() else { return };
        let dataset = store.checkpoint(id).unwrap();
        expected.insert(dataset.to_string());
        expected.insert(format!("{dataset}/memory"));
        let manifest = self.store.manifest(id, &none()).unwrap();
        for (stored, record, disk) in manifest.stored_disks() {
            let crate::manifest::DiskContent::Zfs { snapshot, base, .. } = &disk.content else { continue };
            expected.insert(format!("{dataset}/{stored}"));
            expected.insert(format!("{dataset}/{stored}@{snapshot}"));
            if let Some(base) = base
                && !record.member.image.is_empty()
            {
                // An imported checkpoint may have its base for itself.
                let own = format!("{dataset}/base.{base}");
                let shared = format!("tank/cryopod/bases/{base}");
                let base = if self.everything().contains(&own) { own } else { shared };
                expected.insert(format!("{base}@snapshot"));
                expected.insert(base);
            }
        }
    }

    /// I6: restored into a new pod, memory and every file say the same number.
    pub(crate) fn same_instant(&self, id: &CheckpointId, context: &str) {
        let manifest = self.store.manifest(id, &none()).unwrap();
        let mut counts = BTreeSet::new();
        let volume = tempfile::tempdir().unwrap();
        let volumes = [LiveVolume { destination: "/data".into(), source: volume.path().to_owned() }];
        let mut filled: Vec<PathBuf> = Vec::new();
        for record in &manifest.members {
            let member = record.member.name.as_str();
            let upper = tempfile::tempdir().unwrap();
            let fresh = name(&format!("tank/snaps/new-{member}"));
            let rootfs = match self.store.as_ref() {
                Store::Zfs(_) => {
                    container(&(Arc::new(self.fake.clone()) as Arc<dyn Zfs>), &fresh);
                    LiveRootfs::Zfs { dataset: fresh.clone() }
                }
                Store::Dir(_) => LiveRootfs::Overlay { upper: upper.path().to_owned() },
            };
            let request = PlaceRequest {
                checkpoint: id,
                member,
                container: "new",
                rootfs,
                volumes: &volumes,
                filled: &filled,
                facts: None,
                backend: None,
            };
            let placed = place(&self.store, &self.journal, &request, &none())
                .unwrap_or_else(|error| panic!("{context}: I2 cannot restore {member}: {error}"));
            assert_eq!(placed.rootfs, RootfsPlacement::InPlace);
            let root = match self.store.as_ref() {
                Store::Zfs(_) => self.fake.content_dir(&fresh).unwrap(),
                Store::Dir(_) => upper.path().to_owned(),
            };
            counts.insert(fs::read_to_string(root.join("count")).unwrap());
            counts.insert(fs::read_to_string(volume.path().join("count")).unwrap());
            if let Some(images) = &placed.images {
                counts.insert(fs::read_to_string(images.join("pages-1.img")).unwrap());
            }
            filled.extend(placed.volumes);
            if matches!(self.store.as_ref(), Store::Zfs(_)) {
                assert!(root.join("image").exists(), "{context}: the image is not below the clone");
                // As containerd does: plainly.
                self.fake.destroy(&fresh, false, &none()).unwrap_or_else(|e| panic!("{context}: {e}"));
            }
        }
        assert_eq!(counts.len(), 1, "{context}: I6 different instants {counts:?}");
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
