//! The same for what the shim of a pod does: a capture through it, restoring, containerd's own checkpoint, deleting a
//! pod whose checkpoint is not settled yet.
//!
//! A shim that is killed takes its pod with it; then nothing of the pod may be left, and its checkpoints are committed
//! or gone. A step that fails must leave the pod as it was.

use std::fmt;
use std::time::Duration;

use super::injection::{Action, Armed};
use crate::crictl::{Container, Spec};
use crate::cryopod::{self, Checkpoint, checkpoints};
use crate::leaks;
use crate::shell::{Finished, exec, sh};
use crate::story::{Counting, counting, restore, restored_pod};
use crate::suite::{Failure, ensure};
use crate::ticks::{self, Ticks};

const ARCHIVE: &str = "/var/tmp/cryopod-faults.tar";
const REMOVED: Duration = Duration::from_secs(60);

/// What is interrupted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PodOperation {
    /// `cryopod checkpoint` of a pod: its shim captures.
    Checkpoint,
    /// A pod with the annotation `cryopod.dev/restore-from`.
    Restore,
    /// `crictl checkpoint`.
    CriCheckpoint,
    /// `crictl rmp` of a pod right after its checkpoint.
    Delete,
}

impl fmt::Display for PodOperation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PodOperation::Checkpoint => "pod-checkpoint",
            PodOperation::Restore => "pod-restore",
            PodOperation::CriCheckpoint => "cri-checkpoint",
            PodOperation::Delete => "pod-delete",
        })
    }
}

/// Runs the operation with one step armed, recovers, checks the invariants.
pub fn inject(
    handler: &'static str,
    operation: PodOperation,
    step: &'static str,
    action: Action,
) -> Result<(), Failure> {
    leaks::checked(|| inject_unchecked(handler, operation, step, action))
}

/// The same without a look at what is left, for suites that look themselves.
pub fn inject_unchecked(
    handler: &str,
    operation: PodOperation,
    step: &str,
    action: Action,
) -> Result<(), Failure> {
    match operation {
        PodOperation::Checkpoint => broken_capture(handler, step, action),
        PodOperation::Restore => broken_restore(handler, step, action),
        PodOperation::CriCheckpoint => broken_checkpoint(handler, step, action),
        PodOperation::Delete => broken_delete(handler, step, action),
    }
}

fn broken_capture(handler: &str, step: &str, action: Action) -> Result<(), Failure> {
    let source = counting(handler)?;
    let capture = || cryopod::run(&["checkpoint", "--mode", "full", &source.pod.id]);
    let armed = Armed::with(step, &action.to_string())?;
    let done = capture()?;
    armed.disarm()?;
    ensure(done.code != 0, || format!("the capture was not disturbed by {action} at {step}"))?;
    if action == Action::Error {
        named(step, &done.stderr)?;
        ticks::goes_on(&source.container, &source.before).map_err(|e| format!("I1: {e}"))?;
        cryopod::ok(&["recover"])?;
        let again = capture()?;
        ensure(again.code == 0, || format!("the next capture fails: {}", again.stderr.trim()))?;
        ticks::goes_on(&source.container, &source.before).map_err(|e| format!("I1: {e}"))?;
    }
    source.pod.remove_in_the_end(REMOVED)?;
    cryopod::ok(&["recover"])?;
    survivors(handler, &source.spec, &source.before)
}

fn broken_restore(handler: &str, step: &str, action: Action) -> Result<(), Failure> {
    let source = counting(handler)?;
    let checkpoint = Checkpoint::with(&source.pod.id, &["--mode", "full", "--wait"])?;
    source.pod.remove()?;
    let pod = restored_pod(handler, "broken", &checkpoint.id, &[])?;
    let armed = Armed::with(step, &action.to_string())?;
    let started = pod.start(&source.spec);
    armed.disarm()?;
    match started {
        Ok(_) => return Err(format!("the restore was not disturbed by {action} at {step}")),
        Err(error) if action == Action::Error => named(step, &error)?,
        Err(_) => {}
    }
    pod.remove_in_the_end(REMOVED)?;
    cryopod::ok(&["recover"])?;
    checkpoint.verify()?;
    goes_on(handler, &checkpoint, &source.spec, &source.before)?;
    checkpoint.delete().map(drop)
}

