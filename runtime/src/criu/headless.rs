//! What a criu that is killed in the middle of a restore leaves behind: processes and mounts.
//!
//! criu restores by a tree of processes. When the first one is killed the others live on, and with them the socket on which
//! the runtime waits for an answer: without help it would wait until its deadline. And criu collects the new root's mounts
//! on a file system of its own, in the mount namespace of the node, which nobody unmounts then.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use nix::mount::{MntFlags, umount2};

use super::orphans;
use crate::mountinfo::MountTable;
use crate::process::{self, Process, Stat};

/// How often a restore is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What criu calls the directories on which it collects mounts (`mnt_roots` in its mount.c).
const ROOTS: &str = "/tmp/.criu.mntns.";

/// Runs `restore`, which waits for a runtime, and ends what is left of the container's criu when its first process has
/// died: then the runtime returns.
pub fn watched<T>(container: &str, restore: impl FnOnce() -> T) -> T {
    thread::scope(|scope| {
        let (running, ended) = mpsc::channel::<()>();
        let watch = move || {
            // Twice, since a criu that has done its work is dead for a moment too before the runtime takes notice.
            let mut suspected = false;
            while ended.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
                let headless = is_headless(container);
                if headless && suspected {
                    end_rest(container);
                }
                suspected = headless;
            }
        };
        let watcher = thread::Builder::new().name("restore-watch".to_owned()).spawn_scoped(scope, watch);
        if let Err(error) = watcher {
            tracing::warn!(container, %error, "a criu that dies is noticed only at the deadline");
        }
        let result = restore();
        drop(running);
        result
    })
}

/// Whether a runtime that works on the container has a dead criu for a child.
fn is_headless(container: &str) -> bool {
    let (runtimes, stats) = (runtimes(container), stats());
    stats.values().any(|stat| stat.is_dead() && is_criu_of(stat, &runtimes))
}

/// A restore makes a new container: there is nothing yet that its criu could harm by being killed. A task that is half
/// restored may have its own root already, where it is known by its parent alone.
fn end_rest(container: &str) {
    let (runtimes, stats) = (runtimes(container), stats());
    let mut rest: Vec<Process> = orphans::find(container)
        .into_iter()
        .filter(|worker| worker.is_criu)
        .map(|worker| worker.process)
        .collect();
    let children = stats.iter().filter(|(_, stat)| !stat.is_dead() && is_criu_of(stat, &runtimes));
    rest.extend(children.map(|(&pid, stat)| Process { pid, start_time: stat.start_time }));
    for process in rest {
        tracing::warn!(container, pid = process.pid, "ending what is left of a criu that died");
        process.signal(nix::libc::SIGKILL).ok();
    }
}

fn runtimes(container: &str) -> BTreeSet<u32> {
    let workers = orphans::find(container).into_iter().filter(|worker| !worker.is_criu);
    workers.map(|worker| worker.process.pid).collect()
}

fn stats() -> BTreeMap<u32, Stat> {
    let pids = process::all().unwrap_or_default().into_iter();
    pids.filter_map(|pid| Some((pid, process::stat(pid).ok()??))).collect()
}

fn is_criu_of(stat: &Stat, runtimes: &BTreeSet<u32>) -> bool {
    orphans::is_criu(&stat.comm) && runtimes.contains(&stat.ppid)
}

/// Unmounts what dead criu have left. While any criu lives on the node nothing is touched: it may be that one's.
pub fn clear_mounts() {
    let lives = |pid| {
        process::stat(pid).is_ok_and(|stat| stat.is_some_and(|s| orphans::is_criu(&s.comm) && !s.is_dead()))
    };
    if process::all().unwrap_or_default().into_iter().any(lives) {
        return;
    }
    for mount in MountTable::own().unwrap_or_default().iter() {
        if mount.kind == "tmpfs"
            && is_root(&mount.point)
            && let Err(errno) = umount2(&mount.point, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)
        {
            tracing::warn!(path = %mount.point.display(), %errno, "a mount of a dead criu stays");
        }
    }
    let Some(folder) = Path::new(ROOTS).parent() else { return };
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if is_root(&entry.path()) {
            // Plain rmdir: what is not empty is not criu's, or still a mount.
            std::fs::remove_dir(entry.path()).ok();
        }
    }
}

fn is_root(point: &Path) -> bool {
    point.to_str().and_then(|point| point.strip_prefix(ROOTS)).is_some_and(|rest| !rest.contains('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_result_of_a_restore_that_needs_no_help_is_its_own() {
        assert_eq!(watched("no-such-container", || 7), 7);
        assert!(!is_headless("no-such-container"));
    }

    #[test]
    fn only_the_directories_of_criu_are_its_own() {
        assert!(is_root(Path::new("/tmp/.criu.mntns.VrMSk4")));
        for other in ["/tmp", "/tmp/.criu.mntns.x/below", "/tmp/.criu.other", "/run/.criu.mntns.x"] {
            assert!(!is_root(Path::new(other)), "{other}");
        }
    }
}
