//! What a list of checkpoints says about each of them, without opening its manifest.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::id::CheckpointId;
use crate::manifest::CapturedMode;
use crate::target::PodIdentity;

/// One committed checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointInfo {
    /// Its id.
    pub id: CheckpointId,
    /// When the capture began.
    pub created: Timestamp,
    /// Memory and disk, or disk alone.
    pub mode: CapturedMode,
    /// Whose it is.
    pub pod: PodIdentity,
    /// Names of the captured containers.
    pub members: Vec<String>,
    /// Independent of its source: the pod and its datasets can go.
    pub settled: bool,
    /// It came in a stream: what it says of pod and time is its sender's word.
    #[serde(default)]
    pub imported: bool,
    /// A person asked to keep it; prune never deletes it.
    pub held: bool,
    /// Bytes of memory images and copied disks.
    pub memory_bytes: u64,
    /// Bytes that the disks refer to, shared with their bases or not.
    pub disk_bytes: u64,
    /// Datasets that live on its disks (restored pods, later checkpoints).
    pub sharers: Vec<String>,
}

/// The part of [`CheckpointInfo`] that never changes; the ZFS store keeps it as a user property, so that a list
/// mounts nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Summary {
    /// When the capture began.
    pub created: Timestamp,
    /// Memory and disk, or disk alone.
    pub mode: CapturedMode,
    /// Whose it is.
    pub pod: PodIdentity,
    /// Names of the captured containers.
    pub members: Vec<String>,
    /// Bytes of memory images and copied disks.
    pub memory_bytes: u64,
    /// Bytes that the disks refer to.
    pub disk_bytes: u64,
}
