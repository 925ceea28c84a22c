//! The manifest: the small JSON that makes a capture a checkpoint. Written last, never changed.
//!
//! ```text
//! manifest.json  (UTF-8 JSON, ≤ 16 MiB: a pod of 256 containers with 64 KiB of spec each fits)
//! ├ version 1, id, created (RFC 3339), tool, mode full|disk, memory_refused?, pod, labels, tcp
//! ├ node      facts of the capturing node: kernel, CPU flags, CRIU …
//! ├ timeline  where the time went
//! └ members[] one per container, in start order
//!   ├ member   identity, image, runtime, OCI spec, where its disks were
//!   ├ disks[]  one per member.disks, same names, same order: a ZFS snapshot by guid, a copied tree by
//!   │          digest, or "shared": the same source as a disk of an earlier member
//!   └ memory?  rounds in order (the last is the dump), and every file with size and SHA-256
//! ```
//!
//! It is read from foreign streams too, so [`Manifest::parse`] accepts nothing it does not know and no path that
//! is more than plain relative components. Nothing in it configures a restore: that comes from the live request.

mod check;
mod guid_text;
#[cfg(test)]
pub(crate) mod samples;

use std::collections::BTreeMap;
use std::net::IpAddr;

use cryopod_zfs::Guid;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::digest::Sha256;
use crate::facts::NodeFacts;
use crate::id::{CheckpointId, NameError};
use crate::info::Summary;
use crate::kind::Kind;
use crate::refusal::Refusal;
use crate::target::{Member, PodIdentity, TcpPolicy};
use crate::timeline::Timeline;

/// The version that this program writes and the only one that exists.
pub const VERSION: u32 = 1;
/// Longest manifest in bytes (see the picture).
pub const MAX_BYTES: usize = 16 << 20;
/// File name below the checkpoint's content directory.
pub const FILE_NAME: &str = "manifest.json";

/// What was captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CapturedMode {
    /// Memory and disk, one instant.
    Full,
    /// Disk alone, one instant.
    Disk,
}

/// One image file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRecord {
    /// `<round>/<file>`, below the member's image directory.
    pub path: String,
    /// Length in bytes.
    pub size: u64,
    /// Hash of the contents.
    pub sha256: Sha256,
}

/// The memory of one container: `images/<member>/<round>/<file>` below the content directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemoryRecord {
    /// Image directories in the order of their making; each is the parent of the next, the last is the dump.
    pub rounds: Vec<String>,
    /// Every file of every round.
    pub files: Vec<FileRecord>,
    /// CRIU's own frozen time of the dump.
    pub frozen_us: u64,
    /// Own addresses of the established TCP connections in its network, see [`crate::target::DumpStats`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connected: Option<Vec<IpAddr>>,
}

/// Where the contents of a disk are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
pub enum DiskContent {
    /// A ZFS snapshot: at its source until settled, then in the store; found by guid.
    Zfs {
        /// Snapshot name, the part after `@`.
        snapshot: String,
        /// Guid of the snapshot, the same wherever it is sent.
        #[serde(with = "guid_text")]
        guid: Guid,
        /// Guid of the origin snapshot of its dataset: the image it is incremental from.
        #[serde(with = "guid_text::option")]
        base: Option<Guid>,
        /// Bytes that it refers to.
        referenced_bytes: u64,
    },
    /// Files copied into `disks/<member>-<disk>` below the content directory.
    Tree {
        /// Sum of the file contents in bytes.
        bytes: u64,
        /// Files, directories and the rest.
        entries: u64,
        /// Hash over the tree's canonical encoding (`tree::codec`), metadata included.
        sha256: Sha256,
        /// True for the writable layer of an overlay mount: whiteouts in it mean deletions.
        layer: bool,
    },
    /// The same source as a disk of an earlier member, captured with that.
    Shared {
        /// Earlier member.
        member: String,
        /// Its disk.
        disk: String,
    },
}

/// One captured disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskRecord {
    /// Name of the disk in its member.
    pub name: String,
    /// Where its contents are.
    pub content: DiskContent,
}

/// One captured container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemberRecord {
    /// The container as it ran.
    pub member: Member,
    /// Its disks, as in `member.disks`.
    pub disks: Vec<DiskRecord>,
    /// Its memory; None in a disk-only checkpoint.
    pub memory: Option<MemoryRecord>,
}

impl MemberRecord {
    /// A disk with its contents, by name.
    pub fn disk(&self, name: &str) -> Option<&DiskRecord> {
        self.disks.iter().find(|disk| disk.name == name)
    }
}

/// Everything that is known about a checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Format version.
    pub version: u32,
    /// Checkpoint id.
    pub id: CheckpointId,
    /// When the capture began.
    pub created: Timestamp,
    /// Program and version that made it.
    pub tool: String,
    /// What was captured.
    pub mode: CapturedMode,
    /// Why mode `auto` took the disk alone.
    pub memory_refused: Option<Refusal>,
    /// Whose it is.
    pub pod: PodIdentity,
    /// Labels of the caller.
    pub labels: BTreeMap<String, String>,
    /// What was asked for established TCP connections.
    pub tcp: TcpPolicy,
    /// The capturing node.
    pub node: NodeFacts,
    /// Where the time went.
    pub timeline: Timeline,
    /// The containers.
    pub members: Vec<MemberRecord>,
}

