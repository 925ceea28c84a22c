//! How processes of containers end: one pidfd each, no SIGCHLD handler and no `waitpid(-1)`.
//!
//! [`Child::open`] right after the runtime reported the PID works even when the process is dead already: as a
//! subreaper the shim is its parent, so it stays a zombie, and its PID taken, until it is reaped here. Commands that
//! the shim runs (crun, criu, zfs) are reaped by whoever started them and are never touched.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use cryopod_runtime::process::is_in_inner_namespace;
use nix::errno::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::sys::{self, Ended};

/// How and when a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// Exit code, or 128 + signal.
    pub status: u32,
    /// When the shim noticed.
    pub at: SystemTime,
}

/// runc's answer for a process whose status nobody can know: killed.
const STATUS_UNKNOWN: u32 = 137;

impl Exit {
    /// An end whose status is lost.
    pub fn unknown() -> Self {
        Self { status: STATUS_UNKNOWN, at: SystemTime::now() }
    }

    fn from_ended(ended: Ended) -> Self {
        let status = match ended {
            Ended::Code(code) => u32::try_from(code).unwrap_or(STATUS_UNKNOWN),
            // As shells and runc report it; real-time signals included.
            Ended::Signal(signal) => 128 + u32::try_from(signal).unwrap_or(9),
        };
        Self { status, at: SystemTime::now() }
    }
}

/// A process of a container, by pidfd: signals never hit another process that got its number.
#[derive(Debug)]
pub struct Child {
    pid: u32,
    pidfd: AsyncFd<OwnedFd>,
    _watched: Watched,
}

impl Child {
    /// Watches `pid`; must be called inside the tokio runtime.
    ///
    /// # Errors
    /// ESRCH when no such process exists, alive or zombie.
    pub fn open(pid: u32, registry: &Registry) -> io::Result<Self> {
        let watched = registry.watch(pid);
        let pidfd = sys::async_fd(sys::pidfd_open(pid)?, Interest::READABLE)?;
        Ok(Self { pid, pidfd, _watched: watched })
    }

    /// Its PID on the host.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Waits for the end and reaps it. To be called by one task.
    pub async fn ended(&self) -> Exit {
        loop {
            let Ok(mut ready) = self.pidfd.readable().await else { return Exit::unknown() };
            match sys::wait_pidfd(std::os::fd::AsFd::as_fd(self.pidfd.get_ref())) {
                Ok(Some(ended)) => return Exit::from_ended(ended),
                Ok(None) => ready.clear_ready(),
                Err(error) if error.raw_os_error() == Some(Errno::EINTR as i32) => {}
                Err(error) => {
                    // ECHILD: a backend whose process is not our child; that it ended is all we can know.
                    tracing::warn!(pid = self.pid, %error, "the exit status of this process is not known");
                    return Exit::unknown();
                }
            }
        }
    }

    /// Sends a raw signal number.
    ///
    /// # Errors
    /// ESRCH when it is dead.
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        sys::pidfd_send_signal(self.pidfd.get_ref(), signal)
    }
}

/// PIDs that somebody waits for, so that the sweep for strangers leaves them alone.
#[derive(Debug, Clone, Default)]
pub struct Registry(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    known: Mutex<Known>,
    /// Told when the last call that may report a PID has ended.
    settled: Notify,
}

#[derive(Debug, Default)]
struct Known {
    // How many watch it: a number can have been given to a new process before the old one's watcher has gone.
    watched: BTreeMap<u32, usize>,
    /// Calls of a runtime that may report a PID which nobody watches yet.
    expected: usize,
}

#[derive(Debug)]
struct Watched {
    pid: u32,
    registry: Registry,
}

/// A runtime is making a process; to be held until that process is watched or the call has failed.
#[derive(Debug)]
pub struct Expecting(Registry);

