//! The container that is spoken of.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use super::protocol::State;

/// A running container.
#[derive(Debug)]
pub struct Subject {
    /// Its name in LXC.
    pub name: String,
    /// Directory of the containers (`lxcpath`).
    pub path: PathBuf,
    /// Its first process.
    pub pid: u32,
    /// The same, for as long as it was not reaped.
    pub pidfd: OwnedFd,
    /// Its cgroup, absolute.
    pub cgroup: PathBuf,
    /// Its configuration, as the file in its directory has it.
    pub config: String,
    /// `CLONE_NEW*` of the namespaces that it does not share with the host.
    pub clone_flags: u32,
}

impl Subject {
    /// What it does now.
    #[must_use]
    pub fn state(&self) -> State {
        let events = fs::read_to_string(self.cgroup.join("cgroup.events")).unwrap_or_default();
        if events.lines().any(|line| line == "frozen 1") { State::Frozen } else { State::Running }
    }

    pub(super) fn freeze(&self, frozen: bool) -> io::Result<()> {
        fs::write(self.cgroup.join("cgroup.freeze"), if frozen { "1" } else { "0" })
    }

    /// Ends every process of it.
    pub(super) fn kill(&self) -> io::Result<()> {
        fs::write(self.cgroup.join("cgroup.kill"), "1")
    }

    /// The cgroup as liblxc calls it: below the root of the hierarchy.
    pub(super) fn cgroup_below_root(&self) -> &Path {
        self.cgroup.strip_prefix("/sys/fs/cgroup").unwrap_or(&self.cgroup)
    }

    /// Values of a key of the configuration; several are several lines.
    pub(super) fn config_item(&self, key: &str) -> Option<String> {
        let value = |line: &str| {
            let (name, value) = line.split_once('=')?;
            (name.trim() == key).then(|| value.trim().to_owned())
        };
        let values: Vec<String> =
            self.config.lines().filter_map(value).filter(|value| !value.is_empty()).collect();
        (!values.is_empty()).then(|| values.join("\n"))
    }
}
