//! What is done with a container that exists.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cryopod_init::hooks::run_all;
use cryopod_init::report::Report;
use oci_spec::runtime::LinuxResources;
use rustix::event::{PollFd, PollFlags, poll};

use crate::devices;
use crate::refusal::Refusal;
use crate::resources;
use crate::state::{self, Container, RESULT, START, Status};
use crate::sys::signal;

/// The kernel freezes and kills within milliseconds, unless a process is in an uninterruptible call.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such container, or it cannot be told.
    #[error(transparent)]
    State(#[from] state::Error),
    /// Not in this status.
    #[error("container '{id}' is {status:?}: cannot {verb} it")]
    Status {
        /// Which.
        id: String,
        /// What it is.
        status: Status,
        /// What was asked.
        verb: &'static str,
    },
    /// The first process says why it did not become the program.
    #[error("{message}")]
    Inside {
        /// What was tried on what, and what the system said.
        message: String,
        /// Error number, if the system gave one.
        errno: Option<i32>,
    },
    /// Not with cgroup v2.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The system refuses.
    #[error("{step} {object}: {source}")]
    Host {
        /// What was tried.
        step: &'static str,
        /// On what.
        object: String,
        /// What it said.
        source: io::Error,
    },
}

fn host<T>(step: &'static str, object: impl std::fmt::Display, result: io::Result<T>) -> Result<T, Error> {
    result.map_err(|source| Error::Host { step, object: object.to_string(), source })
}

fn wrong(container: &Container, status: Status, verb: &'static str) -> Error {
    Error::Status { id: container.record.id.clone(), status, verb }
}

/// Lets the first process become the program.
///
/// # Errors
/// When it cannot, with its reason.
pub fn start(container: &Container) -> Result<(), Error> {
    match container.status() {
        Status::Created => {}
        status => return Err(wrong(container, status, "start")),
    }
    let (start, result) = (container.dir.join(START), container.dir.join(RESULT));
    // Before the word is given, so that nothing that is said can be missed.
    let mut answer = host("open", result.display(), open(&result, true))?;
    host("open", start.display(), open(&start, false))
        .and_then(|mut file| host("write to", start.display(), file.write_all(b"s")))?;
    host("wait for", "the container", heard(&answer, container))?;
    let said = host("hear of", "the container", Report::hear(&mut answer))?;
    // From here on it is started, whatever came of it: it waits no more.
    for fifo in [&start, &result] {
        host("remove", fifo.display(), fs::remove_file(fifo))?;
    }
    match said {
        Some(Report::Failed { message, errno }) => Err(Error::Inside { message, errno }),
        Some(_) | None => {
            warn_of(run_all(&container.record.hooks.poststart, container.record.pid));
            Ok(())
        }
    }
}

/// These hooks come too late to keep anything from happening (runtime spec, "Lifecycle").
fn warn_of(ran: Result<(), cryopod_init::error::Error>) {
    if let Err(error) = ran {
        eprintln!("cryopod-lxc: warning: {error}");
    }
}

/// Without waiting for the other side, which is there as long as the first process is.
fn open(path: &Path, read: bool) -> io::Result<File> {
    OpenOptions::new().read(read).write(!read).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC).open(path)
}

