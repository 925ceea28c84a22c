//! Whether anybody has touched a directory since we filled it.
//!
//! Any change of a file, its attributes or a name gives an inode a new change time, which programs cannot set. So the
//! number of entries and the newest of these times say it, without reading a single file.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// What a directory looked like.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stamp {
    entries: u64,
    /// Newest change, seconds and nanoseconds since the epoch.
    changed: (i64, i64),
}

/// Looks at everything below `dir` that is on the same file system, and at itself.
///
/// # Errors
/// When something cannot be looked at.
pub fn of(dir: &Path) -> io::Result<Stamp> {
    let top = fs::symlink_metadata(dir)?;
    let mut stamp = Stamp { entries: 0, changed: (top.ctime(), top.ctime_nsec()) };
    let mut open: Vec<PathBuf> = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            let meta = match fs::symlink_metadata(&path) {
                Ok(meta) => meta,
                // Somebody is at work here; the directory's own time tells it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            stamp.entries += 1;
            stamp.changed = stamp.changed.max((meta.ctime(), meta.ctime_nsec()));
            if meta.is_dir() && meta.dev() == top.dev() {
                open.push(path);
            }
        }
    }
    Ok(stamp)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_change_shows() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("below")).unwrap();
        fs::write(dir.path().join("below/file"), "1").unwrap();
        let changes: [&dyn Fn(&Path); 4] = [
            &|dir| fs::write(dir.join("below/file"), "2").unwrap(),
            &|dir| fs::write(dir.join("below/new"), "").unwrap(),
            &|dir| fs::remove_file(dir.join("below/new")).unwrap(),
            &|dir| fs::rename(dir.join("below"), dir.join("beside")).unwrap(),
        ];
        let mut before = of(dir.path()).unwrap();
        assert_eq!(of(dir.path()).unwrap(), before);
        for (nth, change) in changes.into_iter().enumerate() {
            // The kernel's clock of files ticks every few milliseconds.
            std::thread::sleep(Duration::from_millis(20));
            change(dir.path());
            let after = of(dir.path()).unwrap();
            assert_ne!(after, before, "change {nth}");
            before = after;
        }
        assert!(of(&dir.path().join("gone")).is_err());
    }
}
