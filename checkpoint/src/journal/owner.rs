//! Which process owns a journal entry: PID, its start time and the boot, so that a reused PID is not taken for it.

use std::fs;
use std::io;

use serde::{Deserialize, Serialize};

/// A process, for ever.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Owner {
    /// Process id.
    pub pid: u32,
    /// Start time in clock ticks after boot (field 22 of /proc/PID/stat, proc_pid_stat(5)).
    pub start_ticks: u64,
    /// /proc/sys/kernel/random/boot_id.
    pub boot_id: String,
}

impl Owner {
    /// The calling process.
    pub fn this_process() -> io::Result<Self> {
        let pid = std::process::id();
        Ok(Self { pid, start_ticks: start_ticks(pid)?, boot_id: boot_id()? })
    }

    /// Whether that very process still exists. What cannot be found out counts as alive, since a wrong "dead" would
    /// let recovery undo a running operation.
    pub fn is_alive(&self) -> bool {
        match boot_id() {
            Ok(boot) if boot != self.boot_id => return false,
            _ => {}
        }
        match start_ticks(self.pid) {
            Ok(ticks) => ticks == self.start_ticks,
            Err(error) => error.kind() != io::ErrorKind::NotFound,
        }
    }
}

/// Changes with every boot.
pub(crate) fn boot_id() -> io::Result<String> {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned())
}

fn start_ticks(pid: u32) -> io::Result<u64> {
    let stat = match fs::read_to_string(format!("/proc/{pid}/stat")) {
        // The process ended between open and read.
        Err(error) if error.raw_os_error() == Some(nix::libc::ESRCH) => {
            return Err(io::ErrorKind::NotFound.into());
        }
        other => other?,
    };
    // The second field is the command in parentheses, which may itself hold spaces and parentheses.
    let after = stat.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
    after.split_whitespace().nth(19).and_then(|ticks| ticks.parse().ok()).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat has no start time"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_alive_and_a_reused_pid_or_another_boot_is_not() {
        let me = Owner::this_process().unwrap();
        assert!(me.is_alive());
        assert!(!Owner { start_ticks: me.start_ticks + 1, ..me.clone() }.is_alive());
        assert!(!Owner { boot_id: "other".into(), ..me.clone() }.is_alive());
        assert!(!Owner { pid: u32::MAX - 1, ..me }.is_alive());
    }
}
