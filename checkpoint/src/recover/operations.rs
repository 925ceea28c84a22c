//! What becomes of one operation whose owner is dead.

use std::time::Duration;

use cryopod_command::Limits;

use super::{Failure, Report};
use crate::capture::draft_lock;
use crate::id::CheckpointId;
use crate::journal::{CaptureStage, Open, Operation, PlannedSnapshot};
use crate::restore;
use crate::settle;
use crate::store::{Store, StoreError};
use crate::swap;
use crate::target::{Member, Repair, TargetError};

/// How long one member may take: CRIU may still be rolling back (its own timeout is 10 s).
const PATIENCE: Duration = Duration::from_secs(15);

/// An operation without an owner; dropping it leaves it to the next recovery.
#[derive(Debug)]
pub(super) struct Orphan {
    open: Open,
    /// Why its members are not right yet.
    failed: Option<TargetError>,
}

/// When the members of a capture can be put right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Members {
    /// At once, whatever the store says; whether our freeze may be in force.
    Now { frozen_by_us: bool },
    /// They run.
    Right,
    /// When the store has said whether the checkpoint is committed: then they are ended, else thawed.
    AskStore,
}

fn members(stage: CaptureStage, exit: bool) -> Members {
    match (stage, exit) {
        (CaptureStage::Prepared, _) => Members::Now { frozen_by_us: false },
        // With `exit` the pod stays frozen until the commit, which begins after `Committing` is written.
        (CaptureStage::Freezing, _) | (CaptureStage::Thawed, true) => Members::Now { frozen_by_us: true },
        (CaptureStage::Committing, true) => Members::AskStore,
        (CaptureStage::Thawed | CaptureStage::Committing, false) => Members::Right,
    }
}

impl Orphan {
    /// Puts the members right as far as that needs no store.
    pub(super) fn begin(open: Open, repair: &dyn Repair, report: &mut Report) -> Self {
        let mut failed = None;
        if let Operation::Capture { members: list, exit, stage, .. } = open.operation()
            && let Members::Now { frozen_by_us } = members(*stage, *exit)
        {
            failed = put_right(list, frozen_by_us, repair, report).err();
        }
        Self { open, failed }
    }

    pub(super) fn op(&self) -> &str {
        &self.open.entry().op
    }

    /// Why it stays when there is no store.
    pub(super) fn waits(self) -> Failure {
        let op = self.op().to_owned();
        self.failed.map_or(Failure::NoStore { op }, Failure::Repair)
    }

    /// Finishes or undoes it; false when somebody alive works on the same checkpoint.
    pub(super) fn finish(
        self,
        store: &Store,
        repair: &dyn Repair,
        report: &mut Report,
        limits: &Limits,
    ) -> Result<bool, Failure> {
        if let Some(error) = self.failed {
            return Err(error.into());
        }
        let orphan = self.open;
        match (orphan.operation(), store) {
            // Its snapshots are out of reach: a commit or a draft there would be taken for absent.
            (Operation::Capture { snapshots, .. }, Store::Dir(_)) if !snapshots.is_empty() => {
                return Err(Failure::NeedsZfs { op: orphan.entry().op.clone() });
            }
            (Operation::Capture { checkpoint, members: list, snapshots, exit, stage, .. }, _) => {
                let ask = members(*stage, *exit) == Members::AskStore;
                let settled =
                    with_draft(store, checkpoint, snapshots, limits, |committed| match committed {
                        true if ask => end(list, repair, report),
                        false if ask => put_right(list, true, repair, report),
                        _ => Ok(()),
                    })?;
                match settled {
                    Some(Outcome::Removed) => report.removed.push(checkpoint.clone()),
                    Some(Outcome::Committed) => {}
                    None => return Ok(false),
                }
            }
            (Operation::Import { checkpoint }, _) => {
                if with_draft(store, checkpoint, &[], limits, |_| Ok(()))?.is_none() {
                    return Ok(false);
                }
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
        Ok(true)
    }
}

enum Outcome {
    Committed,
    Removed,
}

/// Finds out whether the checkpoint is committed, sees to the members accordingly and removes a draft, under the lock of
/// that draft; None when somebody else holds it, who may be making one of that id.
fn with_draft(
    store: &Store,
    id: &CheckpointId,
    snapshots: &[PlannedSnapshot],
    limits: &Limits,
    members: impl FnOnce(bool) -> Result<(), TargetError>,
) -> Result<Option<Outcome>, Failure> {
    let Some(_lock) = store.locks().try_lock(&draft_lock(id)).map_err(StoreError::from)? else {
        return Ok(None);
    };
    let committed = store.committed(id, limits)?.is_some();
    members(committed)?;
    if committed {
        return Ok(Some(Outcome::Committed));
    }
    store.abort(id, snapshots, limits)?;
    Ok(Some(Outcome::Removed))
}

/// Puts the members right, all of them even when one fails.
fn put_right(
    members: &[Member],
    frozen_by_us: bool,
    repair: &dyn Repair,
    report: &mut Report,
) -> Result<(), TargetError> {
    all(members, |member| {
        repair.repair(member, frozen_by_us, PATIENCE)?;
        report.repaired.push(member.id.clone());
        Ok(())
    })
}

/// Ends the members of a committed checkpoint that was to end them. Their capture died before it could, or could not.
fn end(members: &[Member], repair: &dyn Repair, report: &mut Report) -> Result<(), TargetError> {
    all(members, |member| {
        if repair.end(member, PATIENCE)? {
            report.ended.push(member.id.clone());
        }
        Ok(())
    })
}

fn all(
    members: &[Member],
    mut each: impl FnMut(&Member) -> Result<(), TargetError>,
) -> Result<(), TargetError> {
    let mut first = Ok(());
    for member in members {
        let result = each(member);
        first = first.and(result);
    }
    first
}
