//! Threads that move bytes between two streams, and the wait for their end: nothing that a process has written is lost
//! to a slow reader, and nothing that only holds a stream open keeps us for ever.

use std::io::{self, Read, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cryopod_command::Cancel;

use super::console::RawMode;
use crate::error::Error;

/// Output that comes after the process has ended is waited for that long each time: a process that left the PID
/// namespace of the container, or that an exec has left behind, may hold the pipes open for ever.
const DRAIN: Duration = Duration::from_secs(2);
/// How often it is looked at whether somebody has lost patience. The end itself is told at once.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Until a stream that somebody has made non-blocking is tried again.
const FULL: Duration = Duration::from_millis(10);

/// What moves our output.
#[derive(Debug)]
pub(crate) struct Pumps {
    outputs: Vec<Arc<Mutex<Phase>>>,
    /// Says that one of them has ended.
    ended: Receiver<()>,
    /// The first output that could not be written.
    failure: Arc<Mutex<Option<io::Error>>>,
    /// How long output that does not come is waited for.
    pub(super) patience: Duration,
    /// Whether that is for all of it: a monitor has nobody who could interrupt it.
    bounded: bool,
    /// Ours, for as long as a terminal's output goes there.
    _raw: Option<RawMode>,
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
pub(super) enum Step {
    /// It waits for bytes.
    Reads,
    /// It waits for whoever reads ours.
    Writes,
    /// Nothing more can be written; the rest is read and thrown away.
    Failed(io::Error),
    /// All was written.
    Ended,
}

impl Pumps {
    /// Waits until all output was written. Output that does not come is waited for a bounded time, whoever reads ours
    /// for as long as it takes, or until `cancel` is thrown. Our terminal is as before then. Answers why output could not
    /// be written, if so.
    pub(crate) fn drain(self, cancel: &Cancel) -> Option<io::Error> {
        self.wait(cancel);
        lock(&self.failure).take()
    }

    fn wait(&self, cancel: &Cancel) {
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
}

/// Makes pumps of outputs.
pub(super) struct Outputs {
    phases: Vec<Arc<Mutex<Phase>>>,
    sender: Sender<()>,
    ended: Receiver<()>,
    failure: Arc<Mutex<Option<io::Error>>>,
    raw: Option<RawMode>,
}

impl Outputs {
    /// None yet.
    pub(super) fn new() -> Self {
        let (sender, ended) = channel();
        Self { phases: Vec::new(), sender, ended, failure: Arc::default(), raw: None }
    }

    /// Makes our terminal raw, which is to be done before any output is added: it has gone through one terminal already,
    /// and ours would change its line ends a second time.
    pub(super) fn go_to_terminal(&mut self) -> Result<(), Error> {
        self.raw = RawMode::enter()?;
        Ok(())
    }

    /// Begins to move bytes; `failed` is told when no more can be written.
    pub(super) fn add(
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

    /// All of them; `bounded` where nobody could interrupt a long wait.
    pub(super) fn pumps(self, bounded: bool) -> Pumps {
        let Self { phases: outputs, ended, failure, raw, .. } = self;
        Pumps { outputs, ended, failure, patience: DRAIN, bounded, _raw: raw }
    }
}

/// Takes a lock that no panic can spoil.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every value is assigned as a whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Copies in a thread of its own, flushing after each read, until one side ends; says what it does.
pub(super) fn pump(
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

#[cfg(test)]
mod tests {
    use std::fs::File;

    use nix::unistd::pipe;

    use super::*;

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
        assert!(pumps.drain(&Cancel::new()).is_none());
        assert_eq!(*lock(&got), 60_000);
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
    fn a_reader_that_has_gone_is_told_once_and_not_waited_for() {
        let reader = Reader { refuses: Some(io::ErrorKind::BrokenPipe), ..Reader::default() };
        let (sender, told) = channel();
        let (mut process, pumps) = output(reader, move || sender.send(()).unwrap());
        process.write_all(b"x").unwrap();
        told.recv_timeout(Duration::from_secs(10)).unwrap();
        // More than a pipe takes: it must be read.
        process.write_all(&[0; 100_000]).unwrap();
        let failure = pumps.drain(&Cancel::new());
        drop(process);
        assert!(told.recv_timeout(Duration::from_secs(10)).is_err(), "told twice");
        assert_eq!(failure.map(|error| error.kind()), Some(io::ErrorKind::BrokenPipe));
    }

    #[test]
    fn a_stream_that_is_full_for_a_moment_loses_nothing() {
        let reader = Reader { refuses: Some(io::ErrorKind::WouldBlock), ..Reader::default() };
        let got = reader.got.clone();
        let (mut process, pumps) = output(reader, || ());
        process.write_all(b"all of it").unwrap();
        drop(process);
        assert!(pumps.drain(&Cancel::new()).is_none());
        assert_eq!(*lock(&got), 9);
    }
}
