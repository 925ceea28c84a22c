//! What callers ask for, where a name alone does not say it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{BookmarkName, Bytes, DatasetName, Guid, NameError, Properties, SnapshotName};

/// Which kinds of things a listing has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Kinds {
    /// File systems.
    pub filesystems: bool,
    /// Volumes.
    pub volumes: bool,
    /// Snapshots.
    pub snapshots: bool,
    /// Bookmarks.
    pub bookmarks: bool,
}

impl Kinds {
    /// File systems and volumes.
    pub const DATASETS: Self = Self { filesystems: true, volumes: true, snapshots: false, bookmarks: false };
    /// Snapshots only.
    pub const SNAPSHOTS: Self =
        Self { filesystems: false, volumes: false, snapshots: true, bookmarks: false };
    /// Bookmarks only.
    pub const BOOKMARKS: Self =
        Self { filesystems: false, volumes: false, snapshots: false, bookmarks: true };
    /// Everything.
    pub const ALL: Self = Self { filesystems: true, volumes: true, snapshots: true, bookmarks: true };
}

/// Which properties a listing brings beyond the typed fields.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Wanted {
    /// None: the cheapest.
    #[default]
    TypedOnly,
    /// These, native or user properties.
    Named(Vec<String>),
    /// All that are set, user properties included.
    All,
}

/// What to list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// Where to begin; all must exist.
    pub roots: Vec<DatasetName>,
    /// How many levels below the roots, a snapshot counting as one; None is all of them.
    pub depth: Option<u32>,
    /// What to list.
    pub kinds: Kinds,
    /// Which further properties.
    pub wanted: Wanted,
}

impl Filter {
    /// Everything of these kinds at and below `root`.
    pub fn below(root: &DatasetName, kinds: Kinds) -> Self {
        Self { roots: vec![root.clone()], depth: None, kinds, wanted: Wanted::TypedOnly }
    }

    /// The snapshots of `dataset` alone.
    pub fn snapshots_of(dataset: &DatasetName) -> Self {
        Self { depth: Some(1), ..Self::below(dataset, Kinds::SNAPSHOTS) }
    }

    /// `root` and the datasets directly below it.
    pub fn children_of(root: &DatasetName) -> Self {
        Self { depth: Some(1), ..Self::below(root, Kinds::DATASETS) }
    }

    /// The same with those properties.
    #[must_use]
    pub fn wanting(mut self, wanted: Wanted) -> Self {
        self.wanted = wanted;
        self
    }
}

/// What kind of dataset to create.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewKind {
    /// A file system; it is mounted at once unless its properties say otherwise.
    Filesystem,
    /// A block device.
    Volume {
        /// Its size, a multiple of its block size.
        size: Bytes,
        /// Whether no space is reserved for it.
        sparse: bool,
    },
}

/// A dataset to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateRequest {
    /// Its name.
    pub name: DatasetName,
    /// What it is.
    pub kind: NewKind,
    /// Properties set in the same transaction.
    pub properties: Properties,
    /// Whether missing datasets above it are made, and an existing dataset of this name is no error.
    pub parents: bool,
}

impl CreateRequest {
    /// A file system with these properties below an existing dataset.
    pub fn filesystem(name: &DatasetName, properties: Properties) -> Self {
        Self { name: name.clone(), kind: NewKind::Filesystem, properties, parents: false }
    }

    /// The same, with missing datasets above it made first.
    #[must_use]
    pub fn with_parents(mut self) -> Self {
        self.parents = true;
        self
    }
}

/// How to rename.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rename {
    /// Leave mounted what is mounted, where it is (`-u`). A legacy mount always stays.
    pub keep_mounts: bool,
    /// Make missing datasets above the new name.
    pub parents: bool,
}

/// How to mount.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MountOptions {
    /// Nothing can be written.
    pub read_only: bool,
    /// Set-user-id bits have no effect.
    pub nosuid: bool,
    /// Device nodes cannot be opened.
    pub nodev: bool,
    /// Nothing can be executed.
    pub noexec: bool,
}

/// What an incremental stream starts from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Base {
    /// An earlier snapshot of the dataset, or its origin.
    Snapshot(SnapshotName),
    /// A bookmark of an earlier snapshot, which may be gone by now.
    Bookmark(BookmarkName),
}

impl fmt::Display for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Snapshot(name) => name.fmt(f),
            Self::Bookmark(name) => name.fmt(f),
        }
    }
}

/// The token by which an interrupted receive says where to go on; opaque.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ResumeToken(String);

impl ResumeToken {
    /// The token as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Far more than a token needs; it comes from another node, so it has a bound.
const LONGEST_TOKEN: usize = 64 << 10;

impl FromStr for ResumeToken {
    type Err = NameError;

