//! The disks at the instant: `syncfs`, then one atomic snapshot of the datasets, then copies of what is not on ZFS.
//!
//! All that touches the live file systems runs on threads that are left behind when the limits end: a suspended pool or a
//! network file system without its server must not hold the pod beyond the deadline of the capture.
//!
//! `syncfs` first, since a snapshot alone misses dirty pages of shared mappings (experiments.md E2). CRIU may run a
//! hook twice; the second call of [`Instant::member`] answers as the first did. A volume that several containers share
//! is captured with the first of them; what CRIU links on it for the others is added at their own instants.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time;

use cryopod_command::Limits;
use cryopod_zfs::{
    Dataset, DatasetName, Entry, Filter, Guid, Kinds, PoolName, Properties, Snapshot, SnapshotName, Wanted,
};

use super::CaptureError;
use super::plan::{How, Plan, PlannedDisk, too_large, unlinked};
use crate::fault;
use crate::left_behind::{self, NoAnswer};
use crate::manifest::DiskContent;
use crate::store::content::Content;
use crate::store::{ID, SNAPSHOT_PREFIX, Store, StoreError, ZfsStore};
use crate::timeline::Recorder;
use crate::tree::{self, Existing, TreeError, remaps};

/// What was captured of one disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) plan: PlannedDisk,
    /// None for a snapshot, whose guid is asked for after the thaw.
    pub(super) content: Option<DiskContent>,
}

struct Done {
    start: time::Instant,
    duration: time::Duration,
    outcome: Result<Vec<Taken>, String>,
}

struct Progress {
    done: BTreeMap<usize, Done>,
    /// Bytes that may still be copied.
    budget: u64,
    copied: u64,
    failure: Option<CaptureError>,
}

/// Captures disks while nothing runs.
pub(super) struct Instant<'a> {
    store: &'a Store,
    plan: &'a Plan,
    content: &'a Content,
    limits: &'a Limits,
    bound: u64,
    progress: Mutex<Progress>,
}

impl<'a> Instant<'a> {
    pub(super) fn new(
        store: &'a Arc<Store>,
        plan: &'a Plan,
        content: &'a Content,
        bound: u64,
        limits: &'a Limits,
    ) -> Self {
        let progress = Progress { done: BTreeMap::new(), budget: bound, copied: 0, failure: None };
        Self { store, plan, content, limits, bound, progress: Mutex::new(progress) }
    }

    /// The disks of one member; called from the hook of its dump.
    pub(super) fn member(&self, index: usize) -> Result<(), String> {
        self.take(index, |disk| disk.member == index)
    }

    /// The disks of all members, in one transaction per pool.
    pub(super) fn all(&self) {
        // The failure is kept for `finish`.
        self.take(usize::MAX, |_| true).ok();
    }

    pub(super) fn is_done(&self, index: usize) -> bool {
        self.lock().done.contains_key(&index)
    }

    /// The first failure so far.
    pub(super) fn failure(&self) -> Result<(), CaptureError> {
        self.lock().failure.take().map_or(Ok(()), Err)
    }

    /// Everything that was captured, in the order of the plan.
    pub(super) fn finish(self, recorder: &mut Recorder) -> Result<Vec<Taken>, CaptureError> {
        self.failure()?;
        let progress = self.progress.into_inner().unwrap_or_else(PoisonError::into_inner);
        recorder.copied(progress.copied);
        let mut taken = Vec::new();
        for done in progress.done.into_values() {
            recorder.add("disks", done.start, done.duration);
            taken.extend(done.outcome.unwrap_or_default());
        }
        taken.sort_by_key(|disk| self.plan.disks.iter().position(|plan| *plan == disk.plan));
        Ok(taken)
    }

    fn take(&self, index: usize, which: impl Fn(&PlannedDisk) -> bool) -> Result<(), String> {
        let mut progress = self.lock();
        if let Some(done) = progress.done.get(&index) {
            return done.outcome.as_ref().map(drop).map_err(Clone::clone);
        }
        let start = time::Instant::now();
        let disks: Vec<&PlannedDisk> = self.plan.disks.iter().filter(|disk| which(disk)).collect();
        let outcome = self.capture(&disks, &mut progress);
        let outcome = outcome.and_then(|taken| self.late_links(index).map(|()| taken)).map_err(|error| {
            let text = error.to_string();
            progress.failure.get_or_insert(error);
            text
        });
        let answer = outcome.as_ref().map(drop).map_err(Clone::clone);
        progress.done.insert(index, Done { start, duration: start.elapsed(), outcome });
        answer
    }

