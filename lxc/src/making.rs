//! What making a container and bringing one back have in common: what is asked for, what may go wrong, the monitor in the
//! end.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cryopod_lxc_monitor as monitor;
use oci_spec::runtime::Spec;

use crate::plan;
use crate::refusal::Refusal;
use crate::state::{self, Container};

/// Killed processes are gone within this.
const END: Duration = Duration::from_secs(5);

/// Where the hierarchy of cgroup v2 is.
pub(crate) const HIERARCHY: &str = "/sys/fs/cgroup";

/// The programs that are needed.
#[derive(Debug, Clone)]
pub struct Programs {
    /// `cryopod-init`.
    pub init: PathBuf,
    /// `cryopod-lxc-monitor`.
    pub monitor: PathBuf,
}

/// What is to be made.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// Its name.
    pub id: &'a str,
    /// Directory of the containers (`lxcpath`).
    pub path: &'a Path,
    /// Directory of the bundle, absolute.
    pub bundle: &'a Path,
    /// Its spec.
    pub spec: &'a Spec,
    /// Its cgroup, relative to the root of the hierarchy.
    pub cgroup: &'a Path,
    /// Where its terminal is sent.
    pub console_socket: Option<&'a Path>,
    /// Capabilities of this process, one bit each.
    pub capabilities: u64,
    /// Whether it gets a session keyring of its own.
    pub keyring: bool,
    /// Until it is ready.
    pub patience: Duration,
}

impl Request<'_> {
    /// Root of the container, on the host.
    pub(crate) fn root(&self) -> Result<PathBuf, Refusal> {
        let root = self.spec.root().as_ref().ok_or_else(|| Refusal::of("root", "is missing"))?;
        Ok(self.bundle.join(root.path()))
    }
}

/// Why there is no container.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not with LXC.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Not with this spec.
    #[error(transparent)]
    Plan(#[from] plan::Error),
    /// What is known of it cannot be written.
    #[error(transparent)]
    State(#[from] state::Error),
    /// Nobody would answer for it.
    #[error(transparent)]
    Monitor(#[from] monitor::Error),
    /// There is one.
    #[error("container '{0}' exists already")]
    Exists(String),
    /// Something of the host's is not there, or does not work.
    #[error("{step} {object}: {source}")]
    Host {
        /// What was tried.
        step: &'static str,
        /// On what.
        object: String,
        /// What the system said.
        source: io::Error,
    },
    /// The first process says why.
    #[error("{message}")]
    Inside {
        /// What was tried on what, and what the system said.
        message: String,
        /// Error number, if the system gave one: ENOENT for a program that is not there.
        errno: Option<i32>,
    },
    /// Its first process ended without a word: killed, or out of the memory that the container may have.
    #[error(
        "the container's first process ended before it was ready ({how}): was it killed, or is its memory limit too small?"
    )]
    Ended {
        /// With which status.
        how: String,
    },
    /// It took too long.
    #[error("the container was not ready after {0:?}")]
    TooLong(Duration),
    /// CRIU fails.
    #[error(transparent)]
    Criu(#[from] crate::criu::Error),
}

pub(crate) fn host<T>(
    step: &'static str,
    object: impl std::fmt::Display,
    result: io::Result<T>,
) -> Result<T, Error> {
    result.map_err(|source| Error::Host { step, object: object.to_string(), source })
}

/// Ends what may be there of a container that could not be made, by its cgroup below the root of the hierarchy. The first
/// error is the one to report.
pub(crate) fn end(cgroup: &Path) {
    let group = Path::new(HIERARCHY).join(cgroup);
    fs::write(group.join("cgroup.kill"), "1").ok();
    let until = Instant::now() + END;
    while crate::operate::remove_groups(&group).is_err() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Lets somebody answer for a container; none is needed where somebody does already.
pub(crate) fn answer(container: &Container, program: &Path) -> Result<(), Error> {
    let record = &container.record;
    let path = container.dir.parent().unwrap_or(&container.dir);
    let socket = match monitor::bind(path, &record.id) {
        Err(monitor::Error::InUse(_)) => return Ok(()),
        result => result?,
    };
    let monitor = Monitor::start(program, &record.id, path, &record.cgroup, record.clone_flags)?;
    monitor.give(record.pid, socket)
}

/// A monitor that does not know its container yet. It ends when it is dropped before that.
pub(crate) struct Monitor(UnixStream);

impl Monitor {
    /// Starts one. It is loaded while the container's first process works.
    pub(crate) fn start(
        program: &Path,
        id: &str,
        path: &Path,
        cgroup: &Path,
        clone_flags: u32,
    ) -> Result<Self, Error> {
        let (ours, theirs) = host("make", "a pair of sockets", UnixStream::pair())?;
        let started = Command::new(program)
            .args([id.as_ref(), path.as_os_str(), cgroup.as_os_str()])
            .arg(clone_flags.to_string())
            // It outlives us: it keeps no directory busy, and who looks for processes of this call by its environment
            // (cryopod looks for CRIU's so) must not find it.
            .current_dir("/")
            .env_clear()
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        host("run", program.display(), started)?;
        Ok(Self(ours))
    }

    /// Lets it answer at the socket, which is that of the container whose first process has this PID.
    pub(crate) fn give(self, pid: u32, socket: UnixListener) -> Result<(), Error> {
        host("tell the monitor of", pid, monitor::give(&self.0, pid, socket))
    }
}
