//! One turn of `poll(2)` over running programs: moves their bytes, notices their ends, obeys the limits.
//!
//! What a program wrote before it ended is complete when its end is noticed; what a grandchild that outlives
//! it writes later is not waited for.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{ChildStderr, ChildStdin, ChildStdout};
use std::time::Instant;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::limits::POLL_WITHOUT_FD;
use crate::relay::Relay;
use crate::{Limits, Running, Stop};

/// Why a turn ended everything.
#[derive(Debug)]
pub(crate) enum Halt {
    Limit(Stop),
    TooMuchOutput,
    Io(&'static str, io::Error),
}

/// This side of a program's pipes.
#[derive(Debug, Default)]
pub(crate) struct Pipes {
    stdin: Option<(File, Vec<u8>, usize)>,
    stdin_relay: Option<Relay>,
    stdout: Option<File>,
    stdout_relay: Option<Relay>,
    stderr: Option<File>,
    captured: Vec<u8>,
    tail: Vec<u8>,
    pub(crate) stdout_limit: usize,
    pub(crate) tail_limit: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Exit,
    Stdin,
    StdinRelay,
    Stdout,
    StdoutRelay,
    Stderr,
}

/// What the caller has for the two standard streams that may be relayed.
#[derive(Debug)]
pub(crate) enum Feed {
    None,
    Bytes(Vec<u8>),
    Relay(OwnedFd),
}

impl Pipes {
    pub(crate) fn attach(
        &mut self,
        stdin: Option<(ChildStdin, Feed)>,
        stdout: Option<(ChildStdout, Option<OwnedFd>)>,
        stderr: Option<ChildStderr>,
    ) -> io::Result<()> {
        match stdin {
            Some((pipe, Feed::Bytes(bytes))) if !bytes.is_empty() => {
                self.stdin = Some((nonblocking(pipe.into())?, bytes, 0));
            }
            Some((pipe, Feed::Relay(from))) => {
                self.stdin_relay = Some(Relay::incoming(from, nonblocking(pipe.into())?));
            }
            _ => {}
        }
        match stdout {
            Some((pipe, Some(to))) => {
                self.stdout_relay = Some(Relay::outgoing(nonblocking(pipe.into())?, to)?);
            }
            Some((pipe, None)) => self.stdout = Some(nonblocking(pipe.into())?),
            None => {}
        }
        self.stderr = stderr.map(|pipe| nonblocking(pipe.into())).transpose()?;
        Ok(())
    }

    /// Whether bytes of the program are still on their way to the caller.
    pub(crate) fn is_relaying(&self) -> bool {
        self.stdout_relay.as_ref().is_some_and(|relay| relay.interest().is_some())
    }

    /// Lets go of both relays, so that a program that waits for one does not.
    pub(crate) fn cut(&mut self) {
        self.stdin_relay = None;
        self.stdout_relay = None;
    }

    pub(crate) fn take(&mut self) -> (Vec<u8>, String) {
        let tail = std::mem::take(&mut self.tail);
        (std::mem::take(&mut self.captured), String::from_utf8_lossy(&tail).into_owned())
    }

    pub(crate) fn close(&mut self) {
        self.cut();
        self.stdin = None;
        self.stdout = None;
        self.stderr = None;
    }

    fn sources(&self) -> Vec<(BorrowedFd<'_>, PollFlags, Source)> {
        let mut sources = Vec::with_capacity(4);
        let relays = [(&self.stdin_relay, Source::StdinRelay), (&self.stdout_relay, Source::StdoutRelay)];
        for (relay, source) in relays {
            let interest = relay.as_ref().and_then(Relay::interest);
            sources.extend(interest.map(|(fd, flags)| (fd, flags, source)));
        }
        if let Some((file, ..)) = &self.stdin {
            sources.push((file.as_fd(), PollFlags::POLLOUT, Source::Stdin));
        }
        if let Some(file) = &self.stdout {
            sources.push((file.as_fd(), PollFlags::POLLIN, Source::Stdout));
        }
        if let Some(file) = &self.stderr {
            sources.push((file.as_fd(), PollFlags::POLLIN, Source::Stderr));
        }
        sources
    }

    fn feed(&mut self) -> Result<(), Halt> {
        let Some((file, bytes, written)) = &mut self.stdin else { return Ok(()) };
        match file.write(bytes.get(*written..).unwrap_or_default()) {
            Ok(count) => {
                *written += count;
                if *written >= bytes.len() {
                    self.stdin = None;
                }
            }
            Err(error) if retry(&error) => {}
            // A program need not read all it is given.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self.stdin = None,
            Err(error) => return Err(Halt::Io("write to", error)),
        }
        Ok(())
    }

    fn relay(relay: &mut Option<Relay>) -> Result<(), Halt> {
        match relay {
            Some(relay) => relay.step().map_err(|error| Halt::Io("move bytes of", error)),
            None => Ok(()),
        }
    }

