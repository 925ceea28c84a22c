//! Capture: the transaction that turns a running pod into a checkpoint.
//!
//! ```text
//! refuse? → journal → draft → pre-dump rounds (running) → pool sync → FREEZE all
//!   → per member: dump, at its instant { syncfs, one snapshot of its datasets, copy other disks }
//!   → THAW all (on every path) → hash, manifest, marker → journal entry removed → settling
//! ```
//!
//! [`take`] ends with the pod running again ("captured"); [`Taken::commit`] makes the checkpoint visible
//! ("committed"). Dropping a [`Taken`] removes everything. Since every member stays frozen until the last one is
//! captured, the checkpoint is one instant (I6); the thaw is a guard's, so that an error, a panic or a cancel
//! cannot skip it (I1). Under mode `auto` a dump that is refused is followed by the same for the disks alone.

mod commit;
mod disks;
mod draft;
mod ending;
mod error;
mod memory;
mod options;
mod plan;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use cryopod_command::Limits;
use jiff::Timestamp;

use crate::audit::{self, Entry};
use crate::fault;
use crate::id::CheckpointId;
use crate::journal::{CaptureStage, Journal, Operation};
use crate::manifest::{CapturedMode, Manifest};
use crate::store::Store;
use crate::store::content::Content;
use crate::target::Target;
use crate::timeline::{Recorder, Timeline};
use draft::{Draft, Frozen};
use plan::Plan;

pub use commit::Taken;
pub(crate) use draft::draft_lock;
pub use ending::Ending;
pub use error::CaptureError;
pub use options::{CaptureOptions, DEFAULT_COPY_LIMIT, DEFAULT_PRE_DUMP_MIN_RSS, Mode, PreDump};

/// A committed checkpoint.
#[derive(Debug)]
pub struct Captured {
    /// Its id.
    pub id: CheckpointId,
    /// What was written.
    pub manifest: Manifest,
    /// Where the time went, the commit included.
    pub timeline: Timeline,
    /// With `exit`: the containers are still frozen, and the caller ends them.
    pub ending: Option<Ending>,
}

/// Captures and commits.
pub fn capture(
    target: Arc<dyn Target>,
    store: &Arc<Store>,
    journal: &Journal,
    options: CaptureOptions<'_>,
    limits: &Limits,
) -> Result<Captured, CaptureError> {
    let progress = options.progress;
    take(target, store, journal, options, limits)?.commit(progress, limits)
}

/// Captures the pod and lets it run again (unless `exit` is asked for); the checkpoint is still invisible.
///
/// Mode `auto` begins anew with the disks alone when the dump is refused for what the process is. Everything of the
/// first attempt is gone by then, its journal entry last, so that each attempt is one operation to recovery; an attempt
/// that leaves anything to recovery is not followed by another.
#[allow(clippy::needless_pass_by_value, reason = "one capture each: callers hand over what is theirs")]
pub fn take(
    target: Arc<dyn Target>,
    store: &Arc<Store>,
    journal: &Journal,
    options: CaptureOptions<'_>,
    limits: &Limits,
) -> Result<Taken, CaptureError> {
    let created = Timestamp::now();
    let id = options.id.clone().unwrap_or_else(|| CheckpointId::generate(&target.pod().name, created));
    let taken = take_as(&id, created, &target, store, journal, &options, limits);
    if taken.is_err() {
        let entry = Entry::new(audit::Operation::Capture).checkpoint(&id).pod(target.pod());
        let entry = entry.labels(&options.labels).asked_by(options.requested_by.as_deref());
        audit::note(entry.result(&taken));
    }
    taken
}

