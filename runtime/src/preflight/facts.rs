//! Where the preflight reads what the kernel knows; tests lay out a made-up node instead.

use std::path::{Path, PathBuf};

use crate::cgroup;
use crate::mountinfo::MountTable;
use crate::process::{self, Stat};

/// Mount points of the kernel's own file systems.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) proc: PathBuf,
    pub(super) cgroups: PathBuf,
    pub(super) dev: PathBuf,
}

impl Default for Facts {
    fn default() -> Self {
        Self { proc: "/proc".into(), cgroups: cgroup::ROOT.into(), dev: "/dev".into() }
    }
}

impl Facts {
    /// A file of a process.
    pub(super) fn of(&self, pid: u32, name: impl AsRef<Path>) -> PathBuf {
        self.proc.join(pid.to_string()).join(name)
    }

    /// A process that runs; none when it has ended, also when it only waits to be reaped.
    pub(super) fn alive(&self, pid: u32) -> Option<Stat> {
        process::stat_in(&self.proc, pid).ok().flatten().filter(|stat| !stat.is_dead())
    }

    /// What it has mounted; none when it cannot be read.
    pub(super) fn mounts(&self, pid: u32) -> Option<MountTable> {
        MountTable::read(&self.of(pid, "mountinfo")).ok()
    }
}
