//! What a capture works on: a pod (or one container) that can be frozen and dumped.
//!
//! `checkpoint` owns the transaction and calls this trait; `cryopod-runtime` implements it for each
//! backend. Nothing here knows CRIU, cgroups or a runtime binary. Everything that recovery needs after
//! the capturing process has died stands in [`Member`], because it is written to the journal.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use cryopod_command::Limits;
use cryopod_zfs::DatasetName;
use serde::{Deserialize, Serialize};

use crate::kind::Kind;
use crate::refusal::Refusal;

/// Who is captured: the pod as Kubernetes and containerd know it, or a standalone container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PodIdentity {
    /// Sandbox id of containerd, or the container id of a standalone bundle.
    pub id: String,
    /// Pod name, or the container id of a standalone bundle.
    pub name: String,
    /// Kubernetes namespace; empty for a standalone container.
    pub namespace: String,
    /// Kubernetes pod UID; empty where there is none.
    pub uid: String,
}

/// What kind of file system path a captured disk was, and how its contents are reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
pub enum DiskSource {
    /// A ZFS file system: captured by an atomic snapshot, cost independent of size.
    Zfs {
        /// Dataset that holds the files.
        dataset: DatasetName,
        /// Where it is mounted, for `syncfs`.
        mountpoint: PathBuf,
    },
    /// The writable layer of an overlay mount: copied while frozen.
    Overlay {
        /// `upperdir=` of the mount.
        upper: PathBuf,
        /// The mounted tree, for `syncfs`.
        merged: PathBuf,
    },
    /// Any other directory: copied whole while frozen.
    Tree {
        /// Directory whose contents are captured.
        path: PathBuf,
    },
}

/// The part a disk plays in its container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
pub enum DiskRole {
    /// The root file system.
    Rootfs,
    /// A writable volume, found again in the new pod by its mount destination.
    Volume {
        /// Mount destination inside the container.
        destination: PathBuf,
        /// Volume name for messages (emptyDir name, or the destination).
        name: String,
    },
}

/// One file system of a container that belongs to the checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// Name inside the checkpoint: `rootfs`, `volume-0`, … ([a-z0-9-], unique in the member).
    pub name: String,
    /// The part it plays.
    pub role: DiskRole,
    /// Where its contents are now.
    pub source: DiskSource,
}

/// One container of the pod: what the manifest records and what recovery must find again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// Stable name inside the checkpoint: the CRI container name, or the id of a standalone container.
    pub name: String,
    /// Container id in the runtime.
    pub id: String,
    /// Image reference; empty where there is none.
    pub image: String,
    /// Backend and runtime that ran it, e.g. `oci/crun 1.21`.
    pub runtime: String,
    /// PID of its init on the host.
    pub pid: u32,
    /// Resident memory in bytes at preflight; decides about pre-dump rounds and needed space.
    pub rss_bytes: u64,
    /// cgroup v2 directory, absolute (`/sys/fs/cgroup/...`).
    pub cgroup: PathBuf,
    /// Whether an administrator had paused it before: then it stays paused.
    pub was_paused: bool,
    /// Whether its stdio is a terminal.
    pub terminal: bool,
    /// Root file system as mounted on the host.
    pub rootfs: PathBuf,
    /// The OCI spec it runs with (`config.json`).
    pub spec: serde_json::Value,
    /// Root file system first, then captured volumes.
    pub disks: Vec<Disk>,
}

/// Where one dump writes its images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageDir {
    /// Directory for the image files; exists and is empty.
    pub dir: PathBuf,
    /// The previous pre-dump round, relative to `dir` (e.g. `../1`): CRIU stores it as a symlink.
    pub parent: Option<PathBuf>,
}

/// What happens to established TCP connections at dump time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TcpPolicy {
    /// They go on where all of them can (over loopback, or a pod that has its address again); else they are closed.
    #[default]
    Keep,
    /// Restore closes them in any case.
    Close,
}

/// Options of one dump.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DumpOptions {
    /// Established TCP connections.
    pub tcp: TcpPolicy,
    /// Leave the tasks stopped for good after the dump (`ctr task checkpoint --exit`, moves).
    pub exit: bool,
}

/// What the dump reported.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DumpStats {
    /// CRIU's own `frozen_time` in microseconds, from `stats-dump`.
    pub frozen_us: u64,
    /// Memory pages (4 KiB) written in this round.
    pub pages_written: u64,
    /// Own addresses of the established TCP connections in the member's network; `None` when nobody looked.
    #[serde(default)]
    pub connected: Option<Vec<IpAddr>>,
}

/// A backend could not do its part. `kind` decides the answer to the caller, `source` says what happened.
#[derive(Debug, thiserror::Error)]
#[error("{step} of container {container}: {source}")]
pub struct TargetError {
    /// What was tried: `freeze`, `dump`, `thaw`, …
    pub step: &'static str,
    /// Container id.
    pub container: String,
    /// How a caller should react.
    pub kind: Kind,
    /// Set when the dump was refused for what the process is: it would be refused again, and the disks alone can be
    /// captured. Never for a limit, a crash or a failure of ours.
    pub refused: Option<Box<Refusal>>,
    /// What the kernel, the runtime or CRIU said.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// Called while no task of the member runs and its memory is in the images; an error rolls the dump back.
pub type AtInstant<'a> = dyn Fn() -> Result<(), String> + Sync + 'a;

/// A pod that can be frozen, dumped and thawed. All calls block.
pub trait Target: Send + Sync {
    /// Who is captured.
    fn pod(&self) -> &PodIdentity;

    /// The containers, in start order. Stable for the life of the target.
    fn members(&self) -> &[Member];

    /// Stops every task of every member at once; on error nothing is left frozen that was not before.
    fn freeze(&self, limits: &Limits) -> Result<(), TargetError>;

    /// Undoes `freeze` on every member, those that were paused before excepted, and what a dump with `exit` left
    /// stopped (a later member may have failed). Idempotent; tries all members even when one fails.
    fn thaw(&self) -> Result<(), TargetError>;

    /// Puts a member right after a dump or pre-dump has failed, whose own roll-back may have failed as well: as
    /// [`Repair::repair`], which is tried later when this fails. Costs nothing where all is well.
    fn put_right(&self, member: &Member, frozen_by_us: bool) -> Result<(), TargetError>;

    /// One memory round with the member running; its images are the parent of the next.
    fn pre_dump(&self, member: &Member, images: &ImageDir, limits: &Limits)
    -> Result<DumpStats, TargetError>;

    /// Dumps a frozen member's memory, calls `at_instant` exactly once while nothing of it runs, and leaves it
    /// frozen as it was. On error the member is as before the call.
    fn dump(
        &self,
        member: &Member,
        images: &ImageDir,
        options: &DumpOptions,
        at_instant: &AtInstant<'_>,
        limits: &Limits,
    ) -> Result<DumpStats, TargetError>;
}

/// Puts a member right after a capture that died half-way: network lock, `link_remap.*` files, a lost pause, a
/// cgroup left frozen. Needs nothing but what the journal holds, since the capturing process may be gone.
pub trait Repair: Send + Sync {
    /// Idempotent; a container that no longer exists is success. `frozen_by_us` says whether our freeze may
    /// still be in force.
    fn repair(&self, member: &Member, frozen_by_us: bool, patience: Duration) -> Result<(), TargetError>;

    /// Ends a member whose checkpoint was committed and was to end it; whether there was anything to end. One that
    /// somebody has let run again since is left to them: it is frozen for as long as it is ours to end.
    fn end(&self, member: &Member, patience: Duration) -> Result<bool, TargetError>;
}
