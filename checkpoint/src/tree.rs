//! File trees as data: copied, hashed, streamed and laid over another tree, with everything that a root file
//! system has: owners, modes, times, xattrs, ACLs, hard links, holes, devices, overlay whiteouts.
//!
//! A tree is walked in one canonical order (names as bytes, directories before their contents), each entry
//! described by [`Entry`]; a [`write::Writer`] makes them again elsewhere. Both work relative to open directories
//! and never follow a symlink, since both ends may belong to a container or to a foreign stream.

mod apply;
pub(crate) mod codec;
mod copy;
pub(crate) mod remaps;
mod walk;
mod write;

use std::io;
use std::path::{Path, PathBuf};

use cryopod_command::Stop;

use crate::kind::Kind;

pub(crate) use apply::apply_layer;
pub(crate) use copy::{Copied, copy};
pub(crate) use walk::{clear, measure, refuse_mounts};
pub(crate) use write::Existing;

/// Longest path of an entry (PATH_MAX).
pub(crate) const MAX_PATH: usize = 4096;
/// Deepest nesting: a directory descriptor is open per level on each side, and 1024 is a common limit for those.
pub(crate) const MAX_DEPTH: usize = 200;
/// Most extended attributes of one entry, and the longest value (XATTR_SIZE_MAX of the kernel).
pub(crate) const MAX_XATTRS: usize = 256;
/// Longest value of an extended attribute.
pub(crate) const MAX_XATTR_VALUE: usize = 64 << 10;

/// What kind of thing an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EntryKind {
    Dir,
    File {
        size: u64,
    },
    Symlink {
        target: Vec<u8>,
    },
    /// Another name of something that came before and is no directory, by its path in the tree. Never a whiteout:
    /// overlayfs has one inode for all of those, and each is an entry of its own.
    Hardlink {
        first: Vec<u8>,
    },
    Char {
        device: u64,
    },
    Block {
        device: u64,
    },
    Fifo,
    Socket,
}

/// Name and value of an extended attribute.
pub(crate) type Xattr = (Vec<u8>, Vec<u8>);

/// Everything about an entry but the contents of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Path in the tree; empty for its root.
    pub(crate) path: Vec<u8>,
    pub(crate) kind: EntryKind,
    /// Permission bits with set-id and sticky (07777).
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Modification time, seconds and nanoseconds.
    pub(crate) mtime: (i64, u32),
    /// Extended attributes, by name.
    pub(crate) xattrs: Vec<Xattr>,
}

/// A tree that could not be read or made.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
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
    /// More data than may be copied while a pod is frozen.
    #[error("{} holds more than {limit} bytes", path.display())]
    TooLarge {
        /// The tree.
        path: PathBuf,
        /// The bound in bytes.
        limit: u64,
    },
    /// Nested more deeply than is supported.
    #[error("{} is nested deeper than {MAX_DEPTH} directories or has a path beyond {MAX_PATH} bytes", path.display())]
    TooDeep {
        /// The directory.
        path: PathBuf,
    },
    /// Another file system below a tree that is to be replaced.
    #[error(
        "{} is mounted below a directory that is to be replaced, and no checkpoint holds it: unmount it for the \
         restore, or give the new container another directory",
        path.display()
    )]
    Mounted {
        /// The mount point.
        path: PathBuf,
    },
    /// An entry with more or longer extended attributes than Linux allows.
    #[error("{} has too many or too long extended attributes", path.display())]
    Xattrs {
        /// The entry.
        path: PathBuf,
    },
    /// An encoded tree that is not one of ours.
    #[error("the encoded tree is damaged: {0}")]
    Encoding(&'static str),
    /// A layer that cannot be laid over another root.
    #[error("{} was renamed from another directory of its image (overlay redirect), which cannot be moved to another \
             kind of root", path.display())]
    Redirect {
        /// The entry.
        path: PathBuf,
    },
    /// Deadline or cancel.
    #[error("copying was stopped: {0:?}")]
    Stopped(Stop),
}

impl TreeError {
    /// How a caller should react.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Io { source, .. } => Kind::from(source),
            Self::TooLarge { .. } => Kind::ResourceExhausted,
            Self::TooDeep { .. } | Self::Mounted { .. } | Self::Xattrs { .. } | Self::Redirect { .. } => {
                Kind::FailedPrecondition
            }
            Self::Encoding(_) => Kind::DataLoss,
            Self::Stopped(stop) => Kind::from(*stop),
        }
    }

    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}

#[cfg(test)]
mod tests;
