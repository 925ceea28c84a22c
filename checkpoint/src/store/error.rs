//! What can go wrong with a store.

use std::io;
use std::path::{Path, PathBuf};

use cryopod_command::Stop;
use cryopod_zfs::{DatasetName, Error as ZfsError, NameError};

use crate::digest::HashError;
use crate::fault::Injected;
use crate::id::CheckpointId;
use crate::kind::Kind;
use crate::lock::LockError;
use crate::manifest::ManifestError;
use crate::tree::TreeError;

/// A store that could not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no such checkpoint, or it is not committed.
    #[error("there is no checkpoint {id} in {store}")]
    NotFound {
        /// What was asked for.
        id: CheckpointId,
        /// Where it was looked for.
        store: String,
    },
    /// There is none that a pod can mean.
    #[error(
        "there is no checkpoint {reference} in {store}: a pod can only be restored on the node that has the checkpoint, which \
         .status.nodeName of its PodCheckpoint names; `cryopod checkpoints list` shows what this node has"
    )]
    NotHere {
        /// What the pod wrote.
        reference: String,
        /// Where it was looked for.
        store: String,
    },
    /// There is one already.
    #[error("checkpoint {id} exists already in {store}")]
    Exists {
        /// The id.
        id: CheckpointId,
        /// Where.
        store: String,
    },
    /// A restore or an export goes on.
    #[error(
        "checkpoint {id} is being read: by a restore whose container has not started yet, or by an export"
    )]
    InUse {
        /// The id.
        id: CheckpointId,
    },
    /// ZFS was asked for by name and is not usable.
    #[error(
        "the ZFS store cannot be used: {why}; set store.zfs.root to a dataset of an imported pool, or store.kind to \"dir\""
    )]
    NoPool {
        /// Why not.
        why: String,
    },
    /// What is there was not made by us, as far as anybody can see.
    #[error("{place} is not a store of cryopod: there is something in it, and no mark of ours; {advice}")]
    NotOurs {
        /// Dataset or directory.
        place: String,
        /// What to do.
        advice: String,
    },
    /// The stored data is not what the manifest says.
    #[error("checkpoint {id} is damaged: {damage}")]
    Damaged {
        /// Which one.
        id: CheckpointId,
        /// The first damage found.
        damage: Damage,
    },
    /// The manifest is not acceptable.
    #[error("checkpoint {id}: {source}")]
    Manifest {
        /// Which one.
        id: CheckpointId,
        /// Why not.
        source: ManifestError,
    },
    /// A name cannot be given back, since somebody else's dataset has it.
    #[error(
        "dataset {dataset} is not the clone of checkpoint {id} that stood there, so it is not destroyed; the dataset of \
         that name waits as {aside}: rename or destroy the new one, then `cryopod recover` gives the name back"
    )]
    Foreign {
        /// The name.
        dataset: DatasetName,
        /// The checkpoint whose clone was expected.
        id: String,
        /// Where the dataset of that name is.
        aside: DatasetName,
    },
    /// ZFS could not.
    #[error(transparent)]
    Zfs(#[from] ZfsError),
    /// A name that ZFS does not take.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A file operation failed.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A tree could not be copied.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// A lock could not be had.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// A marker could not be put into JSON.
    #[error("cannot write the marker of a checkpoint: {0}")]
    Marker(serde_json::Error),
    /// Deadline or cancel.
    #[error("stopped ({0:?})")]
    Stopped(Stop),
    /// A test asked for it.
    #[error(transparent)]
    Fault(#[from] Injected),
}

/// In what the stored data differs from the manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// The manifest itself was changed after the commit.
    #[error("its manifest was changed after the commit")]
    Manifest,
    /// The marker cannot be read.
    #[error("its marker cannot be read")]
    Marker,
    /// A file is not there.
    #[error("file {0} is missing")]
    Missing(String),
    /// A file has another length or hash.
    #[error("file {0} was changed")]
    Changed(String),
    /// A file is there that the manifest does not know.
    #[error("{0} does not belong to it")]
    Stray(String),
    /// A copied disk has another hash.
    #[error("disk {0} was changed")]
    Tree(String),
    /// A snapshot is neither in the store nor at its source.
    #[error("the snapshot of disk {disk} (guid {guid}) is gone")]
    Snapshot {
        /// The disk.
        disk: String,
        /// Guid of the snapshot.
        guid: u64,
    },
}

impl StoreError {
    /// How a caller should react.
    pub fn kind(&self) -> Kind {
        match self {
            Self::NotFound { .. } | Self::NotHere { .. } => Kind::NotFound,
            Self::Exists { .. } => Kind::AlreadyExists,
            Self::NoPool { .. } | Self::NotOurs { .. } | Self::Foreign { .. } => Kind::FailedPrecondition,
            Self::InUse { .. } => Kind::Unavailable,
            Self::Damaged { .. } => Kind::DataLoss,
            Self::Manifest { source, .. } => source.kind(),
            Self::Zfs(error) => zfs_kind(error),
            Self::Name(_) => Kind::InvalidArgument,
            Self::Io { source, .. } => Kind::from(source),
            Self::Tree(error) => error.kind(),
            Self::Lock(LockError::Stopped { stop, .. }) | Self::Stopped(stop) => Kind::from(*stop),
            Self::Lock(LockError::Io { source, .. }) => Kind::from(source),
            Self::Marker(_) | Self::Fault(_) => Kind::Internal,
        }
    }

    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }

    pub(crate) fn hash(path: &Path) -> impl FnOnce(HashError) -> Self {
        let path = path.to_owned();
        move |error| match error {
            HashError::Io(source) => Self::Io { action: "read", path, source },
            HashError::Stopped(stop) => Self::Stopped(stop),
        }
    }
}

/// How a caller should react to an error of ZFS.
pub fn zfs_kind(error: &ZfsError) -> Kind {
    match error {
        ZfsError::NotFound { .. } | ZfsError::HoldMissing { .. } => Kind::NotFound,
        ZfsError::Exists { .. } | ZfsError::HoldExists { .. } => Kind::AlreadyExists,
        ZfsError::NoSpace { .. } => Kind::ResourceExhausted,
        ZfsError::Permission { .. } => Kind::PermissionDenied,
        ZfsError::PoolMissing { .. } | ZfsError::PoolSuspended { .. } | ZfsError::Busy { .. } => {
            Kind::Unavailable
        }
        ZfsError::StreamTruncated { .. } | ZfsError::StreamCorrupt { .. } => Kind::DataLoss,
        ZfsError::Deadline { .. } => Kind::DeadlineExceeded,
        ZfsError::Cancelled { .. } => Kind::Cancelled,
        ZfsError::Unsupported { .. } => Kind::Unimplemented,
        ZfsError::InvalidProperty { .. } | ZfsError::InvalidRequest { .. } | ZfsError::InvalidName(_) => {
            Kind::InvalidArgument
        }
        ZfsError::HasDependents { .. }
        | ZfsError::Encryption { .. }
        | ZfsError::ReadOnly { .. }
        | ZfsError::ResumeExists { .. }
        | ZfsError::BaseMissing { .. }
        | ZfsError::Diverged { .. }
        | ZfsError::IvsetMismatch { .. }
        | ZfsError::Mounted { .. }
        | ZfsError::NotLatest { .. }
        | ZfsError::CrossesPools { .. }
        | ZfsError::NotAClone { .. } => Kind::FailedPrecondition,
        ZfsError::Unparsable { .. }
        | ZfsError::Tool { .. }
        | ZfsError::System { .. }
        | ZfsError::Unknown { .. } => Kind::Internal,
    }
}
