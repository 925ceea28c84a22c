//! `matrix`: real programs × OCI runtimes. Each runs in a pod, is captured, its pod is deleted, a new pod is made from
//! the checkpoint, and the program goes on from the very same instant. What it shows is in
//! docs/reference/workloads.md.

use crate::crictl::{Container, Pod};
use crate::cryopod::Checkpoint;
use crate::leaks;
use crate::story::restore;
use crate::suite::{Failure, Suite, ensure, test};
use crate::ticks;
use crate::workloads::{self, Workload};

/// Runtime handlers by the runtime that they use.
const RUNTIMES: &[(&str, &str)] = &[("crun", "cryopod"), ("runc", "cryopod-runc")];
/// The part of every run: what differs most in kernel objects, and the other runtime once.
const DEFAULT: &[(&str, &str)] = &[
    ("counter", "crun"),
    ("threads-pipe", "crun"),
    ("sqlite", "crun"),
    ("nginx", "crun"),
    ("counter", "runc"),
];

/// The tests.
pub fn suite(full: bool) -> Suite {
    let mut tests = Vec::new();
    let mut left_out = Vec::new();
    for (runtime, handler) in RUNTIMES {
        for workload in workloads::ALL {
            let name = format!("{runtime}::{}_goes_on_where_it_was", workload.name);
            if full || DEFAULT.contains(&(workload.name, runtime)) {
                tests.push(test(name, move || leaks::checked(|| goes_on(workload, handler))));
            } else {
                left_out.push(format!("matrix {name}"));
            }
        }
    }
    Suite { tests, left_out }
}

/// The tests of one more handler, each restored twice: what came back is captured and brought back again. Name, whether
/// every run has it, and what it does.
pub fn again_and_again(
    handler: &'static str,
) -> impl Iterator<Item = (String, bool, impl FnOnce() -> Result<(), Failure> + Send + 'static)> {
    workloads::ALL.iter().map(move |workload| {
        let name = format!("{}_goes_on_where_it_was_twice", workload.name);
        let always = ["counter", "threads-pipe"].contains(&workload.name);
        (name, always, move || twice(workload, handler))
    })
}

fn twice(workload: &Workload, handler: &str) -> Result<(), Failure> {
    let spec = (workload.spec)();
    let mut pod = Pod::run(handler, "source")?;
    let mut container = pod.start(&spec)?;
    ticks::beyond(&container, 5)?;
    let mut seen = (workload.probe)(&pod, &container, None)?;
    for round in ["restored", "again"] {
        let before = ticks::read(&container)?;
        let checkpoint = Checkpoint::with(&pod.id, &[&["--mode", "full"], workload.options].concat())?;
        pod.remove()?;
        let (next, restored) = restore(handler, round, &checkpoint.id, &spec)?;
        ticks::goes_on(&restored, &before)?;
        seen = (workload.probe)(&next, &restored, Some(seen))?;
        still_whole(&restored)?;
        (pod, container) = (next, restored);
        checkpoint.delete()?;
    }
    pod.remove()
}

fn goes_on(workload: &Workload, handler: &str) -> Result<(), Failure> {
    let spec = (workload.spec)();
    let source = Pod::run(handler, "source")?;
    let container = source.start(&spec)?;
    ticks::beyond(&container, 5)?;
    let seen = (workload.probe)(&source, &container, None)?;
    let before = ticks::read(&container)?;
    let checkpoint = Checkpoint::with(&source.id, &[&["--mode", "full"], workload.options].concat())?;
    // The source goes on as if nothing had been.
    let after = ticks::read(&container)?;
    ticks::beyond(&container, after.last + 2)?;
    source.remove()?;

    let (pod, restored) = restore(handler, "restored", &checkpoint.id, &spec)?;
    ticks::goes_on(&restored, &before)?;
    (workload.probe)(&pod, &restored, Some(seen))?;
    still_whole(&restored)?;
    pod.remove()?;
    checkpoint.delete().map(drop)
}

/// It runs on, and no process of it has found a contradiction.
fn still_whole(container: &Container) -> Result<(), Failure> {
    let state = container.state()?;
    ensure(state == "RUNNING", || format!("the restored container is {state}"))?;
    match container.file("/data/error") {
        Ok(error) => Err(format!("the workload found: {}", error.trim())),
        Err(_) => Ok(()),
    }
}