    fn capture(&self, disks: &[&PlannedDisk], progress: &mut Progress) -> Result<Vec<Taken>, CaptureError> {
        fault::step("capture.snapshot")?;
        let member = disks.first().map_or("the pod", |disk| disk.member_name.as_str());
        self.snapshots(disks)
            .map_err(|source| CaptureError::Instant { member: member.to_owned(), source })?;
        let mut taken = Vec::new();
        for disk in disks {
            let content = match &disk.how {
                How::Snapshot { .. } => None,
                How::Shared { member, disk } => {
                    Some(DiskContent::Shared { member: member.clone(), disk: disk.clone() })
                }
                How::Copy { from, layer } => Some(self.copy(disk, from, *layer, progress)?),
            };
            taken.push(Taken { plan: (*disk).clone(), content });
        }
        fault::step("capture.snapshotted")?;
        Ok(taken)
    }

    /// The links that CRIU has made for this member on volumes that were captured with an earlier one.
    fn late_links(&self, index: usize) -> Result<(), CaptureError> {
        for disk in self.plan.disks.iter().filter(|disk| disk.shared_with.contains(&index)) {
            let (from, copy) = match &disk.how {
                How::Copy { from, .. } => (from, Some(self.content.disk(&disk.stored()))),
                // Its snapshot is taken; a second one would lack the links of the first.
                How::Snapshot { mountpoint, .. } => (mountpoint, None),
                How::Shared { .. } => continue,
            };
            let (from, limits) = (from.clone(), self.limits.clone());
            let missing = unless_it_hangs(self.limits, move || {
                for remap in remaps::find(&from, &limits)? {
                    let made = copy.as_ref().map_or(Ok(false), |copy| remaps::make(copy, &remap))?;
                    if !made {
                        return Ok(Some(remap.link));
                    }
                }
                Ok(None)
            })?;
            if let Some(link) = missing {
                return Err(unlinked(disk, &self.member_name(index), &link).into());
            }
        }
        Ok(())
    }

    fn member_name(&self, index: usize) -> String {
        let own = self.plan.disks.iter().find(|disk| disk.member == index);
        own.map_or_else(|| "of the pod".to_owned(), |disk| disk.member_name.clone())
    }

    fn snapshots(&self, disks: &[&PlannedDisk]) -> Result<(), StoreError> {
        let Store::Zfs(store) = self.store else { return Ok(()) };
        let mut pools: BTreeMap<PoolName, Vec<SnapshotName>> = BTreeMap::new();
        for disk in disks {
            let How::Snapshot { dataset, mountpoint } = &disk.how else { continue };
            let path = mountpoint.clone();
            unless_it_hangs(self.limits, move || sync_file_system(&path))?;
            pools.entry(dataset.pool()).or_default().push(dataset.snapshot(&self.plan.snapshot)?);
        }
        let id = self.plan.snapshot.strip_prefix(SNAPSHOT_PREFIX).unwrap_or_default();
        let properties = Properties::new().with(ID, id);
        for names in pools.values() {
            store.zfs.snapshot_set(names, &properties, self.limits)?;
        }
        Ok(())
    }

    fn copy(
        &self,
        disk: &PlannedDisk,
        from: &Path,
        layer: bool,
        progress: &mut Progress,
    ) -> Result<DiskContent, CaptureError> {
        let to = self.content.disk(&disk.stored());
        let (content, source, budget, limits) =
            (self.content.clone(), from.to_owned(), progress.budget, self.limits.clone());
        let copied = unless_it_hangs(self.limits, move || {
            content.create(&to)?;
            Ok(tree::copy(&source, &to, Existing::Refuse, budget, &limits)?)
        });
        let copied = match copied {
            Ok(copied) => copied,
            Err(StoreError::Tree(TreeError::TooLarge { .. })) => {
                return Err(too_large(disk, from, self.bound).into());
            }
            Err(source) => {
                let member = disk.member_name.clone();
                return Err(CaptureError::Instant { member, source });
            }
        };
        progress.budget = progress.budget.saturating_sub(copied.bytes);
        progress.copied += copied.bytes;
        // The hash is taken after the thaw; an empty one stands in until then.
        let sha256 = crate::digest::of(b"");
        Ok(DiskContent::Tree { bytes: copied.bytes, entries: copied.entries, sha256, layer })
    }

    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes calls that may sleep in the kernel for good; what they do after the limits is undone with the draft.
fn unless_it_hangs<T: Send + 'static>(
    limits: &Limits,
    call: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    match left_behind::on_thread(limits, call) {
        Ok(answer) => answer,
        Err(NoAnswer::Stopped(stop)) => Err(StoreError::Stopped(stop)),
        Err(NoAnswer::Thread(source)) => {
            Err(StoreError::io("begin a thread for", Path::new("a disk"))(source))
        }
    }
}

