//! Why a request about a container could not be done; each variant maps to the ttrpc code that containerd expects.

use std::path::PathBuf;

use cryopod_checkpoint::kind::Kind;

use crate::backends::BackendsError;
use crate::bundle::BundleError;
use crate::capture::DoorError;
use crate::events::EventsError;
use crate::io::IoError;
use crate::mounts::MountError;
use crate::process::state::Refused;
use crate::rpc::Failure;

/// A request about a container, or one of its processes, failed.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// No such container in this pod.
    #[error("container {id} does not exist")]
    NoContainer {
        /// Container id.
        id: String,
    },
    /// No such exec.
    #[error("process {exec} of container {id} does not exist")]
    NoProcess {
        /// Container id.
        id: String,
        /// Exec id.
        exec: String,
    },
    /// It ended; containerd ignores exactly NOT_FOUND when it kills what is dead.
    #[error("process {process} of container {id} has ended already")]
    Ended {
        /// Container id.
        id: String,
        /// `init` or the exec id.
        process: String,
    },
    /// The id is taken.
    #[error("{what} {id} exists already")]
    Exists {
        /// `container` or `process`.
        what: &'static str,
        /// The id.
        id: String,
    },
    /// An id that cannot be part of a path.
    #[error("id {0:?} is not usable as a file name")]
    BadId(String),
    /// Not possible in its present state.
    #[error("container {id}: {source}")]
    State {
        /// Container id.
        id: String,
        /// Which change, in which state.
        source: Refused,
    },
    /// Something else is done to it, and its caller cannot wait any longer.
    #[error("container {id} cannot be deleted yet: its {doing} is under way; delete it again")]
    Occupied {
        /// Container id.
        id: String,
        /// `checkpoint`, `start`, …
        doing: &'static str,
    },
    /// An exec needs a running container.
    #[error("container {id} is {state}; a process can be started only in a running one")]
    NotRunning {
        /// Container id.
        id: String,
        /// Its state.
        state: &'static str,
    },
    /// What is captured has to be there.
    #[error("container {id} is {state}; only a running or paused one can be captured")]
    NotCapturable {
        /// Container id.
        id: String,
        /// Its state.
        state: &'static str,
    },
    /// There is no process yet that could be signalled.
    #[error("process {process} of container {id} was not started yet")]
    NotStarted {
        /// Container id.
        id: String,
        /// `init` or the exec id.
        process: String,
    },
    /// A message inside the request is not what it should be.
    #[error("{what} is not understood: {reason}")]
    Malformed {
        /// The field.
        what: &'static str,
        /// Why.
        reason: String,
    },
    /// The shim is about to end.
    #[error("the shim of this pod is shutting down")]
    ShuttingDown,
    /// The backend could not do it.
    #[error(transparent)]
    Backend(#[from] cryopod_runtime::error::Error),
    /// No backend for this container.
    #[error(transparent)]
    Backends(#[from] BackendsError),
    /// The cgroup could not be read.
    #[error(transparent)]
    Cgroup(#[from] cryopod_runtime::cgroup::CgroupError),
    /// Streams.
    #[error(transparent)]
    Io(#[from] IoError),
    /// Events.
    #[error(transparent)]
    Events(#[from] EventsError),
    /// Root file system.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// Bundle files.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The runtime reported a PID that is no process of ours.
    #[error("watch process {pid} of container {id}: {source}")]
    Watch {
        /// Container id.
        id: String,
        /// The PID.
        pid: u32,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// A signal could not be sent.
    #[error("send signal {signal} to process {pid} of container {id}: {source}")]
    Signal {
        /// Container id.
        id: String,
        /// The PID.
        pid: u32,
        /// The number.
        signal: i32,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// A directory of ours could not be made.
    #[error("make {path}: {source}", path = path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// A capture or restore.
    #[error(transparent)]
    Door(#[from] DoorError),
    /// A bug of ours; the shim lives on.
    #[error("internal error of the shim: {0}")]
    Panicked(String),
}

impl Failure for TaskError {
    fn kind(&self) -> Kind {
        match self {
            TaskError::NoContainer { .. } | TaskError::NoProcess { .. } | TaskError::Ended { .. } => {
                Kind::NotFound
            }
            TaskError::Exists { .. } => Kind::AlreadyExists,
            TaskError::BadId(_) | TaskError::Malformed { .. } => Kind::InvalidArgument,
            TaskError::State { .. }
            | TaskError::NotRunning { .. }
            | TaskError::NotCapturable { .. }
            | TaskError::NotStarted { .. } => Kind::FailedPrecondition,
            TaskError::ShuttingDown | TaskError::Occupied { .. } => Kind::Unavailable,
            TaskError::Backend(error) => error.kind(),
            TaskError::Backends(error) => error.kind(),
            TaskError::Cgroup(error) => error.kind(),
            TaskError::Io(error) => error.kind(),
            TaskError::Events(error) => error.kind(),
            TaskError::Mount(error) => error.kind(),
            TaskError::Door(error) => error.kind(),
            TaskError::Bundle(_) => Kind::InvalidArgument,
            TaskError::Watch { .. }
            | TaskError::Signal { .. }
            | TaskError::Directory { .. }
            | TaskError::Panicked(_) => Kind::Internal,
        }
    }
}

/// Runs a blocking call off the event loop.
///
/// # Errors
/// Those of the call; a panic in it becomes [`TaskError::Panicked`].
pub async fn blocking<T, E, F>(call: F) -> Result<T, TaskError>
where
    T: Send + 'static,
    E: Into<TaskError> + Send + 'static,
    F: FnOnce() -> Result<T, E> + Send + 'static,
{
    let span = tracing::Span::current();
    match tokio::task::spawn_blocking(move || span.in_scope(call)).await {
        Ok(result) => result.map_err(Into::into),
        Err(error) => Err(TaskError::Panicked(error.to_string())),
    }
}
