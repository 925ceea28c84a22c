//! Finds runtime and criu processes that still work on a container, and waits for them without killing criu.
//!
//! A runtime and the hook are known by [`CONTAINER_ENV`] in their environment, criu by its working directory; so they are
//! found by another process too, after the one that started them has died. Ended runtimes leave criu to the nearest
//! subreaper; where that is this process, the dead criu is reaped here, by its number alone.
//!
//! Name, environment and working directory are what any process gives itself, so a container could pose as criu: what
//! is in a PID namespace of a container counts only where it works in the very directory of this node, as tasks do
//! that criu has only half restored.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cryopod_command::Limits;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use super::operation::{self, CONTAINER_ENV};
use super::{CriuError, headless};
use crate::process::{self, Process};

/// How long criu may take to notice that its runtime has gone: up to the end of the hook's work.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// How often the list of workers is made anew.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A process that works on the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Worker {
    /// Which.
    pub process: Process,
    /// Whether it is criu or its hook, which must not be killed.
    pub is_criu: bool,
}

/// All processes that were started for a checkpoint or restore of `container`, this one excepted.
pub fn find(container: &str) -> Vec<Worker> {
    let me = std::process::id();
    let pids = process::all().unwrap_or_default();
    pids.into_iter()
        .filter(|pid| *pid != me)
        .filter_map(|pid| {
            let stat = process::stat(pid).ok()??;
            let is_criu = is_criu(&stat.comm);
            let inner = process::is_in_inner_namespace(pid);
            // A restored process has the environment that it was captured with, never this variable. criu writes its
            // title over its own, but works in the operation's directory.
            let ours = (!inner && process::environment(pid, CONTAINER_ENV).as_deref() == Some(container))
                || (is_criu
                    && working_directory(pid).is_some_and(|dir| {
                        operation::is_directory_of(&dir, container) && (!inner || works_in(pid, &dir))
                    }));
            ours.then_some(Worker { process: Process { pid, start_time: stat.start_time }, is_criu })
        })
        .collect()
}

/// Waits until nobody works on the container any more. After half of `patience` a runtime that still runs is ended
/// (criu then rolls back); criu itself never is.
pub fn wait_for_end(container: &str, patience: Duration) -> Result<(), CriuError> {
    let end = Limits::within(patience);
    let polite = Limits::within(patience / 2);
    loop {
        let workers = find(container);
        let Some(first) = workers.first() else {
            reap_criu();
            return Ok(());
        };
        if end.check().is_err() {
            let pids = workers.iter().map(|w| w.process.pid.to_string()).collect::<Vec<_>>().join(", ");
            return Err(CriuError::StillRunning { container: container.to_owned(), pids });
        }
        if polite.check().is_err() {
            for runtime in workers.iter().filter(|worker| !worker.is_criu) {
                tracing::warn!(
                    container,
                    pid = runtime.process.pid,
                    "ending a runtime that hangs in a checkpoint"
                );
                runtime.process.signal(nix::libc::SIGKILL).ok();
            }
        }
        // Others may end meanwhile; the next turn looks again.
        first.process.wait_end(&end.at_most((patience / 10).min(LOOK_EVERY))).ok();
    }
}

/// Ends everything that works on a container which has gone, criu too: there is nothing left that it could harm.
pub fn end_all(container: &str) {
    let workers = find(container);
    let any = !workers.is_empty();
    for worker in workers {
        tracing::warn!(container, pid = worker.process.pid, "ending what still works on a removed container");
        worker.process.signal(nix::libc::SIGKILL).ok();
        worker.process.wait_end(&Limits::within(Duration::from_secs(5))).ok();
    }
    reap_criu();
    if any {
        headless::clear_mounts();
    }
}

