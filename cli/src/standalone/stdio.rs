//! The standard streams of a container: pipes, because CRIU refuses files of the host and restores a pipe on another
//! one; on our side a terminal, another pipe or a log file, which the container never sees.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use cryopod_runtime::backend::Stdio;
use nix::fcntl::OFlag;
use nix::unistd::pipe2;

pub(crate) use super::pumps::Pumps;
use super::pumps::{Outputs, Step, lock, pump};
use crate::error::Error;

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

/// Makes the pipes and starts to move bytes.
pub(crate) fn pipes(ends: &Ends) -> Result<(Stdio, Pumps), Error> {
    let failed = |source| Error::System { action: "connect the container's standard streams", source };
    let (stdin, stdin_ours) = pipe().map_err(failed)?;
    let (stdout_ours, stdout) = pipe().map_err(failed)?;
    let (stderr_ours, stderr) = pipe().map_err(failed)?;
    let mut outputs = Outputs::new();
    match ends {
        Ends::Ours => {
            // Not waited for: it sits in a read of our own input, which may never end.
            pump(io::stdin(), File::from(stdin_ours), |_| ()).map_err(failed)?;
            outputs.add(File::from(stdout_ours), io::stdout(), || ()).map_err(failed)?;
            outputs.add(File::from(stderr_ours), io::stderr(), || ()).map_err(failed)?;
        }
        Ends::Log(path) => {
            drop(stdin_ours);
            let log = Log::open(path)?;
            outputs.add(File::from(stdout_ours), log.clone(), || ()).map_err(failed)?;
            outputs.add(File::from(stderr_ours), log, || ()).map_err(failed)?;
        }
    }
    let stdio = Stdio::Pipes { stdin: Some(stdin), stdout: Some(stdout), stderr: Some(stderr) };
    Ok((stdio, outputs.pumps(ends.are_a_log())))
}

impl Ends {
    fn are_a_log(&self) -> bool {
        matches!(self, Ends::Log(_))
    }
}

impl Pumps {
    /// Moves bytes between a terminal of the container and `ends`.
    pub(crate) fn terminal(master: &OwnedFd, ends: &Ends) -> Result<Self, Error> {
        let failed = |source| Error::System { action: "connect the container's terminal", source };
        let read = File::from(master.try_clone().map_err(failed)?);
        let mut outputs = Outputs::new();
        match ends {
            Ends::Ours => {
                let write = File::from(master.try_clone().map_err(failed)?);
                outputs.go_to_terminal()?;
                pump(io::stdin(), write, |_| ()).map_err(failed)?;
                outputs.add(read, io::stdout(), || ()).map_err(failed)?;
            }
            Ends::Log(path) => outputs.add(read, Log::open(path)?, || ()).map_err(failed)?,
        }
        Ok(outputs.pumps(ends.are_a_log()))
    }

    /// Moves bytes between our own streams and those of a process somewhere else; `ended` is told that our input has
    /// ended and was passed on, `closed` that nobody reads our output any more. A process without a third stream has a
    /// terminal.
    pub(crate) fn between(
        stdin: Option<File>,
        ended: impl Fn() + Send + 'static,
        stdout: File,
        stderr: Option<File>,
        closed: impl Fn() + Clone + Send + 'static,
    ) -> Result<Self, Error> {
        let failed = |source| Error::System { action: "connect the process's standard streams", source };
        let mut outputs = Outputs::new();
        if stderr.is_none() {
            outputs.go_to_terminal()?;
        }
        if let Some(stdin) = stdin {
            pump(io::stdin(), stdin, move |step| {
                if matches!(step, Step::Ended) {
                    ended();
                }
            })
            .map_err(failed)?;
        }
        outputs.add(stdout, io::stdout(), closed.clone()).map_err(failed)?;
        if let Some(stderr) = stderr {
            outputs.add(stderr, io::stderr(), closed).map_err(failed)?;
        }
        Ok(outputs.pumps(false))
    }
}

fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(pipe2(OFlag::O_CLOEXEC)?)
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
        let mut log = lock(&self.0);
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
    use std::io::Read;
    use std::time::{Duration, Instant};

    use cryopod_command::Cancel;

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
        pumps.drain(&Cancel::new());
        let mut lines: Vec<String> =
            std::fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect();
        lines.sort();
        assert_eq!(lines, ["err", "out"]);
    }

    #[test]
    fn a_monitor_waits_for_endless_output_no_longer_than_its_patience() {
        let dir = tempfile::tempdir().unwrap();
        let (stdio, mut pumps) = pipes(&Ends::Log(dir.path().join("log"))).unwrap();
        let Stdio::Pipes { stdout: Some(stdout), stderr, .. } = stdio else { panic!("not three pipes") };
        drop(stderr);
        let mut stdout = File::from(stdout);
        pumps.patience = Duration::from_millis(300);
        let began = Instant::now();
        std::thread::spawn(move || {
            while began.elapsed() < Duration::from_secs(10) && stdout.write_all(b"again\n").is_ok() {
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        pumps.drain(&Cancel::new());
        assert!(began.elapsed() < Duration::from_secs(5));
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
