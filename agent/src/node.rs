//! What the agent does on its own node: captures by the shims, and what is in the store. Everything here blocks; the
//! controllers call it off their event loop.
//!
//! Behind a trait, so that controllers are tested against a node whose answers are given.

mod local;

use std::collections::BTreeMap;
use std::time::Duration;

use cryopod_checkpoint::id::CheckpointId;
use cryopod_checkpoint::manifest::{CapturedMode, Manifest};
use cryopod_command::Cancel;
use jiff::Timestamp;

pub use local::LocalNode;

/// Label in a checkpoint's manifest: `namespace/name` of its object.
pub const LABEL_OBJECT: &str = "cryopod.dev/podcheckpoint";
/// Label in a checkpoint's manifest: UID of its object.
pub const LABEL_UID: &str = "cryopod.dev/podcheckpoint-uid";

/// A capture to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Id that it gets in the store.
    pub id: CheckpointId,
    /// UID of the pod.
    pub pod_uid: String,
    /// `namespace/name` of the pod, for messages.
    pub pod: String,
    /// These containers of it; none for the whole pod.
    pub containers: Vec<String>,
    /// `full`, `disk`, `auto`; None for what the pod's annotation or the configuration says.
    pub mode: Option<&'static str>,
    /// Kept in the manifest.
    pub labels: BTreeMap<String, String>,
    /// Who asked the cluster for it, for the node's audit log.
    pub requested_by: Option<String>,
    /// Longest that it may take.
    pub timeout: Duration,
}

/// A committed checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its id.
    pub id: CheckpointId,
    /// UID of the object that it was made for; None for one that was made otherwise.
    pub object_uid: Option<String>,
    /// What was captured.
    pub mode: CapturedMode,
    /// Why mode `auto` took the disk alone.
    pub memory_refused: Option<String>,
    /// When the capture began.
    pub created: Timestamp,
    /// Time in which no task of the pod ran.
    pub freeze: Duration,
    /// From the beginning to the commit.
    pub total: Duration,
    /// Bytes of memory images and copied volumes.
    pub memory_bytes: u64,
    /// Bytes that the disks refer to.
    pub disk_bytes: u64,
    /// CRIU's part of the freeze, of each container with memory.
    pub criu_frozen: Vec<Duration>,
    /// The atomic snapshots of the disks, with the time that each took.
    pub snapshots: Vec<Duration>,
    /// Name, image and whether there is memory, of each container.
    pub containers: Vec<(String, String, bool)>,
    /// Where the store is: dataset or directory.
    pub place: String,
}

/// How the phase of a capture begins in which ZFS takes the snapshots.
const SNAPSHOT: &str = "disks";

impl Stored {
    /// What the manifest says.
    pub fn of(manifest: &Manifest, place: String) -> Self {
        let summary = manifest.summary();
        let member = |record: &cryopod_checkpoint::manifest::MemberRecord| {
            (record.member.name.clone(), record.member.image.clone(), record.memory.is_some())
        };
        Self {
            id: manifest.id.clone(),
            object_uid: manifest.labels.get(LABEL_UID).cloned(),
            mode: manifest.mode,
            memory_refused: manifest.memory_refused.as_ref().map(ToString::to_string),
            created: manifest.created,
            freeze: manifest.timeline.freeze(),
            total: manifest.timeline.total(),
            memory_bytes: summary.memory_bytes,
            disk_bytes: summary.disk_bytes,
            criu_frozen: manifest
                .members
                .iter()
                .filter_map(|record| record.memory.as_ref())
                .map(|memory| Duration::from_micros(memory.frozen_us))
                .collect(),
            snapshots: manifest
                .timeline
                .phases
                .iter()
                .filter(|phase| phase.name.starts_with(SNAPSHOT))
                .map(|phase| Duration::from_micros(phase.duration_us))
                .collect(),
            containers: manifest.members.iter().map(member).collect(),
            place,
        }
    }
}

/// How far a capture is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// Step, e.g. `freeze`.
    pub step: String,
    /// Bytes done in this step.
    pub done: u64,
    /// Bytes of this step in all; 0 where that is not known.
    pub total: u64,
}

/// The node did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// No shim of ours runs this pod.
    #[error(
        "no shim of cryopod runs pod {pod} on this node: only pods whose runtimeClassName names a handler of cryopod can be \
         captured"
    )]
    NotOurs {
        /// `namespace/name`.
        pod: String,
    },
    /// Another capture of the pod goes on.
    #[error("another checkpoint of pod {pod} is being taken")]
    Busy {
        /// `namespace/name`.
        pod: String,
    },
    /// The shim refused or failed; the pod runs on.
    #[error("{message}")]
    Capture {
        /// Stable word for metrics: the code of a refusal, or the kind of error.
        reason: String,
        /// What was tried, on what, what was said and what to do.
        message: String,
    },
    /// The shim could not be reached; it may be starting or ending.
    #[error("the shim of pod {pod} does not answer: {message}")]
    Unreachable {
        /// `namespace/name`.
        pod: String,
        /// What was said.
        message: String,
    },
    /// The caller ended it; the pod runs on.
    #[error("the checkpoint was ended before it was complete")]
    Cancelled,
    /// The store of the node.
    #[error("the store of this node: {0}")]
    Store(String),
}

impl NodeError {
    /// One word for metrics.
    pub fn reason(&self) -> &str {
        match self {
            Self::NotOurs { .. } => "not-ours",
            Self::Busy { .. } => "busy",
            Self::Capture { reason, .. } => reason,
            Self::Unreachable { .. } => "unreachable",
            Self::Cancelled => "cancelled",
            Self::Store(_) => "store",
        }
    }

    /// Whether the same may work a little later, with nobody doing anything.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Busy { .. } | Self::Unreachable { .. })
    }
}

/// The agent's hands on its node.
pub trait NodeWork: Send + Sync + 'static {
    /// Captures a pod; returns when the checkpoint is committed.
    ///
    /// # Errors
    /// See [`NodeError`]; the pod runs on in every case.
    fn capture(
        &self,
        order: &Order,
        progress: &mut dyn FnMut(Progress),
        cancel: &Cancel,
    ) -> Result<Stored, NodeError>;

    /// A committed checkpoint, whole.
    ///
    /// # Errors
    /// [`NodeError::Store`].
    fn stored(&self, id: &CheckpointId) -> Result<Option<Stored>, NodeError>;

    /// Whether there is a committed checkpoint of this id; may be some seconds old.
    ///
    /// # Errors
    /// [`NodeError::Store`].
    fn has(&self, id: &CheckpointId) -> Result<bool, NodeError>;

    /// Deletes a checkpoint; that there is none is fine.
    ///
    /// # Errors
    /// [`NodeError::Store`].
    fn delete(&self, id: &CheckpointId) -> Result<(), NodeError>;
}
