//! The state file of a node: `nodes/<name>/state.json`, written when its machine starts and replaced whole.

use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Error;

/// What is known of a node's machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    /// 1 to 250, unique in the cache; the last byte of its address.
    pub(crate) number: u8,
    /// The port on 127.0.0.1 that leads to its ssh server.
    pub(crate) ssh_port: u16,
    /// The emulator's process.
    pub(crate) pid: i32,
    /// When that process started, in kernel ticks: a process id alone may be somebody else's by now.
    pub(crate) pid_started: u64,
    /// The image that its root disk stands on.
    pub(crate) image: String,
    /// Virtual processors.
    pub(crate) cpus: u8,
    /// Memory in MiB.
    pub(crate) memory_mib: u32,
    /// `kvm` or `tcg`.
    pub(crate) accelerator: String,
    /// Whether host writes are flushed, so that killing the emulator is a power cut and not worse.
    pub(crate) power_cut: bool,
}

impl State {
    const FILE: &str = "state.json";

    /// The state in `dir`; None when the node was never started.
    pub(crate) fn read(dir: &Path) -> Result<Option<Self>, Error> {
        let path = dir.join(Self::FILE);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(Error::State { path, source }),
        };
        serde_json::from_slice(&text)
            .map(Some)
            .map_err(|error| Error::State { path, source: io::Error::other(error) })
    }

    /// Replaces the state in `dir`.
    pub(crate) fn write(&self, dir: &Path) -> Result<(), Error> {
        let path = dir.join(Self::FILE);
        let half = dir.join(".state.json");
        let text = serde_json::to_vec_pretty(self).map_err(io::Error::other);
        text.and_then(|text| fs::write(&half, text))
            .and_then(|()| fs::rename(&half, &path))
            .map_err(|source| Error::State { path, source })
    }

    /// Whether that very process is still there.
    pub(crate) fn is_running(&self) -> bool {
        self.pid > 0 && process_start(self.pid) == Some(self.pid_started)
    }
}

/// When process `pid` started, in kernel ticks since boot (proc(5), stat field 22); None when there is none or it is
/// a zombie.
pub(crate) fn process_start(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let after_name = stat.rsplit_once(')')?.1;
    let mut fields = after_name.split_whitespace();
    if fields.next()? == "Z" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}
