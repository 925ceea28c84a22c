//! Making a container, up to the point where it waits to be started.
//!
//! In order: its directory and configuration, the descriptors of its first process, liblxc in a process of its own, the
//! answer of the first process, the end of liblxc's process, the monitor. Whatever fails takes back what was made.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cryopod_init::mounts::clone_flags;
use cryopod_init::plan::{Plan, Terminal, What};
use cryopod_init::report::Report;
use oci_spec::runtime::Spec;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::io::FdFlags;
use rustix::mount::{OpenTreeFlags, open_tree};

use crate::client::Client;
use crate::config::{self, Place};
use crate::monitor;
use crate::plan::{self, Draft, Host};
use crate::refusal::Refusal;
use crate::resources;
use crate::state::{self, Container, RESULT, Record, START};

/// Below the container's directory.
const CONFIG: &str = "config";
const LOG: &str = "log";

/// Killed processes are gone within this.
const END: Duration = Duration::from_secs(5);

/// Where the hierarchy of cgroup v2 is.
const HIERARCHY: &str = "/sys/fs/cgroup";

/// The programs that are needed.
#[derive(Debug, Clone)]
pub struct Programs {
    /// `cryopod-init`.
    pub init: PathBuf,
    /// What runs [`crate::launch::run`]: program and first arguments; name, path, descriptor and arguments follow.
    pub launcher: Vec<String>,
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
    /// Until it is ready.
    pub patience: Duration,
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
    /// liblxc did not come so far.
    #[error("liblxc did not start the container: {said}")]
    Liblxc {
        /// The end of its log.
        said: String,
    },
    /// It took too long.
    #[error("the container was not ready after {0:?}")]
    TooLong(Duration),
}

fn host<T>(step: &'static str, object: impl std::fmt::Display, result: io::Result<T>) -> Result<T, Error> {
    result.map_err(|source| Error::Host { step, object: object.to_string(), source })
}

/// Makes it; answers the PID of its first process, which is a child of the nearest subreaper from then on.
///
/// # Errors
/// See [`Error`]; nothing is left over then.
pub fn create(request: &Request<'_>, programs: &Programs) -> Result<u32, Error> {
    let draft =
        plan::draft(request.spec, &Host { bundle: request.bundle, capabilities: request.capabilities })?;
    let mut dir = Directory::make(request)?;
    let monitor_cgroup = PathBuf::from(format!("{}-start", request.cgroup.display()));
    dir.configure(request, &draft, &monitor_cgroup)?;
    let made = launch(request, programs, draft, &dir)
        .and_then(|pid| dir.record(request, pid).map(|()| pid))
        .and_then(|pid| answer(request, programs, pid).map(|()| pid))
        .inspect_err(|_| end(request.cgroup));
    // Empty now, whatever came of it. In use it would be refused.
    fs::remove_dir(Path::new(HIERARCHY).join(&monitor_cgroup)).ok();
    if made.is_ok() {
        dir.keep();
    }
    made
}

