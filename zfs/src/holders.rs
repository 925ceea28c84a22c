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

/// Who keeps a dataset or snapshot busy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holders {
    /// Mounts in any mount namespace.
    pub mounts: Vec<MountHolder>,
    /// Holds on the snapshot or on snapshots of the dataset.
    pub holds: Vec<Hold>,
    /// Clones of them.
    pub clones: Vec<DatasetName>,
    /// Whether an interrupted or running receive is in it.
    pub receiving: bool,
}

impl Holders {
    /// Whether nobody was found.
    pub fn is_empty(&self) -> bool {
        self.mounts.is_empty() && self.holds.is_empty() && self.clones.is_empty() && !self.receiving
    }
}

impl fmt::Display for Holders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str(
                "nobody found (a send or receive in progress, or a file still open in a detached mount): try again",
            );
        }
        let mut parts = Vec::new();
        parts.extend(self.mounts.iter().map(|mount| format!("mounted {mount}")));
        parts.extend(self.holds.iter().map(|hold| format!("hold {} on {}", hold.tag, hold.snapshot)));
        parts.extend(self.clones.iter().map(|clone| format!("clone {clone}")));
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
