//! Arms a named step of cryopod: a file below /run/cryopod/faults says what happens there.

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::shell::{self, eventually};
use crate::suite::Failure;

const DIRECTORY: &str = "/run/cryopod/faults";

/// What the step does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It fails.
    Error,
    /// Its process gets SIGKILL.
    Kill,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Action::Error => "error",
            Action::Kill => "kill",
        })
    }
}

/// A process other than the one that runs the operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Victim {
    /// CRIU.
    Criu,
    /// crun.
    Runtime,
    /// The hook that CRIU runs.
    Hook,
    /// The first `zfs` that sends or receives.
    Zfs,
}

impl Victim {
    /// Pattern of `pgrep -f` for its command line.
    fn pattern(self) -> &'static str {
        match self {
            Victim::Criu => "^(/usr/sbin/)?criu[: ]",
            Victim::Runtime => "^(/usr/bin/)?crun .*(checkpoint|restore)",
            // Anchored, or the shell that runs pkill would be a match.
            Victim::Hook => "^/run/cryopod/criu/.*/cryopod-hook",
            Victim::Zfs => "^(/usr/sbin/|/sbin/)?zfs (send|recv|receive)",
        }
    }

    /// Sends SIGKILL to it as soon as it is there.
    pub fn kill(self, patience: Duration) -> Result<(), Failure> {
        let script = format!("pkill -KILL -f '{}'", self.pattern());
        eventually(&format!("{self} to kill"), patience, || Ok((shell::sh(&script)?.code == 0).then_some(())))
    }
}

impl fmt::Display for Victim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Victim::Criu => "criu",
            Victim::Runtime => "crun",
            Victim::Hook => "hook",
            Victim::Zfs => "zfs",
        })
    }
}

/// An armed step; disarmed when dropped.
#[derive(Debug)]
pub struct Armed(PathBuf);

impl Armed {
    /// The step does this.
    pub fn with(step: &str, what: &str) -> Result<Self, Failure> {
        fs::create_dir_all(DIRECTORY).map_err(|e| format!("{DIRECTORY}: {e}"))?;
        let path = PathBuf::from(DIRECTORY).join(step);
        fs::write(&path, what).map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(Self(path))
    }

    /// Waits until a process stands at the step (armed with `wait`).
    pub fn reached(&self, patience: Duration) -> Result<(), Failure> {
        eventually(&format!("step {} is reached", self.0.display()), patience, || {
            Ok(self.was_met().then_some(()))
        })
    }

    /// Disarms it; an error when no process has met the step, since then the test has shown nothing.
    pub fn disarm(self) -> Result<(), Failure> {
        let met = self.was_met();
        let step = self.0.display().to_string();
        drop(self);
        if met { Ok(()) } else { Err(format!("nobody met the step {step}")) }
    }

    fn was_met(&self) -> bool {
        PathBuf::from(format!("{}.reached", self.0.display())).exists()
    }
}

impl Drop for Armed {
    fn drop(&mut self) {
        // The whole directory: a forgotten file would fail the next test for no reason that it could see.
        if let Err(e) = fs::remove_dir_all(DIRECTORY) {
            eprintln!("clean-up: {DIRECTORY}: {e}");
        }
    }
}
