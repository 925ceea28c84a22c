//! The scratch directory of one CRIU call: its configuration, the hook's link and socket, logs and statistics.
//!
//! ```text
//! /run/cryopod/criu/<container>.<our pid>.<n>/   0700, removed when the call ends
//!     criu.conf      for CRIU_CONFIG_FILE
//!     cryopod-hook   link to this program, called by CRIU as action script
//!     hook.sock      where the hook asks (socket paths have 107 bytes at most, so long ids are shortened)
//!     dump.log, restore.log, stats-dump; it is criu's working directory, by which criu is found ([`super::orphans`])
//! /run/cryopod/criu/failed/<container>.<verb>.log   log of the last failure, of the last few containers that had one
//! ```

use std::io;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};

use super::settings::Settings;
use super::{CriuError, advice};
use crate::mountinfo::MountTable;

/// Where the directories are made on a node.
pub const BASE: &str = "/run/cryopod/criu";

/// The container's id, in the environment of the runtime and the hook: how they are found again ([`super::orphans`]).
pub const CONTAINER_ENV: &str = "CRYOPOD_CONTAINER";

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// One call's directory; removed on drop.
#[derive(Debug)]
pub struct Operation {
    base: PathBuf,
    dir: PathBuf,
    container: String,
    stays: bool,
}

impl Operation {
    /// Makes the directory.
    pub fn begin(base: &Path, container: &str) -> Result<Self, CriuError> {
        let number = COUNTER.fetch_add(1, Ordering::Relaxed) % 10_000;
        let dir = base.join(format!("{}.{}.{number}", key(container), std::process::id()));
        // The name may be left from a process of the same number before a crash.
        match remove(&dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(CriuError::File { action: "clear", path: dir, source: error });
            }
            _ => {}
        }
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)
            .map_err(|source| CriuError::File { action: "create", path: dir.clone(), source })?;
        Ok(Self { base: base.to_owned(), dir, container: container.to_owned(), stays: false })
    }

    /// The directory, for CRIU's `--work-path`.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where the hook server listens.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("hook.sock")
    }

    /// Makes the link by which CRIU calls this program as its action script.
    pub fn link_hook(&self) -> Result<PathBuf, CriuError> {
        let link = self.dir.join(super::hook::NAME);
        // Through /proc the program is found even after its file was replaced by an upgrade.
        let program = format!("/proc/{}/exe", std::process::id());
        symlink(program, &link).map_err(|source| CriuError::File {
            action: "create",
            path: link.clone(),
            source,
        })?;
        Ok(link)
    }

    /// Writes the configuration and returns its path.
    pub fn write_settings(&self, settings: &Settings) -> Result<PathBuf, CriuError> {
        let path = self.dir.join("criu.conf");
        std::fs::write(&path, settings.render()?).map_err(|source| CriuError::File {
            action: "write",
            path: path.clone(),
            source,
        })?;
        Ok(path)
    }

    /// Leaves the directory behind, because criu still works in it; [`sweep`] removes it when the container goes.
    pub fn stay(&mut self) {
        self.stays = true;
    }

    /// The error of a failed call: CRIU's last words if it left any, else what the runtime said. Keeps the log.
    pub fn failure(&self, verb: &'static str, log: &str, runtime_said: &str) -> CriuError {
        let path = self.dir.join(log);
        let kept = self.keep(verb, &path);
        let said = advice::last_errors(&path).unwrap_or_else(|| runtime_said.trim().to_owned());
        let reason = advice::reason(&said).or_else(|| advice::reason(runtime_said));
        CriuError::Failed { verb, said, reason, log: kept }
    }

    /// Copies the log to where it outlives this directory.
    fn keep(&self, verb: &str, log: &Path) -> Option<PathBuf> {
        let failed = self.base.join("failed");
        let name = failed.join(format!("{}.{verb}.log", key(&self.container)));
        let kept = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&failed);
        match kept.and_then(|()| std::fs::copy(log, &name)) {
            Ok(_) => {
                forget_old(&failed);
                Some(name)
            }
            Err(error) => {
                tracing::debug!(%error, log = %log.display(), "CRIU log is not kept");
                None
            }
        }
    }
}

/// Logs that are kept of failures: they are in memory (/run), and whoever looks, looks soon.
const KEPT: usize = 16;

/// Removes all but the newest logs.
fn forget_old(failed: &Path) {
    let logs = std::fs::read_dir(failed).into_iter().flatten().flatten();
    let mut logs: Vec<_> =
        logs.filter_map(|log| Some((log.metadata().ok()?.modified().ok()?, log.path()))).collect();
    logs.sort();
    for (_, old) in logs.iter().rev().skip(KEPT) {
        if let Err(error) = std::fs::remove_file(old) {
            tracing::debug!(%error, log = %old.display(), "an old CRIU log is not removed");
        }
    }
}

/// The longest container id that stands in a directory's name as it is; containerd's ids have 64 characters.
const LONGEST: usize = 64;

/// A container's part of the directory's name.
fn key(container: &str) -> String {
    if container.len() <= LONGEST {
        return container.to_owned();
    }
    // FNV-1a: the same in every version of this program, which DefaultHasher does not promise.
    let hash = container
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    let start: String = container.chars().take(40).collect();
    format!("{start}~{hash:016x}")
}

