//! `power`: the machine loses power while things are under way, and comes back.
//!
//! `cryopod-e2e power-prepare` brings the node into that state and leaves a note of it; `cargo xtask test` then cuts the
//! power and boots the node; the suite looks at what came back. In between are: a checkpoint in the store, one that is
//! committed but not shipped yet, a capture that stands with its pod frozen, and a restore that stands with the new
//! root half placed.

use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::crictl::Spec;
use crate::cryopod::{self, Checkpoint, checkpoints};
use crate::leaks::Footprint;
use crate::shell::{self, eventually, exec_ok};
use crate::story::{counting, restore, restored_pod};
use crate::suite::{Failure, Suite, ensure, test};
use crate::suites::faults::Armed;
use crate::suites::prepared;
use crate::ticks::{self, Ticks};

const PATIENCE: Duration = Duration::from_secs(120);

/// What was there before the power went.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    footprint: Vec<String>,
    settled: String,
    unsettled: String,
    last: u64,
    token: String,
}

impl Note {
    fn read() -> Result<Self, Failure> {
        prepared::read("power")
    }

    fn before(&self) -> Ticks {
        Ticks { last: self.last, token: self.token.clone() }
    }
}

/// Brings the node into the state in which the power goes.
pub fn prepare() -> ExitCode {
    prepared::report("power", try_prepare())
}

fn try_prepare() -> Result<(), Failure> {
    let footprint = Footprint::take()?.lines();
    let source = counting("cryopod")?;
    let settled = Checkpoint::with(&source.pod.id, &["--mode", "full", "--wait"])?;
    let held = Armed::with("settle.send", "error")?;
    let unsettled = Checkpoint::with(&source.pod.id, &["--mode", "full"])?;
    held.reached(PATIENCE)?;
    drop(held);
    let Ticks { last, token } = source.before.clone();
    let note = Note { footprint, settled: settled.id.clone(), unsettled: unsettled.id.clone(), last, token };
    prepared::write("power", &note)?;

    let capture = Armed::with("capture.frozen", "wait")?;
    let restore = Armed::with("place.cloned", "wait")?;
    let child = Command::new("cryopod")
        .args(["checkpoint", "--mode", "full", &source.pod.id])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    child.map_err(|e| format!("cannot run cryopod: {e}"))?;
    capture.reached(PATIENCE)?;
    let pod = restored_pod("cryopod", "half", &settled.id, &[])?;
    let spec = source.spec.clone();
    // It never comes back.
    thread::spawn(move || pod.start(&spec).map(|_| ()));
    restore.reached(PATIENCE)?;
    // The power goes with everything in place.
    std::mem::forget((capture, restore, source, settled, unsettled));
    Ok(())
}

/// What must hold afterwards; in this order.
pub fn suite(_full: bool) -> Suite {
    let tests = vec![
        test("recovery_ran_at_boot_before_containerd", recovered_at_boot),
        test("containerd_removes_the_pods_that_died", pods_go),
        test("what_was_committed_is_there_and_nothing_else", only_committed),
        test("a_settled_checkpoint_goes_on", || goes_on(|note| &note.settled)),
        test("a_checkpoint_that_was_not_shipped_yet_is_and_goes_on", || goes_on(|note| &note.unsettled)),
        test("nothing_is_left", nothing_left),
    ];
    Suite { tests, left_out: Vec::new() }
}

fn recovered_at_boot() -> Result<(), Failure> {
    Note::read()?;
    let began = |unit: &str, property: &str| -> Result<u64, Failure> {
        let text = exec_ok(&["systemctl", "show", "--value", "-p", property, unit])?;
        text.trim().parse().map_err(|_| format!("{property} of {unit} is {text:?}"))
    };
    let result = exec_ok(&["systemctl", "show", "--value", "-p", "Result", "cryopod-recover"])?;
    ensure(result.trim() == "success", || format!("cryopod-recover ended with {result}"))?;
    let ended = began("cryopod-recover", "ExecMainExitTimestampMonotonic")?;
    let containerd = began("containerd", "ExecMainStartTimestampMonotonic")?;
    ensure(ended > 0, || "cryopod-recover did not run".into())?;
    ensure(ended <= containerd, || {
        format!("recovery ended at {ended} µs, containerd began at {containerd} µs")
    })
}

fn pods_go() -> Result<(), Failure> {
    Note::read()?;
    eventually("containerd answers", PATIENCE, || {
        Ok((shell::sh("crictl --timeout 10s info")?.code == 0).then_some(()))
    })?;
    let pods = exec_ok(&["crictl", "pods", "-q"])?;
    ensure(pods.lines().count() >= 2, || format!("containerd does not know the pods any more: {pods:?}"))?;
    for pod in pods.lines() {
        exec_ok(&["crictl", "--timeout", "60s", "stopp", pod])?;
        exec_ok(&["crictl", "--timeout", "60s", "rmp", pod])?;
    }
    Ok(())
}

fn only_committed() -> Result<(), Failure> {
    let note = Note::read()?;
    cryopod::ok(&["recover"])?;
    let mut found = checkpoints()?;
    found.sort();
    let mut expected = vec![note.settled, note.unsettled];
    expected.sort();
    ensure(found == expected, || format!("listed are {found:?}, committed were {expected:?}"))?;
    for id in &found {
        cryopod::ok(&["checkpoints", "verify", id])?;
    }
    Ok(())
}

fn goes_on(which: fn(&Note) -> &String) -> Result<(), Failure> {
    let note = Note::read()?;
    let checkpoint = Checkpoint::named(which(&note));
    checkpoint.settle()?;
    let (pod, restored) = restore("cryopod", "restored", &checkpoint.id, &Spec::counter("counter"))?;
    ticks::goes_on(&restored, &note.before())?;
    pod.remove()?;
    checkpoint.delete().map(drop)
}

fn nothing_left() -> Result<(), Failure> {
    let note = Note::read()?;
    // Pods of a node that went down leave kubelet's folders and groups, which it makes and removes.
    Footprint::of_lines(note.footprint).unchanged()?;
    prepared::remove("power")
}