/// Ends what may be there of a container that could not be made: its processes outlive liblxc's. The first error is the one
/// to report.
fn end(cgroup: &Path) {
    let cgroup = Path::new(HIERARCHY).join(cgroup);
    fs::write(cgroup.join("cgroup.kill"), "1").ok();
    let until = Instant::now() + END;
    while fs::remove_dir(&cgroup).is_err_and(|error| error.kind() != io::ErrorKind::NotFound) {
        if Instant::now() >= until {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The container's directory; removed unless it is kept.
struct Directory {
    path: PathBuf,
    kept: bool,
}

impl Directory {
    fn make(request: &Request<'_>) -> Result<Self, Error> {
        let path = request.path.join(request.id);
        match fs::DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(Error::Exists(request.id.to_owned()));
            }
            result => host("make", path.display(), result)?,
        }
        Ok(Self { path, kept: false })
    }

    fn keep(&mut self) {
        self.kept = true;
    }

    fn configure(&self, request: &Request<'_>, draft: &Draft, monitor_cgroup: &Path) -> Result<(), Error> {
        let root = request.spec.root().as_ref().ok_or_else(|| Refusal::of("root", "is missing"))?;
        let root = request.bundle.join(root.path());
        let log = self.path.join(LOG);
        let place = Place {
            root: &root,
            cgroup: request.cgroup,
            monitor_cgroup,
            log: &log,
            mounts: &draft.by_liblxc,
        };
        let limits = request.spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
        let settings = limits.map(resources::settings).transpose()?.unwrap_or_default();
        let text = config::text(request.spec, &place, &settings)?;
        let path = self.path.join(CONFIG);
        host("write", path.display(), fs::write(&path, text))
    }

    fn record(&self, request: &Request<'_>, pid: u32) -> Result<(), Error> {
        let began = state::began(pid).ok_or_else(|| Error::Liblxc { said: self.log() })?;
        let record = Record {
            id: request.id.to_owned(),
            pid,
            began,
            bundle: request.bundle.to_owned(),
            cgroup: Path::new(HIERARCHY).join(request.cgroup),
            oci_version: request.spec.version().clone(),
            annotations: request
                .spec
                .annotations()
                .iter()
                .flatten()
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect(),
            clone_flags: config::clone_flags(request.spec),
        };
        Ok(Container { dir: self.path.clone(), record }.write()?)
    }

    /// A fifo that is open for both ways, so that it never ends.
    fn fifo(&self, name: &str) -> Result<File, Error> {
        let path = self.path.join(name);
        let made = mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).map_err(io::Error::from);
        host("make", path.display(), made)?;
        host("open", path.display(), File::options().read(true).write(true).open(&path))
    }

    /// The last that liblxc wrote.
    fn log(&self) -> String {
        let text = fs::read_to_string(self.path.join(LOG)).unwrap_or_default();
        let lines: Vec<&str> = text.lines().rev().take(5).filter_map(message).collect();
        if lines.is_empty() {
            "it said nothing".to_owned()
        } else {
            lines.into_iter().rev().collect::<Vec<_>>().join("; ")
        }
    }
}

/// What a line of liblxc's log says, without who, when and where.
fn message(line: &str) -> Option<&str> {
    line.split_once(" - ").and_then(|(_, rest)| rest.split_once(" - ")).map(|(_, text)| text)
}

impl Drop for Directory {
    fn drop(&mut self) {
        if !self.kept {
            fs::remove_dir_all(&self.path).ok();
        }
    }
}

/// The descriptors that the first process is started with. Its numbers are ours.
struct Handed {
    trees: Vec<OwnedFd>,
    console: Option<UnixStream>,
    init: File,
    start: File,
    result: File,
}

impl Handed {
    fn open(
        request: &Request<'_>,
        programs: &Programs,
        draft: &Draft,
        dir: &Directory,
    ) -> Result<Self, Error> {
        let mut trees = Vec::with_capacity(draft.trees.len());
        for tree in &draft.trees {
            let flags =
                OpenTreeFlags::from_bits_retain(clone_flags(tree.reach)) | OpenTreeFlags::OPEN_TREE_CLOEXEC;
            let cloned = open_tree(CWD, &tree.source, flags).map_err(io::Error::from);
            trees.push(host("clone the mount of", tree.source.display(), cloned)?);
        }
        let connect =
            |path: &Path| host("connect to the console socket", path.display(), UnixStream::connect(path));
        Ok(Self {
            trees,
            console: request.console_socket.map(connect).transpose()?,
            init: host("open", programs.init.display(), File::open(&programs.init))?,
            start: dir.fifo(START)?,
            result: dir.fifo(RESULT)?,
        })
    }

    /// Puts the numbers into the plan.
    fn number(&self, plan: &mut Plan, request: &Request<'_>) {
        let fd = |index: i32| {
            let tree = usize::try_from(index).ok().and_then(|index| self.trees.get(index));
            tree.map_or(-1, AsRawFd::as_raw_fd)
        };
        for mount in &mut plan.files.mounts {
            if let What::Tree { fd: place, .. } = &mut mount.what {
                *place = fd(*place);
            }
        }
        for device in &mut plan.files.devices {
            device.fd = device.fd.map(fd);
        }
        let size = request.spec.process().as_ref().and_then(|process| process.console_size());
        let side = |side: u64| u16::try_from(side).unwrap_or_default();
        plan.process.terminal = self.console.as_ref().map(|console| Terminal {
            socket: console.as_raw_fd(),
            width: size.map_or(0, |size| side(size.width())),
            height: size.map_or(0, |size| side(size.height())),
            console: true,
        });
    }

