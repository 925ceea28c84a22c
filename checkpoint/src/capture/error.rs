//! Why a capture did not come about. In every case the pod runs as before, except for [`CaptureError::Thaw`].

use cryopod_command::Stop;

use crate::fault::Injected;
use crate::id::NameError;
use crate::journal::JournalError;
use crate::kind::Kind;
use crate::refusal::{Refusal, SHARED_UNLINKED};
use crate::store::StoreError;
use crate::target::TargetError;
use crate::tree::TreeError;

/// A capture that failed; nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// Refused before anything was touched.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The pod has no container.
    #[error("pod {0} has no running container to capture")]
    Empty(String),
    /// Two containers or disks cannot be told apart.
    #[error("{0} is there twice")]
    Twice(String),
    /// A container or disk whose name cannot be stored.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The backend could not.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The dump came back without having asked for its disks: memory and disk would be from different instants.
    #[error("the dump of {member} did not call the snapshot hook; is another CRIU configuration in force?")]
    NoInstant {
        /// The container.
        member: String,
    },
    /// The snapshot or copy at the instant failed; the dump was rolled back.
    #[error("capturing the disks of {member}: {source}")]
    Instant {
        /// The container.
        member: String,
        /// Why.
        source: StoreError,
    },
    /// A container could not be thawed. The journal knows; recovery tries again.
    #[error("the pod may still be frozen: {0}; `cryopod recover` tries again to thaw it")]
    Thaw(TargetError),
    /// The store could not.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The journal could not.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Deadline or cancel between two steps.
    #[error("the capture was stopped ({0:?})")]
    Stopped(Stop),
    /// A test asked for it.
    #[error(transparent)]
    Fault(#[from] Injected),
}

impl CaptureError {
    /// The reason, when it was the memory of the pod that could not be captured and its disks alone could.
    pub(super) fn memory_refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) if refusal.code == SHARED_UNLINKED => Some(refusal),
            Self::Target(error) => error.refused.as_deref(),
            _ => None,
        }
    }

    /// The refusal with its three parts, where this is one: from before anything was touched, or from the dump.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            Self::Target(error) => error.refused.as_deref(),
            _ => None,
        }
    }

    /// How a caller should react.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Refused(_) | Self::Empty(_) => Kind::FailedPrecondition,
            Self::Twice(_) | Self::Name(_) => Kind::InvalidArgument,
            Self::Target(error) | Self::Thaw(error) => error.kind,
            Self::NoInstant { .. } | Self::Fault(_) => Kind::Internal,
            Self::Instant { source, .. } => source.kind(),
            Self::Store(error) => error.kind(),
            Self::Journal(error) => error.kind(),
            Self::Stopped(stop) => Kind::from(*stop),
        }
    }
}

impl From<TreeError> for CaptureError {
    fn from(error: TreeError) -> Self {
        Self::Store(error.into())
    }
}
