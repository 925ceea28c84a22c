//! What is known of a standalone container, as `state.json` in its directory.
//!
//! ```text
//! <root>/containers/<id>/   0700
//!   state.json   this, version 1, at most 1 MiB; replaced by rename, written under `lock`
//!   lock         flock: held for each change
//!   log          what a detached container wrote (log.1: before that), 8 MiB each
//!   monitor.log  what its monitor had to say
//!   work/        logs of a restore · bundle/  the bundle of a restore that was given none
//! ```
//!
//! It lives on a tmpfs and so for one boot. Whether the container runs is never read from it but asked of the
//! kernel: the PID, and the start time of that PID, which no other process shares.

use std::io::Write;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// The version that is written.
const VERSION: u32 = 1;
/// A state has a few hundred bytes; more is not one of ours.
const MAX_BYTES: u64 = 1 << 20;

/// A standalone container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct State {
    /// Format of this file.
    pub(crate) version: u32,
    /// Name.
    pub(crate) id: String,
    /// Bundle directory, absolute.
    pub(crate) bundle: PathBuf,
    /// Root file system, absolute.
    pub(crate) rootfs: PathBuf,
    /// Runtime as configured or asked for.
    pub(crate) runtime: String,
    /// Whether its process has a terminal.
    pub(crate) terminal: bool,
    /// When it was created.
    pub(crate) created: Timestamp,
    /// Its init, once there is one.
    pub(crate) init: Option<Process>,
    /// Whether its init was let run.
    pub(crate) started: bool,
    /// How its init ended.
    pub(crate) exit: Option<Exit>,
    /// Checkpoint it was restored from.
    pub(crate) restored_from: Option<String>,
    /// Where a detached container's output goes.
    pub(crate) log: Option<PathBuf>,
    /// Whether its root file system was made and mounted for it (by a restore, of a template), and so goes with it.
    pub(crate) placed: bool,
}

/// A process that cannot be taken for another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Process {
    /// PID on the host.
    pub(crate) pid: u32,
    /// Start time in clock ticks since boot, field 22 of /proc/PID/stat.
    pub(crate) start_ticks: u64,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Exit {
    /// Its code, or 128 + the signal that ended it.
    pub(crate) code: u8,
    /// When.
    pub(crate) at: Timestamp,
}

/// What a container is doing now; the words of the OCI runtime specification, and `paused`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    /// Its runtime prepares it.
    Creating,
    /// Its init waits for `start`.
    Created,
    /// It runs.
    Running,
    /// All its processes are stopped.
    Paused,
    /// Its init has ended.
    Stopped,
}

impl Status {
    /// The word.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

impl State {
    /// A container about to be created.
    pub(crate) fn new(id: &str, bundle: PathBuf, rootfs: PathBuf, runtime: String, terminal: bool) -> Self {
        Self {
            version: VERSION,
            id: id.to_owned(),
            bundle,
            rootfs,
            runtime,
            terminal,
            created: Timestamp::now(),
            init: None,
            started: false,
            exit: None,
            restored_from: None,
            log: None,
            placed: false,
        }
    }

    /// Reads the state of the container whose directory is `dir`; None where there is none.
    pub(crate) fn load(dir: &Path) -> Result<Option<Self>, Error> {
        let path = dir.join("state.json");
        let failed = |source| Error::Read { what: "container state", path: path.clone(), source };
        match std::fs::metadata(&path) {
            Ok(meta) if meta.len() > MAX_BYTES => {
                return Err(Error::StateDamaged { path, reason: format!("{} bytes long", meta.len()) });
            }
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        }
        let bytes = std::fs::read(&path).map_err(failed)?;
        let state: Self = serde_json::from_slice(&bytes)
            .map_err(|error| Error::StateDamaged { path: path.clone(), reason: error.to_string() })?;
        if state.version != VERSION {
            let reason = format!("version {}, this cryopod reads {VERSION}", state.version);
            return Err(Error::StateDamaged { path, reason });
        }
        Ok(Some(state))
    }

    /// Replaces the state in `dir`; whoever reads meanwhile sees the old or the new one. Hold the lock.
    pub(crate) fn save(&self, dir: &Path) -> Result<(), Error> {
        let (path, fresh) = (dir.join("state.json"), dir.join("state.json.new"));
        let failed = |source| Error::Write { what: "container state", path: path.clone(), source };
        let json = serde_json::to_vec(self).map_err(|error| failed(error.into()))?;
        let mut file = std::fs::File::create(&fresh).map_err(failed)?;
        file.write_all(&json).map_err(failed)?;
        std::fs::rename(&fresh, &path).map_err(failed)
    }

    /// What it is doing, given whether its cgroup is frozen.
    pub(crate) fn status(&self, frozen: bool) -> Status {
        match self.init {
            _ if self.exit.is_some() => Status::Stopped,
            None => Status::Creating,
            Some(init) if !init.is_alive() => Status::Stopped,
            Some(_) if frozen => Status::Paused,
            Some(_) if self.started => Status::Running,
            Some(_) => Status::Created,
        }
    }
}

impl Process {
    /// The process that has this PID now; None when there is none.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let found = cryopod_runtime::process::Process::now(pid).ok()??;
        Some(Self { pid, start_ticks: found.start_time })
    }

    /// Whether it still is that process, and not a zombie.
    pub(crate) fn is_alive(self) -> bool {
        let process = cryopod_runtime::process::Process { pid: self.pid, start_time: self.start_ticks };
        // What cannot be looked at is not there: /proc hides nothing from root, and only root gets here.
        process.is_alive().unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        State::new("web", "/b".into(), "/b/rootfs".into(), "crun".into(), false)
    }

    #[test]
    fn a_state_reads_back_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(State::load(dir.path()).unwrap(), None);
        let written = State { init: Process::of(std::process::id()), ..state() };
        written.save(dir.path()).unwrap();
        assert_eq!(State::load(dir.path()).unwrap(), Some(written));
    }

    #[test]
    fn a_truncated_state_is_reported_and_not_taken_for_absent() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("state.json"), b"{\"version\":1,").unwrap();
        assert!(matches!(State::load(dir.path()), Err(Error::StateDamaged { .. })));
    }

    #[test]
    fn the_status_follows_the_process_and_not_the_file() {
        let me = Process::of(std::process::id()).unwrap();
        let running = State { init: Some(me), started: true, ..state() };
        assert_eq!(running.status(false), Status::Running);
        assert_eq!(running.status(true), Status::Paused);
        let reused = Process { start_ticks: me.start_ticks + 1, ..me };
        assert_eq!(State { init: Some(reused), ..running.clone() }.status(false), Status::Stopped);
        assert_eq!(State { started: false, ..running }.status(false), Status::Created);
        assert_eq!(state().status(false), Status::Creating);
    }
}
