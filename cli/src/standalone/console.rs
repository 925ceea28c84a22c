//! The terminal of a container: the runtime makes it and sends its master over a unix socket (OCI runtimes'
//! `--console-socket`); ours becomes raw meanwhile, so that keys reach the container as they are typed.

use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cryopod_runtime::backend::Stdio;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

use crate::error::Error;
use crate::sys;

/// The master is sent during `create`, so it waits in the socket by the time this is asked for.
const ARRIVAL: Duration = Duration::from_secs(5);

/// Where the runtime sends the master of a terminal.
#[derive(Debug)]
pub(crate) struct ConsoleSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl ConsoleSocket {
    /// A socket of this process. Directly below `root`, since a unix socket's path has 108 bytes at most and a
    /// container id alone may have 128.
    pub(crate) fn listen(root: &Path) -> Result<Self, Error> {
        let path = root.join(format!("tty-{}", std::process::id()));
        // A leftover of a process that had our PID.
        std::fs::remove_file(&path).ok();
        let listener = UnixListener::bind(&path).map_err(|source| Error::Write {
            what: "console socket",
            path: path.clone(),
            source,
        })?;
        Ok(Self { listener, path })
    }

    /// What the runtime is told.
    pub(crate) fn stdio(&self) -> Stdio {
        Stdio::Terminal { console_socket: self.path.clone() }
    }

    /// The master side, once the runtime has done its part.
    pub(crate) fn receive(&self) -> Result<OwnedFd, Error> {
        let failed = |source| Error::System { action: "receive the terminal from the runtime", source };
        readable(&self.listener).map_err(failed)?;
        let (stream, _) = self.listener.accept().map_err(failed)?;
        readable(&stream).map_err(failed)?;
        sys::receive_fd(stream.as_fd()).map_err(failed)
    }
}

impl Drop for ConsoleSocket {
    fn drop(&mut self) {
        std::fs::remove_file(&self.path).ok();
    }
}

fn readable(fd: &impl AsFd) -> io::Result<()> {
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(ARRIVAL).unwrap_or(PollTimeout::MAX);
    loop {
        match poll(&mut fds, timeout) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => return Ok(()),
            Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Our terminal in raw mode; dropped, it is as before.
#[derive(Debug)]
pub(crate) struct RawMode {
    before: Termios,
}

impl RawMode {
    /// Makes standard input raw; nothing where it is no terminal.
    pub(crate) fn enter() -> Result<Option<Self>, Error> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Ok(None);
        }
        let failed =
            |errno: nix::errno::Errno| Error::System { action: "prepare the terminal", source: errno.into() };
        let before = tcgetattr(&stdin).map_err(failed)?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(&stdin, SetArg::TCSADRAIN, &raw).map_err(failed)?;
        Ok(Some(Self { before }))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // A terminal that has gone needs no settings.
        tcsetattr(io::stdin(), SetArg::TCSADRAIN, &self.before).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_master_arrives_as_a_descriptor_of_ours() {
        let root = tempfile::tempdir().unwrap();
        let socket = ConsoleSocket::listen(root.path()).unwrap();
        let Stdio::Terminal { console_socket } = socket.stdio() else { panic!("no terminal") };
        let file = std::fs::File::open("/dev/null").unwrap();
        let stream = std::os::unix::net::UnixStream::connect(&console_socket).unwrap();
        sys::send_fd(stream.as_fd(), file.as_fd()).unwrap();
        drop(stream);
        let received = socket.receive().unwrap();
        let meta = std::fs::File::from(received).metadata().unwrap();
        assert!(std::os::unix::fs::FileTypeExt::is_char_device(&meta.file_type()));
        drop(socket);
        assert!(!console_socket.exists());
    }
}
