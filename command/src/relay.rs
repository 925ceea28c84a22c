//! Moves bytes between a program's pipe and a descriptor of the caller, without blocking on either.
//!
//! The alternative, handing the descriptor to the program, leaves its other end to a stranger. A program that
//! survives its SIGKILL while it waits for that stranger (as `zfs send` may: see `zfs/src/cli/transfer.rs`) then
//! stays for good; with a pipe of ours between, closing our end lets it go.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};

use nix::libc;
use nix::poll::PollFlags;
use nix::sys::socket::{MsgFlags, send};

/// Read and written at once; the default capacity of a pipe twice over.
const BUFFER: usize = 128 << 10;
/// PIPE_BUF: a blocking pipe or terminal that is ready takes this much without blocking.
const SMALL: usize = 4096;

/// Bytes on their way from one descriptor to another; each side is closed as soon as it is done with.
#[derive(Debug)]
pub(crate) struct Relay {
    from: Option<File>,
    to: Option<Sink>,
    buffer: Vec<u8>,
    written: usize,
}

#[derive(Debug)]
struct Sink {
    file: File,
    kind: SinkKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SinkKind {
    /// A pipe with a file description of our own that does not block.
    NonBlocking,
    /// Sent to with MSG_DONTWAIT.
    Socket,
    /// A regular file: it never waits for anybody.
    Regular,
    /// Anything else, written in pieces that a ready one takes.
    Other,
}

impl Sink {
    fn new(fd: OwnedFd) -> io::Result<Self> {
        let file = File::from(fd);
        let kind = file.metadata()?.file_type();
        if kind.is_fifo() {
            // The flag belongs to the description, which the caller may share with others: so another one.
            let path = format!("/proc/self/fd/{}", file.as_raw_fd());
            let flags = libc::O_NONBLOCK | libc::O_CLOEXEC;
            return Ok(match OpenOptions::new().write(true).custom_flags(flags).open(path) {
                Ok(own) => Self { file: own, kind: SinkKind::NonBlocking },
                Err(_) => Self { file, kind: SinkKind::Other },
            });
        }
        let kind = if kind.is_socket() {
            SinkKind::Socket
        } else if kind.is_file() {
            SinkKind::Regular
        } else {
            SinkKind::Other
        };
        Ok(Self { file, kind })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.kind {
            SinkKind::NonBlocking | SinkKind::Regular => self.file.write(bytes),
            SinkKind::Socket => {
                let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
                Ok(send(self.file.as_raw_fd(), bytes, flags)?)
            }
            SinkKind::Other => self.file.write(bytes.get(..SMALL).unwrap_or(bytes)),
        }
    }
}

impl Relay {
    /// From a program's pipe, which does not block, to the caller's descriptor.
    pub(crate) fn outgoing(pipe: File, to: OwnedFd) -> io::Result<Self> {
        Ok(Self { from: Some(pipe), to: Some(Sink::new(to)?), buffer: Vec::new(), written: 0 })
    }

    /// From the caller's descriptor to a program's pipe, which does not block.
    pub(crate) fn incoming(from: OwnedFd, pipe: File) -> Self {
        let to = Sink { file: pipe, kind: SinkKind::NonBlocking };
        Self { from: Some(File::from(from)), to: Some(to), buffer: Vec::new(), written: 0 }
    }

    /// What to wait for; None when all is done.
    pub(crate) fn interest(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        let sink = self.to.as_ref()?;
        if self.written < self.buffer.len() {
            return Some((sink.file.as_fd(), PollFlags::POLLOUT));
        }
        self.from.as_ref().map(|from| (from.as_fd(), PollFlags::POLLIN))
    }

    /// One step after what was waited for is there.
    pub(crate) fn step(&mut self) -> io::Result<()> {
        let Some(sink) = &mut self.to else { return Ok(()) };
        if self.written == self.buffer.len() {
            self.buffer.resize(BUFFER, 0);
            self.written = 0;
            let Some(from) = &mut self.from else {
                self.close();
                return Ok(());
            };
            match from.read(&mut self.buffer) {
                Ok(0) => self.close(),
                Ok(count) => self.buffer.truncate(count),
                Err(error) => {
                    self.buffer.clear();
                    return ignore_retry(error);
                }
            }
            return Ok(());
        }
        match sink.write(self.buffer.get(self.written..).unwrap_or_default()) {
            Ok(count) => self.written += count,
            // Nobody wants the rest; the program learns it from its own closed pipe.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self.close(),
            Err(error) => return ignore_retry(error),
        }
        Ok(())
    }

    fn close(&mut self) {
        *self = Self { from: None, to: None, buffer: Vec::new(), written: 0 };
    }
}

fn ignore_retry(error: io::Error) -> io::Result<()> {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(()),
        _ => Err(error),
    }
}
