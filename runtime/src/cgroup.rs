//! A cgroup v2 directory: found from a process, frozen and thawed with the kernel's own confirmation, killed, removed.
//!
//! `cgroup.freeze` takes effect later; `cgroup.events` says when, and wakes a poll with POLLPRI
//! (Documentation/admin-guide/cgroup-v2.rst, "Core Interface Files"). Nothing here starts a process.

mod freeze;

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use cryopod_checkpoint::kind::Kind;
use cryopod_command::{Limits, Stop};

use crate::error::{of_io, of_stop, why};
use crate::process::{self, Process};

/// Where the unified hierarchy is mounted.
pub const ROOT: &str = "/sys/fs/cgroup";

/// How long `kill` waits for the tasks to be gone; SIGKILL takes effect at once outside state D.
const KILL_PATIENCE: Duration = Duration::from_secs(5);
/// The kernel's poll wake-up for `populated` may be missed when the last task is reaped by another; looked at again.
const RECHECK: Duration = Duration::from_millis(100);

/// What is wrong with a cgroup.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// There is no such cgroup: its container has ended.
    #[error("cgroup {} does not exist", path.display())]
    Gone {
        /// The directory.
        path: PathBuf,
    },
    /// Its file cannot be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The process is not in a v2 hierarchy.
    #[error("process {pid} has no cgroup v2: boot with systemd.unified_cgroup_hierarchy=1")]
    NotUnified {
        /// Process id.
        pid: u32,
    },
    /// The process has ended.
    #[error("process {pid} has ended")]
    NoProcess {
        /// Process id.
        pid: u32,
    },
    /// It is no container's: what is done to it would be done to others.
    #[error(
        "cgroup {} {what}: it is not {action}; let the runtime give each container a cgroup of its own \
         (extra_args must not disable its cgroup manager)",
        path.display()
    )]
    NotAContainers {
        /// The directory.
        path: PathBuf,
        /// `is the root of all`, `holds this very process`.
        what: &'static str,
        /// `frozen`, `signalled`, `killed`.
        action: &'static str,
    },
    /// The kernel did not reach the state in time.
    #[error("cgroup {} did not become {state}: {}", path.display(), why(*stop))]
    NotReached {
        /// The directory.
        path: PathBuf,
        /// `frozen`, `thawed` or `empty`.
        state: &'static str,
        /// Which limit.
        stop: Stop,
    },
}

impl CgroupError {
    /// How a caller should react.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Gone { .. } | Self::NoProcess { .. } => Kind::NotFound,
            Self::File { source, .. } => of_io(source),
            Self::NotUnified { .. } => Kind::Unimplemented,
            Self::NotAContainers { .. } => Kind::FailedPrecondition,
            Self::NotReached { stop, .. } => of_stop(*stop),
        }
    }
}

/// A cgroup v2 directory, which may have gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cgroup(PathBuf);

