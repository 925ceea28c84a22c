//! The first process: everything up to `create`'s answer, the wait for `start`, and what it becomes.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use serde::de::DeserializeOwned;

use crate::error::{Context, Error};
use crate::plan::Plan;
use crate::report::Report;
use crate::{devices, enter, hooks, mounts, paths, process, sys, terminal};

/// Descriptors, by number, that it is started with.
#[derive(Debug, Clone, Copy)]
pub struct Inherited {
    /// A file with the [`Plan`] as JSON.
    pub plan: RawFd,
    /// Where `create` listens for one [`Report`].
    pub report: RawFd,
    /// A fifo, open for both ways so that it never ends. `start` writes a byte into it. No socket: a filter for a program
    /// without a network forbids accept(2), and would be installed by then; read(2) and write(2) it has to allow.
    pub start: RawFd,
    /// A fifo in which `start` finds one [`Report`], or at once its end if the process runs.
    pub result: RawFd,
}

/// Does all of it. Returns only when something failed, after having said so to whoever waits.
///
/// # Errors
/// When nobody can be told.
pub fn run(inherited: Inherited) -> Result<(), Error> {
    let mut report = UnixStream::from(take(inherited.report)?);
    let mut start = File::from(take(inherited.start)?);
    let mut result = File::from(take(inherited.result)?);
    let plan = take(inherited.plan).and_then(read::<Plan>);
    let plan = match plan.and_then(|plan| prepare(&plan, &mut report).map(|()| plan)) {
        Ok(plan) => plan,
        Err(error) => return tell(&mut report, &error),
    };
    // What follows cannot fail for reasons that `create` would want to know, but for the program: it is found here.
    let program = match process::become_user(&plan.process) {
        Ok(program) => program,
        Err(error) => return tell(&mut report, &error),
    };
    Report::Ready.say(&mut report).step("say that the container is ready")?;
    drop(report);
    start.read_exact(&mut [0]).step("wait to be started")?;
    drop(start);
    if let Err(error) = hooks::run_all(&plan.hooks, std::process::id()) {
        return tell(&mut result, &error);
    }
    // Our end of the fifo closes with it: that is how `start` learns of the success.
    let error = process::run(&plan.process, &program);
    tell(&mut result, &error)
}

pub(crate) fn take(fd: RawFd) -> Result<OwnedFd, Error> {
    sys::inherited(fd).on("take over descriptor", fd)
}

pub(crate) fn read<T: DeserializeOwned>(fd: OwnedFd) -> Result<T, Error> {
    let mut file = File::from(fd);
    let mut text = String::new();
    file.rewind().and_then(|()| file.read_to_string(&mut text)).step("read the plan")?;
    serde_json::from_str(&text).map_err(std::io::Error::other).step("understand the plan")
}

pub(crate) fn tell(whom: &mut impl Write, error: &Error) -> Result<(), Error> {
    Report::from(error).say(whom).step("say what failed")
}

fn prepare(plan: &Plan, host: &mut UnixStream) -> Result<(), Error> {
    if let Some(enter) = &plan.enter {
        enter::namespaces(enter, host)?;
    }
    let early = mounts::early(&plan.files)?;
    if let Some(enter) = &plan.enter {
        enter::root(enter, host)?;
    }
    mounts::make(&plan.files, early)?;
    devices::make(&plan.files)?;
    for (name, value) in &plan.sysctl {
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        std::fs::write(&path, value).on("set", path)?;
    }
    if let Some(name) = &plan.hostname {
        rustix::system::sethostname(name.as_bytes()).on("set the host name", name)?;
    }
    if let Some(name) = &plan.domainname {
        rustix::system::setdomainname(name.as_bytes()).on("set the domain name", name)?;
    }
    if let Some(wanted) = &plan.process.terminal {
        terminal::make(wanted, plan.process.user.uid)?;
    }
    process::prepare(&plan.process)?;
    mounts::finish(&plan.files)?;
    plan.files.readonly.iter().try_for_each(|path| paths::readonly(path))?;
    plan.files.masked.iter().try_for_each(|path| paths::mask(path))?;
    // Nothing of the host's may reach the workload.
    sys::close_on_exec_from(3).step("close the descriptors of the host")
}
