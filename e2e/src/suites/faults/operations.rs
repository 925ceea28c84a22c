//! The operations that are broken, and what must hold afterwards.

use std::collections::BTreeSet;
use std::fmt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::injection::{Action, Armed, Victim};
use super::subject::Subject;
use crate::cryopod::{self, Checkpoint, checkpoints};
use crate::leaks::Footprint;
use crate::shell::{Finished, ok, sh};
use crate::suite::{Failure, ensure};

const PATIENCE: Duration = Duration::from_secs(60);
/// Exit codes, docs/reference/exit-codes.md.
const NOT_FOUND: i32 = 3;
const ALREADY_EXISTS: i32 = 4;
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

/// When another process is killed: while the operation waits at the step, or as soon as it appears after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// It lives at the step.
    At,
    /// It comes only when the step goes on.
    After,
}

/// Another process is killed around a step of the operation.
pub fn kill_other(
    operation: Operation,
    step: &'static str,
    moment: Moment,
    victim: Victim,
) -> Result<(), Failure> {
    let subject = Subject::start("subject")?;
    let before = Footprint::take()?;
    let known: BTreeSet<String> = checkpoints()?.into_iter().collect();
    let prepared = prepare(operation, &subject)?;
    let armed = Armed::with(step, "wait")?;
    let mut child = spawn(&arguments(operation, &subject, prepared.as_ref()))?;
    armed.reached(PATIENCE)?;
    let killed = match moment {
        Moment::After => {
            drop(armed);
            victim.kill(PATIENCE)
        }
        Moment::At => {
            let killed = victim.kill(PATIENCE);
            drop(armed);
            killed
        }
    };
    child.wait().map_err(|e| e.to_string())?;
    killed?;
    afterwards(&subject, &known, &before, prepared, operation)?;
    subject.remove()
}

/// A capture is interrupted, or meets its deadline, while CRIU stands in its hook: it is undone before the command ends.
pub fn given_up(timeout: Option<&str>, code: i32) -> Result<(), Failure> {
    let subject = Subject::start("subject")?;
    let before = Footprint::take()?;
    let known: BTreeSet<String> = checkpoints()?.into_iter().collect();
    let armed = Armed::with("runtime.hook", "wait")?;
    let mut args = vec!["checkpoint", "--mode", "full", &subject.name];
    args.extend(timeout.into_iter().flat_map(|seconds| ["--timeout", seconds]));
    let mut child = spawn(&args)?;
    armed.reached(PATIENCE)?;
    match timeout.and_then(|seconds| seconds.parse().ok()) {
        Some(seconds) => std::thread::sleep(Duration::from_secs(seconds)),
        None => ok(&format!("kill -INT {}", child.id())).map(drop)?,
    }
    drop(armed);
    let status = child.wait().map_err(|e| e.to_string())?;
    ensure(status.code() == Some(code), || format!("the capture ended with {status}, not {code}"))?;
    subject.survived()?;
    ensure(checkpoints()?.into_iter().all(|id| known.contains(&id)), || "a checkpoint is there".into())?;
    before.unchanged().map_err(|e| format!("I3, without recovery: {e}"))?;
    subject.remove()
}

fn spawn(args: &[&str]) -> Result<Child, Failure> {
    let mut command = Command::new("cryopod");
    command.args(["-o", "json"]).args(args);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().map_err(|e| format!("cannot run cryopod: {e}"))
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
    cryopod::run(&arguments(operation, subject, checkpoint))
}

fn arguments<'a>(
    operation: Operation,
    subject: &'a Subject,
    checkpoint: Option<&'a Checkpoint>,
) -> Vec<&'a str> {
    let id = checkpoint.map(|c| c.id.as_str()).unwrap_or_default();
    match operation {
        Operation::Checkpoint => vec!["checkpoint", "--mode", "full", &subject.name],
        Operation::Settle => vec!["checkpoint", "--mode", "full", "--wait", &subject.name],
        Operation::Restore => vec!["restore", id, "--name", "restored"],
        Operation::Delete => vec!["checkpoints", "delete", id],
        Operation::Import => vec!["checkpoints", "import", ARCHIVE],
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
    // What outlived a broken capture or import is not only listed: it comes back.
    let survivor = checkpoints()?.into_iter().find(|id| !known.contains(id));
    if let Some(id) = survivor.filter(|_| operation != Operation::Restore && operation != Operation::Delete) {
        let bundle = subject.bundle();
        // The configuration that an import brings is not run.
        let own: &[&str] = if operation == Operation::Import { &["--bundle", &bundle] } else { &[] };
        cryopod::ok(&[&["restore", &id, "--name", "restored"], own].concat())
            .map_err(|e| format!("I2: {e}"))?;
        restored(subject)?;
    }
    // It works now, whatever it left: at most it was done before it was disturbed.
    let done = run(operation, subject, prepared.as_ref())?;
    let before_that = match operation {
        Operation::Delete => NOT_FOUND,
        Operation::Import => ALREADY_EXISTS,
        _ => 0,
    };
    ensure(done.code == 0 || done.code == before_that, || {
        format!("{operation} fails after recovery with {}: {}", done.code, done.stderr.trim())
    })?;
    if operation == Operation::Restore {
        restored(subject)?;
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

/// The restored container counts on with memory and file in step (I6), beside the one that it came from; then it goes.
fn restored(subject: &Subject) -> Result<(), Failure> {
    let restored = Subject::running("restored")?;
    restored.counts()?;
    subject.survived()?;
    restored.remove()
}
