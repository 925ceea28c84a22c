//! `faults`: every named step × {error, SIGKILL of each process}; after one `cryopod recover` the invariants I1–I4 and
//! I6 of docs/architecture.md hold. The steps are those of docs/reference/faults.md.
//!
//! The subject is a container that counts, on a ZFS clone; the operation runs in the command, so that killing it must
//! not hurt the container. The last cases do the same to a pod, whose shim may die with it, but with nothing else.

mod injection;
mod operations;
mod subject;

use injection::{Action, Victim};
use operations::Operation;

use crate::suite::{Suite, test};

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
    "capture.thawed",
    "capture.hash",
    "capture.manifest",
    "capture.commit",
    "capture.committed",
];
const SETTLE: &[&str] = &["settle.base", "settle.send", "settle.sent", "settle.release", "settle.settled"];
const RESTORE: &[&str] =
    &["place.journal", "place.clone", "place.cloned", "runtime.restore", "runtime.restored"];
const DELETE: &[&str] = &["delete.mark", "delete.destroy"];
const IMPORT: &[&str] = &["import.begin", "import.section", "import.verify", "import.commit"];

/// What runs without `--full`: each operation, both actions, the steps around the freeze and the commit.
const REPRESENTATIVE: &[(&str, Action)] = &[
    ("capture.begun", Action::Kill),
    ("capture.frozen", Action::Kill),
    ("capture.snapshot", Action::Error),
    ("runtime.hook", Action::Error),
    ("capture.snapshotted", Action::Kill),
    ("capture.commit", Action::Kill),
    ("settle.send", Action::Kill),
    ("place.cloned", Action::Kill),
    ("runtime.restored", Action::Error),
    ("import.verify", Action::Kill),
];

/// Another process dies while the operation goes on: where the operation waits, and who is killed then.
const KILLINGS: &[(&str, Victim)] = &[
    ("runtime.hook", Victim::Criu),
    ("runtime.hook", Victim::Runtime),
    ("runtime.hook", Victim::Hook),
    ("capture.snapshot", Victim::Zfs),
    ("settle.send", Victim::Zfs),
    ("capture.dump", Victim::Criu),
];

/// The tests, and how many cases a full sweep has.
pub fn suite(full: bool) -> Suite {
    let mut tests = Vec::new();
    let mut cases = 0;
    let mut left_out = 0;
    let groups: [(Operation, &[&'static str]); 5] = [
        (Operation::Checkpoint, CAPTURE),
        (Operation::Settle, SETTLE),
        (Operation::Restore, RESTORE),
        (Operation::Delete, DELETE),
        (Operation::Import, IMPORT),
    ];
    for (operation, steps) in groups {
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
    for (n, &(step, victim)) in KILLINGS.iter().enumerate() {
        cases += 1;
        if full || n < 4 {
            tests.push(test(format!("{step}::kill_{victim}"), move || operations::kill_other(step, victim)));
        } else {
            left_out += 1;
        }
    }
    println!("{cases} cases in a full sweep, {} run", tests.len());
    let left_out =
        if left_out == 0 { Vec::new() } else { vec![format!("{left_out} of {cases} fault cases")] };
    Suite { tests, left_out }
}
