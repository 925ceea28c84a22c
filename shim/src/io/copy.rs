//! Moving bytes between the workload and containerd without threads and, between pipes, without buffers.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::JoinHandle;

use super::target::Opened;
use crate::sys;

/// One splice moves at most a whole pipe.
const PIPE_BYTES: usize = 64 * 1024;

/// Terminals are read in pieces of the line discipline's buffer.
const TERMINAL_BYTES: usize = 4096;

/// After this many moves in a row other tasks get their turn: one noisy container must not starve the pod's RPCs.
const MOVES_PER_TURN: u32 = 16;

/// A thread that appends to a file needs next to no stack.
const FILE_THREAD_STACK: usize = 64 * 1024;

/// Nothing tells that a fifo has become empty, so it is looked at: at once, as readers are quick, then seldom.
const UNREAD_FIRST: Duration = Duration::from_millis(1);
const UNREAD_LAST: Duration = Duration::from_millis(500);

/// What nobody has read so long after Delete began is lost; below the 10 s that CRI gives a Delete.
const UNREAD_AT_DELETE: Duration = Duration::from_secs(2);

/// Where output comes from.
pub(super) enum Source {
    Pipe(OwnedFd),
    Terminal(OwnedFd),
}

/// Where input goes.
#[derive(Debug)]
pub(super) enum Sink {
    Pipe(OwnedFd),
    Terminal(OwnedFd),
}

fn non_blocking(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    let flags = OFlag::from_bits_truncate(fcntl(&fd, FcntlArg::F_GETFL)?);
    fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    sys::async_fd(fd, interest)
}

/// Says that the process is being deleted, after which nobody comes for its output any more.
#[derive(Debug, Clone, Default)]
pub(super) struct Leaving(Arc<AtomicBool>);

