//! A process on the host, named so that a recycled number is never taken for it: by pid and start time.
//!
//! Signals go through a pidfd that was opened before the start time was compared, so there is no gap in which the
//! number could change hands. Signal numbers are raw: containers use real-time signals (SIGRTMIN+3 halts systemd).

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use cryopod_command::Limits;
use nix::poll::PollFlags;

use crate::sys;
use crate::wait::{self, Woken};

/// Pid and start time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    /// Process id on the host.
    pub pid: u32,
    /// Clock ticks after boot at which it started (`/proc/<pid>/stat`, field 22).
    pub start_time: u64,
}

/// What `/proc/<pid>/stat` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    /// Name in parentheses, at most 15 bytes.
    pub comm: String,
    /// `R`, `S`, `D`, `T`, `t`, `Z`, `X`, …
    pub state: char,
    /// Parent process id.
    pub ppid: u32,
    /// Clock ticks after boot.
    pub start_time: u64,
}

impl Stat {
    /// Whether it only waits to be reaped.
    pub fn is_dead(&self) -> bool {
        matches!(self.state, 'Z' | 'X' | 'x')
    }
}

/// Reads `/proc/<pid>/stat`; `None` when there is no such process.
pub fn stat(pid: u32) -> io::Result<Option<Stat>> {
    stat_in(Path::new("/proc"), pid)
}

/// As [`stat`], of a proc file system that is mounted elsewhere.
pub(crate) fn stat_in(proc: &Path, pid: u32) -> io::Result<Option<Stat>> {
    match std::fs::read(proc.join(pid.to_string()).join("stat")) {
        Ok(bytes) => parse_stat(&String::from_utf8_lossy(&bytes))
            .map(Some)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "unreadable /proc/<pid>/stat")),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether the error of a read below `/proc/<pid>` says that the process has gone.
pub(crate) fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(nix::libc::ESRCH)
}

fn parse_stat(text: &str) -> Option<Stat> {
    // The name may hold spaces and parentheses: it ends at the last one.
    let open = text.find('(')?;
    let close = text.rfind(')')?;
    let comm = text.get(open + 1..close)?.to_owned();
    let rest: Vec<&str> = text.get(close + 1..)?.split_ascii_whitespace().collect();
    Some(Stat {
        comm,
        state: rest.first()?.chars().next()?,
        ppid: rest.get(1)?.parse().ok()?,
        start_time: rest.get(19)?.parse().ok()?,
    })
}

impl Process {
    /// The process that has this number now; `None` when there is none.
    pub fn now(pid: u32) -> io::Result<Option<Self>> {
        Ok(stat(pid)?.map(|stat| Self { pid, start_time: stat.start_time }))
    }

    /// A pidfd of exactly this process; `None` when it has ended, also when it only waits to be reaped.
    pub fn open(&self) -> io::Result<Option<OwnedFd>> {
        let pidfd = match sys::pidfd_open(self.pid) {
            Ok(pidfd) => pidfd,
            Err(error) if is_gone(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        let same = stat(self.pid)?.is_some_and(|stat| stat.start_time == self.start_time && !stat.is_dead());
        Ok(same.then_some(pidfd))
    }

    /// Sends a raw signal number; false when the process has ended.
    pub fn signal(&self, signal: i32) -> io::Result<bool> {
        let Some(pidfd) = self.open()? else { return Ok(false) };
        match sys::pidfd_signal(pidfd.as_fd(), signal) {
            Ok(()) => Ok(true),
            Err(error) if is_gone(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether it still runs (a zombie does not).
    pub fn is_alive(&self) -> io::Result<bool> {
        Ok(stat(self.pid)?.is_some_and(|stat| stat.start_time == self.start_time && !stat.is_dead()))
    }

    /// Waits until it has ended; false when the limits came first.
    pub fn wait_end(&self, limits: &Limits) -> io::Result<bool> {
        let Some(pidfd) = self.open()? else { return Ok(true) };
        match wait::readable(pidfd.as_fd(), PollFlags::POLLIN, limits)? {
            Woken::Ready => Ok(true),
            Woken::Stopped(_) => Ok(false),
        }
    }
}

/// All numbers below `/proc`; those that end meanwhile are the caller's concern.
pub fn all() -> io::Result<Vec<u32>> {
    let mut pids = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        if let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) {
            pids.push(pid);
        }
    }
    Ok(pids)
}

/// The value of an environment variable that a process was started with; `None` when unset or unreadable.
pub fn environment(pid: u32, variable: &str) -> Option<String> {
    let bytes = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
    let prefix = format!("{variable}=");
    bytes
        .split(|byte| *byte == 0)
        .find_map(|entry| entry.strip_prefix(prefix.as_bytes()))
        .map(|value| String::from_utf8_lossy(value).into_owned())
}

/// Where the descriptors of a process lead (`/proc/<pid>/fd/*`); empty when it has ended.
pub fn descriptors(pid: u32) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    entries.flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok()).collect()
}

/// Whether it is in another PID namespace than this process: proc(5) then lists a number for each of them.
pub fn is_in_inner_namespace(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|status| has_inner_number(&status))
}

