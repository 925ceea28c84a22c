//! Making a container, up to the point where it waits to be started.
//!
//! In order: its directory and configuration, the descriptors of its first process, liblxc in a process of its own, the
//! answer of the first process, the end of liblxc's process, the monitor's answer. Whatever fails takes back what was made.
//!
//! How long it takes is how long this process, liblxc's and the first one take one after the other. So whatever can be done
//! beside them is: liblxc is loaded while the spec is read, the monitor while liblxc works, and liblxc's process is not waited
//! for until its socket is needed.

use std::ffi::CStr;
use std::fs::{self, File};
use std::io::{self, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use cryopod_init::mounts::clone_flags;
use cryopod_init::options::Bind;
use cryopod_init::plan::{Plan, Terminal, What};
use cryopod_init::report::Report;
use cryopod_lxc_monitor::bind;
use rustix::fs::CWD;
use rustix::mount::{OpenTreeFlags, open_tree};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg, sockopt};

use crate::cgroup;
use crate::config;
use crate::devices::Filter;
use crate::directory::Directory;
use crate::hooks::{self, Gate, Hooks};
use crate::launch::{self, Loading};
use crate::making::{Error, HIERARCHY, Monitor, Programs, Request, end, host, monitor_cgroup};
use crate::plan::{self, Draft, Host};
use crate::state::{RESULT, START, began};
use crate::sys::fork::{self, Copy};
use crate::sys::idmap;

/// Name of liblxc's process, for people who look.
const NAME: &CStr = c"cryopod-launch";

/// Makes it; answers the PID of its first process, which is a child of the nearest subreaper from then on.
///
/// # Errors
/// See [`Error`]; nothing is left over then.
pub fn create(request: &Request<'_>, programs: &Programs, liblxc: Loading) -> Result<u32, Error> {
    let draft =
        plan::draft(request.spec, &Host { bundle: request.bundle, capabilities: request.capabilities })?;
    let hooks = Hooks::of(request);
    let dir = Directory::make(request)?;
    let gate = if hooks.need_a_gate() { Some(Gate::make(&hooks)?) } else { None };
    let hook = gate.as_ref().map(|gate| gate_hook(gate, programs));
    dir.configure(request, &draft.by_liblxc, hook.as_deref())?;
    let made = launch(request, programs, draft, &dir, &hooks, gate, liblxc).and_then(|launched| {
        let Launched { pid, mut launcher, devices, monitor } = launched;
        launcher.kill();
        // Not before: its nodes are made by now.
        cgroup::restrict_devices(request, &devices)?;
        dir.guard()?;
        dir.record(request, pid)?;
        // liblxc's own answer ends with its process.
        launcher.end();
        monitor.give(pid, bind(request.path, request.id)?)?;
        Ok(pid)
    });
    // Empty now, whatever came of it. In use it would be refused.
    fs::remove_dir(Path::new(HIERARCHY).join(monitor_cgroup(request.cgroup))).ok();
    finish(request, dir, made)
}

