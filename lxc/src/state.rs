//! What is known of a container from its directory: OCI state (runtime spec, "State"), looked up anew each time.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

use crate::hooks::Hooks;

/// Its file in the container's directory.
pub(crate) const FILE: &str = "state.json";
/// A fifo that is there until the container is started.
pub(crate) const START: &str = "start";
/// The fifo that tells how the start went.
pub(crate) const RESULT: &str = "result";

/// Written once, when the container is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its name.
    pub id: String,
    /// PID of its first process.
    pub pid: u32,
    /// When that process began, in clock ticks since boot: a PID alone may come again.
    pub began: u64,
    /// Id of the boot in which it was made: `/var` outlives the containers.
    #[serde(default)]
    pub boot: String,
    /// Directory of the bundle, absolute.
    pub bundle: PathBuf,
    /// Its cgroup, absolute.
    pub cgroup: PathBuf,
    /// Version of the spec.
    pub oci_version: String,
    /// Of the spec.
    pub annotations: BTreeMap<String, String>,
    /// `CLONE_NEW*` of the namespaces that a further process has to enter.
    pub clone_flags: u32,
    /// What is run after it has started, and after it is gone.
    #[serde(default)]
    pub hooks: Hooks,
}

/// Status of the runtime spec, and `paused`, which runc and crun have too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It waits to be started.
    Created,
    /// It runs.
    Running,
    /// It is frozen.
    Paused,
    /// Its first process has ended.
    Stopped,
}

/// Why it cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is none of that name.
    #[error("container '{0}' does not exist")]
    Missing(String),
    /// Its file cannot be read or written.
    #[error("{step} {path}: {source}", path = path.display())]
    File {
        /// What was tried.
        step: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A container, by its directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Its directory.
    pub dir: PathBuf,
    /// What was written when it was made.
    pub record: Record,
}

impl Container {
    /// Looks it up below `path`.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn find(path: &Path, id: &str) -> Result<Self, Error> {
        let missing = || Error::Missing(id.to_owned());
        // A name is one component; anything else is no container of ours.
        if id.is_empty() || id.contains('/') || id == "." || id == ".." {
            return Err(missing());
        }
        let dir = path.join(id);
        let file = dir.join(FILE);
        let text = fs::read(&file).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => missing(),
            _ => Error::File { step: "read", path: file.clone(), source },
        })?;
        let record = serde_json::from_slice(&text);
        let record =
            record.map_err(|error| Error::File { step: "understand", path: file, source: error.into() })?;
        Ok(Self { dir, record })
    }

    /// Writes its file, whole or not at all.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn write(&self) -> Result<(), Error> {
        let (file, draft) = (self.dir.join(FILE), self.dir.join(".state.json"));
        let failed = |source| Error::File { step: "write", path: file.clone(), source };
        let text = serde_json::to_vec(&self.record).map_err(|error| failed(error.into()))?;
        fs::write(&draft, text).and_then(|()| fs::rename(&draft, &file)).map_err(failed)
    }

    /// Its first process, if that has not ended.
    #[must_use]
    pub fn process(&self) -> Option<OwnedFd> {
        let pid = Pid::from_raw(i32::try_from(self.record.pid).ok()?)?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        // Only now: the descriptor holds whom it was opened for.
        let same =
            began(self.record.pid)? == self.record.began && boot().is_ok_and(|now| now == self.record.boot);
        same.then_some(pidfd)
    }

    /// What it does now.
    #[must_use]
    pub fn status(&self) -> Status {
        if self.process().is_none() {
            return Status::Stopped;
        }
        let events = fs::read_to_string(self.record.cgroup.join("cgroup.events")).unwrap_or_default();
        if events.lines().any(|line| line == "frozen 1") {
            Status::Paused
        } else if self.dir.join(START).exists() {
            Status::Created
        } else {
            Status::Running
        }
    }

    /// As `state` prints it and hooks read it.
    #[must_use]
    pub fn oci_state(&self, status: Status) -> serde_json::Value {
        let mut state = serde_json::json!({
            "ociVersion": self.record.oci_version,
            "id": self.record.id,
            "status": status,
            "bundle": self.record.bundle,
            "annotations": self.record.annotations,
        });
        if status != Status::Stopped {
            state["pid"] = self.record.pid.into();
        }
        state
    }
}

/// Id of this boot.
///
/// # Errors
/// When `/proc` is not there.
pub fn boot() -> io::Result<String> {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned())
}

/// When a process began, in clock ticks since boot; `None` for one that is not there, or has ended and was not reaped.
#[must_use]
pub fn began(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in parentheses and may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    // Field 22 of proc_pid_stat(5); the state is the third.
    let began = fields.nth(18)?.parse().ok()?;
    (state != "Z" && state != "X").then_some(began)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(dir: &Path, pid: u32) -> Container {
        let record = Record {
            id: "c1".into(),
            pid,
            began: began(pid).unwrap_or(1),
            boot: boot().unwrap(),
            bundle: "/bundle".into(),
            cgroup: dir.to_owned(),
            oci_version: "1.2.0".into(),
            annotations: BTreeMap::from([("a".to_owned(), "b".to_owned())]),
            clone_flags: 0,
            hooks: Hooks::default(),
        };
        Container { dir: dir.join("c1"), record }
    }

    #[test]
    fn what_is_written_is_found_again() {
        let root = tempfile::tempdir().unwrap();
        let made = container(root.path(), std::process::id());
        assert!(matches!(Container::find(root.path(), "c1"), Err(Error::Missing(_))));
        fs::create_dir(&made.dir).unwrap();
        made.write().unwrap();
        assert_eq!(Container::find(root.path(), "c1").unwrap(), made);
        for name in ["", ".", "..", "../c1", "c1/../c1"] {
            assert!(matches!(Container::find(root.path(), name), Err(Error::Missing(_))), "{name}");
        }
        fs::write(made.dir.join(FILE), b"{\"id\":").unwrap();
        assert!(matches!(Container::find(root.path(), "c1"), Err(Error::File { step: "understand", .. })));
    }

    #[test]
    fn the_status_is_what_its_process_and_its_cgroup_say() {
        let root = tempfile::tempdir().unwrap();
        let mut one = container(root.path(), std::process::id());
        fs::create_dir(&one.dir).unwrap();
        fs::write(one.dir.join(START), "").unwrap();
        assert_eq!(one.status(), Status::Created);
        fs::remove_file(one.dir.join(START)).unwrap();
        assert_eq!(one.status(), Status::Running);
        fs::write(root.path().join("cgroup.events"), "populated 1\nfrozen 1\n").unwrap();
        assert_eq!(one.status(), Status::Paused);
        assert_eq!(one.oci_state(Status::Paused)["pid"], std::process::id());
        // Another process with that PID.
        one.record.began += 1;
        assert_eq!(one.status(), Status::Stopped);
        let state = one.oci_state(Status::Stopped);
        assert_eq!((&state["status"], state.get("pid")), (&"stopped".into(), None));
    }

    #[test]
    fn one_that_has_ended_is_gone_even_if_nobody_has_reaped_it() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while began(child.id()).is_some() {
            assert!(std::time::Instant::now() < until, "it still runs");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        child.wait().unwrap();
    }
}