fn broken_checkpoint(handler: &str, step: &str, action: Action) -> Result<(), Failure> {
    let source = counting(handler)?;
    let armed = Armed::with(step, &action.to_string())?;
    let done = by_crictl(&source.container)?;
    armed.disarm()?;
    // What fails when containerd has its archive already need not fail the archive, be it an error or the end of the shim.
    let late = step == "shim.resume.swap-back";
    ensure(done.code != 0 || late, || {
        format!("`crictl checkpoint` was not disturbed by {action} at {step}")
    })?;
    // But then the archive has to be there.
    ensure(done.code != 0 || std::fs::metadata(ARCHIVE).is_ok_and(|meta| meta.len() > 0), || {
        format!("`crictl checkpoint` succeeded without an archive after {action} at {step}")
    })?;
    if action == Action::Error {
        ensure(late || done.stderr.contains(step), || {
            format!("the error does not name {step}: {}", done.stderr.trim())
        })?;
        ticks::goes_on(&source.container, &source.before).map_err(|e| format!("I1: {e}"))?;
        cryopod::ok(&["recover"])?;
        let again = by_crictl(&source.container)?;
        ensure(again.code == 0, || format!("the next `crictl checkpoint` fails: {}", again.stderr.trim()))?;
    }
    source.pod.remove_in_the_end(REMOVED)?;
    cryopod::ok(&["recover"])?;
    sh(&format!("rm -f {ARCHIVE}"))?;
    survivors(handler, &source.spec, &source.before)
}

/// What was committed is whole and comes back; then it is deleted.
fn survivors(handler: &str, spec: &Spec, before: &Ticks) -> Result<(), Failure> {
    for id in checkpoints()? {
        let checkpoint = Checkpoint::named(&id);
        checkpoint.settle()?;
        checkpoint.verify().map_err(|e| format!("I2: {id} is listed but damaged: {e}"))?;
        goes_on(handler, &checkpoint, spec, before)?;
        checkpoint.delete()?;
    }
    Ok(())
}

fn by_crictl(container: &Container) -> Result<Finished, Failure> {
    sh(&format!("rm -f {ARCHIVE}"))?;
    exec(&["crictl", "--timeout", "300s", "checkpoint", &format!("--export={ARCHIVE}"), &container.id])
}

fn broken_delete(handler: &str, step: &str, action: Action) -> Result<(), Failure> {
    let source = counting(handler)?;
    // The checkpoint lives on the pod's own dataset until it is settled.
    let unsettled = Armed::with("settle.send", "error")?;
    let checkpoint = Checkpoint::with(&source.pod.id, &["--mode", "full"])?;
    unsettled.reached(Duration::from_secs(60))?;
    drop(unsettled);
    ensure(!checkpoint.is_settled()?, || "the checkpoint is settled already".into())?;
    let Counting { pod, container, spec, before } = source;
    let armed = Armed::with(step, &action.to_string())?;
    // Whether containerd tries again by itself is its affair.
    exec(&["crictl", "--timeout", "60s", "rm", "--force", &container.id])?;
    armed.disarm()?;
    pod.remove_in_the_end(REMOVED)?;
    cryopod::ok(&["recover"])?;
    checkpoint.settle()?;
    checkpoint.verify().map_err(|e| format!("I2: {e}"))?;
    goes_on(handler, &checkpoint, &spec, &before)?;
    checkpoint.delete().map(drop)
}

/// I2 and I6: the checkpoint can be restored, and memory and file are in step.
fn goes_on(handler: &str, checkpoint: &Checkpoint, spec: &Spec, before: &Ticks) -> Result<(), Failure> {
    let (pod, restored) = restore(handler, "restored", &checkpoint.id, spec)?;
    ticks::goes_on(&restored, before)?;
    pod.remove()
}

fn named(step: &str, error: &str) -> Result<(), Failure> {
    ensure(error.contains(step), || format!("the error does not name {step}: {error}"))
}
