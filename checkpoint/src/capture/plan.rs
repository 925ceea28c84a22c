//! What a capture is going to do, decided before anything is touched: mode, names, which disk is captured how.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use cryopod_command::Limits;
use cryopod_zfs::DatasetName;

use super::{CaptureError, CaptureOptions, Mode};
use crate::id::{CheckpointId, check_component};
use crate::journal::PlannedSnapshot;
use crate::manifest::{CapturedMode, stored_name};
use crate::refusal::{COPY_TOO_LARGE, COPY_UNREADABLE, NO_SPACE, Refusal, SHARED_UNLINKED};
use crate::store::{SNAPSHOT_PREFIX, Store, StoreKind};
use crate::target::{Disk, DiskRole, DiskSource, Member, Target};
use crate::tree::{self, TreeError};

/// Room beside the images for what preflight cannot know: page maps, descriptors, memory that grows until the freeze.
const SLACK: u64 = 64 << 20;

/// How one disk is captured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum How {
    /// By a snapshot.
    Snapshot { dataset: DatasetName, mountpoint: PathBuf },
    /// By copying a directory.
    Copy { from: PathBuf, layer: bool },
    /// With a disk of an earlier member that has the same source.
    Shared { member: String, disk: String },
}

/// One disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PlannedDisk {
    /// Index of its member.
    pub(super) member: usize,
    pub(super) member_name: String,
    pub(super) name: String,
    pub(super) how: How,
    /// Indexes of the later members that have it mounted too.
    pub(super) shared_with: Vec<usize>,
}

impl PlannedDisk {
    pub(super) fn stored(&self) -> String {
        stored_name(&self.member_name, &self.name)
    }
}

/// The whole plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) mode: CapturedMode,
    /// Why `auto` takes the disk alone.
    pub(super) refused: Option<Refusal>,
    pub(super) disks: Vec<PlannedDisk>,
    /// Name of the snapshots, after `@`.
    pub(super) snapshot: String,
}

impl Plan {
    pub(super) fn named(mut self, id: &CheckpointId) -> Self {
        self.snapshot = format!("{SNAPSHOT_PREFIX}{id}");
        self
    }

    /// The same for the disks alone, which is what `auto` takes then.
    pub(super) fn without_memory(self, refusal: Refusal) -> Self {
        Self { mode: CapturedMode::Disk, refused: Some(refusal), ..self }
    }

    /// Every snapshot that will be taken.
    pub(super) fn snapshots(&self) -> Vec<PlannedSnapshot> {
        let snapshots = self.disks.iter().filter_map(|disk| match &disk.how {
            How::Snapshot { dataset, .. } => {
                Some(PlannedSnapshot { dataset: dataset.clone(), snapshot: self.snapshot.clone() })
            }
            How::Copy { .. } | How::Shared { .. } => None,
        });
        snapshots.collect()
    }
}

/// Refuses, or plans.
pub(super) fn plan(
    target: &dyn Target,
    store: &Store,
    options: &CaptureOptions<'_>,
    limits: &Limits,
) -> Result<Plan, CaptureError> {
    let members = target.members();
    if members.is_empty() {
        return Err(CaptureError::Empty(target.pod().name.clone()));
    }
    let (mode, refused) = mode(options)?;
    let disks = disks(members, store.kind())?;
    let copied = copies(&disks, options.copy_limit, limits)?;
    let plan = Plan { mode, refused, disks, snapshot: String::new() };
    if mode == CapturedMode::Full {
        let memory: u64 = members.iter().map(|member| member.rss_bytes).sum();
        let available = store.available(limits)?;
        if let Err(refusal) = space(store, memory, copied, available) {
            return match options.mode {
                Mode::Auto if available >= copied => Ok(plan.without_memory(refusal)),
                _ => Err(refusal.into()),
            };
        }
    }
    Ok(plan)
}

fn mode(options: &CaptureOptions<'_>) -> Result<(CapturedMode, Option<Refusal>), CaptureError> {
    match (options.mode, &options.memory_preflight) {
        (Mode::Disk, _) => Ok((CapturedMode::Disk, None)),
        (Mode::Full | Mode::Auto, Ok(())) => Ok((CapturedMode::Full, None)),
        (Mode::Auto, Err(refusal)) => Ok((CapturedMode::Disk, Some(refusal.clone()))),
        (Mode::Full, Err(refusal)) => Err(CaptureError::Refused(refusal.clone())),
    }
}

