//! Recovery: after any crash, everything runs that ran before, and nothing is left over (I1–I3).
//!
//! Idempotent, and safe beside running operations: an operation is only touched when its owner is dead (journal), a
//! draft only when its lock is free. [`recover`] looks at everything, [`recover_journal`] only at the journal, which
//! costs a directory listing when nothing is wrong: for every start of a shim.

use std::time::Duration;

use cryopod_command::Limits;

use crate::capture::draft_lock;
use crate::id::CheckpointId;
use crate::journal::{CaptureStage, Damaged, Journal, JournalError, Open, Operation};
use crate::kind::Kind;
use crate::restore;
use crate::scratch;
use crate::settle;
use crate::store::{Store, StoreError};
use crate::swap;
use crate::target::{Member, Repair, TargetError};

/// How long one member may take: CRIU may still be rolling back (its own timeout is 10 s).
const PATIENCE: Duration = Duration::from_secs(15);

/// Recovery could not even look.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// The journal could not be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The store could not be listed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl RecoverError {
    /// How a caller should react.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Journal(error) => error.kind(),
            Self::Store(error) => error.kind(),
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
    #[error("operation {op} was begun with the ZFS store: run `cryopod doctor` with that configured")]
    NeedsZfs {
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
    /// Unfinished checkpoints that were removed.
    pub removed: Vec<CheckpointId>,
    /// Operations that were finished or undone.
    pub operations: Vec<String>,
    /// Committed checkpoints that still depend on their source: start settling these.
    pub unsettled: Vec<CheckpointId>,
    /// Pieces of deleted checkpoints and left-over mounts that were freed.
    pub reaped: u64,
    /// Datasets or directories in places of the store that do not say they are ours: left alone.
    pub strangers: Vec<String>,
    /// What did not work; it stays journalled.
    pub failures: Vec<Failure>,
}

impl Report {
    /// Whether there was nothing to do and nothing failed.
    pub fn is_clean(&self) -> bool {
        self.damaged.is_empty()
            && self.repaired.is_empty()
            && self.removed.is_empty()
            && self.operations.is_empty()
            && self.failures.is_empty()
    }
}

/// Looks at the journal and at everything in the store.
pub fn recover(
    journal: &Journal,
    store: &Store,
    repair: &dyn Repair,
    limits: &Limits,
) -> Result<Report, RecoverError> {
    let mut report = recover_journal(journal, store, repair, limits)?;
    for id in store.drafts(limits)? {
        // Whoever makes a draft, or removes one, holds its lock.
        let Some(_lock) = store.locks().try_lock(&draft_lock(&id)).map_err(StoreError::from)? else {
            continue;
        };
        match store.abort(&id, &[], limits) {
            Ok(()) => report.removed.push(id),
            Err(error) => report.failures.push(error.into()),
        }
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
    report.strangers = store.strangers(limits)?;
    let list = store.list(limits)?;
    report.unsettled.extend(list.into_iter().filter(|info| !info.settled).map(|info| info.id));
    Ok(report)
}

/// Looks at the journal alone.
pub fn recover_journal(
    journal: &Journal,
    store: &Store,
    repair: &dyn Repair,
    limits: &Limits,
) -> Result<Report, RecoverError> {
    let scan = journal.scan()?;
    let mut report = Report {
        damaged: scan.damaged,
        alive: scan.alive.into_iter().map(|entry| entry.op).collect(),
        ..Report::default()
    };
    for orphan in scan.orphans {
        let op = orphan.entry().op.clone();
        match one(orphan, store, repair, &mut report, limits) {
            Ok(()) => report.operations.push(op),
            Err(failure) => {
                tracing::error!(op, error = %failure, "recovery has to try again");
                report.failures.push(failure);
            }
        }
    }
    Ok(report)
}

fn one(
    orphan: Open,
    store: &Store,
    repair: &dyn Repair,
    report: &mut Report,
    limits: &Limits,
) -> Result<(), Failure> {
    match (orphan.operation(), store) {
        (Operation::Capture { checkpoint, members, snapshots, exit, stage, .. }, _) => {
            let committed = store.committed(checkpoint, limits)?.is_some();
            // A pod whose end was asked for and whose checkpoint is committed belongs to whoever ends it.
            if !(committed && *exit) {
                members_of(members, *stage, *exit, repair, report)?;
            }
            if !committed {
                store.abort(checkpoint, snapshots, limits)?;
                report.removed.push(checkpoint.clone());
            }
        }
        (Operation::Import { checkpoint }, _) => {
            store.abort(checkpoint, &[], limits)?;
        }
        (operation @ Operation::Place { .. }, Store::Zfs(zfs)) => {
            restore::undo_or_finish(zfs, operation, limits)?;
        }
        (Operation::Adopt { dataset, guid, adopted }, Store::Zfs(zfs)) => {
            settle::finish_adopt(zfs, dataset, *guid, adopted, limits)?;
        }
        (operation @ Operation::Swap { .. }, Store::Zfs(zfs)) => swap::undo(zfs, operation, limits)?,
        // The configuration was changed from ZFS to a directory meanwhile: nothing can be done from here.
        (Operation::Place { .. } | Operation::Adopt { .. } | Operation::Swap { .. }, Store::Dir(_)) => {
            return Err(Failure::NeedsZfs { op: orphan.entry().op.clone() });
        }
    }
    orphan.finish()?;
    Ok(())
}

/// Puts the members right, all of them even when one fails.
fn members_of(
    members: &[Member],
    stage: CaptureStage,
    exit: bool,
    repair: &dyn Repair,
    report: &mut Report,
) -> Result<(), Failure> {
    let frozen_by_us = match stage {
        CaptureStage::Prepared => false,
        CaptureStage::Freezing => true,
        // With `exit` the pod stays frozen until the commit.
        CaptureStage::Thawed | CaptureStage::Committing if exit => true,
        CaptureStage::Thawed | CaptureStage::Committing => return Ok(()),
    };
    let mut first = None;
    for member in members {
        match repair.repair(member, frozen_by_us, PATIENCE) {
            Ok(()) => report.repaired.push(member.id.clone()),
            Err(error) => {
                first.get_or_insert(error);
            }
        }
    }
    first.map_or(Ok(()), |error| Err(error.into()))
}
