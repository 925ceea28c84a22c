//! Shipping: a checkpoint as one stream, to a file, a pipe or another node.
//!
//! ```text
//! magic "CRYOPOD-EXPORT\n\0" (16)  version:u32 = 1      numbers are little-endian
//! section 'M'  the manifest                              ≤ 16 MiB, as everywhere
//! section 'I'* one per image file, in the manifest's order, exactly as long as the manifest says
//! section 'T'* one per copied disk (tree::codec), in the manifest's order, contents as long as the manifest says
//! section 'B'? before the first disk that needs it: zfs send of the base; may be left out
//! section 'Z'* one per ZFS disk: zfs send, incremental from its base
//! 'E'  SHA-256 of everything before
//!
//! section := tag:u8 name:(u16,bytes ≤ 512) chunk* 0:u32 SHA-256 of the chunks' data
//! chunk   := length:u32 (1 ..= 1 MiB, the most that is held in memory) data
//! ```
//!
//! The order is fixed by the manifest, so a reader needs no seeking and accepts nothing twice. All of it is hostile
//! input: [`import`] writes into an invisible draft, compares hashes and guids with the manifest, and commits after the
//! last byte; a stream that ends early, is changed or lies leaves nothing. A base from a stream is never shared with
//! other checkpoints unless the caller trusts its sender, since it could pass for an image of this node.

mod export;
mod format;
mod import;
#[cfg(test)]
mod tests;

use std::io;

use cryopod_command::Stop;

use crate::fault::Injected;
use crate::id::CheckpointId;
use crate::journal::JournalError;
use crate::kind::Kind;
use crate::lock::LockError;
use crate::manifest::ManifestError;
use crate::settle::SettleError;
use crate::store::StoreError;
use crate::tree::TreeError;

pub use export::{ExportOptions, Exported, export};
pub use import::{ImportOptions, import};

/// An export or import that failed; an import leaves nothing.
#[derive(Debug, thiserror::Error)]
pub enum ShipError {
    /// The stream is not one of ours, or was changed on the way.
    #[error("the stream is damaged: {0}")]
    Damaged(&'static str),
    /// The stream ended before its end mark.
    #[error("the stream ended early; transfer it again")]
    Truncated,
    /// A newer format.
    #[error("the stream has version {0}, this program reads version 1: use a newer cryopod")]
    Version(u32),
    /// Its manifest is not acceptable.
    #[error("the stream: {0}")]
    Manifest(#[from] ManifestError),
    /// Its disks are ZFS snapshots.
    #[error("checkpoint {id} holds ZFS snapshots and needs the ZFS store: set store.kind to \"zfs\"")]
    NeedsZfs {
        /// Which one.
        id: CheckpointId,
    },
    /// It was exported without the image it is incremental from.
    #[error("the stream has no base and base {guid} is not in this store: export it with its bases")]
    BaseMissing {
        /// Guid of the base snapshot.
        guid: u64,
    },
    /// A stream arrived as something else than the manifest says.
    #[error("disk {disk} of the stream is not the snapshot that its manifest names")]
    WrongGuid {
        /// The disk.
        disk: String,
    },
    /// The other side of the stream failed.
    #[error("cannot {action} the stream: {source}")]
    Io {
        /// `read` or `write`.
        action: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The store could not.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It had to be settled first, which failed.
    #[error(transparent)]
    Settle(#[from] SettleError),
    /// The journal could not.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Deadline or cancel.
    #[error("the transfer was stopped ({0:?})")]
    Stopped(Stop),
}

impl ShipError {
    /// How a caller should react.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Damaged(_) | Self::Truncated | Self::WrongGuid { .. } => Kind::DataLoss,
            Self::Version(_) => Kind::Unimplemented,
            Self::Manifest(error) => error.kind(),
            Self::NeedsZfs { .. } | Self::BaseMissing { .. } => Kind::FailedPrecondition,
            Self::Io { source, .. } => Kind::from(source),
            Self::Store(error) => error.kind(),
            Self::Settle(error) => error.kind(),
            Self::Journal(error) => error.kind(),
            Self::Stopped(stop) => Kind::from(*stop),
        }
    }
}

macro_rules! by_store {
    ($($source:ty),*) => {$(
        impl From<$source> for ShipError {
            fn from(error: $source) -> Self {
                Self::Store(StoreError::from(error))
            }
        }
    )*};
}
by_store!(cryopod_zfs::Error, cryopod_zfs::NameError, LockError, Injected, TreeError);

/// The beginning of a stream with this manifest, for fuzzing what follows it.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn head(manifest: &[u8]) -> Result<Vec<u8>, ShipError> {
    use io::Write as _;
    let mut stream = Vec::new();
    let mut writer = format::Writer::new(&mut stream)?;
    writer.section(format::Tag::Manifest, "", |section| -> Result<(), ShipError> {
        section.write_all(manifest).map_err(|source| ShipError::Io { action: "write", source })
    })?;
    drop(writer);
    Ok(stream)
}