    fn read_stdout(&mut self) -> Result<(), Halt> {
        let limit = self.stdout_limit;
        let captured = &mut self.captured;
        drain(&mut self.stdout, |bytes| {
            captured.extend_from_slice(bytes);
            if captured.len() > limit { Err(Halt::TooMuchOutput) } else { Ok(()) }
        })
    }

    fn read_stderr(&mut self) -> Result<(), Halt> {
        let limit = self.tail_limit;
        let tail = &mut self.tail;
        drain(&mut self.stderr, |bytes| {
            tail.extend_from_slice(bytes);
            let excess = tail.len().saturating_sub(limit);
            tail.drain(..excess);
            Ok(())
        })
    }
}

/// Waits for one event of `programs`, a limit, or `until`, and handles what is there.
pub(crate) fn turn(
    programs: &mut [&mut Running],
    limits: &Limits,
    until: Option<Instant>,
) -> Result<(), Halt> {
    let mut ready: Vec<(usize, Source)> = Vec::new();
    {
        let mut fds = Vec::new();
        let mut tags = Vec::new();
        for (index, program) in programs.iter().enumerate().filter(|(_, program)| program.status().is_none())
        {
            if program.is_running() {
                fds.push(PollFd::new(program.pidfd(), PollFlags::POLLIN));
                tags.push((index, Source::Exit));
            }
            for (fd, flags, source) in program.pipes.sources() {
                fds.push(PollFd::new(fd, flags));
                tags.push((index, source));
            }
        }
        let cancel = limits.cancel.as_ref();
        if let Some(event) = cancel.and_then(|cancel| cancel.event()) {
            fds.push(PollFd::new(event, PollFlags::POLLIN));
        }
        let blind = cancel.is_some_and(|cancel| cancel.event().is_none());
        match poll(&mut fds, timeout(limits, until, blind)) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(Halt::Io("wait for", errno.into())),
        }
        for (fd, tag) in fds.iter().zip(&tags) {
            if fd.any().unwrap_or(true) {
                ready.push(*tag);
            }
        }
    }
    for (index, source) in &ready {
        let Some(program) = programs.get_mut(*index) else { continue };
        match source {
            Source::Stdin => program.pipes.feed()?,
            Source::StdinRelay => Pipes::relay(&mut program.pipes.stdin_relay)?,
            Source::StdoutRelay => Pipes::relay(&mut program.pipes.stdout_relay)?,
            Source::Stdout => program.pipes.read_stdout()?,
            Source::Stderr => program.pipes.read_stderr()?,
            Source::Exit => {
                // All it wrote is in the pipes by now: take it before the end is reported.
                program.pipes.read_stdout()?;
                program.pipes.read_stderr()?;
                program.pipes.stdin_relay = None;
                program.reap().map_err(|error| Halt::Io("wait for", error))?;
            }
        }
    }
    // An end that was noticed counts, even when the deadline passed in the same moment.
    if ready.iter().any(|(_, source)| *source == Source::Exit) {
        return Ok(());
    }
    limits.check().map_err(Halt::Limit)
}

fn timeout(limits: &Limits, until: Option<Instant>, blind: bool) -> PollTimeout {
    let until = until.map(|until| until.saturating_duration_since(Instant::now()));
    let blind = blind.then_some(POLL_WITHOUT_FD);
    let Some(left) = [limits.remaining(), until, blind].into_iter().flatten().min() else {
        return PollTimeout::NONE;
    };
    // Rounded up: a poll that returns a fraction too early would spin.
    let millis = left.as_micros().div_ceil(1000);
    i32::try_from(millis)
        .ok()
        .and_then(|millis| PollTimeout::try_from(millis).ok())
        .unwrap_or(PollTimeout::MAX)
}

/// Reads of one turn: more than the largest pipe holds (1 MiB), so that what an ended program wrote is taken
/// whole, and yet bounded, so that one that never stops writing meets its deadline.
const READS_PER_TURN: usize = 128;

/// Reads until the pipe is empty for now; closes it at its end.
fn drain(pipe: &mut Option<File>, mut take: impl FnMut(&[u8]) -> Result<(), Halt>) -> Result<(), Halt> {
    let mut buffer = [0u8; 16 << 10];
    for _ in 0..READS_PER_TURN {
        let Some(file) = pipe else { break };
        match file.read(&mut buffer) {
            Ok(0) => *pipe = None,
            Ok(count) => take(buffer.get(..count).unwrap_or_default())?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(Halt::Io("read from", error)),
        }
    }
    Ok(())
}

fn retry(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

fn nonblocking(pipe: OwnedFd) -> io::Result<File> {
    let flags = OFlag::from_bits_retain(fcntl(&pipe, FcntlArg::F_GETFL)?);
    fcntl(&pipe, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(File::from(pipe))
}
