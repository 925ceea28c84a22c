//! What in the store's directory is ours: what says so in a file of its own, never what merely has the right place.
//!
//! ```text
//! <dir>/cryopod                    this is a store; written before anything else
//! <dir>/checkpoints/<id>/cryopod   this is a draft or checkpoint; written first, removed last
//! ```
//!
//! A configured directory may be somebody's who has his own `checkpoints` in it. An empty one is taken, one with contents
//! only with its mark, or when everything in it looks like the store that versions without marks have made.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::durable;
use crate::id::CheckpointId;
use crate::store::StoreError;

/// The mark of a store, draft or checkpoint.
const MARK: &str = "cryopod";
/// The marker of a committed checkpoint.
const COMMITTED: &str = "committed";
/// What a store has.
pub(super) const PARTS: [&str; 4] = ["checkpoints", "containers", "trash", "templates"];
/// Where a ZFS store of the same directory mounts for a moment.
const MOUNTS: &str = "mnt";

/// Whether something is ours.
pub(super) type Proof = fn(&Path) -> Result<bool, StoreError>;

/// Makes the directory a store, or makes sure that it is one.
pub(super) fn claim(dir: &Path) -> Result<(), StoreError> {
    if try_claim(dir)? { Ok(()) } else { Err(not_ours(dir)) }
}

/// Whether [`claim`] would take the directory; changes nothing.
pub(super) fn check(dir: &Path) -> Result<(), StoreError> {
    if is_marked(dir) || is_older(dir)? { Ok(()) } else { Err(not_ours(dir)) }
}

fn not_ours(dir: &Path) -> StoreError {
    let mark = dir.join(MARK);
    StoreError::NotOurs {
        place: dir.display().to_string(),
        advice: format!(
            "name a new or empty directory in store.dir.path; if this is a store of cryopod, say so by `touch {}`",
            mark.display()
        ),
    }
}

/// The same for the mount base of a ZFS store, which needs no mark and gets one where it can; false when it is not
/// ours.
pub(in crate::store) fn try_claim(dir: &Path) -> Result<bool, StoreError> {
    durable::private_dir(dir).map_err(StoreError::io("create", dir))?;
    if is_marked(dir) {
        return Ok(true);
    }
    if !is_older(dir)? {
        return Ok(false);
    }
    mark(dir)?;
    Ok(true)
}

/// Writes the mark, durable before anything that follows. Its contents do not matter.
pub(super) fn mark(dir: &Path) -> Result<(), StoreError> {
    let path = dir.join(MARK);
    let made = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
    made.and_then(|file: File| file.sync_all()).map_err(StoreError::io("write", &path))?;
    durable::sync_dir(dir).map_err(StoreError::io("sync", dir))
}

fn is_marked(dir: &Path) -> bool {
    fs::symlink_metadata(dir.join(MARK)).is_ok_and(|found| found.is_file())
}

/// Whether an uncommitted directory below `checkpoints` is a draft. An empty one is, since nothing is in it: we were
/// killed before its mark.
pub(super) fn is_draft(path: &Path) -> Result<bool, StoreError> {
    Ok(is_marked(path) || (path.is_dir() && entries(path)?.is_empty()))
}

/// Whether a directory below `checkpoints` is a checkpoint, a draft, or the mount point of one that is on ZFS.
pub(super) fn is_known(path: &Path) -> Result<bool, StoreError> {
    Ok(is_draft(path)? || path.join(COMMITTED).is_file() || is_mount_point(path)?)
}

/// Whether a directory below `trash` is something that we moved there.
pub(super) fn is_trash(path: &Path) -> Result<bool, StoreError> {
    Ok(is_draft(path)? || path.join(COMMITTED).is_file())
}

/// Nothing but an empty `memory`.
fn is_mount_point(path: &Path) -> Result<bool, StoreError> {
    let memory = path.join("memory");
    Ok(entries(path)? == [memory.clone()] && memory.is_dir() && entries(&memory)?.is_empty())
}

/// Removes a directory of ours, its marks last: an interrupted removal is gone on with.
pub(super) fn remove(path: &Path) -> Result<(), StoreError> {
    for entry in entries(path)? {
        let marks = entry.file_name().is_some_and(|name| name == MARK || name == COMMITTED);
        if !marks && entry.is_dir() && !entry.is_symlink() {
            gone(fs::remove_dir_all(&entry)).map_err(StoreError::io("remove", &entry))?;
        }
    }
    gone(fs::remove_dir_all(path)).map_err(StoreError::io("remove", path))
}

fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// What is in a directory; nothing where there is none.
pub(super) fn entries(dir: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let items = match fs::read_dir(dir) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        other => other.map_err(StoreError::io("list", dir))?,
    };
    items.map(|item| item.map(|item| item.path()).map_err(StoreError::io("list", dir))).collect()
}

/// Whether an unmarked directory is empty, or has only what a store has: places without contents, or contents which
/// nobody else has made.
fn is_older(dir: &Path) -> Result<bool, StoreError> {
    let ours = |entry: &PathBuf| {
        let name = entry.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| PARTS.contains(&name) || name == MOUNTS)
    };
    if !entries(dir)?.iter().all(ours) {
        return Ok(false);
    }
    let checkpoints = entries(&dir.join("checkpoints"))?;
    for path in &checkpoints {
        // Those on ZFS are mounted at `memory`, mounted or not.
        if !path.join(COMMITTED).is_file() && !path.join("memory").is_dir() && !is_draft(path)? {
            return Ok(false);
        }
    }
    let removed = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.rsplit_once('.'));
        name.is_some_and(|(id, time)| id.parse::<CheckpointId>().is_ok() && time.parse::<u128>().is_ok())
    };
    if !entries(&dir.join("trash"))?.iter().all(removed) {
        return Ok(false);
    }
    // A root file system could be anything; those of ours come from checkpoints.
    if checkpoints.is_empty() && !entries(&dir.join("containers"))?.is_empty() {
        return Ok(false);
    }
    // Versions without marks had none of these.
    Ok(entries(&dir.join("templates"))?.is_empty())
}

#[cfg(test)]
mod tests;
