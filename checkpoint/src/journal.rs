//! The journal: what is being done, on what, so that whoever comes after a crash can undo or finish it.
//!
//! ```text
//! /var/lib/cryopod/journal/           0700
//! ├ <op>.json    one operation (see journal::entry), rewritten before each step:
//! │              temporary file, fsync, rename, fsync of the directory
//! ├ <op>.lock    flock of the process that does it; free means that it has died or given up
//! └ damaged/     files that could not be read, moved here and reported, never ignored
//! ```
//!
//! An operation whose owner lives (lock held, or the recorded process still there) is never handed to recovery.

mod entry;
mod look;
mod owner;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::durable;
use crate::kind::Kind;
use crate::lock::{Lock, LockError, Locks};

pub use entry::{CaptureStage, Entry, EntryError, Operation, PlannedSnapshot, VERSION};
pub use look::Look;
pub use owner::Owner;
pub(crate) use owner::boot_id;

/// Longest entry: a capture holds the specs of its members, as the manifest does.
const MAX_BYTES: u64 = 32 << 20;

/// The journal could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// A file operation failed.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The entry could not be put into JSON.
    #[error("cannot write a journal entry: {0}")]
    Encode(#[from] serde_json::Error),
    /// Its lock could not be had.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The own process could not be described.
    #[error("cannot find out who owns the journal entry: {0}")]
    Owner(io::Error),
}

impl JournalError {
    /// How a caller should react.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Io { source, .. } => Kind::from(source),
            Self::Encode(_) | Self::Lock(_) | Self::Owner(_) => Kind::Internal,
        }
    }
}

/// A directory of operations.
#[derive(Debug, Clone)]
pub struct Journal {
    dir: PathBuf,
    locks: Locks,
}

/// An operation of ours, or one taken over from a dead owner. Dropping it without [`Open::finish`] leaves it to
/// recovery.
#[derive(Debug)]
pub struct Open {
    path: PathBuf,
    entry: Entry,
    finished: bool,
    _lock: Lock,
}

/// A file that is no entry.
#[derive(Debug)]
pub struct Damaged {
    /// Where it is now.
    pub path: PathBuf,
    /// Why it could not be read.
    pub reason: String,
}

/// What the journal holds.
#[derive(Debug, Default)]
pub struct Scan {
    /// Operations without an owner, locked by this scan: finish or undo them.
    pub orphans: Vec<Open>,
    /// Operations whose owner lives.
    pub alive: Vec<Entry>,
    /// Files that were moved aside.
    pub damaged: Vec<Damaged>,
    /// Entries that could not be looked at; the others are not kept waiting for them.
    pub unreadable: Vec<JournalError>,
}

impl Journal {
    /// Uses a directory, creating it.
    pub fn open(dir: impl Into<PathBuf>) -> Result<Self, JournalError> {
        let dir = dir.into();
        durable::private_dir(&dir.join("damaged")).map_err(|source| io_error("create", &dir, source))?;
        let locks = Locks::open(&dir)?;
        Ok(Self { dir, locks })
    }

    /// Records an operation before its first step.
    pub fn begin(&self, operation: Operation) -> Result<Open, JournalError> {
        let owner = Owner::this_process().map_err(JournalError::Owner)?;
        let entry = Entry::new(owner, Timestamp::now(), operation);
        let path = self.dir.join(format!("{}.json", entry.op));
        let lock = self.locks.lock(&entry.op, &cryopod_command::Limits::none())?;
        let open = Open { path, entry, finished: false, _lock: lock };
        open.write()?;
        Ok(open)
    }

