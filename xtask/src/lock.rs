//! One builder at a time: an flock on a file beside what is built. The kernel drops it when the holder dies, so a
//! killed build never blocks the next one.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use crate::progress;

/// Held until dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

/// The lock could not be taken.
#[derive(Debug, thiserror::Error)]
#[error("cannot lock {path}: {source}")]
pub(crate) struct Error {
    path: PathBuf,
    source: io::Error,
}

impl Lock {
    /// Takes the lock `path`; waits, and says so, while `what` is being done by somebody else.
    pub(crate) fn take(path: &Path, what: &str) -> Result<Self, Error> {
        let failed = |source| Error { path: path.to_path_buf(), source };
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).map_err(failed)?;
        }
        let file = File::create(path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                progress::say(&format!("waiting: {what} is being done by another process"));
                file.lock().map_err(failed)?;
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        Ok(Self { _file: file })
    }
}