    fn all(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let trees = self.trees.iter().map(AsFd::as_fd);
        let console = self.console.iter().map(AsFd::as_fd);
        trees.chain(console).chain([self.init.as_fd(), self.start.as_fd(), self.result.as_fd()])
    }
}

fn launch(request: &Request<'_>, programs: &Programs, draft: Draft, dir: &Directory) -> Result<u32, Error> {
    let handed = Handed::open(request, programs, &draft, dir)?;
    let mut plan = draft.plan;
    handed.number(&mut plan, request);
    let plan_file = host("write", "the plan", written(&plan))?;
    let (report, theirs) = host("make", "a pair of sockets", UnixStream::pair())?;
    let inherited = || handed.all().chain([plan_file.as_fd(), theirs.as_fd()]);
    for fd in inherited() {
        let kept = rustix::io::fcntl_setfd(fd, FdFlags::empty()).map_err(io::Error::from);
        host("hand over", "a descriptor", kept)?;
    }
    let [program, first @ ..] = programs.launcher.as_slice() else {
        return Err(Refusal::of("launcher", "is not configured").into());
    };
    let arguments = [
        request.id.to_owned(),
        request.path.display().to_string(),
        handed.init.as_raw_fd().to_string(),
        "pid1".to_owned(),
        plan_file.as_raw_fd().to_string(),
        theirs.as_raw_fd().to_string(),
        handed.start.as_raw_fd().to_string(),
        handed.result.as_raw_fd().to_string(),
    ];
    let started = Command::new(program).args(first).args(arguments).spawn();
    let mut launcher = Launcher(host("run", program, started)?);
    // Ours would keep the end of a container that dies from being seen.
    drop((theirs, handed));
    let ready = wait(report, request.patience, dir);
    let pid = ready.and_then(|()| {
        let path = request.path.display().to_string();
        host(
            "ask liblxc for the first process of",
            request.id,
            Client { path: &path, name: request.id }.init_pid(),
        )
    });
    launcher.end();
    pid
}

/// A plan in a file that nobody else has.
pub(crate) fn written(plan: &impl serde::Serialize) -> io::Result<File> {
    let mut file = File::from(rustix::fs::memfd_create("plan", rustix::fs::MemfdFlags::CLOEXEC)?);
    file.write_all(&serde_json::to_vec(plan)?)?;
    Ok(file)
}

fn wait(mut report: UnixStream, patience: Duration, dir: &Directory) -> Result<(), Error> {
    host("wait for", "the container", report.set_read_timeout(Some(patience)))?;
    match Report::hear(&mut report) {
        Ok(Some(Report::Ready | Report::Running { .. })) => Ok(()),
        Ok(Some(Report::Failed { message, errno })) => Err(Error::Inside { message, errno }),
        Ok(None) => Err(Error::Liblxc { said: dir.log() }),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(Error::TooLong(patience)),
        Err(source) => Err(Error::Host { step: "hear of", object: "the container".to_owned(), source }),
    }
}

/// liblxc's process. Killed, it leaves the container to the nearest subreaper.
struct Launcher(Child);

impl Launcher {
    fn end(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

impl Drop for Launcher {
    fn drop(&mut self) {
        self.end();
    }
}

/// Lets somebody answer for the container.
fn answer(request: &Request<'_>, programs: &Programs, pid: u32) -> Result<(), Error> {
    let cgroup = Path::new(HIERARCHY).join(request.cgroup);
    // liblxc's own has ended with its process.
    let socket = monitor::bind(request.path, request.id)?;
    let started = Command::new(&programs.monitor)
        .args([request.id.as_ref(), request.path.as_os_str()])
        .arg(pid.to_string())
        .arg(cgroup)
        .arg(config::clone_flags(request.spec).to_string())
        .stdin(OwnedFd::from(socket))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    host("run", programs.monitor.display(), started).map(drop)
}
