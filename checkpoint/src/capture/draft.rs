//! The two guards of a capture: what is frozen is thawed, what is drafted is removed, on every path.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use cryopod_command::Limits;

use super::{CaptureError, Ending};
use crate::fault;
use crate::id::CheckpointId;
use crate::journal::{CaptureStage, Journal, JournalError, Open, Operation, PlannedSnapshot};
use crate::lock::Lock;
use crate::store::content::Content;
use crate::store::{Store, StoreError};
use crate::target::{Target, TargetError};
use crate::timeline::Recorder;

/// Cleaning up has limits of its own: it must happen although the caller's have run out. A destroy waits for the pool.
const CLEANUP: Duration = Duration::from_secs(60);
/// A thaw is a write into cgroup.freeze; when it fails, the runtime may be busy for a moment.
const THAW_TRIES: u32 = 5;
const THAW_PAUSE: Duration = Duration::from_millis(100);

/// Whether recovery has to look at the members; shared by the two guards.
#[derive(Debug, Clone, Default)]
pub(super) struct Stuck(Arc<AtomicBool>);

impl Stuck {
    fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A pod frozen by us. Dropping it thaws, also while a panic unwinds; a thaw that fails keeps the journal entry.
pub(super) struct Frozen {
    target: Option<Arc<dyn Target>>,
    stuck: Stuck,
}

impl Frozen {
    pub(super) fn freeze(
        target: Arc<dyn Target>,
        draft: &Draft,
        recorder: &mut Recorder,
        limits: &Limits,
    ) -> Result<Self, CaptureError> {
        // The guard first: a freeze that panics half-way must be undone as well.
        let guard = Self { target: Some(target), stuck: draft.stuck.clone() };
        if let Some(target) = &guard.target {
            recorder.phase("freeze", |_| target.freeze(limits))?;
        }
        Ok(guard)
    }

    /// Thaws; an injected fault is reported after the thaw, never instead of it.
    pub(super) fn thaw(mut self) -> Result<(), CaptureError> {
        let fault = fault::step("capture.thaw");
        if let Some(target) = self.target.take() {
            thaw(target.as_ref()).inspect_err(|_| self.stuck.set()).map_err(CaptureError::Thaw)?;
        }
        Ok(fault?)
    }

    /// Leaves the pod frozen for good: the caller ends it.
    pub(super) fn keep(mut self) {
        self.target = None;
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        if let Some(target) = self.target.take()
            && let Err(error) = thaw(target.as_ref())
        {
            self.stuck.set();
            tracing::error!(pod = %target.pod().name, %error, "the pod may still be frozen");
        }
    }
}

fn thaw(target: &dyn Target) -> Result<(), TargetError> {
    let mut tries = 1;
    loop {
        match target.thaw() {
            Ok(()) => return Ok(()),
            Err(error) if tries >= THAW_TRIES => return Err(error),
            Err(error) => {
                tracing::warn!(pod = %target.pod().name, %error, tries, "thaw failed, trying again");
            }
        }
        tries += 1;
        thread::sleep(THAW_PAUSE);
    }
}

/// An uncommitted checkpoint with its journal entry. Dropping it removes both.
#[derive(Debug)]
pub(super) struct Draft {
    id: CheckpointId,
    store: Arc<Store>,
    planned: Vec<PlannedSnapshot>,
    entry: Option<Open>,
    /// Whether the store may hold something of this draft.
    begun: bool,
    /// Whether recovery has to look at the members.
    stuck: Stuck,
    /// Keeps recovery and captures with the same id away.
    _lock: Lock,
}

impl Draft {
    /// Reserves the id and journals the operation; nothing is in the store yet.
    pub(super) fn reserve(
        id: CheckpointId,
        store: Arc<Store>,
        journal: &Journal,
        planned: Vec<PlannedSnapshot>,
        operation: Operation,
    ) -> Result<Self, CaptureError> {
        let lock = store.locks().try_lock(&draft_lock(&id)).map_err(StoreError::from)?;
        let Some(lock) = lock else {
            return Err(StoreError::Exists { store: store.place(), id }.into());
        };
        let entry = Some(journal.begin(operation)?);
        Ok(Self { id, store, planned, entry, begun: false, stuck: Stuck::default(), _lock: lock })
    }

    /// Makes the draft in the store.
    pub(super) fn begin(&mut self, limits: &Limits) -> Result<Content, CaptureError> {
        let begun = self.store.begin(&self.id, &self.planned, limits);
        // Whatever went wrong, half of it may be there; only what was there before is not ours.
        self.begun = !matches!(begun, Err(StoreError::Exists { .. }));
        Ok(begun?)
    }

    pub(super) fn id(&self) -> &CheckpointId {
        &self.id
    }

    pub(super) fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Announces the next stage.
    pub(super) fn stage(&mut self, to: CaptureStage) -> Result<(), JournalError> {
        match &mut self.entry {
            Some(entry) => entry.update(|operation| {
                if let Operation::Capture { stage, .. } = operation {
                    *stage = to;
                }
            }),
            None => Ok(()),
        }
    }

    /// After a dump or pre-dump that failed: makes sure that its roll-back has not, else leaves the members to recovery.
    pub(super) fn put_right(&self, target: &dyn Target, frozen_by_us: bool) {
        for member in target.members() {
            if let Err(error) = target.put_right(member, frozen_by_us) {
                tracing::error!(container = %member.id, %error, "not put right; recovery tries again");
                self.stuck.set();
            }
        }
    }

    /// The checkpoint is committed: nothing is removed any more, and an error can no longer undo it. With `exit` its
    /// entry stays until the pod has ended.
    pub(super) fn committed(mut self, exit: bool) -> Option<Ending> {
        let entry = self.entry.take()?;
        if exit {
            return Some(Ending::new(entry));
        }
        if let Err(error) = entry.finish() {
            tracing::warn!(checkpoint = %self.id, %error, "a finished journal entry is left to recovery");
        }
        None
    }

    /// Removes everything of the draft; false when something was left to recovery.
    pub(super) fn discard(mut self) -> bool {
        self.clear()
    }

    fn clear(&mut self) -> bool {
        let Some(entry) = self.entry.take() else { return true };
        let cleanup = Limits::within(CLEANUP);
        if self.begun
            && let Err(error) = self.store.abort(&self.id, &self.planned, &cleanup)
        {
            tracing::error!(checkpoint = %self.id, %error, "an unfinished checkpoint is left to recovery");
            return false;
        }
        // A panic may have come between a dump and its roll-back.
        if self.stuck.is_set() || thread::panicking() {
            return false;
        }
        if let Err(error) = entry.finish() {
            tracing::error!(checkpoint = %self.id, %error, "a finished journal entry is left to recovery");
            return false;
        }
        true
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Held by whoever works on an uncommitted checkpoint.
pub(crate) fn draft_lock(id: &CheckpointId) -> String {
    format!("draft-{id}")
}
