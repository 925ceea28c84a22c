//! Why an archive cannot be read.

use std::io;

/// An archive that is damaged, cut off, or made to be understood in two ways.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The stream below failed; its error says what it is (a wrong checksum, the network, a limit).
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It stops in the middle, or without the two blocks of zeros that end an archive.
    #[error("the archive is truncated: it stops without its end mark")]
    Truncated,
    /// Something follows its end.
    #[error("the archive has data after its end mark, which some programs would read and others not")]
    Trailing,
    /// A header that is none.
    #[error("the archive is damaged: a header has the wrong checksum")]
    Checksum,
    /// A field that cannot be read.
    #[error("entry {entry}: its {field} cannot be read")]
    Field {
        /// Path of the entry.
        entry: String,
        /// Which field.
        field: &'static str,
    },
    /// A type of entry that no root file system has.
    #[error("entry {entry} has type '{kind}', which no root file system has")]
    Kind {
        /// Path of the entry.
        entry: String,
        /// The type as it stands in the header.
        kind: char,
    },
    /// An extension header beyond any use.
    #[error("an extension header has {size} bytes, more than {limit}")]
    LongExtension {
        /// Its size.
        size: u64,
        /// The bound.
        limit: u64,
    },
    /// Extension headers without an entry.
    #[error("an entry has too many extension headers")]
    TooManyExtensions,
    /// An extension header that cannot be read.
    #[error("extension header {entry}: {reason}")]
    Extension {
        /// Its own path, or that of its entry.
        entry: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// A map of a sparse file that contradicts itself.
    #[error("entry {entry}: its map of a sparse file {reason}")]
    Sparse {
        /// Path of the entry.
        entry: String,
        /// What is wrong.
        reason: &'static str,
    },
}