impl Cgroup {
    /// The directory, absolute.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The cgroup that a process is in.
    pub fn of_process(pid: u32) -> Result<Self, CgroupError> {
        let file = PathBuf::from(format!("/proc/{pid}/cgroup"));
        let text = match std::fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if process::is_gone(&error) => return Err(CgroupError::NoProcess { pid }),
            Err(source) => return Err(CgroupError::File { action: "read", path: file, source }),
        };
        let relative = parse_proc_cgroup(&text).ok_or(CgroupError::NotUnified { pid })?;
        Ok(Self::below_root(relative))
    }

    /// The cgroup of that path inside the hierarchy (`/kubepods/...`).
    pub fn below_root(relative: &str) -> Self {
        Self(Path::new(ROOT).join(relative.trim_start_matches('/')))
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Path inside the hierarchy, with a leading slash, as `/proc/<pid>/cgroup` shows it.
    pub fn relative(&self) -> String {
        format!("/{}", self.0.strip_prefix(ROOT).unwrap_or(&self.0).display())
    }

    /// The cgroup of the pod, in which limits often sit.
    pub fn parent(&self) -> Option<Self> {
        self.0.parent().filter(|parent| *parent != Path::new(ROOT)).map(Self::at)
    }

    /// The cgroup that carries the container's limits: crun puts processes of a systemd scope into `container` below it.
    /// Freezing needs the inner one, since that is the one crun names to CRIU, which would wait for ever otherwise.
    #[must_use]
    pub fn of_container(self) -> Self {
        let is_scope = |path: &Path| path.extension().is_some_and(|extension| extension == "scope");
        match self.0.parent() {
            Some(scope) if self.0.ends_with("container") && is_scope(scope) => Self::at(scope),
            _ => self,
        }
    }

    /// Whether it exists.
    pub fn exists(&self) -> bool {
        self.0.join("cgroup.procs").exists()
    }

    /// Reads one of its files.
    pub fn read(&self, name: &str) -> Result<String, CgroupError> {
        let path = self.0.join(name);
        std::fs::read_to_string(&path).map_err(|source| self.failed("read", path, source))
    }

    fn write(&self, name: &str, text: &str) -> Result<(), CgroupError> {
        let path = self.0.join(name);
        // Never created: a missing file means a missing controller or cgroup.
        let written =
            OpenOptions::new().write(true).open(&path).and_then(|mut f| f.write_all(text.as_bytes()));
        written.map_err(|source| self.failed("write", path, source))
    }

    fn failed(&self, action: &'static str, path: PathBuf, source: io::Error) -> CgroupError {
        // ENODEV: the cgroup was removed while the file was open.
        let gone = matches!(source.raw_os_error(), Some(nix::libc::ENOENT | nix::libc::ENODEV));
        if gone && !self.exists() {
            return CgroupError::Gone { path: self.0.clone() };
        }
        CgroupError::File { action, path, source }
    }

    /// Whether any process is in it or below it.
    pub fn is_populated(&self) -> Result<bool, CgroupError> {
        Ok(flag(&self.read("cgroup.events")?, "populated") == Some(true))
    }

    /// Refuses what takes more than one container along: the root, and every cgroup that this process is in itself. A
    /// runtime without a cgroup manager leaves containers in those.
    fn must_be_a_containers(&self, action: &'static str) -> Result<(), CgroupError> {
        let refused = |what| Err(CgroupError::NotAContainers { path: self.0.clone(), what, action });
        if Path::new(ROOT).starts_with(&self.0) {
            return refused("is the root of all");
        }
        match Self::of_process(std::process::id()) {
            Ok(own) if own.0.starts_with(&self.0) => refused("holds this very process"),
            _ => Ok(()),
        }
    }

    /// All processes in it and below it.
    pub fn processes(&self) -> Result<Vec<u32>, CgroupError> {
        let mut pids = Vec::new();
        for (depth, cgroup) in self.tree()?.into_iter().enumerate() {
            match cgroup.read("cgroup.procs") {
                // A pid of another pid namespace shows as 0.
                Ok(text) => {
                    pids.extend(text.lines().filter_map(|l| l.parse::<u32>().ok()).filter(|pid| *pid != 0));
                }
                Err(CgroupError::Gone { .. }) => {}
                // A threaded one, which the container has made: its processes are listed in the domain above it.
                Err(error) if depth > 0 && is_threaded(&error) => {}
                Err(error) => return Err(error),
            }
        }
        pids.sort_unstable();
        pids.dedup();
        Ok(pids)
    }

    /// Itself and everything below, deepest last.
    fn tree(&self) -> Result<Vec<Self>, CgroupError> {
        let mut tree = vec![self.clone()];
        let mut next = 0;
        while let Some(cgroup) = tree.get(next).cloned() {
            next += 1;
            let entries = match std::fs::read_dir(&cgroup.0) {
                Ok(entries) => entries,
                Err(_) if next > 1 => continue,
                Err(source) => return Err(self.failed("list", self.0.clone(), source)),
            };
            tree.extend(
                entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| Self(e.path())),
            );
        }
        Ok(tree)
    }

    /// Sends a raw signal to every process in it; false when there was none.
    pub fn signal(&self, signal: i32) -> Result<bool, CgroupError> {
        self.must_be_a_containers("signalled")?;
        let mut any = false;
        for pid in self.processes()? {
            let path = || PathBuf::from(format!("/proc/{pid}"));
            let failed = |source| CgroupError::File { action: "signal", path: path(), source };
            if let Some(process) = Process::now(pid).map_err(failed)? {
                any |= process.signal(signal).map_err(failed)?;
            }
        }
        Ok(any)
    }

    /// Kills every task at once, frozen ones too; a cgroup that has gone is success.
    pub fn kill(&self) -> Result<(), CgroupError> {
        self.must_be_a_containers("killed")?;
        match self.write("cgroup.kill", "1") {
            Ok(()) | Err(CgroupError::Gone { .. }) => Ok(()),
            // Kernels before 5.14 have no cgroup.kill.
            Err(CgroupError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                self.signal(nix::libc::SIGKILL).map(|_| ())
            }
            Err(error) => Err(error),
        }
    }

    /// Kills every task, waits until they are gone and removes it with everything below. Idempotent.
    pub fn destroy(&self, limits: &Limits) -> Result<(), CgroupError> {
        if !self.exists() {
            return Ok(());
        }
        self.kill()?;
        match self.wait_event("populated", false, "empty", &limits.at_most(KILL_PATIENCE)) {
            Err(CgroupError::Gone { .. }) => return Ok(()),
            result => result?,
        }
        for cgroup in self.tree()?.into_iter().rev() {
            match std::fs::remove_dir(&cgroup.0) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(CgroupError::File { action: "remove", path: cgroup.0, source }),
            }
        }
        Ok(())
    }
}

/// The `0::/path` line; `None` without a v2 hierarchy.
fn parse_proc_cgroup(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix("0::")).filter(|path| path.starts_with('/'))
}

/// EOPNOTSUPP is what `cgroup.procs` of a threaded cgroup answers.
fn is_threaded(error: &CgroupError) -> bool {
    let CgroupError::File { source, .. } = error else { return false };
    source.raw_os_error() == Some(nix::libc::EOPNOTSUPP)
}