/// Waits until something was said, or the other end was closed.
fn heard(answer: &File, container: &Container) -> io::Result<()> {
    let until = Instant::now() + PATIENCE;
    loop {
        let mut fds = [PollFd::new(answer, PollFlags::IN)];
        let timeout = PATIENCE.min(Duration::from_millis(200)).try_into().unwrap_or_default();
        let ready = match poll(&mut fds, Some(&timeout)) {
            Ok(ready) => ready,
            Err(rustix::io::Errno::INTR) => 0,
            Err(error) => return Err(error.into()),
        };
        // A process that is frozen says nothing, and one that has ended neither.
        if ready > 0 || container.process().is_none() {
            return Ok(());
        }
        if Instant::now() >= until {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
}

/// Sends a signal to the first process, or to all processes. Real-time signals too.
///
/// # Errors
/// When it has ended: then there is nobody to send it to.
pub fn kill(container: &Container, number: i32, all: bool) -> Result<(), Error> {
    let process = container.process().ok_or_else(|| wrong(container, Status::Stopped, "send a signal to"));
    if !all {
        return host("send a signal to", &container.record.id, signal(&process?, number));
    }
    if number == libc::SIGKILL {
        let file = container.record.cgroup.join("cgroup.kill");
        return host("write", file.display(), fs::write(&file, "1"));
    }
    for pid in processes(container)? {
        match crate::sys::signal_pid(pid, number) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
            result => host("send a signal to process", pid, result)?,
        }
    }
    Ok(())
}

/// PIDs of all its processes, those of groups below as well.
///
/// # Errors
/// When its cgroup cannot be read; one that is gone has none.
pub fn processes(container: &Container) -> Result<Vec<i32>, Error> {
    let mut pids = Vec::new();
    let mut groups = vec![container.record.cgroup.clone()];
    while let Some(group) = groups.pop() {
        let file = group.join("cgroup.procs");
        let text = match fs::read_to_string(&file) {
            // A group may go while it is looked at.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV)) => continue,
            result => host("read", file.display(), result)?,
        };
        pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
        groups.extend(below(&group));
    }
    pids.sort_unstable();
    Ok(pids)
}

fn below(group: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(group).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

/// Freezes it, or lets it go on.
///
/// # Errors
/// When it has ended, or does not get there in time; then it is as before.
pub fn freeze(container: &Container, frozen: bool) -> Result<(), Error> {
    let verb = if frozen { "pause" } else { "resume" };
    let status = container.status();
    if !matches!((frozen, status), (true, Status::Running | Status::Created) | (false, Status::Paused)) {
        return Err(wrong(container, status, verb));
    }
    let file = container.record.cgroup.join("cgroup.freeze");
    let set = |frozen: bool| host("write", file.display(), fs::write(&file, if frozen { "1" } else { "0" }));
    set(frozen)?;
    let reached = || (container.status() == Status::Paused) == frozen;
    if until(PATIENCE, reached) {
        return Ok(());
    }
    if frozen {
        set(false)?;
    }
    host(verb, &container.record.id, Err(io::ErrorKind::TimedOut.into()))
}

fn until(patience: Duration, reached: impl Fn() -> bool) -> bool {
    let end = Instant::now() + patience;
    loop {
        if reached() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Changes its limits.
///
/// # Errors
/// At the first that the kernel does not take; those before it hold.
pub fn update(container: &Container, wanted: &LinuxResources) -> Result<(), Error> {
    // None given leaves them as they are, as all the other limits.
    if let Some(given) = wanted.devices().as_deref().filter(|devices| !devices.is_empty()) {
        let rules = devices::rules(given)?;
        let group = &container.record.cgroup;
        host(
            "restrict devices in",
            group.display(),
            devices::load(&rules).and_then(|filter| filter.attach(group)),
        )?;
    }
    for (file, value) in resources::settings(wanted)? {
        let path = container.record.cgroup.join(file);
        host("write", format!("{value:?} to {}", path.display()), fs::write(&path, &value))?;
    }
    Ok(())
}

/// Removes everything of it: processes, cgroup, directory. One that is gone already is removed.
///
/// # Errors
/// When it runs and is not to be killed, or does not go.
pub fn delete(container: &Container, force: bool) -> Result<(), Error> {
    let status = container.status();
    if !force && matches!(status, Status::Running | Status::Paused) {
        return Err(wrong(container, status, "delete"));
    }
    let cgroup = &container.record.cgroup;
    match fs::write(cgroup.join("cgroup.kill"), "1") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        result => host("kill the processes in", cgroup.display(), result)?,
    }
    let gone = || remove_groups(cgroup).is_ok();
    if !until(PATIENCE, gone) {
        host("remove", cgroup.display(), remove_groups(cgroup))?;
    }
    match fs::remove_dir_all(&container.dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        result => host("remove", container.dir.display(), result)?,
    }
    warn_of(run_all(&container.record.hooks.poststop, 0));
    Ok(())
}

/// From the leaves up: the kernel removes empty groups only.
pub(crate) fn remove_groups(group: &Path) -> io::Result<()> {
    for below in below(group) {
        remove_groups(&below)?;
    }
    match fs::remove_dir(group) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}