fn has_inner_number(status: &str) -> bool {
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    numbers.is_some_and(|numbers| numbers.split_ascii_whitespace().count() > 1)
}

/// Resident memory in bytes (`VmRSS`); 0 when it has ended or has none.
pub fn resident(pid: u32) -> u64 {
    let Ok(text) = std::fs::read_to_string(format!("/proc/{pid}/status")) else { return 0 };
    parse_resident(&text)
}

fn parse_resident(status: &str) -> u64 {
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    kib.and_then(|rest| rest.split_ascii_whitespace().next()).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0)
        << 10
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;
    use std::time::Duration;

    #[test]
    fn names_with_spaces_and_parentheses_do_not_confuse() {
        let line = "42 (a) b (c) S 7 42 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 987654 1 1\n";
        let stat = parse_stat(line).expect("valid");
        assert_eq!(
            (stat.comm.as_str(), stat.state, stat.ppid, stat.start_time),
            ("a) b (c", 'S', 7, 987_654)
        );
    }

    #[test]
    fn a_recycled_number_is_not_taken_for_the_process() {
        let pid = std::process::id();
        let me = Process::now(pid).expect("proc").expect("alive");
        assert!(me.is_alive().expect("proc"));
        let other = Process { pid, start_time: me.start_time + 1 };
        assert!(!other.signal(0).expect("signal"));
        assert!(me.signal(0).expect("signal"));
    }

    #[test]
    fn a_zombie_counts_as_ended_and_a_real_time_signal_arrives() {
        let mut child = Command::new("sleep").arg("100").spawn().expect("sleep");
        let process = Process::now(child.id()).expect("proc").expect("alive");
        assert!(!process.wait_end(&Limits::within(Duration::from_millis(20))).expect("wait"));
        assert!(process.signal(nix::libc::SIGRTMIN() + 3).expect("signal"));
        assert!(process.wait_end(&Limits::within(Duration::from_secs(10))).expect("wait"));
        assert!(!process.signal(9).expect("signal"));
        child.wait().expect("reap");
        assert_eq!(Process::now(child.id()).expect("proc"), None);
    }

    #[test]
    fn a_process_of_a_container_has_a_number_in_an_inner_namespace() {
        assert!(has_inner_number("Name:\tcriu\nNSpid:\t812\t1\nVmRSS:\t8 kB\n"));
        assert!(!has_inner_number("Name:\tcriu\nNSpid:\t812\n"));
        assert!(!is_in_inner_namespace(std::process::id()));
    }

    #[test]
    fn resident_memory_is_in_bytes() {
        assert_eq!(parse_resident("Name:\tx\nVmRSS:\t    2048 kB\n"), 2 << 20);
        assert_eq!(parse_resident("Name:\tkthread\n"), 0);
        assert!(resident(std::process::id()) > 0);
    }
}
