//! The life of one standalone container, as the process that is its init's parent sees it.
//!
//! It runs in the foreground (`run`, `restore --attach`) or as a monitor of its own (`create`, `run --detach`,
//! `restore`). Invariant: when it reports failure, nothing of the container is left – no process, no directory, no
//! mount of ours; when it reports success, the exit of the init is written to the state, whatever happens to the
//! process that asked for the container.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cryopod_checkpoint::target::TcpPolicy;
use cryopod_command::Limits;
use cryopod_runtime::backend::{Backend, CreateRequest, RestoreRequest};
use jiff::Timestamp;
use nix::errno::Errno;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::console::ConsoleSocket;
use super::registry::Entry;
use super::state::{Exit, Process};
use super::stdio::{Ends, Pumps, pipes};
use crate::context::Context;
use crate::error::Error;
use crate::exit;
use crate::signals::Signals;

/// A runtime that has not made a container by then will not (image-sized restores included).
const BEGIN: Duration = Duration::from_secs(300);
/// Tidying up after a failure is not cancelled, but bounded.
const UNDO: Duration = Duration::from_secs(300);

/// How a container begins, as it is handed to a monitor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Begin {
    /// Its init waits for `start`.
    Create,
    /// Its init runs.
    Run,
    /// Its memory comes back.
    Restore {
        /// CRIU images, read only.
        images: PathBuf,
        /// Established TCP connections.
        tcp: TcpPolicy,
    },
}

/// A container about to live; its directory and state exist already.
#[derive(Debug)]
pub(crate) struct Session<'a> {
    /// Options, signals.
    pub(crate) context: &'a Context,
    /// Its directory.
    pub(crate) entry: &'a Entry,
    /// How it begins.
    pub(crate) begin: Begin,
    /// Where its output goes.
    pub(crate) ends: Ends,
    /// Where its PID is written.
    pub(crate) pid_file: Option<PathBuf>,
}

/// A container that lives.
#[derive(Debug)]
pub(crate) struct Alive {
    init: Pid,
    pumps: Pumps,
    terminal: Option<OwnedFd>,
}

impl Alive {
    /// PID of its init.
    pub(crate) fn pid(&self) -> i32 {
        self.init.as_raw()
    }
}

impl Session<'_> {
    /// Begins the container. On error what had been made is removed, the directory included.
    pub(crate) fn begin(&self) -> Result<Alive, Error> {
        self.prepare_and_begin().inspect_err(|_| {
            // The first error is the one to report.
            super::dispose(self.context, self.entry, &Limits::within(UNDO)).ok();
        })
    }

    fn prepare_and_begin(&self) -> Result<Alive, Error> {
        // The runtime's init must become our child, so that its exit status comes to us.
        nix::sys::prctl::set_child_subreaper(true)
            .map_err(|errno| Error::System { action: "become a subreaper", source: errno.into() })?;
        let state = self.entry.state()?;
        let backend = self.context.backend(Some(&state.runtime))?;
        let limits = self.context.signals.limits(BEGIN);
        self.try_begin(&backend, &state.bundle, state.terminal, &limits)
    }

    fn try_begin(
        &self,
        backend: &dyn Backend,
        bundle: &Path,
        terminal: bool,
        limits: &Limits,
    ) -> Result<Alive, Error> {
        let id = self.entry.id();
        let (pid, pumps, terminal) = if terminal {
            let socket = ConsoleSocket::listen(&self.context.root)?;
            let pid = self.make(backend, CreateRequest { id, bundle, stdio: socket.stdio() }, limits)?;
            let master = socket.receive()?;
            (pid, Pumps::terminal(&master, &self.ends)?, Some(master))
        } else {
            let (stdio, pumps) = pipes(&self.ends)?;
            (self.make(backend, CreateRequest { id, bundle, stdio }, limits)?, pumps, None)
        };
        let init = Process::of(pid);
        // A restored init runs already.
        let runs = matches!(self.begin, Begin::Restore { .. });
        self.entry.update(|state| (state.init, state.started) = (init, runs))?;
        if let Some(path) = &self.pid_file {
            std::fs::write(path, pid.to_string()).map_err(|source| Error::Write {
                what: "PID file",
                path: path.clone(),
                source,
            })?;
        }
        if self.begin == Begin::Run {
            backend.start(id, limits)?;
            self.entry.update(|state| state.started = true)?;
        }
        let raw = i32::try_from(pid).unwrap_or(i32::MAX);
        Ok(Alive { init: Pid::from_raw(raw), pumps, terminal })
    }

    fn make(&self, backend: &dyn Backend, request: CreateRequest<'_>, limits: &Limits) -> Result<u32, Error> {
        match &self.begin {
            Begin::Create | Begin::Run => Ok(backend.create(request, limits)?),
            Begin::Restore { images, tcp } => {
                let work = self.entry.dir().join("work");
                std::fs::create_dir_all(&work).map_err(|source| Error::Write {
                    what: "directory",
                    path: work.clone(),
                    source,
                })?;
                Ok(backend.restore(
                    request,
                    &RestoreRequest { images, work: &work, tcp: *tcp, frozen: false },
                    limits,
                )?)
            }
        }
    }

    /// Stays until the init has ended and its output was written; the exit is in the state then.
    pub(crate) fn wait(&self, alive: Alive) -> Result<Exit, Error> {
        let foreground = matches!(self.ends, Ends::Ours);
        if foreground {
            self.context.signals.forward_to(alive.init, alive.terminal)?;
        }
        let code = reap(alive.init, &self.context.signals)?;
        let exit = Exit { code, at: Timestamp::now() };
        let drain = || alive.pumps.drain(&self.context.signals.cancel());
        let note = || self.entry.update(|state| state.exit = Some(exit));
        let updated = if foreground {
            // Our reader may take its time, and others need not wait for it to know that the container has ended.
            let updated = note();
            drain();
            updated
        } else {
            // Who sees the exit finds all of the output in the log.
            drain();
            note()
        };
        match updated {
            // `delete --force` was faster.
            Ok(_) | Err(Error::NoContainer { .. }) => Ok(exit),
            Err(error) => Err(error),
        }
    }
}

/// Reaps every child of ours until `init` has ended; returns its exit code. Nothing else in this process starts
/// programs meanwhile. The init is forgotten before it is reaped, so that no signal meets a recycled PID.
pub(crate) fn reap(init: Pid, signals: &Signals) -> Result<u8, Error> {
    let failed = |errno: Errno| Error::System { action: "wait for the container", source: errno.into() };
    loop {
        let ended = match waitid(Id::All, WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) {
            Ok(status) => status.pid(),
            Err(Errno::EINTR) => continue,
            Err(errno) => return Err(failed(errno)),
        };
        let Some(pid) = ended else { continue };
        if pid == init {
            signals.forget();
        }
        let status = loop {
            match waitpid(pid, None) {
                Err(Errno::EINTR) => {}
                other => break other.map_err(failed)?,
            }
        };
        if pid == init {
            return Ok(code_of(status));
        }
    }
}

fn code_of(status: WaitStatus) -> u8 {
    match status {
        WaitStatus::Exited(_, code) => u8::try_from(code & 0xff).unwrap_or(u8::MAX),
        WaitStatus::Signaled(_, signal, _) => exit::by_signal(signal as i32),
        _ => u8::MAX,
    }
}
