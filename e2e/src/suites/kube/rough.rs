//! Agents and the API server die at any time; nothing is lost and nothing is taken twice.

use std::thread;
use std::time::Duration;

use crate::kube::{
    self, AFTER_KILLS, apply, count, counter, delete, get, goes_on, kubectl, list, until_reason,
    until_reason_within, until_running,
};
use crate::shell;
use crate::suite::{Failure, ensure};

/// Kills the agent, which whoever keeps it – a DaemonSet or systemd – starts again.
const KILL: &str = "pkill -9 -x cryopod-agent || true";

/// Kills it and lets the DaemonSet make another: kubelet waits longer before each start of a container that dies again and again,
/// which is kubelet's and not what is looked at.
fn kill_and_replace(node: &str) -> Result<(), Failure> {
    kube::in_node(node, KILL)?;
    let field = format!("spec.nodeName={node}");
    let agents =
        ["-n", "cryopod-system", "-l", "app.kubernetes.io/component=agent", "--field-selector", &field];
    kubectl(&[&["delete", "pod", "--wait=false", "--grace-period=1"], &agents[..]].concat()).map(drop)
}

pub(super) fn agent_killed() -> Result<(), Failure> {
    let node = kube::node_name()?;
    apply(&counter("tough", Some("cryopod")))?;
    until_running("tough")?;
    let before = count("tough")?;
    kubectl(&["checkpoint", "tough", "--name", "tough", "--wait=false"])?;
    // In the middle of it, as far as that can be met.
    shell::eventually("it is begun", kube::PATIENCE, || {
        let object = get("podcheckpoint", "tough")?.unwrap_or_default();
        Ok(object["status"]["checkpointID"].is_string().then_some(()))
    })?;
    kube::in_node(&node, KILL)?;
    until_reason_within(AFTER_KILLS, "podcheckpoint", "tough", "CheckpointCompleted")?;
    let running = count("tough")?;
    ensure(running.0 == before.0, || format!("{before:?}, then {running:?}"))?;
    kubectl(&["delete", "pod", "tough", "--timeout=120s"])?;
    kubectl(&["restore", "tough", "--name", "tough", "--wait=false"])?;
    kube::in_node(&node, KILL)?;
    until_reason_within(AFTER_KILLS, "podrestore", "tough", "RestoreSucceeded")?;
    goes_on("tough", &before)?;
    ensure(list(&["pods", "-l", "cryopod.dev/podrestore=tough"])?.len() == 1, || "more than one pod".into())?;
    // And while it deletes.
    kubectl(&["delete", "podcheckpoint", "tough", "--wait=false"])?;
    kube::in_node(&node, KILL)?;
    shell::eventually("it is deleted", AFTER_KILLS, || {
        Ok(get("podcheckpoint", "tough")?.is_none().then_some(()))
    })?;
    delete(&["pod", "tough"])?;
    delete(&["podrestore", "tough"])
}

pub(super) fn deleted_meanwhile() -> Result<(), Failure> {
    apply(&counter("fickle", Some("cryopod")))?;
    until_running("fickle")?;
    let before = count("fickle")?;
    kubectl(&["checkpoint", "fickle", "--name", "fickle", "--wait=false"])?;
    delete(&["podcheckpoint", "fickle"])?;
    let after = count("fickle")?;
    ensure(after.0 == before.0 && after.1 >= before.1, || format!("{before:?}, then {after:?}"))?;
    thread::sleep(Duration::from_secs(2));
    let later = count("fickle")?;
    ensure(later.1 > after.1, || format!("the pod stands still: {after:?}, then {later:?}"))?;
    let stored = kube::in_node(&kube::node_name()?, "cryopod checkpoints list -o json")?;
    ensure(!stored.contains("fickle"), || format!("its data is left: {stored}"))?;
    delete(&["pod", "fickle"])
}

pub(super) fn api_server() -> Result<(), Failure> {
    let cluster = std::env::var("CRYOPOD_CLUSTER").map_err(|_| "CRYOPOD_CLUSTER is not set")?;
    let xtask = std::env::var("CRYOPOD_XTASK").map_err(|_| "CRYOPOD_XTASK is not set")?;
    apply(&counter("steady", Some("cryopod")))?;
    until_running("steady")?;
    let before = count("steady")?;
    kubectl(&["checkpoint", "steady", "--name", "steady", "--wait=false"])?;
    shell::ok(&format!("kill -9 $(cut -d' ' -f1 {cluster}/run/kube-apiserver)"))?;
    thread::sleep(Duration::from_secs(20));
    shell::exec_ok(&[&xtask, "cluster", "up", "--node", &kube::node_name()?])?;
    until_reason("podcheckpoint", "steady", "CheckpointCompleted")?;
    let after = count("steady")?;
    ensure(after.0 == before.0 && after.1 > before.1, || format!("{before:?}, then {after:?}"))?;
    delete(&["podcheckpoint", "steady"])?;
    delete(&["pod", "steady"])
}

/// Rounds of capture and deletion with a kill after a time that differs from round to round.
pub(super) fn random_kills() -> Result<(), Failure> {
    let node = kube::node_name()?;
    apply(&counter("hunted", Some("cryopod")))?;
    until_running("hunted")?;
    let before = count("hunted")?;
    for round in 0..8_u64 {
        let name = format!("hunted-{round}");
        kubectl(&["checkpoint", "hunted", "--name", &name, "--wait=false"])?;
        thread::sleep(Duration::from_millis(round * 370 % 2100));
        kill_and_replace(&node)?;
        until_reason_within(AFTER_KILLS, "podcheckpoint", &name, "CheckpointCompleted")?;
        if round % 2 == 1 {
            kubectl(&["delete", "podcheckpoint", &name, "--wait=false"])?;
            thread::sleep(Duration::from_millis(round * 210 % 900));
            kill_and_replace(&node)?;
        }
    }
    let after = count("hunted")?;
    ensure(after.0 == before.0 && after.1 > before.1, || format!("{before:?}, then {after:?}"))?;
    shell::eventually("four are left", AFTER_KILLS, || {
        Ok((list(&["podcheckpoints"])?.len() == 4).then_some(()))
    })?;
    kubectl(&["delete", "pod", "hunted", "--timeout=120s"])?;
    kubectl(&["restore", "hunted-6", "--name", "hunted", "--timeout", "5m"])?;
    goes_on("hunted", &before)?;
    delete(&["podcheckpoints", "--all"])?;
    delete(&["podrestore", "hunted"])?;
    delete(&["pod", "hunted"])
}
