//! What a layer has made so far, since whiteouts are about the layers below it only, wherever in the archive they stand;
//! and the times that directories get once everything is in them.
//!
//! A name is known by the inode of its directory, so that it is the same through whatever link it was reached.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

/// Seconds and nanoseconds.
pub(super) type Time = (i64, u32);

/// A directory whose time is set at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Timed {
    /// From the root, without links.
    pub(super) path: PathBuf,
    pub(super) inode: u64,
    pub(super) time: Time,
}

/// What a layer has made.
#[derive(Debug, Default)]
pub(super) struct Made {
    names: HashMap<u64, HashSet<Vec<u8>>>,
    times: HashMap<u64, Timed>,
}

impl Made {
    /// Notes a name in a directory.
    pub(super) fn add(&mut self, dir: u64, name: &[u8]) {
        let names = self.names.entry(dir).or_default();
        if !names.contains(name) {
            names.insert(name.to_vec());
        }
    }

    /// Whether this layer has made it.
    pub(super) fn has(&self, dir: u64, name: &[u8]) -> bool {
        self.names.get(&dir).is_some_and(|names| names.contains(name))
    }

    /// Forgets a name that is gone.
    pub(super) fn remove(&mut self, dir: u64, name: &[u8]) {
        if let Some(names) = self.names.get_mut(&dir) {
            names.remove(name);
        }
    }

    /// Forgets a directory that is gone: its inode may become another's.
    pub(super) fn remove_dir(&mut self, inode: u64) {
        self.names.remove(&inode);
        self.times.remove(&inode);
    }

    /// Whether the time of a directory is known already.
    pub(super) fn is_timed(&self, inode: u64) -> bool {
        self.times.contains_key(&inode)
    }

    /// Sets the time that a directory gets.
    pub(super) fn set_time(&mut self, timed: Timed) {
        self.times.insert(timed.inode, timed);
    }

    /// The directories and their times.
    pub(super) fn times(&self) -> impl Iterator<Item = &Timed> {
        self.times.values()
    }
}