fn sync_file_system(path: &Path) -> Result<(), StoreError> {
    let file = File::open(path).map_err(StoreError::io("open", path))?;
    nix::unistd::syncfs(&file).map_err(|error| StoreError::io("sync", path)(error.into()))
}

/// Writes out what is dirty before the freeze, so that the snapshot inside it finds little to do.
pub(super) fn sync_pools(store: &Store, plan: &Plan, limits: &Limits) -> Result<(), CaptureError> {
    let Store::Zfs(store) = store else { return Ok(()) };
    let mut pools = BTreeSet::new();
    for disk in &plan.disks {
        if let How::Snapshot { dataset, .. } = &disk.how {
            pools.insert(dataset.pool());
        }
    }
    for pool in pools {
        store.zfs.pool_sync(&pool, limits).map_err(StoreError::from)?;
    }
    Ok(())
}

/// Fills in what could wait until after the thaw: guids of snapshots. Two calls, however many disks there are.
pub(super) fn identify(
    store: &Store,
    mut taken: Vec<Taken>,
    plan: &Plan,
    limits: &Limits,
) -> Result<Vec<Taken>, CaptureError> {
    let Store::Zfs(store) = store else { return Ok(taken) };
    let roots: Vec<DatasetName> = plan.snapshots().into_iter().map(|planned| planned.dataset).collect();
    if roots.is_empty() {
        return Ok(taken);
    }
    let kinds = Kinds { filesystems: true, snapshots: true, ..Kinds::default() };
    let mut datasets: BTreeMap<DatasetName, Dataset> = BTreeMap::new();
    let mut snapshots: BTreeMap<SnapshotName, Snapshot> = BTreeMap::new();
    for entry in list(store, &roots, kinds, limits)? {
        match entry {
            Entry::Dataset(dataset) => drop(datasets.insert(dataset.name.clone(), dataset)),
            Entry::Snapshot(snapshot) => drop(snapshots.insert(snapshot.name.clone(), snapshot)),
            Entry::Bookmark(_) => {}
        }
    }
    let origins: BTreeSet<DatasetName> = roots
        .iter()
        .filter_map(|root| datasets.get(root)?.origin.as_ref())
        .map(SnapshotName::dataset)
        .collect();
    let mut bases: BTreeMap<SnapshotName, Guid> = BTreeMap::new();
    if !origins.is_empty() {
        let origins: Vec<DatasetName> = origins.into_iter().collect();
        let entries = list(store, &origins, Kinds::SNAPSHOTS, limits)?;
        bases.extend(
            entries
                .into_iter()
                .filter_map(Entry::into_snapshot)
                .map(|found| (found.name.clone(), found.guid)),
        );
    }
    for disk in &mut taken {
        let How::Snapshot { dataset, .. } = &disk.plan.how else { continue };
        let name = dataset.snapshot(&plan.snapshot).map_err(StoreError::from)?;
        let found = snapshots.get(&name).ok_or_else(|| destroyed(&name))?;
        let origin = datasets.get(dataset).and_then(|dataset| dataset.origin.as_ref());
        disk.content = Some(DiskContent::Zfs {
            snapshot: plan.snapshot.clone(),
            guid: found.guid,
            base: origin.and_then(|origin| bases.get(origin).copied()),
            referenced_bytes: found.referenced.0,
        });
    }
    Ok(taken)
}

fn list(
    store: &ZfsStore,
    roots: &[DatasetName],
    kinds: Kinds,
    limits: &Limits,
) -> Result<Vec<Entry>, CaptureError> {
    let filter = Filter { roots: roots.to_vec(), depth: Some(1), kinds, wanted: Wanted::TypedOnly };
    Ok(store.zfs.list(&filter, limits).map_err(StoreError::from)?)
}

fn destroyed(name: &SnapshotName) -> StoreError {
    let source = std::io::Error::new(std::io::ErrorKind::NotFound, "destroyed while it was captured");
    StoreError::io("examine", Path::new(name.as_str()))(source)
}
