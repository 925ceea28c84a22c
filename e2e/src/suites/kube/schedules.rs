//! Schedules and drains.

use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::kube::{self, apply, count, counter, delete, get, goes_on, kubectl, list, until_running};
use crate::shell::eventually;
use crate::suite::{Failure, ensure};

fn of_schedule(name: &str) -> Result<Vec<Value>, Failure> {
    list(&["podcheckpoints", "-l", &format!("cryopod.dev/schedule={name}")])
}

fn complete(name: &str) -> Result<usize, Failure> {
    Ok(of_schedule(name)?.iter().filter(|it| kube::ready(it).1 == "CheckpointCompleted").count())
}

pub(super) fn by_hand() -> Result<(), Failure> {
    for pod in ["sched-a", "sched-b"] {
        let mut object = counter(pod, Some("cryopod"));
        object["metadata"]["labels"]["group"] = "sched".into();
        apply(&object)?;
    }
    until_running("sched-a")?;
    until_running("sched-b")?;
    kubectl(&[
        "cryopod",
        "schedule",
        "create",
        "keep",
        "--schedule",
        "0 3 1 1 *",
        "-l",
        "group=sched",
        "--keep-last",
        "1",
    ])?;
    let mut earlier: Vec<Value> = Vec::new();
    for round in 1..=2 {
        kubectl(&["cryopod", "schedule", "run", "keep"])?;
        let mut found = Vec::new();
        let mut seen = String::new();
        eventually(&format!("round {round} is complete and pruned"), kube::PATIENCE * 2, || {
            let schedule = get("checkpointschedule", "keep")?.unwrap_or_default();
            seen = schedule["status"].to_string();
            let is_begun = schedule["status"]["lastRunNow"] == schedule["spec"]["runNow"];
            let waiting = schedule["status"]["runs"].as_array().is_some_and(|runs| !runs.is_empty());
            let is_over = is_begun && schedule["status"]["active"] == 0 && !waiting;
            found = of_schedule("keep")?.iter().map(|it| it["metadata"]["name"].clone()).collect();
            let is_new = found.iter().all(|name| !earlier.contains(name));
            Ok((is_over && is_new && found.len() == 2 && complete("keep")? == 2).then_some(()))
        })
        .map_err(|error| format!("{error}: {seen}"))?;
        earlier = found;
    }
    let table = kubectl(&["cryopod", "schedule", "list"])?;
    ensure(table.contains("keep"), || table.clone())?;
    // Its checkpoints stay when it goes.
    kubectl(&["cryopod", "schedule", "delete", "keep"])?;
    ensure(of_schedule("keep")?.len() == 2, || "the checkpoints went with the schedule".into())?;
    delete(&["podcheckpoints", "-l", "cryopod.dev/schedule=keep"])?;
    delete(&["pods", "-l", "group=sched"])
}

pub(super) fn by_the_clock() -> Result<(), Failure> {
    apply(&counter("clock", Some("cryopod")))?;
    until_running("clock")?;
    kubectl(&[
        "cryopod",
        "schedule",
        "create",
        "minutely",
        "--schedule",
        "* * * * *",
        "-l",
        "app=clock",
        "--keep-last",
        "1",
    ])?;
    // Two minutes come; of their checkpoints one stays.
    let mut names = std::collections::BTreeSet::new();
    eventually("two runs and one checkpoint that is kept", Duration::from_secs(300), || {
        let found = of_schedule("minutely")?;
        names.extend(found.iter().filter_map(|it| it["metadata"]["name"].as_str().map(str::to_owned)));
        Ok((names.len() >= 2 && found.len() == 1 && complete("minutely")? == 1).then_some(()))
    })?;
    kubectl(&["cryopod", "schedule", "delete", "minutely"])?;
    delete(&["podcheckpoints", "-l", "cryopod.dev/schedule=minutely"])?;
    delete(&["pod", "clock"])
}

pub(super) fn drain() -> Result<(), Failure> {
    let node = kube::node_name()?;
    let mut object = counter("moving", Some("cryopod"));
    object["metadata"]["labels"]["group"] = "drain".into();
    apply(&object)?;
    until_running("moving")?;
    kubectl(&[
        "cryopod",
        "schedule",
        "create",
        "safe",
        "--before-drain",
        "-l",
        "group=drain",
        "--mode",
        "full",
    ])?;
    eventually("the pods are kept from eviction", kube::PATIENCE, || {
        let budget = get("poddisruptionbudget", "cryopod-safe")?.unwrap_or_default();
        Ok((budget["status"]["disruptionsAllowed"] == 0 && budget["status"]["currentHealthy"] == 1)
            .then_some(()))
    })?;
    let before = count("moving")?;
    let drained = drained(&node);
    // The node takes pods again whatever came of it.
    let uncordoned = kubectl(&["uncordon", &node]);
    drained?;
    uncordoned?;
    ensure(complete("safe")? == 1, || "the pod was evicted without a checkpoint".into())?;
    ensure(get("pod", "moving")?.is_none(), || "the pod was not evicted".into())?;
    let name = of_schedule("safe")?[0]["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    kubectl(&["restore", &name, "--name", "moving", "--timeout", "5m"])?;
    goes_on("moving", &before)?;
    kubectl(&["cryopod", "schedule", "delete", "safe"])?;
    delete(&["pod", "moving"])?;
    delete(&["podrestore", "moving"])?;
    delete(&["podcheckpoints", "-l", "cryopod.dev/schedule=safe"])
}

fn drained(node: &str) -> Result<(), Failure> {
    let child = Command::new("kubectl")
        .args(["drain", node, "--ignore-daemonsets", "--force", "--delete-emptydir-data", "--timeout=240s"])
        .args(["--pod-selector=group=drain"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let output = child.and_then(std::process::Child::wait_with_output).map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure(output.status.success(), || format!("kubectl drain: {said}"))
}