impl Registry {
    /// To be called before a runtime is asked for a process.
    pub fn expect(&self) -> Expecting {
        self.known().expected += 1;
        Expecting(self.clone())
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // A map and a number, each changed in one step.
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watch(&self, pid: u32) -> Watched {
        *self.known().watched.entry(pid).or_default() += 1;
        Watched { pid, registry: self.clone() }
    }

    /// Reaps zombies of containers that nobody waits for and nobody will: what a failed exec leaves. The kernel does
    /// not let the init of a PID namespace die while such a zombie is in it, so this cannot wait.
    fn reap_left_in_containers(&self) {
        let known = self.known();
        if known.expected > 0 {
            return;
        }
        for pid in zombie_children() {
            if !known.watched.contains_key(&pid) && is_in_inner_namespace(pid) {
                reap(pid);
            }
        }
    }

    #[cfg(test)]
    fn knows(&self, pid: u32) -> bool {
        self.known().watched.contains_key(&pid)
    }

    fn strangers(&self) -> BTreeSet<u32> {
        let known = self.known();
        zombie_children().into_iter().filter(|pid| !known.watched.contains_key(pid)).collect()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let mut known = self.registry.known();
        let left = known.watched.get(&self.pid).map_or(0, |count| count.saturating_sub(1));
        if left == 0 {
            known.watched.remove(&self.pid);
        } else {
            known.watched.insert(self.pid, left);
        }
    }
}

impl Drop for Expecting {
    fn drop(&mut self) {
        let mut known = self.0.known();
        known.expected -= 1;
        if known.expected == 0 {
            self.0.0.settled.notify_one();
        }
    }
}

/// A zombie outside of containers is a stranger only if it is still there after this long: by then whoever started a
/// command has come for it. Above the longest runtime call.
const STRANGER_AFTER: Duration = Duration::from_secs(60);

/// Reaps zombies that nobody waits for: at once those in containers, in time orphans of containers that share the
/// host's PID namespace, and of runtimes. An idle shim never wakes up.
pub async fn sweep_strangers(registry: Registry) {
    let Ok(mut children) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::child()) else {
        return;
    };
    let mut before = BTreeSet::new();
    let mut due: Option<Instant> = None;
    loop {
        let look = async {
            match due {
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            got = children.recv() => if got.is_none() { return },
            () = registry.0.settled.notified() => {}
            () = look => {
                let now = registry.strangers();
                now.intersection(&before).for_each(|pid| reap(*pid));
                before = now.difference(&before).copied().collect();
                due = (!before.is_empty()).then(|| Instant::now() + STRANGER_AFTER);
                continue;
            }
        }
        registry.reap_left_in_containers();
        due = due.or_else(|| Some(Instant::now() + STRANGER_AFTER));
    }
}

fn reap(pid: u32) {
    if let Ok(Some(_)) = sys::wait_pid(pid) {
        tracing::debug!(pid, "reaped a process that nobody waited for");
    }
}

/// Children of this process that are dead and not reaped.
fn zombie_children() -> Vec<u32> {
    let Ok(threads) = std::fs::read_dir("/proc/self/task") else { return Vec::new() };
    threads
        .flatten()
        .filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok())
        .flat_map(|text| {
            text.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>()
        })
        .filter(|pid| is_zombie(*pid))
        .collect()
}

fn is_zombie(pid: u32) -> bool {
    // `PID (comm) S …`, and comm may hold anything, brackets included.
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .ok()
        .and_then(|stat| stat.rsplit_once(") ").map(|(_, rest)| rest.starts_with('Z')))
        .unwrap_or(false)
}

/// Start time of a process in clock ticks since boot; with the PID it names a process for good.
pub fn start_time(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    // Field 22 of proc(5); `rest` starts with field 3.
    rest.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A child that std does not reap.
    fn spawn(script: &str) -> u32 {
        let child = std::process::Command::new("/bin/sh").args(["-c", script]).spawn().unwrap();
        let pid = child.id();
        std::mem::forget(child);
        pid
    }

    #[tokio::test]
    async fn an_exit_code_is_reported() {
        let child = Child::open(spawn("exit 7"), &Registry::default()).unwrap();
        assert_eq!(child.ended().await.status, 7);
    }

    #[tokio::test]
    async fn a_process_that_was_dead_before_it_was_watched_is_reported() {
        let pid = spawn("exit 3");
        while !is_zombie(pid) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let child = Child::open(pid, &Registry::default()).unwrap();
        assert_eq!(child.ended().await.status, 3);
    }

    #[tokio::test]
    async fn death_by_a_real_time_signal_is_reported_as_128_plus_its_number() {
        let child = Child::open(spawn("sleep 60"), &Registry::default()).unwrap();
        child.signal(37).unwrap();
        assert_eq!(child.ended().await.status, 128 + 37);
        assert_eq!(child.signal(9).unwrap_err().raw_os_error(), Some(Errno::ESRCH as i32));
    }

    #[tokio::test]
    async fn a_watched_pid_is_no_stranger_until_its_watcher_is_gone() {
        let registry = Registry::default();
        let pid = spawn("exit 0");
        let child = Child::open(pid, &registry).unwrap();
        assert!(registry.knows(pid));
        child.ended().await;
        drop(child);
        assert!(!registry.knows(pid));
    }

    #[tokio::test]
    async fn a_number_that_was_given_again_stays_watched_when_the_old_watcher_goes() {
        let registry = Registry::default();
        let (old, new) = (registry.watch(7), registry.watch(7));
        drop(old);
        assert!(registry.knows(7), "or the sweeper would take the exit code of the new process");
        drop(new);
        assert!(!registry.knows(7));
    }

    #[tokio::test]
    async fn no_zombie_is_reaped_while_a_runtime_may_still_report_its_pid() {
        let registry = Registry::default();
        let expecting = (registry.expect(), registry.expect());
        drop(expecting.0);
        assert_eq!(registry.known().expected, 1);
        drop(expecting.1);
        assert_eq!(registry.known().expected, 0);
        tokio::time::timeout(Duration::from_secs(5), registry.0.settled.notified()).await.unwrap();
    }

    #[test]
    fn a_process_without_a_number_of_its_own_cannot_be_watched() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _inside = runtime.enter();
        assert!(Child::open(4_000_000, &Registry::default()).is_err());
    }

    #[test]
    fn our_own_start_time_is_found() {
        assert!(start_time(std::process::id()).unwrap() > 0);
    }
}