fn flag(events: &str, key: &str) -> Option<bool> {
    let mut lines = events.lines().filter_map(|line| line.split_once(' '));
    lines.find(|(name, _)| *name == key).map(|(_, value)| value == "1")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fake(frozen: &str) -> (tempfile::TempDir, Cgroup) {
        let dir = tempfile::tempdir().expect("temporary directory");
        for (name, text) in
            [("cgroup.procs", ""), ("cgroup.freeze", "0\n"), ("cgroup.kill", ""), ("cgroup.events", frozen)]
        {
            std::fs::write(dir.path().join(name), text).expect("file");
        }
        let cgroup = Cgroup::at(dir.path());
        (dir, cgroup)
    }

    #[test]
    fn only_the_unified_line_counts() {
        assert_eq!(parse_proc_cgroup("12:cpu:/x\n0::/kubepods/pod1/c\n"), Some("/kubepods/pod1/c"));
        assert_eq!(parse_proc_cgroup("12:cpu:/x\n"), None);
        let cgroup = Cgroup::below_root("/kubepods/pod1/c");
        assert_eq!(cgroup.relative(), "/kubepods/pod1/c");
        assert_eq!(cgroup.parent().map(|p| p.relative()).as_deref(), Some("/kubepods/pod1"));
        assert_eq!(Cgroup::below_root("/c").parent(), None);
        let inner = Cgroup::below_root("/a.slice/crun-c.scope/container");
        assert_eq!(inner.of_container().relative(), "/a.slice/crun-c.scope");
        assert_eq!(Cgroup::below_root("/pods/container").of_container().relative(), "/pods/container");
    }

    #[test]
    fn a_freeze_waits_for_the_kernels_word() {
        let (_dir, cgroup) = fake("populated 1\nfrozen 1\n");
        cgroup.freeze(&Limits::within(Duration::from_secs(5))).expect("frozen");
        assert!(cgroup.is_frozen().expect("readable"));
    }

    #[test]
    fn a_freeze_that_does_not_come_in_time_is_taken_back() {
        let (_dir, cgroup) = fake("populated 1\nfrozen 0\n");
        let error = cgroup.freeze(&Limits::within(Duration::from_millis(10))).expect_err("never frozen");
        assert_eq!(error.kind(), Kind::DeadlineExceeded);
        assert!(!cgroup.is_frozen().expect("readable"));
    }

    #[test]
    fn what_an_administrator_froze_stays_frozen_when_our_freeze_fails() {
        let (_dir, cgroup) = fake("populated 1\nfrozen 0\n");
        cgroup.begin_freeze().expect("written");
        cgroup.freeze(&Limits::within(Duration::from_millis(10))).expect_err("never frozen");
        assert!(cgroup.is_frozen().expect("readable"));
    }

    #[test]
    fn a_cgroup_that_has_gone_is_not_found_and_thaws_without_error() {
        let cgroup = Cgroup::at("/nonexistent/cgroup");
        assert_eq!(cgroup.begin_freeze().expect_err("gone").kind(), Kind::NotFound);
        cgroup.thaw(&Limits::none()).expect("nothing to thaw");
        cgroup.kill().expect("nothing to kill");
        cgroup.destroy(&Limits::none()).expect("nothing to remove");
    }

    #[test]
    fn neither_the_root_nor_a_cgroup_of_our_own_is_frozen_or_killed() {
        for cgroup in [Cgroup::at(ROOT), Cgroup::below_root("/"), Cgroup::at("/")] {
            for result in [cgroup.begin_freeze(), cgroup.kill(), cgroup.signal(0).map(|_| ())] {
                let error = result.expect_err("refused");
                assert!(matches!(error, CgroupError::NotAContainers { .. }), "{error}");
            }
        }
        // Where this runs in a cgroup namespace of its own, that is the root again.
        let own = Cgroup::of_process(std::process::id()).expect("own cgroup");
        let error = own.kill().expect_err("refused");
        assert!(matches!(error, CgroupError::NotAContainers { .. }), "{error}");
        if let Some(above) = own.parent() {
            assert_eq!(above.kill().expect_err("refused").kind(), Kind::FailedPrecondition);
        }
    }

    #[test]
    fn threaded_cgroups_are_told_from_those_that_cannot_be_read() {
        let error = |number| CgroupError::File {
            action: "read",
            path: "/x/cgroup.procs".into(),
            source: io::Error::from_raw_os_error(number),
        };
        assert!(is_threaded(&error(nix::libc::EOPNOTSUPP)));
        assert!(!is_threaded(&error(nix::libc::EACCES)));
    }

    #[test]
    fn processes_of_nested_cgroups_are_found() {
        let (dir, cgroup) = fake("populated 1\nfrozen 0\n");
        std::fs::write(dir.path().join("cgroup.procs"), "10\n0\n11\n").expect("file");
        std::fs::create_dir(dir.path().join("nested")).expect("nested");
        std::fs::write(dir.path().join("nested/cgroup.procs"), "12\n").expect("file");
        assert_eq!(cgroup.processes().expect("readable"), [10, 11, 12]);
    }
}