impl Leaving {
    /// It is.
    pub(super) fn begin(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Waits until everything in a fifo has been read: the kernel drops what is in it with the last descriptor, and
    /// containerd, which has the other ones, may just be restarting.
    async fn until_read(&self, own_reader: Option<&OwnedFd>) {
        let Some(reader) = own_reader else { return };
        let (mut pause, mut patience) = (UNREAD_FIRST, UNREAD_AT_DELETE);
        while is_ready(reader.as_fd(), PollFlags::POLLIN) {
            if self.0.load(Ordering::Relaxed) {
                let Some(less) = patience.checked_sub(pause) else { return };
                patience = less;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(UNREAD_LAST);
        }
    }
}

/// Copies until the workload has closed its end and all was read; the task's end closes ours.
pub(super) fn output(from: Source, to: Opened, leaving: Leaving) -> io::Result<JoinHandle<()>> {
    match (from, to) {
        (Source::Pipe(pipe), Opened::Fifo(fifo, own_reader)) => {
            let from = non_blocking(pipe, Interest::READABLE)?;
            let to = non_blocking(fifo, Interest::WRITABLE)?;
            Ok(tokio::spawn(async move {
                finish(splice_all(&from, &to).await);
                leaving.until_read(own_reader.as_ref()).await;
            }))
        }
        (Source::Terminal(master), Opened::Fifo(fifo, own_reader)) => {
            let from = non_blocking(master, Interest::READABLE)?;
            let to = non_blocking(fifo, Interest::WRITABLE)?;
            Ok(tokio::spawn(async move {
                finish(copy_all(&from, &to).await);
                leaving.until_read(own_reader.as_ref()).await;
            }))
        }
        (Source::Pipe(fd), Opened::File(file)) => {
            append_in_thread(move |to| io::copy(&mut File::from(fd), to), file)
        }
        (Source::Terminal(master), Opened::File(file)) => {
            let (stopped, stop) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
            let mut from = Terminal { master, stopped };
            let copying = append_in_thread(move |to| io::copy(&mut from, to), file)?;
            Ok(tokio::spawn(async move {
                let _stop = stop;
                copying.await.ok();
            }))
        }
    }
}

/// Reads a terminal that nobody watches.
pub(super) fn discard(master: OwnedFd) -> io::Result<JoinHandle<()>> {
    let from = non_blocking(master, Interest::READABLE)?;
    Ok(tokio::spawn(async move {
        let mut buffer = [0; TERMINAL_BYTES];
        while matches!(read_some(&from, &mut buffer).await, Ok(1..)) {}
    }))
}

/// Copies from a fifo until its last writer is gone.
pub(super) fn input(from: OwnedFd, to: Sink) -> io::Result<JoinHandle<()>> {
    let from = match non_blocking(from.try_clone()?, Interest::READABLE) {
        Ok(from) => from,
        // epoll refuses plain files and /dev/null, which never make a reader wait.
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => return feed_from_file(from, to),
        Err(error) => return Err(error),
    };
    match to {
        Sink::Pipe(pipe) => {
            let to = non_blocking(pipe, Interest::WRITABLE)?;
            Ok(tokio::spawn(async move { finish(splice_all(&from, &to).await) }))
        }
        Sink::Terminal(master) => {
            let to = non_blocking(master, Interest::WRITABLE)?;
            Ok(tokio::spawn(async move { finish(copy_all(&from, &to).await) }))
        }
    }
}

fn finish(result: io::Result<()>) {
    match result {
        Ok(()) => {}
        // The workload closed its stdin.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        Err(error) => tracing::warn!(%error, "a stream of the process ended early"),
    }
}

async fn splice_all(from: &AsyncFd<OwnedFd>, to: &AsyncFd<OwnedFd>) -> io::Result<()> {
    let flags = SpliceFFlags::SPLICE_F_NONBLOCK | SpliceFFlags::SPLICE_F_MOVE;
    let mut moves = 0;
    loop {
        let mut readable = from.readable().await?;
        match splice(from.get_ref(), None, to.get_ref(), None, PIPE_BYTES, flags) {
            Ok(0) => return Ok(()),
            Ok(_) => {
                moves += 1;
                if moves % MOVES_PER_TURN == 0 {
                    tokio::task::yield_now().await;
                }
            }
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => {
                // The kernel does not say which side it was; each side is cleared only if it is really not ready,
                // since epoll reports edges.
                if !is_ready(to.get_ref().as_fd(), PollFlags::POLLOUT) {
                    let mut writable = to.writable().await?;
                    if !is_ready(to.get_ref().as_fd(), PollFlags::POLLOUT) {
                        writable.clear_ready();
                    }
                } else if !is_ready(from.get_ref().as_fd(), PollFlags::POLLIN) {
                    readable.clear_ready();
                }
            }
            // Not a pair of pipes (a client's device, say).
            Err(Errno::EINVAL) => return copy_all(from, to).await,
            Err(error) => return Err(error.into()),
        }
    }
}

fn is_ready(fd: BorrowedFd<'_>, flags: PollFlags) -> bool {
    let mut fds = [PollFd::new(fd, flags)];
    // Hang-up and error count as ready: the next call reports them.
    !matches!(poll(&mut fds, PollTimeout::ZERO), Ok(0))
}

async fn read_some(from: &AsyncFd<OwnedFd>, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        let mut readable = from.readable().await?;
        match readable.try_io(|fd| Ok(nix::unistd::read(fd.get_ref(), buffer)?)) {
            // The last process that had the terminal open is gone.
            Ok(Err(error)) if error.raw_os_error() == Some(libc::EIO) => return Ok(0),
            Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(result) => return result,
            Err(_would_block) => {}
        }
    }
}

async fn copy_all(from: &AsyncFd<OwnedFd>, to: &AsyncFd<OwnedFd>) -> io::Result<()> {
    let mut buffer = [0; TERMINAL_BYTES];
    loop {
        let count = read_some(from, &mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        let mut rest = buffer.get(..count).unwrap_or_default();
        while !rest.is_empty() {
            let mut writable = to.writable().await?;
            match writable.try_io(|fd| Ok(nix::unistd::write(fd.get_ref(), rest)?)) {
                Ok(Ok(written)) => rest = rest.get(written..).unwrap_or_default(),
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Err(error),
                Err(_would_block) => {}
            }
        }
    }
}

/// A terminal as a thread reads it. The thread ends, and closes its master, also when nobody wants its output any more:
/// a process that outlives its container would else keep both.
struct Terminal {
    master: OwnedFd,
    /// Hangs up when the copy is given up.
    stopped: OwnedFd,
}

impl Read for Terminal {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            // The master is shared with the copies of input, which make it non-blocking.
            let mut fds = [
                PollFd::new(self.master.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.stopped.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
            if fds.last().and_then(PollFd::any).unwrap_or(false) {
                return Ok(0);
            }
            if !fds.first().and_then(PollFd::any).unwrap_or(false) {
                continue;
            }
            match nix::unistd::read(&self.master, buffer) {
                // The last process that had the terminal open is gone.
                Err(Errno::EIO) => return Ok(0),
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                result => return Ok(result?),
            }
        }
    }
}

/// A file may block on its disk, so it gets a thread of its own; the returned task ends with it.
fn append_in_thread(
    copy: impl FnOnce(&mut File) -> io::Result<u64> + Send + 'static,
    to: OwnedFd,
) -> io::Result<JoinHandle<()>> {
    let (done, ended) = tokio::sync::oneshot::channel();
    std::thread::Builder::new().name("append".to_owned()).stack_size(FILE_THREAD_STACK).spawn(move || {
        // std moves pipe to file with splice.
        finish(copy(&mut File::from(to)).map(|_| ()));
        done.send(()).ok();
    })?;
    Ok(tokio::spawn(async move {
        ended.await.ok();
    }))
}

fn feed_from_file(from: OwnedFd, to: Sink) -> io::Result<JoinHandle<()>> {
    let (Sink::Pipe(to) | Sink::Terminal(to)) = to;
    let (done, ended) = tokio::sync::oneshot::channel();
    std::thread::Builder::new().name("feed".to_owned()).stack_size(FILE_THREAD_STACK).spawn(move || {
        let (mut from, mut to) = (File::from(from), File::from(to));
        let mut buffer = [0; TERMINAL_BYTES];
        let result = loop {
            match from.read(&mut buffer) {
                Ok(0) => break Ok(()),
                Ok(count) => {
                    if let Err(error) = to.write_all(buffer.get(..count).unwrap_or_default()) {
                        break Err(error);
                    }
                }
                Err(error) => break Err(error),
            }
        };
        finish(result);
        done.send(()).ok();
    })?;
    Ok(tokio::spawn(async move {
        ended.await.ok();
    }))
}
