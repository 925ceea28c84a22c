//! How a caller should react to an error, shared by all crates above `zfs`.
//!
//! Each error enum maps its variants here; the shim turns a [`Kind`] into a ttrpc code, the command into an exit
//! code. containerd branches on NOT_FOUND, ALREADY_EXISTS, FAILED_PRECONDITION and UNIMPLEMENTED, so these four
//! must be right; see containerd `pkg/errdefs`.

use std::io;

use cryopod_command::Stop;
use serde::{Deserialize, Serialize};

/// Class of an error, named after the gRPC code it becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The named thing does not exist (any more).
    NotFound,
    /// It exists already.
    AlreadyExists,
    /// The request itself is wrong; repeating it is useless.
    InvalidArgument,
    /// Not possible in the present state; the message says what to change.
    FailedPrecondition,
    /// This backend or node cannot do it at all.
    Unimplemented,
    /// A deadline passed.
    DeadlineExceeded,
    /// The caller cancelled.
    Cancelled,
    /// No space, quota, or a limit of ours.
    ResourceExhausted,
    /// Rights are missing.
    PermissionDenied,
    /// Something needed is not there now (pool suspended, socket gone); trying again may help.
    Unavailable,
    /// Stored data is damaged or contradicts itself.
    DataLoss,
    /// Anything else.
    Internal,
}

impl From<Stop> for Kind {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Deadline => Self::DeadlineExceeded,
            Stop::Cancelled => Self::Cancelled,
        }
    }
}

impl From<&io::Error> for Kind {
    fn from(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::NotFound,
            io::ErrorKind::AlreadyExists => Self::AlreadyExists,
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Self::PermissionDenied,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::ResourceExhausted,
            io::ErrorKind::TimedOut => Self::DeadlineExceeded,
            io::ErrorKind::IsADirectory | io::ErrorKind::NotADirectory => Self::InvalidArgument,
            _ => Self::Internal,
        }
    }
}