fn take_as(
    id: &CheckpointId,
    created: Timestamp,
    target: &Arc<dyn Target>,
    store: &Arc<Store>,
    journal: &Journal,
    options: &CaptureOptions<'_>,
    limits: &Limits,
) -> Result<Taken, CaptureError> {
    let mut recorder = Recorder::start();
    let progress = options.progress;
    progress.step("preflight");
    let plan = recorder.phase("preflight", |_| plan::plan(target.as_ref(), store, options, limits))?;
    let mut plan = plan.named(id);
    loop {
        fault::step("capture.journal")?;
        let operation = Operation::Capture {
            checkpoint: id.clone(),
            pod: target.pod().clone(),
            members: target.members().to_vec(),
            snapshots: plan.snapshots(),
            exit: options.exit,
            stage: CaptureStage::Prepared,
        };
        let mut draft = Draft::reserve(id.clone(), Arc::clone(store), journal, plan.snapshots(), operation)?;
        let error = match attempt(target, &mut draft, &plan, options, &mut recorder, limits) {
            Ok(Done { content, frozen, memory, disks }) => {
                let parts = commit::Parts::new(created, options, &plan, target.as_ref(), memory, disks);
                return Ok(Taken::new(draft, content, recorder, frozen, parts));
            }
            Err(error) => error,
        };
        let may = options.mode == Mode::Auto && plan.mode == CapturedMode::Full;
        match error.memory_refusal().filter(|_| may).cloned() {
            Some(refusal) if draft.discard() => {
                tracing::warn!(checkpoint = %id, %refusal, "capturing the disks alone");
                progress.step("disks alone");
                recorder.begin_again("refused dump");
                plan = plan.without_memory(refusal);
            }
            _ => return Err(error),
        }
    }
}

/// What an attempt has captured.
struct Done {
    content: Content,
    /// Where the end of the pod was asked for.
    frozen: Option<Frozen>,
    memory: Vec<memory::Rounds>,
    disks: Vec<disks::Taken>,
}

/// From the empty draft to the thaw. After an error the pod runs; the draft is the caller's to remove.
fn attempt(
    target: &Arc<dyn Target>,
    draft: &mut Draft,
    plan: &Plan,
    options: &CaptureOptions<'_>,
    recorder: &mut Recorder,
    limits: &Limits,
) -> Result<Done, CaptureError> {
    let progress = options.progress;
    let store = Arc::clone(draft.store());
    fault::step("capture.begin")?;
    let content = recorder.phase("draft", |_| draft.begin(limits))?;
    fault::step("capture.begun")?;

    let mut memory = Vec::new();
    if plan.mode == CapturedMode::Full {
        memory = memory::pre_dump(target.as_ref(), &content, options, recorder, limits)
            .inspect_err(|_| draft.put_right(target.as_ref(), false))?;
    }
    progress.step("sync");
    fault::step("capture.sync")?;
    recorder.phase("sync", |_| disks::sync_pools(&store, plan, limits))?;

    limits.check().map_err(CaptureError::Stopped)?;
    draft.stage(CaptureStage::Freezing)?;
    progress.step("freeze");
    fault::step("capture.freeze")?;
    recorder.freezing();
    let frozen = Frozen::freeze(Arc::clone(target), draft, recorder, limits)?;
    let instant =
        while_frozen(target.as_ref(), &store, plan, &content, &mut memory, options, recorder, limits);
    let kept = if options.exit && instant.is_ok() {
        // The caller ends the pod once the checkpoint is committed; until then the guard would thaw it.
        Some(frozen)
    } else {
        progress.step("thaw");
        recorder.phase("thaw", |_| frozen.thaw())?;
        recorder.thawed();
        if instant.is_err() && plan.mode == CapturedMode::Full {
            draft.put_right(target.as_ref(), true);
        }
        None
    };
    let disks = instant?;
    fault::step("capture.thawed")?;
    let disks = disks::identify(&store, disks, plan, limits)?;
    if kept.is_none() {
        draft.stage(CaptureStage::Thawed)?;
    }
    Ok(Done { content, frozen: kept, memory, disks })
}

/// Everything that happens while no task of the pod runs.
#[allow(clippy::too_many_arguments, reason = "the parts of one transaction, used nowhere else")]
fn while_frozen(
    target: &dyn Target,
    store: &Arc<Store>,
    plan: &Plan,
    content: &Content,
    memory: &mut [memory::Rounds],
    options: &CaptureOptions<'_>,
    recorder: &mut Recorder,
    limits: &Limits,
) -> Result<Vec<disks::Taken>, CaptureError> {
    fault::step("capture.frozen")?;
    let copier = disks::Instant::new(store, plan, content, options.copy_limit, limits);
    if plan.mode == CapturedMode::Disk {
        options.progress.step("disks");
        copier.all();
    } else {
        memory::dump(target, content, memory, &copier, options, recorder, limits)?;
    }
    copier.finish(recorder)
}
