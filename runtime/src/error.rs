//! What can go wrong below the backend trait, each variant with the message for the person who must act.
//!
//! [`Error::kind`] is what callers branch on; containerd needs NOT_FOUND for what has ended, so everything about a
//! vanished process or container maps there.

use std::io;
use std::path::{Path, PathBuf};

use cryopod_checkpoint::kind::Kind;
use cryopod_checkpoint::refusal::Refusal;
use cryopod_command::Stop;

use crate::cgroup::CgroupError;
use crate::config::ConfigError;
use crate::criu::CriuError;
use crate::disk::DiskError;
use crate::spec::SpecError;

/// Why a backend did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing is known under that id.
    #[error("container {container} does not exist")]
    NoContainer {
        /// Container id.
        container: String,
    },
    /// The id is in use.
    #[error("container {container} exists already")]
    ContainerExists {
        /// Container id.
        container: String,
    },
    /// The process has ended, or its number belongs to another one now.
    #[error("process {pid} of container {container} has ended")]
    ProcessEnded {
        /// Container id.
        container: String,
        /// Process id on the host.
        pid: u32,
    },
    /// The runtime ran and refused.
    #[error("{runtime} {verb} of container {container}: {message}")]
    Runtime {
        /// Runtime name.
        runtime: String,
        /// What it was told to do.
        verb: &'static str,
        /// Container id.
        container: String,
        /// What it said.
        message: String,
        /// Read from what it said.
        kind: Kind,
    },
    /// The runtime could not be run to its end.
    #[error(transparent)]
    Command(#[from] cryopod_command::Error),
    /// The runtime reported success without telling the process id.
    #[error("{runtime} {verb} of container {container} left no process id in {}", path.display())]
    NoPid {
        /// Runtime name.
        runtime: String,
        /// What it was told to do.
        verb: &'static str,
        /// Container id.
        container: String,
        /// The file it should have written.
        path: PathBuf,
    },
    /// This backend cannot do it.
    #[error("{backend} cannot {what}")]
    Unsupported {
        /// Backend name.
        backend: String,
        /// What was asked.
        what: &'static str,
    },
    /// An id that is no name.
    #[error("'{id}' is no container or exec id: letters, digits, '-', '_', '.', '+', at most 200")]
    BadId {
        /// What was given.
        id: String,
    },
    /// Something else than 0 to 64 was asked for.
    #[error("{signal} is not a signal number")]
    NoSignal {
        /// The number.
        signal: i32,
    },
    /// A file of ours, of the kernel or of the runtime.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// What was tried, as in "read".
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A state file of the runtime is not what it should be.
    #[error("{} is no state of a container: {reason}", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The caller's limits ended the call between two steps.
    #[error("{step} of container {container} was stopped: {}", why(*stop))]
    Stopped {
        /// What was going on.
        step: &'static str,
        /// Container id.
        container: String,
        /// Which limit.
        stop: Stop,
    },
    /// Fault injection.
    #[error(transparent)]
    Injected(#[from] cryopod_checkpoint::fault::Injected),
    /// Configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// `config.json`.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// cgroups.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// CRIU.
    #[error(transparent)]
    Criu(#[from] CriuError),
    /// Disks and volumes.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

impl Error {
    pub(crate) fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { action, path, source }
    }

    /// The refusal, when CRIU did not dump a container for what its processes are; none for any other failure.
    pub(crate) fn refused_dump(&self, container: &str) -> Option<Refusal> {
        match self {
            Self::Criu(CriuError::Failed { verb: "dump", said, reason: Some(reason), .. })
                if reason.refuses =>
            {
                let text = format!("criu cannot dump container {container}: {said}");
                Some(Refusal::new(reason.code, text, reason.advice))
            }
            _ => None,
        }
    }

    /// The refusal with its three parts, where this is one.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Disk(DiskError::Refused(refusal)) => Some(refusal),
            _ => None,
        }
    }

    /// How a caller should react.
    pub fn kind(&self) -> Kind {
        match self {
            Self::NoContainer { .. } | Self::ProcessEnded { .. } => Kind::NotFound,
            Self::ContainerExists { .. } => Kind::AlreadyExists,
            Self::Runtime { kind, .. } => *kind,
            Self::Command(error) => of_command(error),
            Self::NoPid { .. } | Self::State { .. } | Self::Injected(_) => Kind::Internal,
            Self::Unsupported { .. } => Kind::Unimplemented,
            Self::BadId { .. } | Self::NoSignal { .. } | Self::Config(_) | Self::Spec(_) => {
                Kind::InvalidArgument
            }
            Self::File { source, .. } => of_io(source),
            Self::Stopped { stop, .. } => of_stop(*stop),
            Self::Cgroup(error) => error.kind(),
            Self::Criu(error) => error.kind(),
            Self::Disk(error) => error.kind(),
        }
    }
}

/// How a caller should react to a program that did not do its work.
pub(crate) fn of_command(error: &cryopod_command::Error) -> Kind {
    use cryopod_command::Error as E;
    match error {
        E::NotFound { .. } => Kind::FailedPrecondition,
        E::Deadline { .. } => Kind::DeadlineExceeded,
        E::Cancelled { .. } => Kind::Cancelled,
        E::Spawn { source, .. } | E::Io { source, .. } => of_io(source),
        E::Failed { .. } | E::TooMuchOutput { .. } => Kind::Internal,
    }
}

/// How a caller should react to what the kernel said.
pub(crate) fn of_io(error: &io::Error) -> Kind {
    match error.kind() {
        io::ErrorKind::NotFound => Kind::NotFound,
        io::ErrorKind::AlreadyExists => Kind::AlreadyExists,
        io::ErrorKind::PermissionDenied => Kind::PermissionDenied,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::OutOfMemory => {
            Kind::ResourceExhausted
        }
        io::ErrorKind::TimedOut => Kind::DeadlineExceeded,
        _ => Kind::Internal,
    }
}

pub(crate) fn of_stop(stop: Stop) -> Kind {
    match stop {
        Stop::Deadline => Kind::DeadlineExceeded,
        Stop::Cancelled => Kind::Cancelled,
    }
}

pub(crate) fn why(stop: Stop) -> &'static str {
    match stop {
        Stop::Deadline => "its deadline passed",
        Stop::Cancelled => "the caller cancelled",
    }
}
