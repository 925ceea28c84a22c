//! Why a template could not be made, found, verified or removed.

use std::io;

use cryopod_checkpoint::fault::Injected;
use cryopod_checkpoint::kind::Kind;
use cryopod_checkpoint::store::{StoreError, zfs_kind};
use cryopod_zfs::{Error as ZfsError, NameError};

use crate::apply::{LayerError, Refusal};
use crate::digest::Digest;
use crate::source::{SourceError, stream_kind, tar_kind};
use crate::template::{MAX_RECORD, TemplateName};

/// An operation on templates failed.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// There is none of that name.
    #[error("there is no template '{name}' in {place}")]
    NotFound {
        /// What was asked for.
        name: TemplateName,
        /// Where.
        place: String,
    },
    /// The name is taken.
    #[error("template '{name}' exists already in {place}")]
    Exists {
        /// The name.
        name: TemplateName,
        /// Where.
        place: String,
    },
    /// Something lives on it.
    #[error("template '{name}' is in use by {}", users.join(", "))]
    InUse {
        /// The name.
        name: TemplateName,
        /// Containers, or datasets that are none of ours.
        users: Vec<String>,
    },
    /// Its record cannot be read.
    #[error("the record of template '{name}' is damaged: {reason}")]
    Record {
        /// The name.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// The image says more than a template keeps.
    #[error(
        "the image's configuration has {size} bytes, more than the {MAX_RECORD} that a template keeps (labels?)"
    )]
    TooLarge {
        /// Its size.
        size: usize,
    },
    /// It is not what it was when it was made.
    #[error("template '{name}' is damaged: {damage}")]
    Damaged {
        /// The name.
        name: TemplateName,
        /// What differs.
        damage: String,
    },
    /// A dataset in the way of a layer.
    #[error(
        "dataset {dataset} stands where layer {chain} belongs and is something else; rename or destroy it"
    )]
    Foreign {
        /// The dataset.
        dataset: String,
        /// The layer's chain.
        chain: Digest,
    },
    /// The image cannot be had.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A layer cannot be unpacked.
    #[error("layer {layer}: {source}")]
    Layer {
        /// Its diff_id.
        layer: Digest,
        /// Why not.
        source: LayerError,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// ZFS.
    #[error(transparent)]
    Zfs(#[from] ZfsError),
    /// A name that ZFS does not take.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A file of the directory store.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A test asked for it.
    #[error(transparent)]
    Fault(#[from] Injected),
}

impl TemplateError {
    /// How a caller should react.
    pub fn kind(&self) -> Kind {
        match self {
            Self::NotFound { .. } => Kind::NotFound,
            Self::Exists { .. } => Kind::AlreadyExists,
            Self::InUse { .. } | Self::Foreign { .. } => Kind::FailedPrecondition,
            Self::Record { .. } | Self::Damaged { .. } => Kind::DataLoss,
            Self::TooLarge { .. } => Kind::ResourceExhausted,
            Self::Source(error) => error.kind(),
            Self::Layer { source, .. } => layer_kind(source),
            Self::Store(error) => error.kind(),
            Self::Zfs(error) => zfs_kind(error),
            Self::Name(_) => Kind::InvalidArgument,
            Self::Io { source, .. } => Kind::from(source),
            Self::Fault(_) => Kind::Internal,
        }
    }

    pub(crate) fn io(action: &'static str, path: &std::path::Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.display().to_string();
        move |source| Self::Io { action, path, source }
    }
}

fn layer_kind(error: &LayerError) -> Kind {
    match error {
        LayerError::Refused { reason: Refusal::TooLong | Refusal::TooDeep, .. } => Kind::ResourceExhausted,
        LayerError::Refused { .. } => Kind::InvalidArgument,
        LayerError::Io { source, .. } => Kind::from(source),
        LayerError::TooMuch { .. } => Kind::ResourceExhausted,
        LayerError::Tar(error) => tar_kind(error),
        LayerError::Stream(error) => stream_kind(error),
    }
}
