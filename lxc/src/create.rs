//! Making a container, up to the point where it waits to be started.
//!
//! In order: its directory and configuration, its cgroup, the descriptors of its first process, that process, and meanwhile the
//! rules for devices and the monitor; the answers of the first process, and its record. Whatever fails takes back what was made.
//!
//! How long it takes is how long this process and the first one take one after the other. So whatever can be done beside the
//! first one is.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use cryopod_init::enter;
use cryopod_init::mounts::clone_flags;
use cryopod_init::options::Bind;
use cryopod_init::plan::{Plan, Terminal, What};
use cryopod_init::report::Report;
use cryopod_init::sys::{SAME, mount_setattr};
use cryopod_lxc_monitor::bind;
use rustix::fs::CWD;
use rustix::mount::{OpenTreeFlags, open_tree};
use rustix::net::sockopt;
use rustix::process::Pid;

use crate::answers;
use crate::cgroup;
use crate::config;
use crate::directory::Directory;
use crate::hooks::Hooks;
use crate::joined;
use crate::making::{Error, HIERARCHY, Monitor, Programs, Request, end, host};
use crate::plan::{self, Draft, Host};
use crate::state::{RESULT, START};
use crate::sys::idmap;
use crate::sys::spawn::{Program, spawn};

/// `MOUNT_ATTR_RDONLY` and `MOUNT_ATTR_NOSUID`.
const READ_ONLY: u64 = cryopod_init::options::attr::RDONLY | cryopod_init::options::attr::NOSUID;

/// Makes it; answers the PID of its first process, a child of this one.
///
/// # Errors
/// See [`Error`]; nothing is left over then.
pub fn create(request: &Request<'_>, programs: &Programs) -> Result<u32, Error> {
    let draft =
        plan::draft(request.spec, &Host { bundle: request.bundle, capabilities: request.capabilities })?;
    let joins = joined::open(request.spec)?;
    let hooks = Hooks::of(request);
    let dir = Directory::make(request)?;
    let settings = dir.configure(request)?;
    let made = cgroup::make(request, &settings)
        .and_then(|()| Handed::open(request, programs, &draft, joins, &dir))
        .and_then(|handed| first_process(request, programs, draft.plan, handed, &hooks))
        .and_then(|(pid, monitor)| {
            dir.record(request, pid)?;
            monitor.give(pid, bind(request.path, request.id)?)?;
            Ok(pid)
        });
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
    joins: Vec<File>,
    console: Option<UnixStream>,
    init: OwnedFd,
    start: File,
    result: File,
}

impl Handed {
    fn open(
        request: &Request<'_>,
        programs: &Programs,
        draft: &Draft,
        joins: Vec<File>,
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
            joins,
            console: request.console_socket.map(connect).transpose()?,
            init: host("open", programs.init.display(), sealed(&programs.init))?,
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
        if let Some(enter) = &mut plan.enter {
            enter.join = self.joins.iter().map(AsRawFd::as_raw_fd).collect();
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
        let joins = self.joins.iter().map(AsFd::as_fd);
        trees.chain(joins).chain(console).chain([self.start.as_fd(), self.result.as_fd()])
    }
}

/// Makes the first process, lets it get ready, and starts what answers for it.
fn first_process(
    request: &Request<'_>,
    programs: &Programs,
    mut plan: Plan,
    handed: Handed,
    hooks: &Hooks,
) -> Result<(u32, Monitor), Error> {
    plan.hooks.clone_from(&hooks.start_container);
    let mut namespaces = 0;
    if let Some(enter) = &mut plan.enter {
        enter.root = request.root()?;
        enter.keyring = request.keyring;
        enter.gate = hooks.need_a_gate();
        enter.hooks.clone_from(&hooks.create_container);
        namespaces = enter::at_once(enter);
    }
    handed.number(&mut plan, request);
    let plan = host("write", "the plan", written(&plan))?;
    let (report, theirs) = host("make", "a pair of sockets", UnixStream::pair())?;
    // Before anything can be said: the kernel says who, only if it was asked to.
    let told = sockopt::set_socket_passcred(&report, true).map_err(io::Error::from);
    host("listen to", "the container", told)?;
    let child = become_init(request, namespaces, &handed, &plan, &theirs)?;
    // Ours would keep the end of a container that dies from being seen.
    drop((theirs, handed, plan));
    cgroup::restrict_devices(request)?;
    let group = Path::new(HIERARCHY).join(request.cgroup);
    let flags = config::clone_flags(request.spec);
    let monitor = Monitor::start(&programs.monitor, request.id, request.path, &group, flags)?;
    Ok((answers::wait(request, hooks, report, child)?, monitor))
}

fn become_init(
    request: &Request<'_>,
    namespaces: u32,
    handed: &Handed,
    plan: &File,
    report: &UnixStream,
) -> Result<Pid, Error> {
    let group = Path::new(HIERARCHY).join(request.cgroup);
    let group = host("open", group.display(), File::open(&group))?;
    let fds = [plan.as_fd(), report.as_fd(), handed.start.as_fd(), handed.result.as_fd()];
    let kept: Vec<_> = handed.all().chain([plan.as_fd(), report.as_fd()]).collect();
    let words = ["cryopod-init".to_owned(), "pid1".to_owned()];
    let words = words.into_iter().chain(fds.map(|fd| fd.as_raw_fd().to_string()));
    let arguments: Result<Vec<CString>, _> = words.map(CString::new).collect();
    let arguments = host("pass on", "arguments", arguments.map_err(io::Error::from))?;
    let program = Program { file: handed.init.as_fd(), arguments: &arguments, kept: &kept };
    let failed = |error: io::Error| {
        let message = format!("run cryopod-init: {error}");
        // Nobody listens when the maker was killed.
        Report::Failed { message, errno: error.raw_os_error() }.say(&mut &*report).ok();
    };
    let made = spawn(namespaces, group.as_fd(), &program, failed);
    host("make", "the container's first process", made)
}

/// A plan in a file that nobody else has.
pub(crate) fn written(plan: &impl serde::Serialize) -> io::Result<File> {
    let mut file = File::from(rustix::fs::memfd_create("plan", rustix::fs::MemfdFlags::CLOEXEC)?);
    file.write_all(&serde_json::to_vec(plan)?)?;
    Ok(file)
}

/// A program as a container may have it in `/proc/PID/exe`: on a mount of its own that cannot be written. Otherwise whoever is
/// root in there could replace the program of the host through it.
pub(crate) fn sealed(program: &Path) -> io::Result<OwnedFd> {
    let mount = open_tree(CWD, program, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?;
    mount_setattr(mount.as_fd(), false, &libc::mount_attr { attr_set: READ_ONLY, ..SAME })?;
    Ok(mount)
}
