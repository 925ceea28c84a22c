//! The scratch directory of one CRIU call: its configuration, the hook's link and socket, logs and statistics.
//!
//! ```text
//! /run/cryopod/criu/<container, 12 chars>.<our pid>.<n>/   0700, removed when the call ends
//!     criu.conf      for CRIU_CONFIG_FILE
//!     cryopod-hook   link to this program, called by CRIU as action script
//!     hook.sock      where the hook asks (socket paths have 107 bytes at most, hence the short name)
//!     dump.log, restore.log, stats-dump
//! /run/cryopod/criu/failed/<container>.<verb>.log   log of the last failure
//! ```

use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::settings::Settings;
use super::{CriuError, advice};

/// Where the directories are made on a node.
pub const BASE: &str = "/run/cryopod/criu";

/// The container's id, in the environment of the runtime and of criu: how both are found again ([`super::orphans`]).
pub const CONTAINER_ENV: &str = "CRYOPOD_CONTAINER";

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// One call's directory; removed on drop.
#[derive(Debug)]
pub struct Operation {
    base: PathBuf,
    dir: PathBuf,
    container: String,
}

impl Operation {
    /// Makes the directory.
    pub fn begin(base: &Path, container: &str) -> Result<Self, CriuError> {
        let short: String = container.chars().filter(char::is_ascii_alphanumeric).take(12).collect();
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let dir = base.join(format!("{short}.{}.{number}", std::process::id()));
        // The name may be left from a process of the same number before a crash.
        match std::fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(CriuError::File { action: "clear", path: dir, source: error });
            }
            _ => {}
        }
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)
            .map_err(|source| CriuError::File { action: "create", path: dir.clone(), source })?;
        Ok(Self { base: base.to_owned(), dir, container: container.to_owned() })
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

    /// The error of a failed call: CRIU's last words if it left any, else what the runtime said. Keeps the log.
    pub fn failure(&self, verb: &'static str, logs: &Path, log: &str, runtime_said: &str) -> CriuError {
        let path = logs.join(log);
        self.keep(verb, &path);
        let said = advice::last_errors(&path).unwrap_or_else(|| runtime_said.trim().to_owned());
        let reason = advice::reason(&said).or_else(|| advice::reason(runtime_said));
        CriuError::Failed { verb, container: self.container.clone(), said, reason }
    }

    fn keep(&self, verb: &str, log: &Path) {
        let failed = self.base.join("failed");
        let name = failed.join(format!("{}.{verb}.log", self.container));
        let kept = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&failed);
        if let Err(error) = kept.and_then(|()| std::fs::copy(log, &name).map(|_| ())) {
            tracing::debug!(%error, log = %log.display(), "CRIU log is not kept");
        }
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.dir) {
            tracing::debug!(%error, dir = %self.dir.display(), "scratch directory stays");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_container_id_still_gives_a_usable_socket_path() {
        let base = tempfile::tempdir().expect("temporary directory");
        let operation = Operation::begin(base.path(), &"f".repeat(64)).expect("directory");
        let length = operation.socket().as_os_str().len() - base.path().as_os_str().len() + BASE.len();
        assert!(length <= 107, "{length}");
    }

    #[test]
    fn the_directory_goes_with_the_operation_and_the_log_of_a_failure_stays() {
        let base = tempfile::tempdir().expect("temporary directory");
        let operation = Operation::begin(base.path(), "web").expect("directory");
        let dir = operation.dir().to_owned();
        let config = operation.write_settings(&Settings::default()).expect("settings");
        assert!(config.starts_with(&dir));
        std::fs::write(dir.join("dump.log"), "(1) Error (a.c:1): Can't dump ghost file x\n").expect("log");
        let error = operation.failure("dump", &dir, "dump.log", "criu failed");
        assert!(error.to_string().contains("[ghost-too-large]"), "{error}");
        drop(operation);
        assert!(!dir.exists());
        assert!(base.path().join("failed/web.dump.log").exists());
    }

    #[test]
    fn without_a_log_the_runtime_has_the_word() {
        let base = tempfile::tempdir().expect("temporary directory");
        let operation = Operation::begin(base.path(), "web").expect("directory");
        let error = operation.failure("restore", operation.dir(), "restore.log", "image path not set\n");
        assert_eq!(error.to_string(), "criu restore of container web failed: image path not set");
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