/// A manifest that is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Longer than any manifest of ours.
    #[error("the manifest is longer than {MAX_BYTES} bytes")]
    TooLong,
    /// Not JSON, or not of the documented shape.
    #[error("the manifest cannot be read: {0}")]
    Json(#[from] serde_json::Error),
    /// Written by a newer program.
    #[error("the manifest has version {0}, this program reads version {VERSION}: use a newer cryopod")]
    Version(u32),
    /// A name that could leave its directory.
    #[error("the manifest names {place}: {source}")]
    Name {
        /// Where it stands.
        place: String,
        /// What is wrong with it.
        source: NameError,
    },
    /// More of something than any checkpoint has.
    #[error("the manifest has {count} {what}, at most {max} are accepted")]
    TooMany {
        /// What.
        what: &'static str,
        /// How many there are.
        count: usize,
        /// How many are accepted.
        max: usize,
    },
    /// Sizes that no node has.
    #[error("the manifest lists {size} bytes in {member}, which with all before make more than {max}")]
    TooLarge {
        /// Whose file or disk passes the bound.
        member: String,
        /// Its size in bytes.
        size: u64,
        /// The bound in bytes.
        max: u64,
    },
    /// Parts that contradict each other.
    #[error("the manifest contradicts itself: {0}")]
    Contradiction(Contradiction),
}

/// In what a manifest contradicts itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each message says it")]
pub enum Contradiction {
    #[error("two members are called {0}")]
    MemberTwice(String),
    #[error("two disks are stored as {0}")]
    DiskTwice(String),
    #[error("snapshot {0} is not named after the checkpoint")]
    Snapshot(String),
    #[error("file {0} is listed twice")]
    FileTwice(String),
    #[error("the disks of member {0} are not those of its contents")]
    Disks(String),
    #[error("disk {0} is shared with one that is not before it")]
    Shared(String),
    #[error("member {0} has memory in a disk-only checkpoint, or none in a full one")]
    Memory(String),
    #[error("member {0} has memory without a dump")]
    NoRounds(String),
    #[error("image file {0} is in no round")]
    Stray(String),
    #[error("it has no member")]
    Empty,
}

impl ManifestError {
    /// How a caller should react.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Version(_) => Kind::Unimplemented,
            _ => Kind::DataLoss,
        }
    }
}

/// Only the version, whatever else there is.
#[derive(Deserialize)]
struct VersionOnly {
    version: u32,
}

impl Manifest {
    /// Reads and checks a manifest from anywhere; everything that is not known, bounded and consistent is refused.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        if bytes.len() > MAX_BYTES {
            return Err(ManifestError::TooLong);
        }
        // First the version, so that a newer format is called newer and not damaged.
        let VersionOnly { version } = serde_json::from_slice(bytes)?;
        if version != VERSION {
            return Err(ManifestError::Version(version));
        }
        let manifest: Self = serde_json::from_slice(bytes)?;
        manifest.check()?;
        Ok(manifest)
    }

    /// The bytes that are stored; checked like those that are read, so that nothing unreadable is ever written.
    pub fn to_bytes(&self) -> Result<Vec<u8>, ManifestError> {
        self.check()?;
        let bytes = serde_json::to_vec_pretty(self)?;
        if bytes.len() > MAX_BYTES { Err(ManifestError::TooLong) } else { Ok(bytes) }
    }

    /// One member by name.
    pub fn member(&self, name: &str) -> Option<&MemberRecord> {
        self.members.iter().find(|record| record.member.name == name)
    }

    /// Every disk that is stored (not merely shared), with its stored name.
    pub fn stored_disks(&self) -> impl Iterator<Item = (String, &MemberRecord, &DiskRecord)> {
        self.members.iter().flat_map(|record| {
            record
                .disks
                .iter()
                .filter(|disk| !matches!(disk.content, DiskContent::Shared { .. }))
                .map(move |disk| (stored_name(&record.member.name, &disk.name), record, disk))
        })
    }

    /// The disk that holds the contents: itself, or the one it is shared with.
    pub fn resolve<'a>(
        &'a self,
        record: &'a MemberRecord,
        disk: &'a DiskRecord,
    ) -> Option<(&'a MemberRecord, &'a DiskRecord)> {
        match &disk.content {
            DiskContent::Shared { member, disk } => {
                let record = self.member(member)?;
                Some((record, record.disk(disk)?))
            }
            DiskContent::Zfs { .. } | DiskContent::Tree { .. } => Some((record, disk)),
        }
    }

    /// What a list shows.
    pub fn summary(&self) -> Summary {
        let files = self.members.iter().filter_map(|record| record.memory.as_ref());
        let images =
            files.flat_map(|memory| &memory.files).fold(0, |sum: u64, file| sum.saturating_add(file.size));
        let (mut copied, mut disks) = (0_u64, 0_u64);
        for (_, _, disk) in self.stored_disks() {
            match disk.content {
                DiskContent::Zfs { referenced_bytes, .. } => disks = disks.saturating_add(referenced_bytes),
                DiskContent::Tree { bytes, .. } => {
                    copied = copied.saturating_add(bytes);
                    disks = disks.saturating_add(bytes);
                }
                DiskContent::Shared { .. } => {}
            }
        }
        Summary {
            created: self.created,
            mode: self.mode,
            pod: self.pod.clone(),
            members: self.members.iter().map(|record| record.member.name.clone()).collect(),
            memory_bytes: images.saturating_add(copied),
            disk_bytes: disks,
        }
    }
}

/// Name of a stored disk: a dataset component below the checkpoint, or a directory below `disks`.
pub fn stored_name(member: &str, disk: &str) -> String {
    format!("{member}-{disk}")
}
