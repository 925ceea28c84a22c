//! One journal entry and the operations it can describe, each with what undoing or finishing needs.

use std::hash::{BuildHasher, Hasher, RandomState};

use cryopod_zfs::{DatasetName, Guid};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Owner;
use crate::id::CheckpointId;
use crate::target::{Member, PodIdentity};

/// The version that this program writes and the only one that exists.
pub const VERSION: u32 = 1;

/// How far a capture is; written before the step of that name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CaptureStage {
    /// Nothing is touched yet but the store.
    Prepared,
    /// Tasks may be frozen by us, snapshots may exist.
    Freezing,
    /// Everything runs again; the rest is the store's.
    Thawed,
    /// The marker is about to be set.
    Committing,
}

/// A snapshot that a capture is going to take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedSnapshot {
    /// Of this dataset.
    pub dataset: DatasetName,
    /// With this name, the part after `@`.
    pub snapshot: String,
}

/// What is being done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Operation {
    /// A pod is captured. Undo: repair and thaw the members, drop the snapshots and the draft; if the marker is
    /// set, keep the checkpoint.
    Capture {
        /// The checkpoint to be.
        checkpoint: CheckpointId,
        /// Whose it is.
        pod: PodIdentity,
        /// The members, with everything that repair needs.
        members: Vec<Member>,
        /// Snapshots on datasets that are not ours.
        snapshots: Vec<PlannedSnapshot>,
        /// Whether the tasks are to stay stopped after the commit.
        exit: bool,
        /// How far it is.
        stage: CaptureStage,
    },
    /// A clone takes the place of a container's fresh dataset. Undo: the fresh one gets its name back. Done once
    /// the clone stands: finish by destroying the fresh one.
    Place {
        /// Checkpoint that is restored.
        checkpoint: CheckpointId,
        /// Name whose contents change.
        dataset: DatasetName,
        /// Guid of the fresh dataset, which tells it from the clone under the same name.
        fresh: Guid,
        /// Where the fresh dataset waits.
        aside: DatasetName,
        /// Where the contents arrive when they come from another pool.
        incoming: Option<DatasetName>,
        /// True once the clone is whole: from then on the operation is finished, not undone.
        placed: bool,
    },
    /// A dataset moves into the store and an empty one takes its name. Recovery finishes it.
    Adopt {
        /// Name under which its owner knows it.
        dataset: DatasetName,
        /// Guid of the dataset that moves.
        guid: Guid,
        /// Name in the store.
        adopted: DatasetName,
    },
    /// A clone stands under a dataset's name while containerd reads it. Recovery swaps back.
    Swap {
        /// The name.
        dataset: DatasetName,
        /// Guid of the real dataset.
        guid: Guid,
        /// Where the real dataset is meanwhile.
        aside: DatasetName,
        /// Snapshot the clone is made of, on the real dataset.
        snapshot: String,
    },
    /// A checkpoint comes in from a stream. Undo: drop the draft; if the marker is set, keep it.
    Import {
        /// The checkpoint to be.
        checkpoint: CheckpointId,
    },
}

/// An operation with its owner.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Format version.
    pub version: u32,
    /// Name of the operation, also of its file.
    pub op: String,
    /// Who does it; None once it was given up.
    pub owner: Option<Owner>,
    /// When it began.
    pub created: Timestamp,
    /// What is done.
    pub operation: Operation,
}

/// A file that is no journal entry.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    /// Not JSON, or not of the documented shape.
    #[error("it cannot be read: {0}")]
    Json(#[from] serde_json::Error),
    /// Written by another version of the program.
    #[error("it has version {0}, this program reads version {VERSION}")]
    Version(u32),
}

impl Entry {
    /// A new entry with a name of its own.
    pub(super) fn new(owner: Owner, created: Timestamp, operation: Operation) -> Self {
        let kind = match operation {
            Operation::Capture { .. } => "capture",
            Operation::Place { .. } => "place",
            Operation::Adopt { .. } => "adopt",
            Operation::Swap { .. } => "swap",
            Operation::Import { .. } => "import",
        };
        let random = RandomState::new().build_hasher().finish();
        let op = format!("{kind}-{}-{random:016x}", created.strftime("%Y%m%d%H%M%S"));
        Self { version: VERSION, op, owner: Some(owner), created, operation }
    }

    /// Reads an entry.
    pub fn parse(bytes: &[u8]) -> Result<Self, EntryError> {
        #[derive(Deserialize)]
        struct VersionOnly {
            version: u32,
        }
        let VersionOnly { version } = serde_json::from_slice(bytes)?;
        if version != VERSION {
            return Err(EntryError::Version(version));
        }
        Ok(serde_json::from_slice(bytes)?)
    }
}