    /// Reads the entries of the operations that `wanted` names; those without an owner come locked, all others are left
    /// alone.
    pub(crate) fn scan_for(&self, wanted: impl Fn(&Operation) -> bool) -> Result<Scan, JournalError> {
        let mut scan = Scan::default();
        for path in files(&self.dir)? {
            let Some(op) = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".json")) else {
                continue;
            };
            // Read without its lock, to leave the others alone; an operation never becomes another one.
            if matches!(read(&path), Ok(Some(entry)) if wanted(&entry.operation)) {
                self.look_at(op, &path, &mut scan)?;
            }
        }
        Ok(scan)
    }

    /// What all entries say, without taking or moving any; those that are no entries are left out.
    pub(crate) fn operations(&self) -> Result<Vec<Operation>, JournalError> {
        let mut operations = Vec::new();
        let paths = files(&self.dir)?;
        for path in paths.iter().filter(|path| path.extension().is_some_and(|ending| ending == "json")) {
            match read(path) {
                Ok(entry) => operations.extend(entry.map(|entry| entry.operation)),
                Err(ReadError::Damaged(_)) => {}
                Err(ReadError::Io(source)) => return Err(io_error("read", path, source)),
            }
        }
        Ok(operations)
    }

    /// Reads every entry; those without an owner come locked.
    pub fn scan(&self) -> Result<Scan, JournalError> {
        let mut scan = Scan::default();
        for path in files(&self.dir)? {
            if let Err(error) = self.look_at_file(&path, &mut scan) {
                tracing::error!(path = %path.display(), %error, "a journal file cannot be looked at");
                scan.unreadable.push(error);
            }
        }
        Ok(scan)
    }

    fn look_at_file(&self, path: &Path, scan: &mut Scan) -> Result<(), JournalError> {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if let Some(op) = name.strip_suffix(".json") {
            return self.look_at(op, path, scan);
        }
        if let Some(op) = name.strip_suffix(".json.tmp") {
            // Half a write: the step it announces was not begun, the entry beside it (if any) is whole.
            if let Some(_lock) = self.locks.try_lock(op)? {
                durable::remove(path).map_err(|source| io_error("remove", path, source))?;
            }
        } else if name != "damaged" && !name.ends_with(".lock") {
            self.move_aside(path, "not a journal file".to_owned(), scan)?;
        }
        Ok(())
    }

    fn look_at(&self, op: &str, path: &Path, scan: &mut Scan) -> Result<(), JournalError> {
        let lock = self.locks.try_lock(op)?;
        let entry = match read(path) {
            Ok(Some(entry)) if entry.op == op => entry,
            // Finished while we looked.
            Ok(None) => return Ok(()),
            Ok(Some(entry)) => {
                let reason = format!("it is the entry of {}", entry.op);
                return self.move_aside(path, reason, scan);
            }
            Err(ReadError::Io(source)) => return Err(io_error("read", path, source)),
            Err(ReadError::Damaged(reason)) => {
                // A live owner replaces files whole, so damage cannot be a write in progress.
                return self.move_aside(path, reason, scan);
            }
        };
        match lock {
            Some(lock) if entry.owner.as_ref().is_none_or(|owner| !owner.is_alive()) => {
                scan.orphans.push(Open { path: path.to_owned(), entry, finished: false, _lock: lock });
            }
            _ => scan.alive.push(entry),
        }
        Ok(())
    }

    fn move_aside(&self, path: &Path, reason: String, scan: &mut Scan) -> Result<(), JournalError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let to = self.dir.join("damaged").join(format!("{name}.{}", Timestamp::now().as_nanosecond()));
        fs::rename(path, &to).map_err(|source| io_error("move aside", path, source))?;
        durable::sync_dir(&self.dir).map_err(|source| io_error("sync", &self.dir, source))?;
        tracing::error!(path = %to.display(), reason, "damaged journal file moved aside");
        scan.damaged.push(Damaged { path: to, reason });
        Ok(())
    }
}

impl Open {
    /// The operation as it was last written.
    pub fn operation(&self) -> &Operation {
        &self.entry.operation
    }

    /// The whole entry.
    pub fn entry(&self) -> &Entry {
        &self.entry
    }

    /// Changes the operation and writes it, before the step that it announces is done.
    pub fn update(&mut self, change: impl FnOnce(&mut Operation)) -> Result<(), JournalError> {
        change(&mut self.entry.operation);
        self.write()
    }

    /// The operation is over, done or undone: forgets it.
    pub fn finish(mut self) -> Result<(), JournalError> {
        durable::remove(&self.path).map_err(|source| io_error("remove", &self.path, source))?;
        self.finished = true;
        Ok(())
    }

    fn write(&self) -> Result<(), JournalError> {
        let bytes = serde_json::to_vec(&self.entry)?;
        durable::write(&self.path, &bytes).map_err(|source| io_error("write", &self.path, source))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        // Given up by a process that may live on: without an owner the next recovery may take it.
        self.entry.owner = None;
        if let Err(error) = self.write() {
            tracing::error!(%error, "a journal entry stays owned by this process until that ends");
        }
    }
}

fn files(dir: &Path) -> Result<Vec<PathBuf>, JournalError> {
    let mut paths = Vec::new();
    for item in fs::read_dir(dir).map_err(|source| io_error("list", dir, source))? {
        paths.push(item.map_err(|source| io_error("list", dir, source))?.path());
    }
    paths.sort();
    Ok(paths)
}

enum ReadError {
    Io(io::Error),
    Damaged(String),
}

fn read(path: &Path) -> Result<Option<Entry>, ReadError> {
    let absent = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    let length = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_file() => metadata.len(),
        Ok(_) => return Err(ReadError::Damaged("not a regular file".to_owned())),
        Err(error) if absent(&error) => return Ok(None),
        Err(error) => return Err(ReadError::Io(error)),
    };
    if length > MAX_BYTES {
        return Err(ReadError::Damaged(format!("{length} bytes long")));
    }
    match fs::read(path) {
        Ok(bytes) => Entry::parse(&bytes).map(Some).map_err(|error| ReadError::Damaged(error.to_string())),
        Err(error) if absent(&error) => Ok(None),
        Err(error) => Err(ReadError::Io(error)),
    }
}

fn io_error(action: &'static str, path: &Path, source: io::Error) -> JournalError {
    JournalError::Io { action, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests;