fn disks(members: &[Member], store: StoreKind) -> Result<Vec<PlannedDisk>, CaptureError> {
    let mut planned: Vec<(DiskSource, PlannedDisk)> = Vec::new();
    let mut names = BTreeSet::new();
    let mut stored = BTreeSet::from(["memory".to_owned()]);
    for (index, member) in members.iter().enumerate() {
        check_component(&member.name)?;
        if !names.insert(&member.name) {
            return Err(CaptureError::Twice(format!("container {}", member.name)));
        }
        for disk in &member.disks {
            check_component(&disk.name)?;
            if !stored.insert(stored_name(&member.name, &disk.name)) {
                return Err(CaptureError::Twice(format!("disk {} of {}", disk.name, member.name)));
            }
            let same = planned.iter().find(|(source, other)| {
                same_source(source, &disk.source) && !matches!(other.how, How::Shared { .. })
            });
            let how = match (same, &disk.source) {
                (Some((_, other)), _) => {
                    How::Shared { member: other.member_name.clone(), disk: other.name.clone() }
                }
                (None, DiskSource::Zfs { dataset, mountpoint }) if store == StoreKind::Zfs => {
                    How::Snapshot { dataset: dataset.clone(), mountpoint: mountpoint.clone() }
                }
                (None, DiskSource::Zfs { mountpoint: path, .. } | DiskSource::Tree { path }) => {
                    How::Copy { from: path.clone(), layer: false }
                }
                (None, DiskSource::Overlay { upper, .. }) => How::Copy { from: upper.clone(), layer: true },
            };
            let later = members.iter().enumerate().skip(index + 1);
            let disk_plan = PlannedDisk {
                member: index,
                member_name: member.name.clone(),
                name: disk.name.clone(),
                how,
                shared_with: later.filter(|(_, later)| mounts(later, disk)).map(|(later, _)| later).collect(),
            };
            planned.push((disk.source.clone(), disk_plan));
        }
    }
    Ok(planned.into_iter().map(|(_, disk)| disk).collect())
}

/// Whether a container has a disk mounted that belongs to another one, by what its spec binds.
fn mounts(member: &Member, disk: &Disk) -> bool {
    let path = match (&disk.role, &disk.source) {
        (DiskRole::Rootfs, _) | (_, DiskSource::Overlay { .. }) => return false,
        (_, DiskSource::Zfs { mountpoint: path, .. } | DiskSource::Tree { path }) => path,
    };
    let mounts = member.spec.get("mounts").and_then(|mounts| mounts.as_array());
    let sources = mounts.into_iter().flatten().filter_map(|mount| mount.get("source")?.as_str());
    sources.map(Path::new).any(|source| source.starts_with(path))
}

/// Two containers of a pod see one volume under the same source.
fn same_source(a: &DiskSource, b: &DiskSource) -> bool {
    match (a, b) {
        (DiskSource::Zfs { dataset: a, .. }, DiskSource::Zfs { dataset: b, .. }) => a == b,
        (DiskSource::Overlay { upper: a, .. }, DiskSource::Overlay { upper: b, .. })
        | (DiskSource::Tree { path: a }, DiskSource::Tree { path: b }) => a == b,
        _ => false,
    }
}

/// Bytes that will be copied inside the freeze; more than the bound is refused with the largest culprit named.
fn copies(disks: &[PlannedDisk], bound: u64, limits: &Limits) -> Result<u64, CaptureError> {
    let mut sum = 0;
    for disk in disks {
        let How::Copy { from, .. } = &disk.how else { continue };
        match tree::measure(from, bound - sum, limits) {
            Ok(measured) => sum += measured.bytes,
            Err(TreeError::Stopped(stop)) => return Err(CaptureError::Stopped(stop)),
            Err(TreeError::TooLarge { .. }) => return Err(too_large(disk, from, bound).into()),
            Err(error) => {
                let text = format!("disk {} of {} cannot be copied: {error}", disk.name, disk.member_name);
                let advice = "leave the volume out with the annotation cryopod.dev/volumes: skip";
                return Err(Refusal::new(COPY_UNREADABLE, text, advice).into());
            }
        }
    }
    Ok(sum)
}

pub(super) fn too_large(disk: &PlannedDisk, from: &Path, bound: u64) -> Refusal {
    let text = format!(
        "disk {} of {} ({}) is not on ZFS and would have to be copied while the pod is frozen, and all such disks \
         together hold more than {} MiB",
        disk.name,
        disk.member_name,
        from.display(),
        bound >> 20
    );
    let advice =
        "put it on ZFS, raise checkpoint.volume_copy_limit, or leave it out with cryopod.dev/volumes: skip";
    Refusal::new(COPY_TOO_LARGE, text, advice)
}

/// A link of CRIU's on a shared volume that the capture of the volume cannot hold.
pub(super) fn unlinked(disk: &PlannedDisk, member: &str, link: &Path) -> Refusal {
    let text = format!(
        "container {member} has a deleted file open on the volume {} of {}, which still has another name (CRIU's link \
         {}), and the volume is captured before that link is there",
        disk.name,
        disk.member_name,
        link.display()
    );
    let advice = "let the container close the file, or checkpoint the disk only";
    Refusal::new(SHARED_UNLINKED, text, advice)
}

fn space(store: &Store, memory: u64, copied: u64, available: u64) -> Result<(), Refusal> {
    let needed = memory.saturating_add(memory / 8).saturating_add(copied).saturating_add(SLACK);
    if available >= needed {
        return Ok(());
    }
    let text = format!(
        "the memory of the pod needs {} MiB with some slack, {} has {} MiB",
        needed >> 20,
        store.place(),
        available >> 20
    );
    Err(Refusal::new(NO_SPACE, text, "prune checkpoints, enlarge the store, or use mode disk"))
}
