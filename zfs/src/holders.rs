//! Who keeps a dataset busy: the part of a "busy" error that lets someone act.

use std::fmt;

use crate::{DatasetName, Hold};

/// A mount of a dataset, seen in the mount namespace of some process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountHolder {
    /// A process that sees it; others in the same mount namespace are not listed.
    pub pid: u32,
    /// The name of that process.
    pub process: String,
    /// Where it sees it.
    pub mount_point: String,
}

impl fmt::Display for MountHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {} (pid {} {})", self.mount_point, self.pid, self.process)
    }
}

/// A process that sends or receives a dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamHolder {
    /// The process.
    pub pid: u32,
    /// What it does with what, "zfs send tank/a@x".
    pub command: String,
}

impl fmt::Display for StreamHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` (pid {})", self.command, self.pid)
    }
}

/// Who keeps a dataset or snapshot busy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holders {
    /// Mounts in any mount namespace.
    pub mounts: Vec<MountHolder>,
    /// Holds on the snapshot or on snapshots of the dataset.
    pub holds: Vec<Hold>,
    /// Clones of them.
    pub clones: Vec<DatasetName>,
    /// Running sends and receives.
    pub streams: Vec<StreamHolder>,
    /// Whether an interrupted or running receive is in it.
    pub receiving: bool,
}

impl Holders {
    /// Whether nobody was found.
    pub fn is_empty(&self) -> bool {
        let lists = [self.mounts.len(), self.holds.len(), self.clones.len(), self.streams.len()];
        lists == [0; 4] && !self.receiving
    }
}

impl fmt::Display for Holders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str(
                "nobody found (a file still open in a detached mount, or a stream that no `zfs` command sends): try again",
            );
        }
        let mut parts = Vec::new();
        parts.extend(self.mounts.iter().map(|mount| format!("mounted {mount}")));
        parts.extend(self.holds.iter().map(|hold| format!("hold {} on {}", hold.tag, hold.snapshot)));
        parts.extend(self.clones.iter().map(|clone| format!("clone {clone}")));
        parts.extend(self.streams.iter().map(ToString::to_string));
        if self.receiving {
            parts.push("a receive in it that has not ended".to_owned());
        }
        const SHOWN: usize = 8;
        let more = parts.len().saturating_sub(SHOWN);
        parts.truncate(SHOWN);
        f.write_str(&parts.join(", "))?;
        if more > 0 { write!(f, " and {more} more") } else { Ok(()) }
    }
}
