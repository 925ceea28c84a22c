//! What ZFS has: datasets, snapshots, bookmarks, holds and pools, as read at one moment.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{
    BookmarkName, DatasetName, EffectiveProperties, HoldTag, Name, PoolName, ResumeToken, SnapshotName,
};

/// The identity of a dataset, snapshot or bookmark; a received snapshot keeps the guid of its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Guid(pub u64);

/// The transaction group in which something was created: order within one pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Txg(pub u64);

/// An amount of space.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Bytes(pub u64);

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Txg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(&str, u32); 4] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
        for (unit, shift) in UNITS {
            if self.0 >> shift > 0 {
                let tenths = (u128::from(self.0) * 10) >> shift;
                return write!(f, "{}.{} {unit}", tenths / 10, tenths % 10);
            }
        }
        write!(f, "{} B", self.0)
    }
}

/// What a dataset is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// It can be mounted.
    Filesystem,
    /// It is a block device.
    Volume,
}

/// Where a file system is mounted by `zfs mount`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mountpoint {
    /// At this path.
    Path(PathBuf),
    /// Only by mount(2), wherever the caller likes.
    Legacy,
    /// Nowhere.
    None,
}

impl Mountpoint {
    /// The path, where there is one.
    pub fn path(&self) -> Option<&std::path::Path> {
        match self {
            Self::Path(path) => Some(path),
            Self::Legacy | Self::None => None,
        }
    }
}

/// A file system or volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dataset {
    /// Its name now; a rename changes it.
    pub name: DatasetName,
    /// File system or volume.
    pub kind: Kind,
    /// Its identity.
    pub guid: Guid,
    /// When it was created, as order.
    pub createtxg: Txg,
    /// When it was created, in seconds since 1970: for people only.
    pub creation: u64,
    /// The snapshot that it is a clone of.
    pub origin: Option<SnapshotName>,
    /// Space that it, its snapshots and everything below it hold alone.
    pub used: Bytes,
    /// Space that its current state refers to, shared or not.
    pub referenced: Bytes,
    /// Space that can still be written.
    pub available: Bytes,
    /// Where `zfs mount` would put it; None for volumes.
    pub mountpoint: Option<Mountpoint>,
    /// Whether it is mounted in *this* mount namespace; `Zfs::mounts` looks at all of them.
    pub mounted: bool,
    /// Size of a volume.
    pub volsize: Option<Bytes>,
    /// Set when an interrupted receive can be resumed.
    pub resume_token: Option<ResumeToken>,
    /// The other properties that were asked for.
    pub properties: EffectiveProperties,
}

/// A snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Its name now.
    pub name: SnapshotName,
    /// Its identity, kept by send and receive.
    pub guid: Guid,
    /// When it was taken, as order; snapshots of one atomic call have the same.
    pub createtxg: Txg,
    /// When it was taken, in seconds since 1970: for people only.
    pub creation: u64,
    /// Space that is freed when it alone is destroyed.
    pub used: Bytes,
    /// Space that it refers to, shared or not.
    pub referenced: Bytes,
    /// How many holds keep it.
    pub userrefs: u64,
    /// The datasets that are clones of it.
    pub clones: Vec<DatasetName>,
    /// Whether it goes as soon as its last hold or clone goes.
    pub defer_destroy: bool,
    /// The other properties that were asked for.
    pub properties: EffectiveProperties,
}

/// A bookmark: the point in time of a snapshot without its data, enough as a base of incremental sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bookmark {
    /// Its name.
    pub name: BookmarkName,
    /// The guid of the snapshot that it was made of.
    pub guid: Guid,
    /// The txg of that snapshot.
    pub createtxg: Txg,
    /// When that snapshot was taken, in seconds since 1970: for people only.
    pub creation: u64,
}

/// One item of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A file system or volume.
    Dataset(Dataset),
    /// A snapshot.
    Snapshot(Snapshot),
    /// A bookmark.
    Bookmark(Bookmark),
}

impl Entry {
    /// Its name.
    pub fn name(&self) -> Name {
        match self {
            Self::Dataset(dataset) => Name::from(&dataset.name),
            Self::Snapshot(snapshot) => Name::from(&snapshot.name),
            Self::Bookmark(bookmark) => Name::from(&bookmark.name),
        }
    }

    /// Its identity.
    pub fn guid(&self) -> Guid {
        match self {
            Self::Dataset(dataset) => dataset.guid,
            Self::Snapshot(snapshot) => snapshot.guid,
            Self::Bookmark(bookmark) => bookmark.guid,
        }
    }

    /// Its place in the order of its pool.
    pub fn createtxg(&self) -> Txg {
        match self {
            Self::Dataset(dataset) => dataset.createtxg,
            Self::Snapshot(snapshot) => snapshot.createtxg,
            Self::Bookmark(bookmark) => bookmark.createtxg,
        }
    }

    /// The dataset, if it is one.
    pub fn into_dataset(self) -> Option<Dataset> {
        if let Self::Dataset(dataset) = self { Some(dataset) } else { None }
    }

    /// The snapshot, if it is one.
    pub fn into_snapshot(self) -> Option<Snapshot> {
        if let Self::Snapshot(snapshot) = self { Some(snapshot) } else { None }
    }
}

/// A hold on a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hold {
    /// The snapshot that cannot be destroyed.
    pub snapshot: SnapshotName,
    /// Whose the hold is.
    pub tag: HoldTag,
}

/// How a pool is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Health {
    /// All is well.
    Online,
    /// It works, with less redundancy.
    Degraded,
    /// Devices or data are lost.
    Faulted,
    /// An administrator took it offline.
    Offline,
    /// Devices cannot be opened.
    Unavailable,
    /// Devices were removed.
    Removed,
    /// Every write waits until `zpool clear`.
    Suspended,
    /// A state that this version of cryopod does not know.
    Unknown,
}

/// A pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// Its name.
    pub name: PoolName,
    /// Its identity.
    pub guid: Guid,
    /// All its space.
    pub size: Bytes,
    /// Space in use.
    pub allocated: Bytes,
    /// Space free, before redundancy and reserves.
    pub free: Bytes,
    /// How it is.
    pub health: Health,
    /// Whether it was imported read-only.
    pub read_only: bool,
}

/// What `zpool status` says of one pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolStatus {
    /// Its name.
    pub name: PoolName,
    /// How it is.
    pub health: Health,
    /// What is wrong, in the tool's words; empty when nothing is.
    pub status: String,
    /// What the tool says should be done; empty when nothing is wrong.
    pub action: String,
    /// How many files or objects have lost data.
    pub data_errors: u64,
}

/// Versions of the tool and of the kernel module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// The tool as it names itself, `zfs-2.3.9-1`.
    pub userland: String,
    /// The module as it names itself, `zfs-kmod-2.3.9-1`; empty when it is not loaded.
    pub kernel: String,
    /// (major, minor) of the tool.
    pub number: (u32, u32),
}

impl Version {
    /// Whether `zfs get` and `zpool list` have `-j` (since 2.3).
    pub fn has_json(&self) -> bool {
        self.number >= (2, 3)
    }
}

#[cfg(test)]
mod tests {
    use super::Bytes;

    #[test]
    fn space_is_shown_in_units_people_read() {
        let shown = |n| Bytes(n).to_string();
        assert_eq!(
            [shown(0), shown(1023), shown(1536), shown(21 << 30)],
            ["0 B", "1023 B", "1.5 KiB", "21.0 GiB"]
        );
        assert_eq!(shown(u64::MAX), "16777215.9 TiB");
    }
}
