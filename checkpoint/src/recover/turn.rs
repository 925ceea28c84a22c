//! One capture of a container at a time, and none on top of what a dead one has left: a container that is frozen by
//! another capture looks as if an administrator had paused it, and would be left so. The shim has its own turn per pod.

use cryopod_command::Limits;

use super::{RecoverError, recover_journal};
use crate::journal::{Entry, Journal, JournalError, Operation};
use crate::kind::Kind;
use crate::lock::{Lock, LockError};
use crate::store::Store;
use crate::target::Repair;

/// The right to describe and capture a container, until it is dropped.
#[derive(Debug)]
#[must_use = "another capture may begin as soon as it is dropped"]
pub struct Turn {
    _lock: Lock,
}

/// A container cannot be captured now.
#[derive(Debug, thiserror::Error)]
pub enum TurnError {
    /// Somebody else does it.
    #[error("a checkpoint of container '{container}' is being taken already")]
    UnderWay {
        /// The container.
        container: String,
    },
    /// A capture died, and the container is not as it was before.
    #[error(
        "container '{container}' is not yet recovered from capture {op}, whose process has died: {reasons}"
    )]
    Left {
        /// The container.
        container: String,
        /// The operation.
        op: String,
        /// What kept recovery from it.
        reasons: String,
    },
    /// The lock could not be tried.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The journal could not be read.
    #[error(transparent)]
    Recover(#[from] RecoverError),
    /// The journal could not be read again.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

impl TurnError {
    /// How a caller should react.
    pub fn kind(&self) -> Kind {
        match self {
            Self::UnderWay { .. } | Self::Left { .. } => Kind::FailedPrecondition,
            Self::Lock(_) => Kind::Internal,
            Self::Recover(error) => error.kind(),
            Self::Journal(error) => error.kind(),
        }
    }
}

/// Takes the turn for a container, then recovers what the journal holds; after that the container is as whoever runs it
/// has left it.
pub fn turn(
    container: &str,
    store: &Store,
    journal: &Journal,
    repair: &dyn Repair,
    limits: &Limits,
) -> Result<Turn, TurnError> {
    let under_way = || TurnError::UnderWay { container: container.to_owned() };
    let lock = store.locks().try_lock(&format!("capture-{container}"))?.ok_or_else(under_way)?;
    let report = recover_journal(journal, store, repair, limits)?;
    let scan = journal.scan()?;
    if scan.alive.iter().any(|entry| is_of(entry, container)) {
        return Err(under_way());
    }
    if let Some(left) = scan.orphans.iter().map(|open| open.entry()).find(|entry| is_of(entry, container)) {
        let reasons: Vec<String> = report.failures.iter().map(ToString::to_string).collect();
        let (container, op) = (container.to_owned(), left.op.clone());
        return Err(TurnError::Left { container, op, reasons: reasons.join("; ") });
    }
    Ok(Turn { _lock: lock })
}

fn is_of(entry: &Entry, container: &str) -> bool {
    matches!(&entry.operation, Operation::Capture { members, .. } if members.iter().any(|m| m.id == container))
}
