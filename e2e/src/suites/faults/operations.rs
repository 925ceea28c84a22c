//! The operations that are broken, and what must hold afterwards.

use std::collections::BTreeSet;
use std::fmt;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::injection::{Action, Armed, Victim};
use super::subject::Subject;
use crate::cryopod::{self, Checkpoint, checkpoints};
use crate::leaks::Footprint;
use crate::shell::{Finished, ok, sh};
use crate::suite::{Failure, ensure};

const PATIENCE: Duration = Duration::from_secs(60);
const ARCHIVE: &str = "/var/tmp/cryopod-faults.export";

/// What is interrupted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// `cryopod checkpoint`.
    Checkpoint,
    /// Shipping into the store, a process of its own.
    Settle,
    /// `cryopod restore` under another name.
    Restore,
    /// `cryopod checkpoints delete`.
    Delete,
    /// `cryopod checkpoints import`.
    Import,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Operation::Checkpoint => "checkpoint",
            Operation::Settle => "settle",
            Operation::Restore => "restore",
            Operation::Delete => "delete",
            Operation::Import => "import",
        })
    }
}

/// Runs the operation with one step armed, recovers, checks the invariants.
pub fn inject(operation: Operation, step: &'static str, action: Action) -> Result<(), Failure> {
    let subject = Subject::start("subject")?;
    let before = Footprint::take()?;
    let known: BTreeSet<String> = checkpoints()?.into_iter().collect();
    let prepared = prepare(operation, &subject)?;
    let armed = Armed::with(step, &action.to_string())?;
    let done = run(operation, &subject, prepared.as_ref())?;
    armed.disarm()?;
    let in_command = !matches!(operation, Operation::Settle);
    ensure(!in_command || done.code != 0, || {
        format!("{operation} was not disturbed by {action} at {step}: {}", done.stdout.trim())
    })?;
    ensure(action != Action::Error || !in_command || done.stderr.contains(step), || {
        format!("the error does not name what failed: {}", done.stderr.trim())
    })?;
    afterwards(&subject, &known, &before, prepared, operation)
}

/// Another process is killed while the operation stands at the step.
pub fn kill_other(step: &'static str, victim: Victim) -> Result<(), Failure> {
    let subject = Subject::start("subject")?;
    let before = Footprint::take()?;
    let known: BTreeSet<String> = checkpoints()?.into_iter().collect();
    let armed = Armed::with(step, "wait")?;
    let child = Command::new("cryopod")
        .args(["-o", "json", "checkpoint", "--mode", "full", "--wait", &subject.name])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let mut child = child.map_err(|e| format!("cannot run cryopod: {e}"))?;
    armed.reached(PATIENCE)?;
    let killed = match victim {
        // They come only when the step goes on.
        Victim::Zfs => {
            drop(armed);
            victim.kill(PATIENCE)
        }
        Victim::Criu if step == "capture.dump" => {
            drop(armed);
            victim.kill(PATIENCE)
        }
        _ => {
            let killed = victim.kill(PATIENCE);
            drop(armed);
            killed
        }
    };
    child.wait().map_err(|e| e.to_string())?;
    killed?;
    afterwards(&subject, &known, &before, None, Operation::Checkpoint)?;
    subject.remove()
}

/// What the operation needs: a settled checkpoint, for an import its export with the original deleted.
fn prepare(operation: Operation, subject: &Subject) -> Result<Option<Checkpoint>, Failure> {
    match operation {
        Operation::Checkpoint | Operation::Settle => Ok(None),
        Operation::Restore | Operation::Delete => {
            Ok(Some(Checkpoint::with(&subject.name, &["--wait", "--mode", "full"])?))
        }
        Operation::Import => {
            let checkpoint = Checkpoint::with(&subject.name, &["--wait", "--mode", "full"])?;
            ok(&format!("cryopod checkpoints export {} {ARCHIVE}", checkpoint.id))?;
            checkpoint.delete()?;
            Ok(None)
        }
    }
}

fn run(
    operation: Operation,
    subject: &Subject,
    checkpoint: Option<&Checkpoint>,
) -> Result<Finished, Failure> {
    let id = checkpoint.map(|c| c.id.as_str()).unwrap_or_default();
    match operation {
        Operation::Checkpoint => cryopod::run(&["checkpoint", "--mode", "full", &subject.name]),
        Operation::Settle => cryopod::run(&["checkpoint", "--mode", "full", "--wait", &subject.name]),
        Operation::Restore => cryopod::run(&["restore", id, "--name", "restored"]),
        Operation::Delete => cryopod::run(&["checkpoints", "delete", id]),
        Operation::Import => cryopod::run(&["checkpoints", "import", ARCHIVE]),
    }
}

/// One recovery; then I1, I2 and I3, and the same operation works.
fn afterwards(
    subject: &Subject,
    known: &BTreeSet<String>,
    before: &Footprint,
    prepared: Option<Checkpoint>,
    operation: Operation,
) -> Result<(), Failure> {
    cryopod::ok(&["recover"])?;
    subject.survived()?;
    for id in checkpoints()? {
        cryopod::ok(&["checkpoints", "verify", &id])
            .map_err(|e| format!("I2: {id} is listed but damaged: {e}"))?;
    }
    // It works now, whatever it left.
    let done = run(operation, subject, prepared.as_ref())?;
    let gone = operation == Operation::Delete || operation == Operation::Import;
    ensure(done.code == 0 || gone, || format!("{operation} fails after recovery: {}", done.stderr.trim()))?;
    if operation == Operation::Restore {
        let restored = Subject::running("restored")?;
        restored.counts()?;
        subject.survived()?;
        restored.remove()?;
    }
    if let Some(checkpoint) = prepared {
        std::mem::forget(checkpoint);
    }
    for id in checkpoints()?.iter().filter(|id| !known.contains(*id)) {
        cryopod::ok(&["settle", id])?;
        cryopod::ok(&["checkpoints", "delete", id])?;
    }
    sh(&format!("rm -f {ARCHIVE}"))?;
    cryopod::ok(&["recover"])?;
    before.unchanged().map_err(|e| format!("I3: {e}"))
}
