//! What has to hold whatever was done to a world: I1, I2, I3 and I6.

use super::*;

impl World {
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
        let volumes =
            [LiveVolume { destination: "/data".into(), source: volume.path().to_owned(), replace: false }];
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
                on_filled: &|_| (),
                facts: None,
                backend: None,
                requested_by: None,
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
