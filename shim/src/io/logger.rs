//! `binary://` loggers: a program that reads the pipes of the workload itself, so nothing passes through the shim.
//!
//! Contract (containerd `core/runtime/v2/logging`): descriptor 3 is stdout, 4 stderr, 5 the readiness pipe;
//! `CONTAINER_ID` and `CONTAINER_NAMESPACE` say whose they are.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use nix::fcntl::OFlag;
use tokio::io::AsyncReadExt;

use super::target::LoggerUri;
use super::{IoError, Owner};
use crate::exits::{Child, Registry};
use crate::sys;

/// containerd gives a logger as long to start.
const READY_WITHIN: Duration = Duration::from_secs(10);

/// A running logger.
#[derive(Debug)]
pub(super) struct Logger {
    path: PathBuf,
    child: Child,
    ended: bool,
}

impl Logger {
    /// Starts the program and waits until it is ready.
    pub(super) async fn start(
        uri: &LoggerUri,
        owner: Owner<'_>,
        stdout: Option<OwnedFd>,
        stderr: Option<OwnedFd>,
        registry: &Registry,
    ) -> Result<Self, IoError> {
        let failed = |source| IoError::Logger { path: uri.path.clone(), source };
        let null = || File::open("/dev/null").map(OwnedFd::from).map_err(failed);
        let stdout = stdout.map_or_else(null, Ok)?;
        let stderr = stderr.map_or_else(null, Ok)?;
        let (ready, tell_ready) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(|e| failed(e.into()))?;
        let mut command = Command::new(&uri.path);
        command
            .args(&uri.args)
            .env("CONTAINER_ID", owner.id)
            .env("CONTAINER_NAMESPACE", owner.namespace)
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null());
        sys::prepare_child(
            &mut command,
            &[stdout.as_fd(), stderr.as_fd(), tell_ready.as_fd()],
            sys::Session::Same,
        );
        let started = command.spawn().map_err(failed)?;
        let child = Child::open(started.id(), registry).map_err(failed)?;
        drop((command, stdout, stderr, tell_ready));
        let mut pipe = tokio::net::unix::pipe::Receiver::from_owned_fd(ready).map_err(failed)?;
        let answered = tokio::time::timeout(READY_WITHIN, pipe.read_u8()).await;
        let is_ready = match answered {
            Ok(Ok(_)) => true,
            // Old loggers only close the pipe.
            Ok(Err(_)) => !uri.must_answer,
            Err(_) => false,
        };
        let logger = Self { path: uri.path.clone(), child, ended: false };
        if is_ready {
            return Ok(logger);
        }
        let path = logger.path.clone();
        logger.stop();
        Err(IoError::LoggerNotReady { path })
    }

    /// Waits for its end, which comes after both pipes have ended.
    pub(super) async fn ended(&mut self) {
        if !self.ended {
            self.child.ended().await;
            self.ended = true;
        }
    }

    /// Ends a logger that outlives its pipes, and reaps it.
    pub(super) fn stop(self) {
        if self.ended || self.child.signal(libc::SIGTERM).is_err() {
            return;
        }
        tokio::spawn(async move {
            if tokio::time::timeout(Duration::from_secs(2), self.child.ended()).await.is_err() {
                tracing::warn!(logger = %self.path.display(), "the logger ignores SIGTERM; killed");
                self.child.signal(libc::SIGKILL).ok();
                self.child.ended().await;
            }
        });
    }
}
