//! What a restore asks for and what it gets.

use std::path::{Path, PathBuf};

use cryopod_zfs::DatasetName;

use crate::facts::NodeFacts;
use crate::fault::Injected;
use crate::id::CheckpointId;
use crate::journal::JournalError;
use crate::kind::Kind;
use crate::lock::Share;
use crate::manifest::MemberRecord;
use crate::settle::SettleError;
use crate::store::StoreError;
use crate::tree::TreeError;

/// The root file system that the new container was given, not mounted yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LiveRootfs {
    /// A ZFS dataset with legacy mountpoint.
    Zfs {
        /// Its name.
        dataset: DatasetName,
    },
    /// An overlay mount to be.
    Overlay {
        /// Its `upperdir=`.
        upper: PathBuf,
    },
    /// A plain directory, as in a standalone bundle.
    Tree {
        /// The directory.
        path: PathBuf,
    },
}

/// A volume of the new container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveVolume {
    /// Mount destination inside the container.
    pub destination: PathBuf,
    /// Directory on the host.
    pub source: PathBuf,
    /// Whether what is in it may be replaced. Otherwise it has to be empty: somebody else may use it, above all the
    /// container that was captured.
    pub replace: bool,
}

/// Which member of which checkpoint goes where.
#[derive(Clone)]
pub struct PlaceRequest<'a> {
    /// The checkpoint.
    pub checkpoint: &'a CheckpointId,
    /// Name of the member in it.
    pub member: &'a str,
    /// The new container, unique on the node ([`container_key`](super::container_key)); names what is made for it.
    pub container: &'a str,
    /// Its root file system.
    pub rootfs: LiveRootfs,
    /// Its volumes.
    pub volumes: &'a [LiveVolume],
    /// Volume directories that an earlier container of the same restored pod has brought back ([`Placed::volumes`]).
    pub filled: &'a [PathBuf],
    /// Called after each volume that was filled, whatever becomes of the rest.
    pub on_filled: &'a dyn Fn(&LiveVolume),
    /// This node, for the compatibility check; None skips it.
    pub facts: Option<&'a NodeFacts>,
    /// Name of the backend that will restore, e.g. `oci/crun`.
    pub backend: Option<&'a str>,
    /// Who asked a cluster for it, for the audit log.
    pub requested_by: Option<&'a str>,
}

/// What the caller mounts in place of the root it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Replacement {
    /// This dataset, by mount(2); its mountpoint is legacy.
    Zfs {
        /// Its name.
        dataset: DatasetName,
    },
    /// This directory, as a bind mount.
    Bind {
        /// The directory.
        path: PathBuf,
    },
}

/// Where the root file system is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RootfsPlacement {
    /// In what the request named: mount that as usual.
    InPlace,
    /// Elsewhere; removed by [`forget`](super::forget) when the container is deleted.
    MountInstead(Replacement),
}

/// A member whose disks are in place.
#[derive(Debug, Clone, PartialEq)]
pub struct Placed {
    /// Image directory of the dump (its `parent` links lead to the earlier rounds); None in a disk-only checkpoint.
    pub images: Option<PathBuf>,
    /// The member as it was captured.
    pub record: MemberRecord,
    /// Its root file system.
    pub rootfs: RootfsPlacement,
    /// Host directories of volumes that were filled.
    pub volumes: Vec<PathBuf>,
    /// What the person should know.
    pub notes: Vec<String>,
    /// Keeps the images until they have been read; to be dropped then.
    pub reading: Share,
}

/// A checkpoint that could not be put in place. The live root and its dataset are as they were; volumes may be
/// partly filled.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// There is no such member.
    #[error("checkpoint {id} has no container {member}, it has {}", known.join(", "))]
    Member {
        /// Checkpoint.
        id: CheckpointId,
        /// What was asked for.
        member: String,
        /// What there is.
        known: Vec<String>,
    },
    /// It cannot live on this node.
    #[error("checkpoint {id} cannot be restored here: {}", differences.join("; "))]
    Incompatible {
        /// Checkpoint.
        id: CheckpointId,
        /// Every difference.
        differences: Vec<String>,
    },
    /// The live dataset is in use.
    #[error("dataset {dataset} is mounted already; a checkpoint is placed before the root is mounted")]
    Mounted {
        /// The dataset.
        dataset: DatasetName,
    },
    /// Something is in a volume that may be somebody else's.
    #[error(
        "volume {name} is to be brought back into {}, which is not empty, and others may use it: empty it, or say what is \
         to become of it with the annotation cryopod.dev/restore-volumes: overwrite, or keep",
        path.display()
    )]
    Occupied {
        /// Name of the captured volume.
        name: String,
        /// Directory on the host.
        path: PathBuf,
    },
    /// The live dataset is not there.
    #[error("dataset {dataset} of the new container does not exist")]
    Gone {
        /// The dataset.
        dataset: DatasetName,
    },
    /// Settling did not work.
    #[error(transparent)]
    Settle(#[from] SettleError),
    /// The store could not.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The journal could not.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

impl PlaceError {
    /// How a caller should react.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Member { .. } | Self::Gone { .. } => Kind::NotFound,
            Self::Incompatible { .. } | Self::Mounted { .. } | Self::Occupied { .. } => {
                Kind::FailedPrecondition
            }
            Self::Settle(error) => error.kind(),
            Self::Store(error) => error.kind(),
            Self::Journal(error) => error.kind(),
        }
    }

    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let make = StoreError::io(action, path);
        move |source| make(source).into()
    }
}

macro_rules! by_store {
    ($($source:ty),*) => {$(
        impl From<$source> for PlaceError {
            fn from(error: $source) -> Self {
                Self::Store(StoreError::from(error))
            }
        }
    )*};
}
by_store!(cryopod_zfs::Error, cryopod_zfs::NameError, TreeError, Injected);
