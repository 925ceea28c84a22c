//! Why an image cannot be had.

use std::io;
use std::path::{Path, PathBuf};

use cryopod_checkpoint::kind::Kind;
use cryopod_command::Stop;

use crate::digest::{Digest, NoDigest};
use crate::stream::StreamError;
use crate::tar::TarError;

/// An image that is not there, not what it says, or not for this machine.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The name of an image cannot be read.
    #[error("'{name}' is no image: {reason}")]
    Name {
        /// What was given.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A file or directory cannot be read.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A blob cannot be read.
    #[error("cannot read blob {digest}: {source}")]
    Blob {
        /// Which one.
        digest: Digest,
        /// What was said.
        source: io::Error,
    },
    /// A blob is not there.
    #[error("blob {digest} is not in {place}")]
    NoBlob {
        /// Which one.
        digest: Digest,
        /// Where it was looked for.
        place: String,
    },
    /// An archive cannot be read.
    #[error("archive {}: {source}", path.display())]
    Archive {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: TarError,
    },
    /// A compressed archive cannot be read.
    #[error("archive {}: {source}", path.display())]
    Stream {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: StreamError,
    },
    /// An archive that contradicts itself or lacks something.
    #[error("archive {}: {reason}", path.display())]
    Odd {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Several images, or none of that name.
    #[error("{} has {there}; say which one: append :NAME", path.display())]
    Which {
        /// The archive or layout.
        path: PathBuf,
        /// What is there.
        there: String,
    },
    /// containerd could not be asked.
    #[error("cannot ask containerd: {0}")]
    Containerd(#[source] Box<cryopod_command::Error>),
    /// containerd does not have it.
    #[error(
        "containerd has no image '{reference}' in namespace {namespace}; `ctr -n {namespace} images ls` lists them"
    )]
    NoImage {
        /// What was asked for.
        reference: String,
        /// Where.
        namespace: String,
    },
    /// A registry said no, or nothing.
    #[error("registry {registry}: {action}: {said}")]
    Registry {
        /// Host and port.
        registry: String,
        /// What was tried.
        action: String,
        /// What was said.
        said: String,
        /// How a caller should react.
        kind: Kind,
    },
    /// A digest that cannot be read.
    #[error(transparent)]
    Digest(#[from] NoDigest),
    /// A manifest, index or configuration that makes no sense.
    #[error("the image's document {digest} is refused: {reason}")]
    Manifest {
        /// Which one.
        digest: Digest,
        /// What is wrong.
        reason: String,
    },
    /// A media type that is not for us.
    #[error("a {what} of type '{kind}' is not supported")]
    MediaType {
        /// What it is.
        what: &'static str,
        /// Its type.
        kind: String,
    },
    /// An index in an index in an index.
    #[error("the image's index is nested too deeply")]
    Nesting,
    /// Not for this machine.
    #[error("the image is for {there} and not for {wanted}")]
    Platform {
        /// What it is for.
        there: String,
        /// What this machine is.
        wanted: String,
    },
    /// Not what was asked for.
    #[error(
        "a document has digest {found}, and {expected} was asked for: it was changed or damaged on its way"
    )]
    Changed {
        /// What was asked for.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// Deadline or cancel.
    #[error("stopped ({0:?})")]
    Stopped(Stop),
}

impl SourceError {
    /// How a caller should react.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Name { .. } | Self::Which { .. } => Kind::InvalidArgument,
            Self::Io { source, .. } => Kind::from(source),
            Self::Blob { .. } | Self::Containerd(_) => Kind::Unavailable,
            Self::NoBlob { .. } | Self::NoImage { .. } => Kind::NotFound,
            Self::Archive { source, .. } => tar_kind(source),
            Self::Stream { source, .. } => stream_kind(source),
            Self::Registry { kind, .. } => *kind,
            Self::Odd { .. } | Self::Digest(_) | Self::Manifest { .. } | Self::Nesting => {
                Kind::InvalidArgument
            }
            Self::MediaType { .. } | Self::Platform { .. } => Kind::Unimplemented,
            Self::Changed { .. } => Kind::DataLoss,
            Self::Stopped(stop) => Kind::from(*stop),
        }
    }

    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}

/// How a caller should react to an archive that cannot be read.
pub(crate) fn tar_kind(error: &TarError) -> Kind {
    match error {
        TarError::Io(source) => Kind::from(source),
        TarError::Truncated | TarError::Checksum => Kind::DataLoss,
        TarError::LongExtension { .. } | TarError::TooManyExtensions => Kind::ResourceExhausted,
        TarError::Trailing
        | TarError::Field { .. }
        | TarError::Kind { .. }
        | TarError::Extension { .. }
        | TarError::Sparse { .. } => Kind::InvalidArgument,
    }
}

/// How a caller should react to a stream that cannot be read.
pub(crate) fn stream_kind(error: &StreamError) -> Kind {
    match error {
        StreamError::Io(source) => Kind::from(source),
        StreamError::Compression(_) | StreamError::Digest { .. } | StreamError::DiffId { .. } => {
            Kind::DataLoss
        }
        StreamError::Trailing => Kind::InvalidArgument,
        StreamError::Unsupported(_) => Kind::Unimplemented,
        StreamError::TooMuch(_) => Kind::ResourceExhausted,
        StreamError::Stopped(stop) => Kind::from(*stop),
    }
}
