//! The standard streams of a container: pipes, because CRIU refuses files of the host and restores a pipe on another
//! one; on our side a terminal, another pipe or a log file, which the container never sees.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cryopod_runtime::backend::Stdio;
use nix::fcntl::OFlag;
use nix::unistd::pipe2;

use crate::error::Error;

/// Output still in the pipes after the init has ended is waited for that long: a process that left the PID
/// namespace of the container may hold them open for ever.
const DRAIN: Duration = Duration::from_secs(2);
/// A log grows to this size, then it becomes `log.1`: run-time state lives on a tmpfs, that is, in memory.
const LOG_BYTES: u64 = 8 << 20;

/// Where the container's output goes, and where its input comes from.
#[derive(Debug, Clone)]
pub(crate) enum Ends {
    /// Our own standard streams.
    Ours,
    /// A log file; input is at its end at once.
    Log(PathBuf),
}

/// Our ends of the pipes.
#[derive(Debug)]
pub(crate) struct Pumps {
    done: Receiver<()>,
    running: usize,
}

/// Makes the pipes and starts to move bytes.
pub(crate) fn pipes(ends: &Ends) -> Result<(Stdio, Pumps), Error> {
    let failed = |source| Error::System { action: "connect the container's standard streams", source };
    let (stdin, stdin_ours) = pipe().map_err(failed)?;
    let (stdout_ours, stdout) = pipe().map_err(failed)?;
    let (stderr_ours, stderr) = pipe().map_err(failed)?;
    let (sender, done) = channel();
    match ends {
        Ends::Ours => {
            // Not waited for: it sits in a read of our own input, which may never end.
            pump(io::stdin(), File::from(stdin_ours), || ()).map_err(failed)?;
            pump(File::from(stdout_ours), io::stdout(), tell(&sender)).map_err(failed)?;
            pump(File::from(stderr_ours), io::stderr(), tell(&sender)).map_err(failed)?;
        }
        Ends::Log(path) => {
            drop(stdin_ours);
            let log = Log::open(path)?;
            pump(File::from(stdout_ours), log.clone(), tell(&sender)).map_err(failed)?;
            pump(File::from(stderr_ours), log, tell(&sender)).map_err(failed)?;
        }
    }
    let stdio = Stdio::Pipes { stdin: Some(stdin), stdout: Some(stdout), stderr: Some(stderr) };
    Ok((stdio, Pumps { done, running: 2 }))
}

impl Pumps {
    /// Moves bytes between a terminal of the container and `ends`.
    pub(crate) fn terminal(master: &OwnedFd, ends: &Ends) -> Result<Self, Error> {
        let failed = |source| Error::System { action: "connect the container's terminal", source };
        let read = File::from(master.try_clone().map_err(failed)?);
        let (sender, done) = channel();
        match ends {
            Ends::Ours => {
                let write = File::from(master.try_clone().map_err(failed)?);
                pump(io::stdin(), write, || ()).map_err(failed)?;
                pump(read, io::stdout(), tell(&sender)).map_err(failed)?;
            }
            Ends::Log(path) => pump(read, Log::open(path)?, tell(&sender)).map_err(failed)?,
        }
        Ok(Self { done, running: 1 })
    }

    /// Moves bytes between our own streams and those of a process somewhere else; `closed` is told that our input has
    /// ended and was passed on.
    pub(crate) fn between(
        stdin: Option<File>,
        closed: impl FnOnce() + Send + 'static,
        stdout: File,
        stderr: Option<File>,
    ) -> io::Result<Self> {
        let (sender, done) = channel();
        let running = 1 + usize::from(stderr.is_some());
        if let Some(stdin) = stdin {
            pump(io::stdin(), stdin, closed)?;
        }
        pump(stdout, io::stdout(), tell(&sender))?;
        if let Some(stderr) = stderr {
            pump(stderr, io::stderr(), tell(&sender))?;
        }
        Ok(Self { done, running })
    }

    /// Waits until all output was written, for a bounded time.
    pub(crate) fn drain(self) {
        let deadline = Instant::now() + DRAIN;
        for _ in 0..self.running {
            if self.done.recv_timeout(deadline.saturating_duration_since(Instant::now())).is_err() {
                return;
            }
        }
    }
}

fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(pipe2(OFlag::O_CLOEXEC)?)
}

/// Says that all was written.
fn tell(done: &Sender<()>) -> impl FnOnce() + Send + 'static {
    let done = done.clone();
    // The session may have given up waiting.
    move || {
        done.send(()).ok();
    }
}

/// Copies in a thread of its own, flushing after each read, until one side ends.
fn pump(
    mut from: impl Read + Send + 'static,
    mut to: impl Write + Send + 'static,
    done: impl FnOnce() + Send + 'static,
) -> io::Result<()> {
    let copy = move || {
        let mut buffer = [0_u8; 16 << 10];
        let mut open = true;
        loop {
            match from.read(&mut buffer) {
                // A terminal whose last process has gone answers EIO.
                Ok(0) => break,
                Ok(count) => {
                    // Our reader has gone: go on reading, so that the container is not stopped by a full pipe.
                    let bytes = buffer.get(..count).unwrap_or_default();
                    open = open && to.write_all(bytes).and_then(|()| to.flush()).is_ok();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        drop(to);
        done();
    };
    std::thread::Builder::new().name("stdio".into()).spawn(copy)?;
    Ok(())
}

/// A bounded log file that several pumps write.
#[derive(Debug, Clone)]
struct Log(Arc<Mutex<LogFile>>);

#[derive(Debug)]
struct LogFile {
    path: PathBuf,
    file: File,
    size: u64,
}

impl Log {
    fn open(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Write { what: "log", path: path.to_owned(), source };
        let file = File::options().create(true).append(true).open(path).map_err(failed)?;
        let size = file.metadata().map_err(failed)?.len();
        Ok(Self(Arc::new(Mutex::new(LogFile { path: path.to_owned(), file, size }))))
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if log.size >= LOG_BYTES {
            let mut old = log.path.clone().into_os_string();
            old.push(".1");
            std::fs::rename(&log.path, old)?;
            log.file = File::options().create(true).append(true).open(&log.path)?;
            log.size = 0;
        }
        let written = log.file.write(bytes)?;
        log.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_of_both_streams_reaches_the_log_and_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let (stdio, pumps) = pipes(&Ends::Log(path.clone())).unwrap();
        let Stdio::Pipes { stdin: Some(stdin), stdout: Some(stdout), stderr: Some(stderr) } = stdio else {
            panic!("not three pipes");
        };
        let mut input = Vec::new();
        File::from(stdin).read_to_end(&mut input).unwrap();
        assert!(input.is_empty(), "input of a detached container is at its end");
        File::from(stdout).write_all(b"out\n").unwrap();
        File::from(stderr).write_all(b"err\n").unwrap();
        pumps.drain();
        let mut lines: Vec<String> =
            std::fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect();
        lines.sort();
        assert_eq!(lines, ["err", "out"]);
    }

    #[test]
    fn a_log_keeps_its_bound() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = Log::open(&path).unwrap();
        let chunk = vec![b'x'; 1 << 20];
        for _ in 0..20 {
            log.write_all(&chunk).unwrap();
        }
        let size = |name: &str| std::fs::metadata(dir.path().join(name)).unwrap().len();
        assert!(size("log") <= LOG_BYTES && size("log.1") <= LOG_BYTES);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
