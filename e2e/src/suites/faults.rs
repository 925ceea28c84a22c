//! `faults`: every named step × {error, SIGKILL of each process}; after one `cryopod recover` the invariants I1–I4 and
//! I6 of docs/architecture.md hold. The steps are those of docs/reference/faults.md.
//!
//! The subject is a container that counts, on a ZFS clone; the operation runs in the command, so that killing it must
//! not hurt the container. Other cases do the same to a pod, whose shim may die with it, but with nothing else; kill
//! the processes that take part; fill the pool and destroy the store under our feet; and give up in the middle.

mod freezes;
mod injection;
mod operations;
mod pods;
mod pool;
mod subject;

pub use injection::Armed;
use injection::{Action, Victim};
use operations::{Moment, Operation};
use pods::PodOperation;

use crate::suite::{Failure, Suite, test};

/// Steps of a capture in the command.
const CAPTURE: &[&str] = &[
    "capture.journal",
    "capture.begin",
    "capture.begun",
    "capture.sync",
    "capture.freeze",
    "capture.frozen",
    "capture.dump",
    "runtime.dump",
    "runtime.hook",
    "capture.snapshot",
    "capture.snapshotted",
    "runtime.dumped",
    "capture.dumped",
    "capture.thaw",
    "capture.thawed",
    "capture.hash",
    "capture.manifest",
    "capture.commit",
    "capture.committed",
];
const SETTLE: &[&str] = &["settle.base", "settle.send", "settle.sent", "settle.release", "settle.settled"];
const RESTORE: &[&str] = &["runtime.restore", "runtime.restored"];
const DELETE: &[&str] = &["delete.mark", "delete.destroy"];
const IMPORT: &[&str] = &["import.begin", "import.section", "import.verify", "import.commit"];

/// Steps that the shim of a pod meets.
const POD_RESTORE: &[&str] = &[
    "place.journal",
    "place.aside",
    "place.clone",
    "place.cloned",
    "place.clean",
    "shim.create.placed",
    "shim.create.mounted",
    "runtime.restore",
    "runtime.restored",
    "shim.start.restored",
];
const CRI_CHECKPOINT: &[&str] =
    &["shim.cri.taken", "shim.cri.copied", "shim.cri.committed", "shim.cri.swapped", "shim.resume.swap-back"];
const POD_DELETE: &[&str] = &["shim.delete.adopt", "adopt.rename", "adopt.replace", "adopt.adopted"];

/// Steps of no sweep on a node, and where they are broken instead.
#[cfg(test)]
const ELSEWHERE: &[(&str, &str)] = &[
    (
        "capture.pre-dump",
        "only pods with much memory meet it; every_step_of_a_capture_may_fail and \
         the_process_may_be_killed_at_every_step in checkpoint/src/capture/tests/faults.rs",
    ),
    (
        "runtime.pre-dump",
        "never by its name: the call that it fails is failed by every_call_to_the_backend_may_fail in \
         checkpoint/src/capture/tests/faults.rs, and the step of the process is capture.pre-dump",
    ),
    (
        "place.volumes",
        "only pods with volumes meet it; every_step_of_placing_may_fail_or_be_its_last in \
         checkpoint/src/restore/tests/faults.rs",
    ),
    (
        "delete.move",
        "a_deletion_that_ends_at_any_step_leaves_the_checkpoint_whole_or_gone in checkpoint/src/store/tests.rs, for \
         both stores",
    ),
    (
        "shim.sandbox.held",
        "before there is anything to capture; suite oci, a_shim_that_dies_while_it_makes_a_pod_leaves_nothing",
    ),
    (
        "forget.rename",
        "only roots that the store made meet it; every_step_and_call_of_forgetting_may_fail in \
         checkpoint/src/settle/adopt/tests.rs, an error alone",
    ),
];

/// What runs without `--full`: each operation, both actions, the steps around the freeze and the commit.
const REPRESENTATIVE: &[(&str, Action)] = &[
    ("capture.snapshot", Action::Error),
    ("runtime.hook", Action::Error),
    ("capture.commit", Action::Kill),
    ("settle.send", Action::Kill),
    ("runtime.restored", Action::Error),
];

/// The same for pods.
const REPRESENTATIVE_PODS: &[(&str, Action)] = &[
    ("capture.dumped", Action::Kill),
    ("place.cloned", Action::Kill),
    ("shim.cri.swapped", Action::Kill),
    ("adopt.replace", Action::Kill),
];

/// The same for pods of another runtime, whose own steps these are.
const OTHER_PODS: &[(&str, Action)] = &[("runtime.restored", Action::Error)];

