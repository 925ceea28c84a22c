//! Every way in which a ZFS call fails, as one enum that callers can act on.
//!
//! Only `NotFound` means absent. What the tool says and this crate does not know is `Unknown`, with the
//! tool's words; nothing above this crate looks at text.

use std::fmt;
use std::time::Duration;

use cryopod_command as command;

use crate::{HoldTag, Holders, MountHolder, NameError, ResumeToken, SnapshotName};

/// What was tried, on what: "destroy tank/a".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Op {
    /// The verb, "destroy".
    pub verb: &'static str,
    /// The name it was tried on.
    pub name: String,
}

impl Op {
    pub(crate) fn new(verb: &'static str, name: impl fmt::Display) -> Self {
        Self { verb, name: name.to_string() }
    }

    /// The pool of the name.
    pub fn pool(&self) -> &str {
        self.name.split(['/', '@', '#']).next().unwrap_or_default()
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb, self.name)
    }
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It does not exist, and its pool is there.
    #[error("cannot {op}: {name} does not exist")]
    NotFound {
        /// What was tried.
        op: Op,
        /// What is absent.
        name: String,
    },
    /// Its pool is not imported, so nothing can be said about it.
    #[error("cannot {op}: pool {} is not imported (`zpool import` lists what can be)", op.pool())]
    PoolMissing {
        /// What was tried.
        op: Op,
    },
    /// A dataset, snapshot or bookmark of that name is already there.
    #[error("cannot {op}: {name} already exists")]
    Exists {
        /// What was tried.
        op: Op,
        /// What is there.
        name: String,
    },
    /// Something uses it.
    #[error("cannot {op}: it is busy: {holders}")]
    Busy {
        /// What was tried.
        op: Op,
        /// Who uses it, as far as could be found out.
        holders: Box<Holders>,
    },
    /// It has snapshots, children or clones, which go first (or `recursive`, or promote a clone).
    #[error("cannot {op}: these depend on it: {}", list(dependents))]
    HasDependents {
        /// What was tried.
        op: Op,
        /// What depends on it, as the tool lists it.
        dependents: Vec<String>,
    },
    /// The pool is full or a quota is reached.
    #[error(
        "cannot {op}: {}",
        if *quota { "its quota is reached: raise `quota`/`refquota` or free space below it" }
        else { "out of space: prune checkpoints or enlarge the pool" }
    )]
    NoSpace {
        /// What was tried.
        op: Op,
        /// Whether the tool named a quota as the reason.
        quota: bool,
    },
    /// Not allowed.
    #[error("cannot {op}: permission denied (run as root, or `zfs allow` it)")]
    Permission {
        /// What was tried.
        op: Op,
    },
    /// The key of an encrypted dataset is not loaded, or is another one.
    #[error("cannot {op}: encryption: {said} (`zfs load-key`)")]
    Encryption {
        /// What was tried.
        op: Op,
        /// What the tool said.
        said: String,
    },
    /// The pool accepts no I/O until its devices are back.
    #[error("cannot {op}: pool {} is suspended: bring its devices back, then `zpool clear {}`", op.pool(), op.pool())]
    PoolSuspended {
        /// What was tried.
        op: Op,
    },
    /// The pool or dataset is read-only.
    #[error("cannot {op}: read-only")]
    ReadOnly {
        /// What was tried.
        op: Op,
    },
    /// The stream ended too early.
    #[error(
        "cannot {op}: the stream ended early{}",
        if token.is_some() { "; what arrived is kept and can be resumed" } else { "" }
    )]
    StreamTruncated {
        /// What was tried.
        op: Op,
        /// Where to go on, when the receive was resumable.
        token: Option<ResumeToken>,
    },
    /// The stream is damaged or is none.
    #[error("cannot {op}: the stream is damaged: {said}")]
    StreamCorrupt {
        /// What was tried.
        op: Op,
        /// What the tool said.
        said: String,
    },
    /// An interrupted receive is in the way: resume it by its token or abort it.
    #[error("cannot {op}: it holds an interrupted receive: resume it or `zfs receive -A` it")]
    ResumeExists {
        /// What was tried.
        op: Op,
    },
    /// The snapshot that an incremental stream or a clone starts from is not there.
    #[error("cannot {op}: the base is missing: {said}")]
    BaseMissing {
        /// What was tried.
        op: Op,
        /// What the tool said.
        said: String,
    },
    /// The target was changed since the base.
    #[error("cannot {op}: it was changed since its latest snapshot, so no increment fits")]
    Diverged {
        /// What was tried.
        op: Op,
    },
    /// A raw increment does not fit a base that was received otherwise.
    #[error("cannot {op}: the base was not received raw: {said}")]
    IvsetMismatch {
        /// What was tried.
        op: Op,
        /// What the tool said.
        said: String,
    },
    /// A rollback of a mounted file system would leave stale pages in memory (openzfs#10931): unmount it first.
    #[error("cannot {op}: it is mounted {}", list(mounts))]
    Mounted {
        /// What was tried.
        op: Op,
        /// Where.
        mounts: Vec<MountHolder>,
    },
    /// There are newer snapshots or bookmarks, which a rollback would destroy.
    #[error("cannot {op}: it is not the latest: {}", list(newer))]
    NotLatest {
        /// What was tried.
        op: Op,
        /// What is newer, as the tool lists it.
        newer: Vec<String>,
    },
    /// The hold is already there.
    #[error("cannot {op}: it already has the hold {tag}")]
    HoldExists {
        /// What was tried.
        op: Op,
        /// The tag.
        tag: HoldTag,
    },
    /// The hold is not there.
    #[error("cannot {op}: {snapshot} has no hold {tag}")]
    HoldMissing {
        /// What was tried.
        op: Op,
        /// The snapshot.
        snapshot: SnapshotName,
        /// The tag.
        tag: HoldTag,
    },
    /// The names are in different pools.
    #[error("cannot {op}: it would cross pools")]
    CrossesPools {
        /// What was tried.
        op: Op,
    },
    /// It is no clone, so there is nothing to promote and no origin to send from.
    #[error("cannot {op}: it is not a clone")]
    NotAClone {
        /// What was tried.
        op: Op,
    },
    /// The tool, the module or the pool is too old, or the operation does not exist for this kind.
    #[error("cannot {op}: not supported: {said}")]
    Unsupported {
        /// What was tried.
        op: Op,
        /// What the tool said.
        said: String,
    },
    /// A property that does not exist or a value that it does not take.
    #[error("cannot {op}: {said}")]
    InvalidProperty {
        /// What was tried.
        op: Op,
        /// What is wrong with which.
        said: String,
    },
    /// The request cannot mean what it says; nothing was tried.
    #[error("cannot {op}: {why}")]
    InvalidRequest {
        /// What was asked for.
        op: Op,
        /// What is wrong with it.
        why: String,
    },
    /// A text is no name.
    #[error(transparent)]
    InvalidName(#[from] NameError),
    /// The tool's answer is not what this version of cryopod reads.
    #[error("cannot {op}: unexpected answer of the zfs tool: {why}")]
    Unparsable {
        /// What was tried.
        op: Op,
        /// What is unexpected.
        why: String,
    },
    /// The deadline passed; what was begun may still take effect.
    #[error(
        "cannot {op}: not done after {:.1} s{}",
        after.as_secs_f64(),
        if *lingering { "; the kernel still works on it, so its pool may be suspended" } else { "" }
    )]
    Deadline {
        /// What was tried.
        op: Op,
        /// How long it had been tried.
        after: Duration,
        /// Whether the tool could not be killed at once, or the kernel call goes on.
        lingering: bool,
    },
    /// The caller cancelled; what was begun may still take effect.
    #[error("{op} was cancelled")]
    Cancelled {
        /// What was tried.
        op: Op,
    },
    /// The tool could not be run at all.
    #[error("cannot {op}: {source}")]
    Tool {
        /// What was tried.
        op: Op,
        /// Why not.
        #[source]
        source: Box<command::Error>,
    },
    /// The kernel refused a system call that this crate makes itself, as mount(2).
    #[error("cannot {op}: {source}")]
    System {
        /// What was tried.
        op: Op,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// The tool failed for a reason that this version of cryopod does not know; nothing is known about the
    /// state of the dataset.
    #[error("cannot {op}: {said}")]
    Unknown {
        /// What was tried.
        op: Op,
        /// What was said, by the tool or the kernel.
        said: String,
    },
}

