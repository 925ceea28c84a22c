//! Freezing and thawing, each with the kernel's own word that it has happened.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use cryopod_command::Limits;
use nix::poll::PollFlags;

use super::{Cgroup, CgroupError, RECHECK, flag};
use crate::wait::{self, Woken};

impl Cgroup {
    /// Whether it was told to freeze, by anyone.
    pub fn is_frozen(&self) -> Result<bool, CgroupError> {
        Ok(self.read("cgroup.freeze")?.trim() == "1")
    }

    /// Tells the kernel to stop all tasks; [`Self::wait_frozen`] says when they have.
    pub fn begin_freeze(&self) -> Result<(), CgroupError> {
        self.must_be_a_containers("frozen")?;
        self.write("cgroup.freeze", "1")
    }

    /// Blocks until no task runs.
    pub fn wait_frozen(&self, limits: &Limits) -> Result<(), CgroupError> {
        self.wait_event("frozen", true, "frozen", limits)
    }

    /// Stops all tasks and waits until none runs; on failure they go on.
    pub fn freeze(&self, limits: &Limits) -> Result<(), CgroupError> {
        let before = self.is_frozen()?;
        self.begin_freeze()?;
        let result = self.wait_frozen(limits);
        if result.is_err() && !before {
            self.write("cgroup.freeze", "0").ok();
        }
        result
    }

    /// Lets all tasks go on; [`Self::wait_thawed`] says when they do. A cgroup that has gone is no error.
    pub fn begin_thaw(&self) -> Result<(), CgroupError> {
        match self.write("cgroup.freeze", "0") {
            Err(CgroupError::Gone { .. }) => Ok(()),
            result => result,
        }
    }

    /// Blocks until the tasks run again; a cgroup that has gone is no error.
    pub fn wait_thawed(&self, limits: &Limits) -> Result<(), CgroupError> {
        match self.wait_event("frozen", false, "thawed", limits) {
            Err(CgroupError::Gone { .. }) => Ok(()),
            result => result,
        }
    }

    /// Lets all tasks go on and waits for the kernel's word; a cgroup that has gone is no error.
    pub fn thaw(&self, limits: &Limits) -> Result<(), CgroupError> {
        self.begin_thaw()?;
        self.wait_thawed(limits)
    }

    pub(super) fn wait_event(
        &self,
        key: &str,
        wanted: bool,
        state: &'static str,
        limits: &Limits,
    ) -> Result<(), CgroupError> {
        let path = self.0.join("cgroup.events");
        let file = File::open(&path).map_err(|source| self.failed("open", path.clone(), source))?;
        loop {
            // The kernel's event counter is taken by the read, so a change after it wakes the poll.
            let mut buffer = [0u8; 256];
            let length = file.read_at(&mut buffer, 0).map_err(|e| self.failed("read", path.clone(), e))?;
            let text = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default());
            if flag(&text, key) == Some(wanted) {
                return Ok(());
            }
            let round = limits.at_most(RECHECK);
            let woken = wait::readable(file.as_fd(), PollFlags::POLLPRI, &round)
                .map_err(|source| self.failed("wait for", path.clone(), source))?;
            if let (Woken::Stopped(_), Err(stop)) = (woken, limits.check()) {
                return Err(CgroupError::NotReached { path: self.0.clone(), state, stop });
            }
        }
    }
}