/// Another process dies while the operation goes on: where, who, and whether every run has it. From the hook on until
/// the dump is done, CRIU, the runtime and the hook wait for each other; snapshots are taken by libzfs_core and have no
/// process of their own.
const KILLINGS: &[(Operation, &str, Moment, Victim, bool)] = &[
    (Operation::Checkpoint, "capture.dump", Moment::After, Victim::Criu, false),
    (Operation::Checkpoint, "capture.dump", Moment::After, Victim::Runtime, false),
    (Operation::Checkpoint, "runtime.hook", Moment::At, Victim::Criu, true),
    (Operation::Checkpoint, "runtime.hook", Moment::At, Victim::Runtime, false),
    (Operation::Checkpoint, "runtime.hook", Moment::At, Victim::Hook, true),
    (Operation::Checkpoint, "capture.snapshot", Moment::At, Victim::Criu, false),
    (Operation::Checkpoint, "capture.snapshot", Moment::At, Victim::Runtime, false),
    (Operation::Checkpoint, "capture.snapshot", Moment::At, Victim::Hook, false),
    (Operation::Checkpoint, "capture.snapshotted", Moment::At, Victim::Criu, false),
    (Operation::Checkpoint, "capture.snapshotted", Moment::At, Victim::Runtime, false),
    (Operation::Checkpoint, "capture.snapshotted", Moment::At, Victim::Hook, false),
    (Operation::Settle, "settle.send", Moment::After, Victim::Zfs, true),
    (Operation::Import, "import.section", Moment::After, Victim::Zfs, false),
    (Operation::Restore, "runtime.restore", Moment::After, Victim::Criu, true),
    (Operation::Restore, "runtime.restore", Moment::After, Victim::Runtime, false),
];

const COMMAND: [(Operation, &[&str]); 5] = [
    (Operation::Checkpoint, CAPTURE),
    (Operation::Settle, SETTLE),
    (Operation::Restore, RESTORE),
    (Operation::Delete, DELETE),
    (Operation::Import, IMPORT),
];
const PODS: [(PodOperation, &[&str]); 4] = [
    (PodOperation::Checkpoint, CAPTURE),
    (PodOperation::Restore, POD_RESTORE),
    (PodOperation::CriCheckpoint, CRI_CHECKPOINT),
    (PodOperation::Delete, POD_DELETE),
];

/// A case that is no named step: its name, whether every run has it, what it does.
type Case = (&'static str, bool, fn() -> Result<(), Failure>);

/// The caller gives up in the middle of the freeze. Exit codes: docs/reference/exit-codes.md.
const GIVEN_UP: &[Case] = &[
    ("checkpoint::interrupted_while_frozen", true, || operations::given_up(None, 130)),
    ("checkpoint::deadline_while_frozen", true, || operations::given_up(Some("8"), 8)),
];

/// The tests, and how many cases a full sweep has.
pub fn suite(full: bool) -> Suite {
    let mut tests = Vec::new();
    let mut cases = 0;
    let mut left_out = 0;
    for (operation, steps) in COMMAND {
        for &step in steps {
            for action in [Action::Error, Action::Kill] {
                cases += 1;
                if full || REPRESENTATIVE.contains(&(step, action)) {
                    tests.push(test(format!("{operation}::{step}::{action}"), move || {
                        operations::inject(operation, step, action)
                    }));
                } else {
                    left_out += 1;
                }
            }
        }
    }
    for (operation, steps) in PODS {
        for &step in steps {
            for action in [Action::Error, Action::Kill] {
                cases += 1;
                if full || REPRESENTATIVE_PODS.contains(&(step, action)) {
                    tests.push(test(format!("{operation}::{step}::{action}"), move || {
                        pods::inject("cryopod", operation, step, action)
                    }));
                } else {
                    left_out += 1;
                }
            }
        }
    }
    for &(operation, step, moment, victim, always) in KILLINGS {
        cases += 1;
        if full || always {
            tests.push(test(format!("{operation}::{step}::kill_{victim}"), move || {
                operations::kill_other(operation, step, moment, victim)
            }));
        } else {
            left_out += 1;
        }
    }
    for (name, always, body) in pool::CASES.iter().chain(GIVEN_UP).copied() {
        cases += 1;
        if full || always {
            tests.push(test(name, body));
        } else {
            left_out += 1;
        }
    }
    println!("{cases} cases in a full sweep, {} run", tests.len());
    tests.extend(freezes::tests());
    let left_out =
        if left_out == 0 { Vec::new() } else { vec![format!("{left_out} of {cases} fault cases")] };
    Suite { tests, left_out }
}

/// What the shim of a pod does, on another handler: name, whether every run has it, and what it does.
pub fn of_pods(
    handler: &'static str,
) -> impl Iterator<Item = (String, bool, impl FnOnce() -> Result<(), Failure> + Send + 'static)> {
    let steps = PODS.iter().flat_map(|(operation, steps)| steps.iter().map(move |step| (*operation, *step)));
    steps.flat_map(move |(operation, step)| {
        [Action::Error, Action::Kill].into_iter().map(move |action| {
            let always = OTHER_PODS.contains(&(step, action));
            let body = move || pods::inject_unchecked(handler, operation, step, action);
            (format!("{operation}::{step}::{action}"), always, body)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_named_step_is_broken_somewhere() {
        let here = COMMAND.iter().flat_map(|(_, steps)| *steps);
        let here = here.chain(PODS.iter().flat_map(|(_, steps)| *steps));
        let known: Vec<&str> = here.copied().chain(ELSEWHERE.iter().map(|(step, _)| *step)).collect();
        let crates =
            [cryopod_checkpoint::fault::STEPS, cryopod_runtime::fault::STEPS, cryopod_shim::capture::STEPS];
        for step in crates.into_iter().flatten() {
            assert!(known.contains(step), "{step} is in no sweep");
        }
        for step in known {
            assert!(crates.iter().any(|steps| steps.contains(&step)), "{step} is no step");
        }
    }
}