impl Error {
    /// Whether it says that what was asked for is absent; a missing pool does not say that.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }

    /// Whether something uses the dataset, so that trying again later may work.
    pub fn is_busy(&self) -> bool {
        matches!(self, Self::Busy { .. })
    }

    /// Whether the caller's limits ended the call.
    pub fn is_stopped(&self) -> bool {
        matches!(self, Self::Deadline { .. } | Self::Cancelled { .. })
    }

    /// The name of the variant, for counting and for tests.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::NotFound { .. } => "not-found",
            Self::PoolMissing { .. } => "pool-missing",
            Self::Exists { .. } => "exists",
            Self::Busy { .. } => "busy",
            Self::HasDependents { .. } => "has-dependents",
            Self::NoSpace { .. } => "no-space",
            Self::Permission { .. } => "permission",
            Self::Encryption { .. } => "encryption",
            Self::PoolSuspended { .. } => "pool-suspended",
            Self::ReadOnly { .. } => "read-only",
            Self::StreamTruncated { .. } => "stream-truncated",
            Self::StreamCorrupt { .. } => "stream-corrupt",
            Self::ResumeExists { .. } => "resume-exists",
            Self::BaseMissing { .. } => "base-missing",
            Self::Diverged { .. } => "diverged",
            Self::IvsetMismatch { .. } => "ivset-mismatch",
            Self::Mounted { .. } => "mounted",
            Self::NotLatest { .. } => "not-latest",
            Self::HoldExists { .. } => "hold-exists",
            Self::HoldMissing { .. } => "hold-missing",
            Self::CrossesPools { .. } => "crosses-pools",
            Self::NotAClone { .. } => "not-a-clone",
            Self::Unsupported { .. } => "unsupported",
            Self::InvalidProperty { .. } => "invalid-property",
            Self::InvalidRequest { .. } => "invalid-request",
            Self::InvalidName(_) => "invalid-name",
            Self::Unparsable { .. } => "unparsable",
            Self::Deadline { .. } => "deadline",
            Self::Cancelled { .. } => "cancelled",
            Self::Tool { .. } => "tool",
            Self::System { .. } => "system",
            Self::Unknown { .. } => "unknown",
        }
    }
}

/// At most eight items, and how many more there are.
fn list<T: fmt::Display>(items: &[T]) -> String {
    const SHOWN: usize = 8;
    let shown: Vec<String> = items.iter().take(SHOWN).map(ToString::to_string).collect();
    match items.len().checked_sub(SHOWN) {
        Some(more) if more > 0 => format!("{} and {more} more", shown.join(", ")),
        _ => shown.join(", "),
    }
}