/// Takes the exit status of every dead criu that was left to us as subreaper; nobody else waits for these. A dead process
/// shows no environment, so it is known by its name and its parent.
fn reap_criu() {
    let me = std::process::id();
    for pid in process::all().unwrap_or_default() {
        let Ok(Some(stat)) = process::stat(pid) else { continue };
        if stat.ppid == me
            && stat.is_dead()
            && is_criu(&stat.comm)
            // The init of a container may have any name, and its exit status belongs to the shim.
            && !process::is_in_inner_namespace(pid)
            && let Ok(pid) = i32::try_from(pid)
        {
            waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG)).ok();
        }
    }
}

/// Where a process works; the directory may have been removed since.
fn working_directory(pid: u32) -> Option<PathBuf> {
    let link = std::fs::read_link(format!("/proc/{pid}/cwd")).ok()?;
    match link.to_str().and_then(|path| path.strip_suffix(" (deleted)")) {
        Some(path) => Some(path.into()),
        None => Some(link),
    }
}

/// Whether its working directory is what the path leads to here, and not one of that name in a root of its own.
fn works_in(pid: u32, dir: &Path) -> bool {
    let identity = |path: &Path| std::fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()));
    let own = identity(Path::new(&format!("/proc/{pid}/cwd")));
    own.is_some() && own == identity(dir)
}

pub(super) fn is_criu(comm: &str) -> bool {
    comm.starts_with("criu") || comm.starts_with(super::hook::NAME)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// The kernel shows the environment a moment after the exec.
    fn seen(id: &str) -> Vec<Worker> {
        let tries = (0..500).map(|_| {
            std::thread::sleep(Duration::from_millis(10));
            find(id)
        });
        tries.into_iter().find(|found| !found.is_empty()).unwrap_or_default()
    }

    #[test]
    fn workers_are_found_by_their_environment_and_waited_for() {
        let id = format!("test-{}", std::process::id());
        let mut child = Command::new("sleep").arg("3").env(CONTAINER_ENV, &id).spawn().expect("sleep");
        let found = seen(&id);
        assert_eq!(found.iter().map(|w| w.process.pid).collect::<Vec<_>>(), [child.id()]);
        assert_eq!(find("another"), []);
        wait_for_end(&id, Duration::from_secs(10)).expect("it ends");
        child.wait().expect("left to its parent, since it is no criu");
    }

    #[test]
    fn a_directory_of_the_same_name_elsewhere_is_not_taken_for_ours() {
        let (dir, other) = (tempfile::tempdir().expect("directory"), tempfile::tempdir().expect("directory"));
        let mut child = Command::new("sleep").arg("100").current_dir(dir.path()).spawn().expect("sleep");
        assert!(works_in(child.id(), dir.path()));
        assert!(!works_in(child.id(), other.path()));
        assert!(!works_in(child.id(), Path::new("/nonexistent")));
        child.kill().expect("alive");
        child.wait().expect("reaped");
        assert!(!works_in(child.id(), dir.path()));
    }

    #[test]
    fn a_runtime_that_hangs_is_ended_and_a_criu_is_not() {
        use std::os::unix::fs::symlink;
        let id = format!("hang-{}", std::process::id());
        let dir = tempfile::tempdir().expect("temporary directory");
        let sleep = ["/usr/bin/sleep", "/bin/sleep"].iter().find(|p| Path::new(p).exists());
        let criu = dir.path().join("criu");
        symlink(sleep.expect("sleep"), &criu).expect("link");
        let mut runtime = Command::new("sleep").arg("100").env(CONTAINER_ENV, &id).spawn().expect("sleep");
        assert_eq!(seen(&id).len(), 1);
        wait_for_end(&id, Duration::from_secs(4)).expect("the runtime was ended");
        assert!(!runtime.wait().expect("ended").success());

        let work = operation::Operation::begin(dir.path(), &id).expect("directory");
        let mut criu = Command::new(&criu).arg("100").current_dir(work.dir()).spawn().expect("criu");
        drop(work);
        let error = wait_for_end(&id, Duration::from_millis(300)).expect_err("still there");
        assert!(matches!(error, CriuError::StillRunning { .. }), "{error}");
        criu.kill().expect("alive");
        criu.wait().expect("reaped");
    }
}
