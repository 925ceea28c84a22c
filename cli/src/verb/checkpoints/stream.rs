//! The ends of an export: descriptors whose other side may keep us waiting for ever, until SIGINT.
//!
//! A signal does not end a read(2) that waits: it may arrive in another thread, and whoever reads repeats an interrupted
//! call. So each call waits in poll(2) beside the cancel switch, and then moves only what needs no waiting.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use cryopod_command::Limits;
use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// A write of this length goes into a pipe at once where poll(2) has found room (pipe(7), PIPE_BUF).
const AT_ONCE: usize = 4096;

/// How often the limits are looked at where nothing wakes us: a switch that got no descriptor, a deadline.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// One end of a stream, which is left when its limits say so.
#[derive(Debug)]
pub(super) struct Stream {
    file: File,
    limits: Limits,
}

impl Stream {
    /// Uses another end of a standard stream, past its buffer: that must be empty.
    pub(super) fn of(fd: BorrowedFd<'_>, limits: &Limits) -> io::Result<Self> {
        Ok(Self { file: fd.try_clone_to_owned()?.into(), limits: limits.clone() })
    }

    /// Opens a file or a FIFO, which is not waited for: whoever writes into it may come later.
    pub(super) fn open(path: &Path, limits: &Limits) -> io::Result<Self> {
        let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
        Ok(Self { file, limits: limits.clone() })
    }

    /// Waits until the descriptor is ready, for better or worse.
    fn wait(&self, ready: PollFlags) -> io::Result<()> {
        loop {
            // Not `Interrupted`, which would be repeated.
            self.limits.check().map_err(|stop| io::Error::other(format!("stopped ({stop:?})")))?;
            let mut fds = vec![PollFd::new(self.file.as_fd(), ready)];
            fds.extend(self.cancelled().map(|event| PollFd::new(event, PollFlags::POLLIN)));
            let longest = self.limits.remaining().map_or(LOOK_EVERY, |left| left.min(LOOK_EVERY));
            match poll(&mut fds, PollTimeout::try_from(longest).unwrap_or(PollTimeout::ZERO)) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            if fds.first().is_some_and(|fd| fd.any().unwrap_or(true)) {
                return Ok(());
            }
        }
    }

    fn cancelled(&self) -> Option<BorrowedFd<'_>> {
        self.limits.cancel.as_ref()?.event()
    }
}

/// Whether somebody else was faster, or the other side not there yet.
fn is_early(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            self.wait(PollFlags::POLLIN)?;
            match self.file.read(buffer) {
                Err(error) if is_early(&error) => {}
                done => return done,
            }
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let now = bytes.get(..AT_ONCE).unwrap_or(bytes);
        loop {
            self.wait(PollFlags::POLLOUT)?;
            match self.file.write(now) {
                Err(error) if is_early(&error) => {}
                done => return done,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cryopod_command::Cancel;
    use nix::sys::stat::Mode;
    use nix::unistd::{mkfifo, pipe};
    use std::os::fd::OwnedFd;
    use std::thread;
    use std::time::Instant;

    fn stream(fd: &OwnedFd, cancel: &Cancel) -> Stream {
        Stream::of(fd.as_fd(), &Limits::within(Duration::from_secs(30)).with_cancel(cancel.clone())).unwrap()
    }

    /// Does it in a thread, throws the switch when it waits, and returns what came of it.
    fn interrupted<T: Send>(cancel: &Cancel, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        thread::scope(|scope| {
            let working = scope.spawn(work);
            thread::sleep(Duration::from_millis(100));
            assert!(!working.is_finished(), "it did not wait");
            let thrown = Instant::now();
            cancel.cancel();
            let done = working.join().unwrap();
            assert!(thrown.elapsed() < Duration::from_secs(5));
            done
        })
    }

    #[test]
    fn a_read_from_an_idle_pipe_ends_with_the_switch() {
        let (reader, _writer) = pipe().unwrap();
        let cancel = Cancel::new();
        let mut stream = stream(&reader, &cancel);
        let error = interrupted(&cancel, || stream.read_exact(&mut [0; 8])).unwrap_err();
        assert!(error.to_string().contains("stopped"), "{error}");
    }

    #[test]
    fn a_write_into_a_full_pipe_ends_with_the_switch() {
        let (_reader, writer) = pipe().unwrap();
        let cancel = Cancel::new();
        let mut stream = stream(&writer, &cancel);
        interrupted(&cancel, || stream.write_all(&[7; 1 << 20])).unwrap_err();
    }

    #[test]
    fn a_fifo_without_a_writer_is_waited_for_and_read_to_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fifo");
        mkfifo(&path, Mode::S_IRWXU).unwrap();
        let cancel = Cancel::new();
        let limits = Limits::within(Duration::from_secs(30)).with_cancel(cancel.clone());
        let mut late = Stream::open(&path, &limits).unwrap();
        let mut text = String::new();
        thread::scope(|scope| {
            let reading = scope.spawn(|| late.read_to_string(&mut text));
            thread::sleep(Duration::from_millis(50));
            assert!(!reading.is_finished(), "a FIFO that nobody has opened yet is not at its end");
            std::fs::write(&path, "late").unwrap();
            reading.join().unwrap().unwrap();
        });
        assert_eq!(text, "late");
        let mut never = Stream::open(&path, &limits).unwrap();
        interrupted(&cancel, || never.read(&mut [0; 8])).unwrap_err();
    }

    #[test]
    fn everything_that_is_written_arrives() {
        let (reader, writer) = pipe().unwrap();
        let cancel = Cancel::new();
        let bytes: Vec<u8> = (0..300_000_u32).map(|number| number.to_le_bytes()[0]).collect();
        let mut read = Vec::new();
        let (mut out, mut input) = (stream(&writer, &cancel), stream(&reader, &cancel));
        drop(writer);
        thread::scope(|scope| {
            scope.spawn(|| {
                out.write_all(&bytes).unwrap();
                drop(out);
            });
            input.read_to_end(&mut read).unwrap();
        });
        assert!(read == bytes);
    }
}