    fn from_str(token: &str) -> Result<Self, NameError> {
        let kind = "resume token";
        let name = || token.chars().take(40).collect::<String>();
        if token.is_empty() {
            return Err(NameError::Empty { kind, name: name() });
        }
        if token.len() > LONGEST_TOKEN {
            return Err(NameError::TooLong { kind, name: name(), length: token.len() });
        }
        if token.starts_with('-') {
            return Err(NameError::Start { kind, name: name() });
        }
        if let Some(character) = token.chars().find(|c| !c.is_ascii_alphanumeric() && *c != '-') {
            return Err(NameError::Character { kind, name: name(), character });
        }
        Ok(Self(token.to_owned()))
    }
}

impl TryFrom<String> for ResumeToken {
    type Error = NameError;

    fn try_from(token: String) -> Result<Self, NameError> {
        token.parse()
    }
}

impl From<ResumeToken> for String {
    fn from(token: ResumeToken) -> Self {
        token.0
    }
}

impl fmt::Display for ResumeToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a stream holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stream {
    /// A snapshot whole.
    Full(SnapshotName),
    /// What changed between two points.
    Incremental {
        /// The earlier point, which the receiver has.
        from: Base,
        /// The snapshot to arrive at.
        to: SnapshotName,
    },
    /// What a clone changed since the snapshot it was made of.
    FromOrigin(SnapshotName),
    /// The rest of an interrupted stream.
    Resume(ResumeToken),
}

/// How a stream is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SendFlags {
    /// Blocks exactly as they are on disk, encrypted ones still encrypted (`-w`).
    pub raw: bool,
    /// Blocks larger than 128 KiB stay whole (`-L`); later increments must have it too.
    pub large_blocks: bool,
    /// Compressed blocks stay compressed (`-c`).
    pub compressed: bool,
    /// Small blocks are carried in their pointers (`-e`).
    pub embedded: bool,
}

impl Default for SendFlags {
    /// Everything as it is on disk but readable: the least work for both sides.
    fn default() -> Self {
        Self { raw: false, large_blocks: true, compressed: true, embedded: true }
    }
}

/// A stream to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendRequest {
    /// What it holds.
    pub stream: Stream,
    /// How it is written; a resumed stream keeps the flags of its first part.
    pub flags: SendFlags,
}

impl SendRequest {
    /// A snapshot whole.
    pub fn full(snapshot: &SnapshotName) -> Self {
        Self { stream: Stream::Full(snapshot.clone()), flags: SendFlags::default() }
    }

    /// What changed since `from`.
    pub fn incremental(from: &SnapshotName, to: &SnapshotName) -> Self {
        let stream = Stream::Incremental { from: Base::Snapshot(from.clone()), to: to.clone() };
        Self { stream, flags: SendFlags::default() }
    }

    /// The name to use in messages.
    pub fn subject(&self) -> String {
        match &self.stream {
            Stream::Full(snapshot) | Stream::FromOrigin(snapshot) => snapshot.to_string(),
            Stream::Incremental { from, to } => format!("{from}..{}", to.leaf()),
            Stream::Resume(_) => "the rest of an interrupted stream".to_owned(),
        }
    }
}

/// Where a stream goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiveRequest {
    /// The dataset that is made, or that has the stream's base as its latest snapshot.
    pub target: DatasetName,
    /// What is interrupted can be resumed (`-s`) instead of being undone.
    pub resumable: bool,
    /// What arrives is not mounted (`-u`).
    pub unmounted: bool,
    /// Properties that override those of the stream (`-o`).
    pub set: Properties,
    /// Properties of the stream that are left out (`-x`).
    pub exclude: Vec<String>,
    /// The snapshot here that the stream must be a clone of (`-o origin=`), so that a wrong base fails.
    pub origin: Option<SnapshotName>,
}

impl ReceiveRequest {
    /// Resumable and unmounted.
    pub fn new(target: &DatasetName) -> Self {
        Self {
            target: target.clone(),
            resumable: true,
            unmounted: true,
            set: Properties::new(),
            exclude: Vec::new(),
            origin: None,
        }
    }
}

/// What arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// The snapshot that exists now.
    pub snapshot: SnapshotName,
    /// Its identity, the same as at the source.
    pub guid: Guid,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_checked_because_they_come_from_elsewhere() {
        "1-c740b4779-a0-789c636064".parse::<ResumeToken>().unwrap();
        for token in ["", "-t", "1-a b", "1-a\n", "none;"] {
            assert!(token.parse::<ResumeToken>().is_err(), "{token:?}");
        }
    }
}
