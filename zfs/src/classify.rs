//! From the tool's words to the error taxonomy: the only place that looks at error texts.
//!
//! The texts are those of libzfs (`libzfs_util.c`, `libzfs_sendrecv.c`, `libzfs_dataset.c`, `zfs_main.c`) in the C
//! locale, the same from 2.1 to 2.4. The table is ordered: the first row that fits decides, so what is
//! particular stands above what is general. What fits no row is `Unknown`. Names are taken out before (`prose`), so
//! that none of them is read as a reason.

mod prose;
#[cfg(test)]
mod tests;

use cryopod_command::Error as CommandError;

use crate::error::Op;
use crate::{Error, Holders, parse};

/// What a text means, before it is known on what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    BaseMissing,
    Busy,
    CrossesPools,
    Diverged,
    Encryption,
    Exists,
    HasDependents,
    HoldExists,
    HoldMissing,
    InvalidProperty,
    IvsetMismatch,
    NoSpace,
    NotAClone,
    NotFound,
    NotLatest,
    Permission,
    PoolMissing,
    PoolSuspended,
    ReadOnly,
    ResumeExists,
    StreamCorrupt,
    StreamTruncated,
    Unsupported,
}

use Meaning as M;

/// Texts as `prose` leaves them: in lower case, with line breaks as spaces and without what stood in quotes.
const TABLE: &[(&str, Meaning)] = &[
    ("i/o is currently suspended", M::PoolSuspended),
    ("permission denied", M::Permission),
    ("must be superuser", M::Permission),
    // Receive.
    ("contains partially-complete state", M::ResumeExists),
    ("resuming recv on existing dataset", M::ResumeExists),
    ("iv set guid", M::IvsetMismatch),
    ("partially received snapshot is saved", M::StreamTruncated),
    ("incomplete stream", M::StreamTruncated),
    ("failed to read from stream", M::StreamTruncated),
    ("does not match incremental source", M::BaseMissing),
    ("local origin for clone", M::BaseMissing),
    ("specified origin fs", M::BaseMissing),
    ("cannot receive incremental stream: destination '", M::BaseMissing),
    ("has been modified since most recent snapshot", M::Diverged),
    ("must specify -f to overwrite", M::Exists),
    ("must destroy", M::Exists),
    ("destination already exists", M::Exists),
    ("checksum mismatch", M::StreamCorrupt),
    ("invalid stream", M::StreamCorrupt),
    ("invalid backup stream", M::StreamCorrupt),
    ("resume token is corrupt", M::StreamCorrupt),
    ("space quota exceeded", M::NoSpace),
    ("key must be loaded", M::Encryption),
    ("keys must be loaded", M::Encryption),
    ("key is not loaded", M::Encryption),
    ("encryption key not loaded", M::Encryption),
    ("encryption key does not match", M::Encryption),
    ("failed to create encryption key", M::Encryption),
    ("encryption failure", M::Encryption),
    ("encryption feature not enabled", M::Encryption),
    ("encryption must be turned on", M::Encryption),
    ("encryption properties must inherit", M::Encryption),
    ("encryption property '' cannot", M::Encryption),
    ("unsupported encryption suite", M::Encryption),
    ("new encryption root", M::Encryption),
    ("outside of its encryption root", M::Encryption),
    ("may only be set on encryption roots", M::Encryption),
    ("is not encrypted", M::Encryption),
    ("existing unencrypted dataset", M::Encryption),
    ("an encrypted filesystem or overwrite", M::Encryption),
    ("without the raw flag", M::Encryption),
    // Send.
    ("incremental source", M::BaseMissing),
    ("not an earlier snapshot", M::BaseMissing),
    ("used in the initial send no longer exists", M::NotFound),
    // Everything else.
    ("has dependent clones", M::HasDependents),
    ("has children", M::HasDependents),
    ("snapshot is cloned", M::HasDependents),
    ("more recent snapshots or bookmarks exist", M::NotLatest),
    ("clones of previous snapshots exist", M::NotLatest),
    ("snapshot or bookmark more recent than", M::NotLatest),
    ("tag already exists", M::HoldExists),
    ("no such tag on this dataset", M::HoldMissing),
    ("not a cloned filesystem", M::NotAClone),
    ("out of space", M::NoSpace),
    ("no space left", M::NoSpace),
    ("is busy", M::Busy),
    ("it's being held", M::Busy),
    ("device or resource busy", M::Busy),
    ("pool is read-only", M::ReadOnly),
    ("dataset is read-only", M::ReadOnly),
    ("read-only file system", M::ReadOnly),
    ("crosses datasets or pools", M::CrossesPools),
    ("must be within same pool", M::CrossesPools),
    ("source and target pools differ", M::CrossesPools),
    ("no such pool or dataset", M::NotFound),
    ("no such pool", M::PoolMissing),
    ("already exists", M::Exists),
    ("bookmark exists", M::Exists),
    ("pool or dataset exists", M::Exists),
    ("conflicting snapshot", M::Exists),
    ("does not exist", M::NotFound),
    ("could not find any snapshots to destroy", M::NotFound),
    ("no such parent", M::NotFound),
    ("invalid property", M::InvalidProperty),
    ("must be one of", M::InvalidProperty),
    ("bad numeric value", M::InvalidProperty),
    ("read-only property", M::InvalidProperty),
    ("invalid quota", M::InvalidProperty),
    ("property doesn't apply", M::InvalidProperty),
    ("property cannot be inherited", M::InvalidProperty),
    ("specified multiple times", M::InvalidProperty),
    ("legacy mountpoint", M::Unsupported),
    ("no mountpoint set", M::Unsupported),
    ("'' property is set to ''", M::Unsupported),
    ("not supported", M::Unsupported),
    ("does not support", M::Unsupported),
    ("unsupported", M::Unsupported),
    ("must be upgraded", M::Unsupported),
    ("operation not applicable", M::Unsupported),
    ("operation does not apply", M::Unsupported),
    ("zfs modules", M::Unsupported),
];

