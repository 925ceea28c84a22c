//! What to run: program, arguments, environment, descriptors, and what happens to it at the deadline.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use crate::{Argv, Error, Limits, Output, Running, Stop};

/// Where a program reads from.
#[derive(Debug)]
pub enum Stdin {
    /// `/dev/null`, the default.
    Null,
    /// These bytes, then end of file.
    Bytes(Vec<u8>),
    /// This descriptor.
    File(OwnedFd),
    /// What this descriptor gives, through a pipe that is closed when the program is killed.
    Relay(OwnedFd),
    /// The caller's own standard input.
    Inherit,
}

/// Where a program's standard output goes.
#[derive(Debug)]
pub enum Stdout {
    /// Into `Output::stdout`; more than `limit` bytes are an error, because half an answer is none.
    Capture {
        /// The bound, in bytes.
        limit: usize,
    },
    /// To this descriptor.
    File(OwnedFd),
    /// To this descriptor, through a pipe that is closed when the program is killed: for programs that may
    /// outlive SIGKILL while they wait for a reader.
    Relay(OwnedFd),
    /// Nowhere.
    Null,
    /// To the caller's own standard output.
    Inherit,
}

/// Where a program's standard error goes.
#[derive(Debug)]
pub enum Stderr {
    /// The last `limit` bytes go into `Output::stderr` and into errors.
    Tail {
        /// The bound, in bytes.
        limit: usize,
    },
    /// To this descriptor; errors then say nothing of it.
    File(OwnedFd),
    /// To the caller's own standard error.
    Inherit,
}

/// What is killed when a limit ends the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kill {
    /// SIGKILL to the process group, the default.
    Group,
    /// SIGKILL to the program alone; what it started goes on. For runtimes above CRIU: a killed criu leaves
    /// the network locked, while one whose runtime has gone rolls its dump back.
    ProcessOnly,
    /// SIGTERM to the group and SIGKILL after that time.
    TermThenKill(Duration),
}

/// Standard output that callers accept unless they say otherwise.
const DEFAULT_CAPTURE: usize = 16 << 20;
/// Standard error that is kept unless callers say otherwise: enough for the last words of any tool.
const DEFAULT_TAIL: usize = 16 << 10;

/// A program about to be run. `LC_ALL=C` is always set, since answers are parsed.
#[derive(Debug)]
pub struct Command {
    pub(crate) program: OsString,
    pub(crate) args: Vec<OsString>,
    pub(crate) env_clear: bool,
    pub(crate) env: Vec<(OsString, OsString)>,
    pub(crate) current_dir: Option<PathBuf>,
    pub(crate) stdin: Stdin,
    pub(crate) stdout: Stdout,
    pub(crate) stderr: Stderr,
    pub(crate) fds: Vec<(OwnedFd, i32)>,
    pub(crate) kill: Kill,
}

impl Command {
    /// A program by path, or by name in PATH.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self {
            program: program.as_ref().to_owned(),
            args: Vec::new(),
            env_clear: false,
            env: Vec::new(),
            current_dir: None,
            stdin: Stdin::Null,
            stdout: Stdout::Capture { limit: DEFAULT_CAPTURE },
            stderr: Stderr::Tail { limit: DEFAULT_TAIL },
            fds: Vec::new(),
            kill: Kill::Group,
        }
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets one environment variable.
    #[must_use]
    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.push((key.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Starts from an empty environment instead of the caller's.
    #[must_use]
    pub fn env_clear(mut self) -> Self {
        self.env_clear = true;
        self.env.clear();
        self
    }

    /// Runs in that directory.
    #[must_use]
    pub fn current_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.current_dir = Some(dir.into());
        self
    }

    /// Sets standard input.
    #[must_use]
    pub fn stdin(mut self, stdin: Stdin) -> Self {
        self.stdin = stdin;
        self
    }

    /// Sets standard output.
    #[must_use]
    pub fn stdout(mut self, stdout: Stdout) -> Self {
        self.stdout = stdout;
        self
    }

    /// Sets standard error.
    #[must_use]
    pub fn stderr(mut self, stderr: Stderr) -> Self {
        self.stderr = stderr;
        self
    }

    /// Gives the program `fd` under the number `target` (3 or more).
    #[must_use]
    pub fn pass_fd(mut self, fd: OwnedFd, target: i32) -> Self {
        self.fds.push((fd, target));
        self
    }

    /// Sets what is killed when a limit ends the call or a `Running` is dropped.
    #[must_use]
    pub fn on_deadline(mut self, kill: Kill) -> Self {
        self.kill = kill;
        self
    }

    /// The command line, for messages.
    pub fn argv(&self) -> Argv {
        Argv::new(std::iter::once(self.program.as_os_str()).chain(self.args.iter().map(OsString::as_os_str)))
    }

    /// Runs to the end; any status but 0 is `Error::Failed`.
    pub fn run(self, limits: &Limits) -> Result<Output, Error> {
        let argv = self.argv();
        let (status, output) = self.status(limits)?;
        if status.success() {
            return Ok(output);
        }
        Err(Error::Failed { argv, status, stderr: output.stderr, duration: output.duration })
    }

    /// Runs to the end and returns the status, whatever it is. Not started when a limit is reached already.
    pub fn status(self, limits: &Limits) -> Result<(ExitStatus, Output), Error> {
        self.may_start(limits)?;
        self.spawn()?.wait(limits)
    }

    /// The limit that is reached already, as an error.
    pub(crate) fn may_start(&self, limits: &Limits) -> Result<(), Error> {
        let argv = || self.argv();
        limits.check().map_err(|stop| match stop {
            Stop::Deadline => Error::Deadline {
                argv: argv(),
                after: Duration::ZERO,
                stderr: String::new(),
                lingering: false,
            },
            Stop::Cancelled => Error::Cancelled { argv: argv(), lingering: false },
        })
    }

    /// Starts the program. Output that is captured is read by `Running::wait` only, so wait soon.
    pub fn spawn(self) -> Result<Running, Error> {
        Running::start(self)
    }
}
