//! Recovery: after any crash, everything runs that ran before, and nothing is left over (I1–I3).
//!
//! Idempotent, and safe beside running operations: an operation is only touched when its owner is dead (journal), a
//! draft only when its lock is free. [`Recovery::begin`] thaws and needs no store, since a pool that hangs or is not
//! imported is what may have killed the capture; the rest waits for the store. [`recover`] looks at everything,
//! [`recover_journal`] only at the journal, which costs a directory listing when nothing is wrong: for every start of a
//! shim.

mod operations;
#[cfg(test)]
mod tests;
mod turn;
mod waiting;

use cryopod_command::Limits;

use crate::capture::draft_lock;
use crate::id::CheckpointId;
use crate::journal::{Damaged, Journal, JournalError};
use crate::kind::Kind;
use crate::restore;
use crate::scratch;
use crate::settle;
use crate::store::{Store, StoreError};
use crate::target::{Repair, TargetError};
use operations::Orphan;
pub use turn::{Turn, TurnError, turn};

/// Recovery could not even look.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// The journal could not be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

impl RecoverError {
    /// How a caller should react.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Journal(error) => error.kind(),
        }
    }
}

/// Something that has to be tried again.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A container could not be put right.
    #[error(transparent)]
    Repair(#[from] TargetError),
    /// The store could not.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The journal could not.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The operation was one of the ZFS store, and the configuration names a directory now.
    #[error("operation {op} was begun with the ZFS store: run `cryopod recover` with that configured")]
    NeedsZfs {
        /// The operation.
        op: String,
    },
    /// The store could not be opened.
    #[error("operation {op} waits until the store can be opened")]
    NoStore {
        /// The operation.
        op: String,
    },
}

/// What recovery found and did.
#[derive(Debug, Default)]
pub struct Report {
    /// Journal files that could not be read; they were moved aside.
    pub damaged: Vec<Damaged>,
    /// Operations in progress, left alone.
    pub alive: Vec<String>,
    /// Containers that were put right.
    pub repaired: Vec<String>,
    /// Containers that were still frozen after a committed checkpoint which was to end them, and are ended now.
    pub ended: Vec<String>,
    /// Unfinished checkpoints that were removed.
    pub removed: Vec<CheckpointId>,
    /// Operations that were finished or undone.
    pub operations: Vec<String>,
    /// Committed checkpoints that still depend on their source: start settling these.
    pub unsettled: Vec<CheckpointId>,
    /// Pieces of deleted checkpoints and left-over mounts that were freed.
    pub reaped: u64,
    /// Datasets or directories in places of the store that do not say they are ours, and roots of containers that wait in
    /// it although no operation gives them their name back (with what they are): left alone.
    pub strangers: Vec<String>,
    /// What did not work; it stays journalled.
    pub failures: Vec<Failure>,
}

impl Report {
    /// Whether there was nothing to do and nothing failed.
    pub fn is_clean(&self) -> bool {
        self.damaged.is_empty()
            && self.repaired.is_empty()
            && self.ended.is_empty()
            && self.removed.is_empty()
            && self.operations.is_empty()
            && self.failures.is_empty()
    }
}

/// A recovery that has begun: whatever can run without the store runs.
#[derive(Debug)]
#[must_use = "the operations are not finished or undone"]
pub struct Recovery {
    journal: Journal,
    orphans: Vec<Orphan>,
    report: Report,
}

impl Recovery {
    /// Reads the journal and puts the members of every dead capture right, all of them before anything else is tried.
    /// Only those of a capture that was to end its pod, and may be committed, have to wait for the store.
    pub fn begin(journal: &Journal, repair: &dyn Repair) -> Result<Self, RecoverError> {
        let scan = journal.scan()?;
        let mut report = Report {
            damaged: scan.damaged,
            alive: scan.alive.into_iter().map(|entry| entry.op).collect(),
            failures: scan.unreadable.into_iter().map(Failure::Journal).collect(),
            ..Report::default()
        };
        let orphans = scan.orphans.into_iter().map(|open| Orphan::begin(open, repair, &mut report)).collect();
        Ok(Self { journal: journal.clone(), orphans, report })
    }

    /// The store cannot be opened: every operation stays journalled and is reported.
    pub fn without_store(mut self) -> Report {
        for orphan in self.orphans {
            let failure = orphan.waits();
            self.report.failures.push(failure);
        }
        self.report
    }

    /// Finishes or undoes the operations.
    pub fn operations(mut self, store: &Store, repair: &dyn Repair, limits: &Limits) -> Report {
        for orphan in self.orphans {
            let op = orphan.op().to_owned();
            match orphan.finish(store, repair, &mut self.report, limits) {
                Ok(true) => self.report.operations.push(op),
                // Somebody alive works on the same checkpoint.
                Ok(false) => self.report.alive.push(op),
                Err(failure) => {
                    tracing::error!(op, error = %failure, "recovery has to try again");
                    self.report.failures.push(failure);
                }
            }
        }
        self.report
    }

    /// The same, and then everything in the store.
    pub fn everything(self, store: &Store, repair: &dyn Repair, limits: &Limits) -> Report {
        let journal = self.journal.clone();
        let mut report = self.operations(store, repair, limits);
        if let Err(error) = drafts(store, &mut report, limits) {
            report.failures.push(error.into());
        }
        let mut note = |result: Result<u64, StoreError>| match result {
            Ok(reaped) => report.reaped += reaped,
            Err(error) => report.failures.push(error.into()),
        };
        if let Store::Zfs(zfs) = store {
            note(scratch::reap(zfs, limits));
            note(restore::reap(zfs, limits));
            note(settle::reap_adopted(zfs, limits).map(|()| 0));
        }
        note(store.reap(limits));
        match store.strangers(limits) {
            Ok(strangers) => report.strangers = strangers,
            Err(error) => report.failures.push(error.into()),
        }
        if let Store::Zfs(zfs) = store {
            match waiting::unknown(zfs, &journal, limits) {
                Ok(unknown) => report.strangers.extend(unknown),
                Err(failure) => report.failures.push(failure),
            }
        }
        match store.list(limits) {
            Ok(list) => {
                report.unsettled.extend(list.into_iter().filter(|info| !info.settled).map(|info| info.id));
            }
            Err(error) => report.failures.push(error.into()),
        }
        if let Err(error) = store.locks().sweep() {
            report.failures.push(StoreError::from(error).into());
        }
        report
    }
}

/// Removes the drafts that nobody works on.
fn drafts(store: &Store, report: &mut Report, limits: &Limits) -> Result<(), StoreError> {
    for id in store.drafts(limits)? {
        // Whoever makes a draft, or removes one, holds its lock.
        let Some(_lock) = store.locks().try_lock(&draft_lock(&id))? else {
            continue;
        };
        match store.abort(&id, &[], limits) {
            Ok(()) => report.removed.push(id),
            Err(error) => report.failures.push(error.into()),
        }
    }
    Ok(())
}

/// Looks at the journal and at everything in the store.
pub fn recover(
    journal: &Journal,
    store: &Store,
    repair: &dyn Repair,
    limits: &Limits,
) -> Result<Report, RecoverError> {
    Ok(Recovery::begin(journal, repair)?.everything(store, repair, limits))
}

/// Looks at the journal alone.
pub fn recover_journal(
    journal: &Journal,
    store: &Store,
    repair: &dyn Repair,
    limits: &Limits,
) -> Result<Report, RecoverError> {
    Ok(Recovery::begin(journal, repair)?.operations(store, repair, limits))
}
