//! Opening containerd's fifos so that a restart of containerd disturbs nobody.
//!
//! Each output fifo is opened for writing and for reading: with a reader left, a workload that writes while
//! containerd is away fills the fifo and waits, instead of dying of SIGPIPE. Each input fifo is opened for reading
//! and for writing: a client that detaches is no end of file; only CloseIO is.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use super::IoError;

/// containerd opens its ends before it calls Create, but in the background; other clients a little later. Longer
/// makes no reader come, and Create has to answer.
const READER_WITHIN: Duration = Duration::from_secs(3);
const READER_POLL: Duration = Duration::from_millis(5);

/// An input fifo.
#[derive(Debug)]
pub(super) struct Input {
    /// Where input is read.
    pub reader: OwnedFd,
    /// Keeps the fifo from ending; closed by CloseIO.
    pub own_writer: Option<OwnedFd>,
}

fn open(path: &Path, read: bool, write: bool) -> io::Result<OwnedFd> {
    OpenOptions::new()
        .read(read)
        .write(write)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(path)
        .map(OwnedFd::from)
}

/// Opens an output fifo once it has a reader, or anyway after a while: write end, read end of our own.
pub(super) async fn open_output(path: &Path, stream: &'static str) -> Result<(OwnedFd, OwnedFd), IoError> {
    let failed = |source| IoError::Open { stream, path: path.to_owned(), source };
    let until = Instant::now() + READER_WITHIN;
    loop {
        match open(path, false, true) {
            Ok(write) => return Ok((write, open(path, true, false).map_err(failed)?)),
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) => {
                if Instant::now() >= until {
                    // With a reader of our own the next attempt succeeds; what is written waits for a late one.
                    let read = open(path, true, false).map_err(failed)?;
                    return Ok((open(path, false, true).map_err(failed)?, read));
                }
                tokio::time::sleep(READER_POLL).await;
            }
            Err(error) => return Err(failed(error)),
        }
    }
}

/// Opens an input fifo.
pub(super) fn open_input(path: &Path) -> Result<Input, IoError> {
    let failed = |source| IoError::Open { stream: "stdin", path: path.to_owned(), source };
    let reader = open(path, true, false).map_err(failed)?;
    let own_writer = match open(path, false, true) {
        Ok(writer) => Some(writer),
        // A plain file or device as input ends by itself.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => None,
        Err(error) => return Err(failed(error)),
    };
    Ok(Input { reader, own_writer })
}
