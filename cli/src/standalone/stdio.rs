//! The standard streams of a container: pipes, because CRIU refuses files of the host and restores a pipe on another
//! one; on our side a terminal, another pipe or a log file, which the container never sees.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cryopod_command::Cancel;
use cryopod_runtime::backend::Stdio;
use nix::fcntl::OFlag;
use nix::unistd::pipe2;

use crate::error::Error;

/// Output that comes after the process has ended is waited for that long each time: a process that left the PID
/// namespace of the container, or that an exec has left behind, may hold the pipes open for ever.
const DRAIN: Duration = Duration::from_secs(2);
/// How often it is looked at whether somebody has lost patience. The end itself is told at once.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Until a stream that somebody has made non-blocking is tried again.
const FULL: Duration = Duration::from_millis(10);
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
    outputs: Vec<Arc<Mutex<Phase>>>,
    /// Says that one of them has ended.
    ended: Receiver<()>,
    /// The first output that could not be written.
    failure: Arc<Mutex<Option<io::Error>>>,
    /// How long output that does not come is waited for.
    patience: Duration,
    /// Whether that is for all of it: a monitor has nobody who could interrupt it.
    bounded: bool,
}

/// What the pump of an output does now.
#[derive(Debug, Clone, Copy)]
enum Phase {
    /// It waits for bytes since then.
    Reads(Instant),
    /// It waits for whoever reads ours.
    Writes,
    /// Nothing more is to be written.
    Ended,
}

/// What a pump says of itself.
#[derive(Debug)]
enum Step {
    Reads,
    Writes,
    /// Nothing more can be written; the rest is read and thrown away.
    Failed(io::Error),
    /// All was written.
    Ended,
}

/// Makes pumps of outputs.
struct Outputs {
    phases: Vec<Arc<Mutex<Phase>>>,
    sender: Sender<()>,
    ended: Receiver<()>,
    failure: Arc<Mutex<Option<io::Error>>>,
}

impl Outputs {
    fn new() -> Self {
        let (sender, ended) = channel();
        Self { phases: Vec::new(), sender, ended, failure: Arc::default() }
    }

    /// Begins to move bytes; `failed` is told when no more can be written.
    fn add(
        &mut self,
        from: impl Read + Send + 'static,
        to: impl Write + Send + 'static,
        failed: impl Fn() + Send + 'static,
    ) -> io::Result<()> {
        let phase = Arc::new(Mutex::new(Phase::Reads(Instant::now())));
        self.phases.push(phase.clone());
        let (sender, failure) = (self.sender.clone(), self.failure.clone());
        pump(from, to, move |step| {
            let mut phase = lock(&phase);
            match step {
                // What is thrown away is nothing to wait for.
                _ if matches!(*phase, Phase::Ended) => return,
                Step::Reads => *phase = Phase::Reads(Instant::now()),
                Step::Writes => *phase = Phase::Writes,
                Step::Ended => *phase = Phase::Ended,
                Step::Failed(error) => {
                    *phase = Phase::Ended;
                    lock(&failure).get_or_insert(error);
                    failed();
                }
            }
            if matches!(*phase, Phase::Ended) {
                // The session may have given up waiting.
                sender.send(()).ok();
            }
        })
    }

    fn pumps(self, bounded: bool) -> Pumps {
        let Self { phases: outputs, ended, failure, .. } = self;
        Pumps { outputs, ended, failure, patience: DRAIN, bounded }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every value is assigned as a whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
                pump(io::stdin(), write, |_| ()).map_err(failed)?;
                outputs.add(read, io::stdout(), || ()).map_err(failed)?;
            }
            Ends::Log(path) => outputs.add(read, Log::open(path)?, || ()).map_err(failed)?,
        }
        Ok(outputs.pumps(ends.are_a_log()))
    }

    /// Moves bytes between our own streams and those of a process somewhere else; `ended` is told that our input has
    /// ended and was passed on, `closed` that nobody reads our output any more.
    pub(crate) fn between(
        stdin: Option<File>,
        ended: impl Fn() + Send + 'static,
        stdout: File,
        stderr: Option<File>,
        closed: impl Fn() + Clone + Send + 'static,
    ) -> io::Result<Self> {
        if let Some(stdin) = stdin {
            pump(io::stdin(), stdin, move |step| {
                if matches!(step, Step::Ended) {
                    ended();
                }
            })?;
        }
        let mut outputs = Outputs::new();
        outputs.add(stdout, io::stdout(), closed.clone())?;
        if let Some(stderr) = stderr {
            outputs.add(stderr, io::stderr(), closed)?;
        }
        Ok(outputs.pumps(false))
    }

    /// Waits until all output was written. Output that does not come is waited for a bounded time, whoever reads ours
    /// for as long as it takes, or until `cancel` is thrown.
    pub(crate) fn drain(&self, cancel: &Cancel) {
        let began = Instant::now();
        // Thrown before, it cannot be thrown again.
        let deadline = (self.bounded || cancel.is_cancelled()).then(|| began + self.patience);
        loop {
            let now = Instant::now();
            let waits = |output: &Arc<Mutex<Phase>>| match *lock(output) {
                Phase::Reads(since) => now < since.max(began) + self.patience,
                Phase::Writes => true,
                Phase::Ended => false,
            };
            let over = match deadline {
                Some(deadline) => now >= deadline,
                None => cancel.is_cancelled(),
            };
            if over || !self.outputs.iter().any(waits) {
                return;
            }
            if self.ended.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Disconnected) {
                return;
            }
        }
    }

    /// Why output could not be written, if so.
    pub(crate) fn failure(&self) -> Option<io::Error> {
        lock(&self.failure).take()
    }
}

fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(pipe2(OFlag::O_CLOEXEC)?)
}

/// Copies in a thread of its own, flushing after each read, until one side ends; says what it does.
fn pump(
    mut from: impl Read + Send + 'static,
    mut to: impl Write + Send + 'static,
    mut say: impl FnMut(Step) + Send + 'static,
) -> io::Result<()> {
    let copy = move || {
        let mut buffer = [0_u8; 16 << 10];
        let mut open = true;
        loop {
            say(Step::Reads);
            match from.read(&mut buffer) {
                // A terminal whose last process has gone answers EIO.
                Ok(0) => break,
                // Our reader has gone: go on reading, so that the container is not stopped by a full pipe.
                Ok(_) if !open => {}
                Ok(count) => {
                    say(Step::Writes);
                    if let Err(error) = write(&mut to, buffer.get(..count).unwrap_or_default()) {
                        open = false;
                        say(Step::Failed(error));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        drop(to);
        say(Step::Ended);
    };
    std::thread::Builder::new().name("stdio".into()).spawn(copy)?;
    Ok(())
}

/// Writes and flushes all of it. Whoever shares a terminal or a pipe with us may have made it non-blocking, which is no
/// reason to lose anything.
fn write(to: &mut impl Write, mut bytes: &[u8]) -> io::Result<()> {
    loop {
        let written = if bytes.is_empty() { to.flush().map(|()| 0) } else { to.write(bytes) };
        match written {
            Ok(_) if bytes.is_empty() => return Ok(()),
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(FULL),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
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

    /// A pump from a pipe to `to`, with little patience.
    fn output(to: impl Write + Send + 'static, failed: impl Fn() + Send + 'static) -> (File, Pumps) {
        let (ours, theirs) = pipe().unwrap();
        let mut outputs = Outputs::new();
        outputs.add(File::from(ours), to, failed).unwrap();
        (File::from(theirs), Pumps { patience: Duration::from_millis(200), ..outputs.pumps(false) })
    }

    /// Takes a while for each write, and fails where that is wanted.
    #[derive(Default)]
    struct Reader {
        got: Arc<Mutex<usize>>,
        each: Duration,
        refuses: Option<io::ErrorKind>,
    }

    impl Write for Reader {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            std::thread::sleep(self.each);
            match self.refuses {
                // Once.
                Some(io::ErrorKind::WouldBlock) => self.refuses = None,
                Some(_) => return Err(io::ErrorKind::BrokenPipe.into()),
                None => {
                    *lock(&self.got) += bytes.len();
                    return Ok(bytes.len());
                }
            }
            Err(io::ErrorKind::WouldBlock.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_takes_its_time_gets_all_of_the_output() {
        let reader = Reader { each: Duration::from_millis(300), ..Reader::default() };
        let got = reader.got.clone();
        let (mut process, pumps) = output(reader, || ());
        process.write_all(&[0; 60_000]).unwrap();
        drop(process);
        pumps.drain(&Cancel::new());
        assert_eq!(*lock(&got), 60_000);
        assert!(pumps.failure().is_none());
    }

    #[test]
    fn an_interrupt_ends_the_wait_for_a_reader_and_silence_ends_any() {
        let reader = Reader { each: Duration::from_secs(60), ..Reader::default() };
        let (mut process, pumps) = output(reader, || ());
        process.write_all(b"x").unwrap();
        let (cancel, began) = (Cancel::new(), Instant::now());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(500));
                cancel.cancel();
            });
            pumps.drain(&cancel);
        });
        assert!(began.elapsed() >= Duration::from_millis(500), "nobody had interrupted it");
        let (_process, pumps) = output(Reader::default(), || ());
        pumps.drain(&Cancel::new());
        assert!(began.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn a_monitor_waits_for_endless_output_no_longer_than_its_patience() {
        let dir = tempfile::tempdir().unwrap();
        let (stdio, pumps) = pipes(&Ends::Log(dir.path().join("log"))).unwrap();
        let Stdio::Pipes { stdout: Some(stdout), stderr, .. } = stdio else { panic!("not three pipes") };
        drop(stderr);
        let mut stdout = File::from(stdout);
        let (pumps, began) = (Pumps { patience: Duration::from_millis(300), ..pumps }, Instant::now());
        std::thread::spawn(move || {
            while began.elapsed() < Duration::from_secs(10) && stdout.write_all(b"again\n").is_ok() {
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        pumps.drain(&Cancel::new());
        assert!(began.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn a_reader_that_has_gone_is_told_once_and_not_waited_for() {
        let reader = Reader { refuses: Some(io::ErrorKind::BrokenPipe), ..Reader::default() };
        let (sender, told) = channel();
        let (mut process, pumps) = output(reader, move || sender.send(()).unwrap());
        process.write_all(b"x").unwrap();
        told.recv_timeout(Duration::from_secs(10)).unwrap();
        // More than a pipe takes: it must be read.
        process.write_all(&[0; 100_000]).unwrap();
        pumps.drain(&Cancel::new());
        drop(process);
        assert!(told.recv_timeout(Duration::from_secs(10)).is_err(), "told twice");
        assert_eq!(pumps.failure().map(|error| error.kind()), Some(io::ErrorKind::BrokenPipe));
    }

    #[test]
    fn a_stream_that_is_full_for_a_moment_loses_nothing() {
        let reader = Reader { refuses: Some(io::ErrorKind::WouldBlock), ..Reader::default() };
        let got = reader.got.clone();
        let (mut process, pumps) = output(reader, || ());
        process.write_all(b"all of it").unwrap();
        drop(process);
        pumps.drain(&Cancel::new());
        assert_eq!((*lock(&got), pumps.failure().is_none()), (9, true));
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
