//! Why the streams of a process cannot be opened or changed.

use std::io;
use std::path::PathBuf;

use cryopod_checkpoint::kind::Kind;

use crate::rpc::Failure;

/// The streams cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum IoError {
    /// A fifo or file cannot be opened.
    #[error("open {path} for the {stream} of the process: {source}", path = path.display())]
    Open {
        /// `stdin`, `stdout` or `stderr`.
        stream: &'static str,
        /// What was opened.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A scheme that no shim of this kind serves.
    #[error("streams of the kind {0} are not served by this runtime; use io_type = \"fifo\"")]
    Scheme(String),
    /// A path or URI that makes no sense.
    #[error("{0:?} is no path and no URI for a stream")]
    Malformed(String),
    /// No descriptors left, or the like.
    #[error("make a pipe: {0}")]
    Pipe(io::Error),
    /// The logging program cannot be started.
    #[error("start the logger {path}: {source}", path = path.display())]
    Logger {
        /// The program.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The logging program ended or hangs.
    #[error("the logger {path} did not say that it is ready", path = path.display())]
    LoggerNotReady {
        /// The program.
        path: PathBuf,
    },
    /// The socket for the terminal cannot be made.
    #[error("make the console socket {path}: {source}", path = path.display())]
    ConsoleSocket {
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The runtime sent no terminal.
    #[error("the runtime sent no terminal over the console socket: {0}")]
    NoTerminal(io::Error),
    /// Resize or the like of a process without terminal.
    #[error("the process has no terminal")]
    NotATerminal,
    /// The kernel refused a new size.
    #[error("resize the terminal: {0}")]
    Resize(io::Error),
}

impl Failure for IoError {
    fn kind(&self) -> Kind {
        match self {
            IoError::Open { source, .. } | IoError::Logger { source, .. } => match source.kind() {
                io::ErrorKind::NotFound => Kind::NotFound,
                io::ErrorKind::PermissionDenied => Kind::PermissionDenied,
                _ => Kind::Internal,
            },
            IoError::Scheme(_) => Kind::Unimplemented,
            IoError::Malformed(_) => Kind::InvalidArgument,
            IoError::NotATerminal => Kind::FailedPrecondition,
            IoError::LoggerNotReady { .. } => Kind::DeadlineExceeded,
            IoError::Pipe(_) => Kind::ResourceExhausted,
            IoError::ConsoleSocket { .. } | IoError::NoTerminal(_) | IoError::Resize(_) => Kind::Internal,
        }
    }
}