/// Whether a path is the directory of an operation on `container`.
pub(super) fn is_directory_of(path: &Path, container: &str) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let mut parts = name.rsplitn(3, '.');
    let numbers =
        parts.by_ref().take(2).all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()));
    numbers && parts.next() == Some(key(container).as_str())
}

/// The directories of operations on `container`, of which one per call in progress is normal.
pub fn directories(base: &Path, container: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(base) else { return Vec::new() };
    entries.flatten().map(|entry| entry.path()).filter(|path| is_directory_of(path, container)).collect()
}

/// Removes the directories of a container on which nobody works any more.
pub fn sweep(base: &Path, container: &str) {
    for dir in directories(base, container) {
        if let Err(error) = remove(&dir) {
            tracing::warn!(%error, dir = %dir.display(), "scratch directory stays");
        }
    }
}

/// Removes a scratch directory. CRIU mounts the tree of cgroups below its working directory while it restores, and a CRIU
/// that is killed leaves it there: removing everything without looking would go on in the cgroups of the node.
fn remove(dir: &Path) -> io::Result<()> {
    let mounts = MountTable::own()?;
    let below: Vec<&Path> =
        mounts.iter().map(|mount| mount.point.as_path()).filter(|at| at.starts_with(dir)).collect();
    for at in below.into_iter().rev() {
        match umount2(at, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            // Gone with the one below it.
            Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    std::fs::remove_dir_all(dir)
}

impl Drop for Operation {
    fn drop(&mut self) {
        if self.stays {
            return;
        }
        if let Err(error) = remove(&self.dir) {
            tracing::warn!(%error, dir = %self.dir.display(), "scratch directory stays");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_container_id_still_gives_a_usable_socket_path() {
        for id in ["f".repeat(64), "f".repeat(200)] {
            let longest = format!("{BASE}/{}.4194304.9999/hook.sock", key(&id));
            assert!(longest.len() <= 107, "{longest}");
        }
    }

    #[test]
    fn a_directory_is_known_by_its_container() {
        let base = tempfile::tempdir().expect("temporary directory");
        for id in ["web", "a.b.1", &"f".repeat(200)] {
            let operation = Operation::begin(base.path(), id).expect("directory");
            assert!(is_directory_of(operation.dir(), id), "{id}");
            assert!(!is_directory_of(operation.dir(), "we"));
        }
        assert!(!is_directory_of(Path::new("/run/cryopod/criu/web"), "web"));
        assert!(!is_directory_of(Path::new("/"), ""));
    }

    #[test]
    fn the_directory_goes_with_the_operation_and_the_log_of_a_failure_stays() {
        let base = tempfile::tempdir().expect("temporary directory");
        let operation = Operation::begin(base.path(), "web").expect("directory");
        let dir = operation.dir().to_owned();
        let config = operation.write_settings(&Settings::default()).expect("settings");
        assert!(config.starts_with(&dir));
        std::fs::write(dir.join("dump.log"), "(1) Error (a.c:1): Can't dump ghost file x\n").expect("log");
        let error = operation.failure("dump", "dump.log", "criu failed");
        assert!(error.to_string().contains("[ghost-too-large]"), "{error}");
        drop(operation);
        assert!(!dir.exists());
        assert!(base.path().join("failed/web.dump.log").exists());
    }

    #[test]
    fn the_logs_of_many_failures_do_not_fill_the_memory() {
        let base = tempfile::tempdir().expect("temporary directory");
        for n in 0..=KEPT {
            let operation = Operation::begin(base.path(), &format!("c{n}")).expect("directory");
            std::fs::write(operation.dir().join("dump.log"), "(1) Error (a.c:1): x\n").expect("log");
            operation.failure("dump", "dump.log", "");
            let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(n as u64);
            let log = base.path().join(format!("failed/c{n}.dump.log"));
            if let Ok(log) = std::fs::File::open(log) {
                log.set_modified(time).expect("time");
            }
        }
        let left = std::fs::read_dir(base.path().join("failed")).expect("list").count();
        assert_eq!(left, KEPT);
        assert!(!base.path().join("failed/c0.dump.log").exists());
    }

    #[test]
    fn without_a_log_the_runtime_has_the_word() {
        let base = tempfile::tempdir().expect("temporary directory");
        let operation = Operation::begin(base.path(), "web").expect("directory");
        let error = operation.failure("restore", "restore.log", "image path not set\n");
        assert_eq!(error.to_string(), "criu restore failed: image path not set");
    }

    #[test]
    fn a_sweep_takes_what_belongs_to_the_container_and_nothing_else() {
        let base = tempfile::tempdir().expect("temporary directory");
        let mut left = Operation::begin(base.path(), "web").expect("directory");
        left.stay();
        drop(left);
        for name in ["web.4194999.0", "db.4194999.0", "failed"] {
            std::fs::create_dir(base.path().join(name)).expect("directory");
        }
        assert_eq!(directories(base.path(), "web").len(), 2);
        sweep(base.path(), "web");
        assert_eq!(directories(base.path(), "web").len(), 0);
        assert!(base.path().join("db.4194999.0").exists() && base.path().join("failed").exists());
    }

    #[test]
    fn the_hook_link_leads_to_this_program() {
        let base = tempfile::tempdir().expect("temporary directory");
        let operation = Operation::begin(base.path(), "web").expect("directory");
        let link = operation.link_hook().expect("link");
        let target = std::fs::canonicalize(&link).expect("exists");
        assert_eq!(target, std::fs::canonicalize("/proc/self/exe").expect("exists"));
    }
}
