//! A further process in a container: enters its namespaces and its cgroup from the host, and becomes what the plan says.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use rustix::fs::{Mode, OFlags};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};

use crate::error::{Context, Error};
use crate::plan::Process;
use crate::report::Report;
use crate::sys::{self, Fork};
use crate::{pid1, process, terminal};

/// Descriptors, by number, that it is started with.
#[derive(Debug, Clone, Copy)]
pub struct Inherited {
    /// A file with the [`Process`] as JSON.
    pub plan: RawFd,
    /// Where somebody listens for one [`Report`].
    pub report: RawFd,
    /// The container's first process, as a pidfd.
    pub container: RawFd,
    /// The container's cgroup, its directory.
    pub cgroup: RawFd,
    /// `CLONE_NEW*` of the namespaces that are entered.
    pub flags: u32,
}

/// Does all of it. The process that says [`Report::Running`] is not the one that runs: that is its child, since a process
/// cannot change its own PID namespace.
///
/// # Errors
/// When nobody can be told.
pub fn run(inherited: Inherited) -> Result<(), Error> {
    let mut report = UnixStream::from(pid1::take(inherited.report)?);
    match enter(inherited) {
        Ok(said) => said.say(&mut report).step("say what became of the process"),
        Err(error) => pid1::tell(&mut report, &error),
    }
}

fn enter(inherited: Inherited) -> Result<Report, Error> {
    let plan: Process = pid1::read(pid1::take(inherited.plan)?)?;
    let cgroup = pid1::take(inherited.cgroup)?;
    let container = pid1::take(inherited.container)?;
    // First, while the host's files can be seen and whatever we use is counted to the container.
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let procs = rustix::fs::openat(&cgroup, "cgroup.procs", flags, Mode::empty())
        .step("open the container's cgroup")?;
    rustix::io::write(&procs, b"0").step("enter the container's cgroup")?;
    drop((procs, cgroup));
    let kinds = ThreadNameSpaceType::from_bits_retain(inherited.flags);
    move_into_thread_name_spaces(container.as_fd(), kinds).step("enter the container's namespaces")?;
    drop(container);
    let (ours, theirs) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).step("make a pipe")?;
    match sys::fork().step("start a process in the container")? {
        Fork::Child => {
            drop(ours);
            let mut theirs = File::from(theirs);
            let error = become_it(&plan);
            // If nobody hears it, nobody is left to tell.
            pid1::tell(&mut theirs, &error).ok();
            std::process::exit(127);
        }
        Fork::Parent(pid) => {
            drop(theirs);
            Ok(heard(ours)?.unwrap_or(Report::Running { pid }))
        }
    }
}

fn become_it(plan: &Process) -> Error {
    let prepared = || {
        // A session of its own: no signal to the caller's group reaches it.
        rustix::process::setsid().step("start a session")?;
        if let Some(wanted) = &plan.terminal {
            terminal::make(wanted, plan.user.uid)?;
        }
        process::prepare(plan)?;
        sys::close_on_exec_from(3).step("close the descriptors of the host")?;
        process::become_user(plan)
    };
    match prepared() {
        Ok(program) => process::run(plan, &program),
        Err(error) => error,
    }
}

/// What the child says; its end of the pipe is closed without a word by `execve`.
fn heard(from: OwnedFd) -> Result<Option<Report>, Error> {
    let mut said = Vec::new();
    File::from(from).read_to_end(&mut said).step("hear of the process")?;
    Report::hear(&mut said.as_slice()).step("hear of the process")
}
