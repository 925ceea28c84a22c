//! A started program: its pidfd, its pipes, and the promise that it is killed and reaped on every path.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::builder::{Stderr, Stdin, Stdout};
use crate::pump::{self, Feed, Halt, Pipes};
use crate::{Argv, Command, Error, Kill, Limits, Stop, lookup, sys};

/// How long a killed program may take to go before a thread is left to reap it: the caller's deadline has
/// passed, so this must be short; outside state D it is a matter of getting a processor once more.
const REAP_GRACE: Duration = Duration::from_secs(5);

/// What a program left behind when it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Standard output, when it was captured.
    pub stdout: Vec<u8>,
    /// The tail of standard error, when it was kept.
    pub stderr: String,
    /// From start to exit.
    pub duration: Duration,
    /// Its process id, for logs; it may belong to another process by now.
    pub pid: u32,
}

/// A program that runs. Dropping it kills (as `on_deadline` says) and reaps it.
#[derive(Debug)]
pub struct Running {
    child: Option<Child>,
    pidfd: OwnedFd,
    pid: u32,
    argv: Argv,
    started: Instant,
    kill: Kill,
    pub(crate) pipes: Pipes,
    // Set once, when the child was reaped.
    ended: Option<(ExitStatus, Duration)>,
}

impl Running {
    pub(crate) fn start(command: Command) -> Result<Self, Error> {
        let argv = command.argv();
        let failed = |source: io::Error| Error::Spawn { argv: argv.clone(), source };
        let Command { program, args, env_clear, env, current_dir, stdin, stdout, stderr, fds, kill } =
            command;

        let mut std_command = std::process::Command::new(&program);
        std_command.args(args).process_group(0);
        if env_clear {
            std_command.env_clear();
        }
        std_command.envs(env).env("LC_ALL", "C");
        if let Some(dir) = &current_dir {
            // Looked at first, because a missing directory and a missing program are the same error to exec.
            std::fs::metadata(dir)
                .map_err(|e| failed(io::Error::new(e.kind(), format!("{}: {e}", dir.display()))))?;
            std_command.current_dir(dir);
        }
        let mut pipes = Pipes::default();
        let feed = match stdin {
            Stdin::Null => {
                std_command.stdin(Stdio::null());
                Feed::None
            }
            Stdin::Inherit => {
                std_command.stdin(Stdio::inherit());
                Feed::None
            }
            Stdin::File(fd) => {
                std_command.stdin(fd);
                Feed::None
            }
            Stdin::Bytes(bytes) => {
                std_command.stdin(Stdio::piped());
                Feed::Bytes(bytes)
            }
            Stdin::Relay(fd) => {
                std_command.stdin(Stdio::piped());
                Feed::Relay(fd)
            }
        };
        let mut relayed_to = None;
        match stdout {
            Stdout::Capture { limit } => {
                pipes.stdout_limit = limit;
                std_command.stdout(Stdio::piped())
            }
            Stdout::Relay(fd) => {
                relayed_to = Some(fd);
                std_command.stdout(Stdio::piped())
            }
            Stdout::File(fd) => std_command.stdout(fd),
            Stdout::Null => std_command.stdout(Stdio::null()),
            Stdout::Inherit => std_command.stdout(Stdio::inherit()),
        };
        match stderr {
            Stderr::Tail { limit } => {
                pipes.tail_limit = limit;
                std_command.stderr(Stdio::piped())
            }
            Stderr::File(fd) => std_command.stderr(fd),
            Stderr::Inherit => std_command.stderr(Stdio::inherit()),
        };
        let not_started = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => Error::NotFound { program: program.to_string_lossy().into_owned() },
            _ => failed(source),
        };
        let handover = if fds.is_empty() {
            None
        } else {
            let image = lookup::image(&std_command, env_clear).map_err(not_started)?;
            Some(sys::hand_over(&mut std_command, image, fds).map_err(failed)?)
        };

        let started = Instant::now();
        let mut child = std_command.spawn().map_err(not_started)?;
        // The caller's ends of descriptors given to the child close here, so that pipes see their end of file.
        drop(std_command);
        if let Some(Err(source)) = handover.map(sys::Handover::verdict) {
            drop(child.wait());
            return Err(not_started(source));
        }

