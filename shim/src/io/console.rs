//! The socket over which a runtime hands out the master of a new terminal (OCI runtime command line, `--console-socket`).

use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::cmsg_space;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

use super::IoError;
use crate::sys;

/// A bundle's path is longer than a socket address may be, so consoles have a directory of their own.
const DIR: &str = "/run/cryopod/consoles";

/// The runtime sends the terminal before it returns; this only guards against one that does not.
const TERMINAL_WITHIN: Duration = Duration::from_secs(5);

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A listening console socket; removed when dropped.
#[derive(Debug)]
pub(super) struct Console {
    path: PathBuf,
    listener: UnixListener,
}

impl Console {
    pub(super) fn listen() -> Result<Self, IoError> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = Path::new(DIR).join(format!("{}-{number}", std::process::id()));
        let failed = |source| IoError::ConsoleSocket { path: path.clone(), source };
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(DIR).map_err(failed)?;
        // A shim with our PID that was killed may have left its own.
        std::fs::remove_file(&path).ok();
        let listener = UnixListener::bind(&path).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        Ok(Self { path, listener })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the master that the runtime has sent.
    pub(super) async fn receive(&self) -> Result<OwnedFd, IoError> {
        let listener = self.listener.try_clone().map_err(IoError::NoTerminal)?;
        let receive = async {
            let listener = tokio::net::UnixListener::from_std(listener)?;
            let (stream, _) = listener.accept().await?;
            loop {
                stream.readable().await?;
                match stream.try_io(tokio::io::Interest::READABLE, || receive_fd(stream.as_raw_fd())) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    result => return result,
                }
            }
        };
        match tokio::time::timeout(TERMINAL_WITHIN, receive).await {
            Ok(result) => result.map_err(IoError::NoTerminal),
            Err(_) => Err(IoError::NoTerminal(io::ErrorKind::TimedOut.into())),
        }
    }
}

fn receive_fd(socket: i32) -> io::Result<OwnedFd> {
    // runc sends the terminal's name as data, at most PATH_MAX.
    let mut name = [0; 4096];
    let mut parts = [IoSliceMut::new(&mut name)];
    let mut space = cmsg_space!([i32; 1]);
    let message = recvmsg::<()>(socket, &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = control
            && let Some(fd) = fds.first()
        {
            return sys::received_fd(*fd);
        }
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "a message without a descriptor"))
}

impl Drop for Console {
    fn drop(&mut self) {
        std::fs::remove_file(&self.path).ok();
    }
}
