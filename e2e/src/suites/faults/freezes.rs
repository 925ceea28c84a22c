//! A freeze that nobody may inherit: recovery without a store, two captures at once, an end that was asked for.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use libtest_mimic::Trial;

use super::injection::Armed;
use super::subject::Subject;
use crate::crictl::Pod;
use crate::cryopod::{self, checkpoints};
use crate::leaks::Footprint;
use crate::shell::eventually;
use crate::suite::{Failure, ensure, test};

const PATIENCE: Duration = Duration::from_secs(60);
const NO_POOL: &str = "/run/cryopod-e2e/faults/no-pool.toml";

/// Short enough for every run.
pub fn tests() -> Vec<Trial> {
    vec![
        test("recovery_thaws_before_it_asks_the_store", thaws_without_store),
        test("a_pod_that_starts_thaws_what_a_killed_command_has_left_frozen", thaws_at_the_start_of_a_pod),
        test("a_second_capture_at_once_is_refused_and_the_container_runs", two_at_once),
        test("a_container_that_was_to_end_with_its_checkpoint_is_ended_by_recovery", ended),
    ]
}

fn thaws_without_store() -> Result<(), Failure> {
    let subject = Subject::start("subject")?;
    let before = Footprint::take()?;
    let armed = Armed::with("capture.frozen", "kill")?;
    cryopod::run(&["checkpoint", "--mode", "full", &subject.name])?;
    armed.disarm()?;
    fs::write(NO_POOL, "[store]\nkind = \"zfs\"\n[store.zfs]\nroot = \"no-such-pool/cryopod\"\n")
        .map_err(|e| format!("{NO_POOL}: {e}"))?;
    let done = cryopod::run(&["--config", NO_POOL, "recover"])?;
    ensure(done.code != 0, || format!("a store that is not there is no error: {}", done.stdout.trim()))?;
    subject.survived().map_err(|e| format!("it waits for the store: {e}"))?;
    cryopod::ok(&["recover"])?;
    before.unchanged().map_err(|e| format!("I3: {e}"))?;
    subject.remove()
}

fn thaws_at_the_start_of_a_pod() -> Result<(), Failure> {
    let subject = Subject::start("subject")?;
    let before = Footprint::take()?;
    let armed = Armed::with("capture.frozen", "kill")?;
    cryopod::run(&["checkpoint", "--mode", "full", &subject.name])?;
    armed.disarm()?;
    let pod = Pod::run("cryopod", "thaws")?;
    subject.survived().map_err(|e| format!("it waits for an operation: {e}"))?;
    pod.remove()?;
    cryopod::ok(&["recover"])?;
    before.unchanged().map_err(|e| format!("I3: {e}"))?;
    subject.remove()
}

fn two_at_once() -> Result<(), Failure> {
    let subject = Subject::start("subject")?;
    let known: BTreeSet<String> = checkpoints()?.into_iter().collect();
    let armed = Armed::with("capture.frozen", "wait")?;
    let mut first = Command::new("cryopod")
        .args(["-o", "json", "checkpoint", "--wait", &subject.name])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| format!("cannot run cryopod: {e}"))?;
    armed.reached(PATIENCE)?;
    let second = cryopod::run(&["checkpoint", &subject.name])?;
    drop(armed);
    let first = first.wait().map_err(|e| e.to_string())?;
    ensure(second.code != 0 && second.stderr.contains("being taken already"), || {
        format!("the second ended with {}: {}{}", second.code, second.stdout.trim(), second.stderr.trim())
    })?;
    ensure(first.success(), || format!("the first ended with {first}"))?;
    subject.survived()?;
    delete_new(&known)?;
    subject.remove()
}

fn ended() -> Result<(), Failure> {
    let subject = Subject::start("subject")?;
    let known: BTreeSet<String> = checkpoints()?.into_iter().collect();
    let armed = Armed::with("capture.committed", "kill")?;
    cryopod::run(&["checkpoint", "--mode", "full", "--exit", &subject.name])?;
    armed.disarm()?;
    let report = cryopod::ok(&["recover"])?;
    ensure(report["ended"].as_array().is_some_and(|ended| ended.len() == 1), || {
        format!("recovery says nothing of the end: {report}")
    })?;
    eventually("the container to be stopped", PATIENCE, || {
        Ok((cryopod::ok(&["state", &subject.name])?["status"] == "stopped").then_some(()))
    })?;
    delete_new(&known)?;
    subject.remove()
}

fn delete_new(known: &BTreeSet<String>) -> Result<(), Failure> {
    for id in checkpoints()?.iter().filter(|id| !known.contains(*id)) {
        cryopod::ok(&["settle", id])?;
        cryopod::ok(&["checkpoints", "delete", id])?;
    }
    Ok(())
}