/// Whether a command failed with that in its words, names apart.
pub(crate) fn says(error: &CommandError, phrase: &str) -> bool {
    match error {
        CommandError::Failed { argv, stderr, .. } => prose::prose(argv.words(), stderr).contains(phrase),
        _ => false,
    }
}

/// The error that a text on stderr means; without holders and without a look at the pool, which need calls.
/// `words` is the command line, for the names in it.
pub(crate) fn classify(op: &Op, words: &[String], stderr: &str) -> Error {
    let prose = prose::prose(words, stderr);
    let Some((text, meaning)) = TABLE.iter().find(|(text, _)| prose.contains(text)) else {
        return Error::Unknown { op: op.clone(), said: said(stderr) };
    };
    let op = op.clone();
    match meaning {
        M::BaseMissing => Error::BaseMissing { op, said: said(stderr) },
        M::Busy => Error::Busy { op, holders: Box::new(Holders::default()) },
        M::CrossesPools => Error::CrossesPools { op },
        M::Diverged => Error::Diverged { op },
        M::Encryption => Error::Encryption { op, said: said(stderr) },
        M::Exists => Error::Exists { name: quoted(stderr).unwrap_or_else(|| op.name.clone()), op },
        M::HasDependents => Error::HasDependents { op, dependents: listed(stderr) },
        M::HoldExists => match tag_of(&op) {
            Some(tag) => Error::HoldExists { op, tag },
            None => Error::Unknown { op, said: said(stderr) },
        },
        M::HoldMissing => {
            let snapshot = quoted(stderr).and_then(|name| name.parse().ok());
            match snapshot.zip(tag_of(&op)) {
                Some((snapshot, tag)) => Error::HoldMissing { op, snapshot, tag },
                None => Error::Unknown { op, said: said(stderr) },
            }
        }
        M::InvalidProperty => Error::InvalidProperty { op, said: said(stderr) },
        M::IvsetMismatch => Error::IvsetMismatch { op, said: said(stderr) },
        M::NoSpace => Error::NoSpace { op, quota: text.contains("quota") },
        M::NotAClone => Error::NotAClone { op },
        M::NotFound => Error::NotFound { name: quoted(stderr).unwrap_or_else(|| op.name.clone()), op },
        M::NotLatest => Error::NotLatest { op, newer: listed(stderr) },
        M::Permission => Error::Permission { op },
        M::PoolMissing => Error::PoolMissing { op },
        M::PoolSuspended => Error::PoolSuspended { op },
        M::ReadOnly => Error::ReadOnly { op },
        M::ResumeExists => Error::ResumeExists { op },
        M::StreamCorrupt => Error::StreamCorrupt { op, said: said(stderr) },
        M::StreamTruncated => Error::StreamTruncated { op, token: parse::resume_token(stderr) },
        M::Unsupported => Error::Unsupported { op, said: said(stderr) },
    }
}

/// Holds are put by "hold SNAPSHOT with tag TAG", see `cli::zfs::holding`.
fn tag_of(op: &Op) -> Option<crate::HoldTag> {
    op.name.rsplit_once(" with tag ")?.1.parse().ok()
}

/// The name in quotes, or in brackets, of the first line that has one.
fn quoted(stderr: &str) -> Option<String> {
    let between = |line: &str, open: char, close: char| {
        let (_, rest) = line.split_once(open)?;
        rest.split_once(close).map(|(name, _)| name.to_owned())
    };
    stderr.lines().find_map(|line| between(line, '\'', '\'').or_else(|| between(line, '(', ')')))
}

/// The names that follow "use '-r' to destroy the following datasets:".
fn listed(stderr: &str) -> Vec<String> {
    let mut lines = stderr.lines().skip_while(|line| !line.trim_end().ends_with(':'));
    lines.next();
    lines.map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// What was said, in one line and without the usage text that follows some errors.
fn said(stderr: &str) -> String {
    let lines = stderr.lines().take_while(|line| !line.starts_with("usage:"));
    let joined = lines.map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
    if joined.is_empty() { "no reason given".to_owned() } else { joined }
}