        let pid = child.id();
        let attached = sys::pidfd_open(pid).and_then(|pidfd| {
            let stdin = child.stdin.take().map(|pipe| (pipe, feed));
            let stdout = child.stdout.take().map(|pipe| (pipe, relayed_to));
            pipes.attach(stdin, stdout, child.stderr.take())?;
            Ok(pidfd)
        });
        match attached {
            Ok(pidfd) => Ok(Self { child: Some(child), pidfd, pid, argv, started, kill, pipes, ended: None }),
            Err(source) => {
                // Cannot be watched, so it must not run; it was not reaped, hence the pid is still its own.
                drop(child.kill());
                drop(child.wait());
                Err(failed(source))
            }
        }
    }

    /// Its process id; it stays its own until the program was waited for.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// A descriptor that is readable once the program has ended.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// The command line, for messages.
    pub fn argv(&self) -> &Argv {
        &self.argv
    }

    /// The status if the program has ended; never blocks, and moves its output on.
    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>, Error> {
        pump::turn(&mut [&mut *self], &Limits::none(), Some(Instant::now()))
            .map_err(|halt| self.halted(halt))?;
        Ok(self.status())
    }

    /// Moves output until the program has ended; at a limit it is killed and reaped, and the limit is the error.
    pub fn wait(mut self, limits: &Limits) -> Result<(ExitStatus, Output), Error> {
        loop {
            if let (Some(status), Some((_, duration))) = (self.status(), self.ended) {
                tracing::debug!(argv = %self.argv, %status, ?duration, "program ended");
                return Ok((status, self.output(duration)));
            }
            if let Err(halt) = pump::turn(&mut [&mut self], limits, None) {
                return Err(self.halted(halt));
            }
        }
    }

    /// Kills the program as `on_deadline` says and reaps it; false when the kernel still holds it (state D)
    /// and a thread was left to reap it.
    pub fn kill(&mut self) -> bool {
        if let Kill::TermThenKill(grace) = self.kill {
            self.signal_group(Signal::SIGTERM);
            if self.ends_within(grace) {
                return true;
            }
        }
        self.strike();
        self.ends_within(REAP_GRACE) || self.leave_to_a_thread()
    }

    /// Strikes a program that is not to be asked to end first.
    pub(crate) fn strike_first(&mut self) {
        if !matches!(self.kill, Kill::TermThenKill(_)) {
            self.strike();
        }
    }

    /// Sends SIGKILL and closes the relays, without waiting.
    fn strike(&mut self) {
        match self.kill {
            Kill::ProcessOnly => {
                if let Err(error) = sys::pidfd_signal(self.pidfd.as_fd(), Signal::SIGKILL as i32) {
                    tracing::debug!(argv = %self.argv, %error, "kill");
                }
            }
            Kill::Group | Kill::TermThenKill(_) => self.signal_group(Signal::SIGKILL),
        }
        self.pipes.cut();
    }

    /// The status once the program has ended and the last of its bytes was passed on.
    pub(crate) fn status(&self) -> Option<ExitStatus> {
        self.ended.filter(|_| !self.pipes.is_relaying()).map(|(status, _)| status)
    }

    pub(crate) fn is_running(&self) -> bool {
        self.ended.is_none()
    }

    /// Reaps the child, which the pidfd has reported as ended.
    pub(crate) fn reap(&mut self) -> io::Result<()> {
        if let Some(child) = &mut self.child
            && let Some(status) = child.try_wait()?
        {
            self.ended = Some((status, self.started.elapsed()));
            self.child = None;
        }
        Ok(())
    }

    pub(crate) fn output(&mut self, duration: Duration) -> Output {
        let (stdout, stderr) = self.pipes.take();
        Output { stdout, stderr, duration, pid: self.pid }
    }

    /// `Ok` for status 0; the program must have ended.
    pub(crate) fn outcome(&mut self, status: ExitStatus) -> Result<Output, Error> {
        let duration = self.ended.map_or_else(|| self.started.elapsed(), |(_, duration)| duration);
        let output = self.output(duration);
        if status.success() {
            return Ok(output);
        }
        Err(Error::Failed { argv: self.argv.clone(), status, stderr: output.stderr, duration })
    }

    /// Ends the program for the reason given and says so.
    pub(crate) fn halted(&mut self, halt: Halt) -> Error {
        let after = self.started.elapsed();
        let lingering = !self.kill();
        let argv = self.argv.clone();
        let (_, stderr) = self.pipes.take();
        match halt {
            Halt::Limit(Stop::Deadline) => Error::Deadline { argv, after, stderr, lingering },
            Halt::Limit(Stop::Cancelled) => Error::Cancelled { argv, lingering },
            Halt::TooMuchOutput => Error::TooMuchOutput { argv, limit: self.pipes.stdout_limit },
            Halt::Io(action, source) => Error::Io { argv, action, source },
        }
    }

    // The group's number is the child's pid, which is not given to anyone else before the child was reaped.
    fn signal_group(&self, signal: Signal) {
        if self.child.is_none() {
            return;
        }
        let Ok(pid) = i32::try_from(self.pid) else { return };
        match killpg(Pid::from_raw(pid), signal) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => tracing::debug!(argv = %self.argv, %error, "killpg"),
        }
    }

    fn ends_within(&mut self, grace: Duration) -> bool {
        let limits = Limits::within(grace);
        while self.ended.is_none() {
            match pump::turn(&mut [&mut *self], &limits, None) {
                Ok(()) => {}
                // What it writes while dying no longer matters.
                Err(Halt::TooMuchOutput | Halt::Io(..)) => self.pipes.close(),
                Err(Halt::Limit(_)) => return false,
            }
        }
        true
    }

    fn leave_to_a_thread(&mut self) -> bool {
        if let Some(mut child) = self.child.take() {
            tracing::warn!(argv = %self.argv, pid = self.pid, "killed program does not end: left to a reaping thread");
            let name = format!("reap-{}", self.pid);
            // Without a thread it stays a zombie until this process ends; there is nothing better to do.
            drop(std::thread::Builder::new().name(name).spawn(move || drop(child.wait())));
        }
        false
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.kill();
        }
    }
}