/// Keeps what was made, or takes it back. The directory goes last: it tells others what there may be.
pub(crate) fn finish<T>(
    request: &Request<'_>,
    mut dir: Directory,
    made: Result<T, Error>,
) -> Result<T, Error> {
    let made = made.and_then(|made| dir.keep().map(|()| made));
    if made.is_err() {
        end(request.cgroup);
    }
    made
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
            let cloned = host("clone the mount of", tree.source.display(), cloned)?;
            if let Some(ids) = &tree.ids {
                let mapped = idmap::user_namespace(&ids.users, &ids.groups)
                    .and_then(|users| idmap::map(cloned.as_fd(), ids.reach == Bind::Recursive, &users));
                host("map the owners of", tree.source.display(), mapped)?;
            }
            trees.push(cloned);
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

/// The command that liblxc runs, by a shell, in the container's namespaces.
fn gate_hook(gate: &Gate, programs: &Programs) -> String {
    let (hooks, socket) = (gate.hooks.as_raw_fd(), gate.theirs.as_raw_fd());
    format!("{} gate {hooks} {socket}", programs.init.display())
}

/// A container that waits, and who is there beside it.
struct Launched {
    /// Its first process.
    pid: u32,
    /// liblxc's process. Killed, it leaves the container to the nearest subreaper.
    launcher: Copy,
    devices: Filter,
    monitor: Monitor,
}

fn launch(
    request: &Request<'_>,
    programs: &Programs,
    draft: Draft,
    dir: &Directory,
    hooks: &Hooks,
    gate: Option<Gate>,
    liblxc: Loading,
) -> Result<Launched, Error> {
    let handed = Handed::open(request, programs, &draft, dir)?;
    let mut plan = draft.plan;
    plan.hooks = hooks.start_container.clone();
    handed.number(&mut plan, request);
    let plan_file = host("write", "the plan", written(&plan))?;
    let (report, theirs) = host("make", "a pair of sockets", UnixStream::pair())?;
    let told = sockopt::set_socket_passcred(&report, true).map_err(io::Error::from);
    let told = told.and_then(|()| report.set_read_timeout(Some(request.patience)));
    host("wait for", "the container", told)?;
    let gate_fds = gate.iter().flat_map(|gate| [gate.hooks.as_fd(), gate.theirs.as_fd()]);
    let inherited: Vec<_> = handed.all().chain([plan_file.as_fd(), theirs.as_fd()]).chain(gate_fds).collect();
    let path = request.path.display().to_string();
    let init = [&plan_file.as_fd(), &theirs.as_fd(), &handed.start.as_fd(), &handed.result.as_fd()];
    let arguments = init.map(|fd| fd.as_raw_fd().to_string());
    let liblxc = host("open", "liblxc", liblxc.wait())?;
    let launched = fork::copy(NAME, &inherited, || {
        launch::start(liblxc, request.id, &path, handed.init.as_fd(), &arguments, &theirs);
    });
    let launcher = host("start", "a process for liblxc", launched)?;
    // Ours would keep the end of a container that dies from being seen.
    drop((theirs, handed));
    let devices = cgroup::device_filter(request)?;
    let group = Path::new(HIERARCHY).join(request.cgroup);
    let flags = config::clone_flags(request.spec);
    let monitor = Monitor::start(&programs.monitor, request.id, request.path, &group, flags)?;
    let passed = match gate.map(Gate::into_ours) {
        // liblxc answers only when its hooks are done.
        Some(gate) => hooks::pass(gate, hooks, request.patience, || first_process(launcher.pid())),
        None => Ok(()),
    };
    passed?;
    let pid = wait(report, request.patience, dir)?;
    Ok(Launched { pid, launcher, devices, monitor })
}

/// A plan in a file that nobody else has.
pub(crate) fn written(plan: &impl serde::Serialize) -> io::Result<File> {
    let mut file = File::from(rustix::fs::memfd_create("plan", rustix::fs::MemfdFlags::CLOEXEC)?);
    file.write_all(&serde_json::to_vec(plan)?)?;
    Ok(file)
}

/// Waits until the first process is ready; answers its PID, which the kernel says with the message: liblxc would have to be
/// asked, and refuses who asks while it takes the connection (it wants credentials, and says so a moment too late).
fn wait(mut report: UnixStream, patience: Duration, dir: &Directory) -> Result<u32, Error> {
    let heard = sender(&report).and_then(|pid| Ok((pid, Report::hear(&mut report)?)));
    match heard {
        Ok((Some(pid), Some(Report::Ready | Report::Running { .. }))) => Ok(pid),
        Ok((_, Some(Report::Failed { message, errno }))) => Err(Error::Inside { message, errno }),
        Ok((_, _)) => Err(Error::Liblxc { said: dir.log() }),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(Error::TooLong(patience)),
        Err(source) => Err(Error::Host { step: "hear of", object: "the container".to_owned(), source }),
    }
}

/// Who sent what is to be heard next, as this process sees it; `None` at the end of the stream.
fn sender(report: &UnixStream) -> io::Result<Option<u32>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let pieces = &mut [IoSliceMut::new(&mut byte)];
    let seen = loop {
        match recvmsg(report, pieces, &mut ancillary, RecvFlags::PEEK) {
            Err(rustix::io::Errno::INTR) => {}
            seen => break seen?,
        }
    };
    if seen.bytes == 0 {
        return Ok(None);
    }
    let of = |message| match message {
        RecvAncillaryMessage::ScmCredentials(user) => Some(user.pid.as_raw_nonzero().get().unsigned_abs()),
        _ => None,
    };
    Ok(ancillary.drain().find_map(of))
}

/// The container's first process, which is a child of liblxc's process, as long as that lives. One that has ended was
/// needed to enter a namespace.
fn first_process(launcher: u32) -> io::Result<u32> {
    let children = fs::read_to_string(format!("/proc/{launcher}/task/{launcher}/children"))?;
    let living = |child: &str| child.parse().ok().filter(|child| began(*child).is_some());
    children.split_whitespace().rev().find_map(living).ok_or_else(|| io::ErrorKind::NotFound.into())
}
