//! The main ways.

use serde_json::{Value, json};

use crate::kube::{self, apply, count, counter, delete, get, goes_on, kubectl, until_running};
use crate::shell::eventually;
use crate::suite::{Failure, ensure};

pub(super) fn doctor() -> Result<(), Failure> {
    // Kubelet says which handlers containerd has some seconds after it was started.
    eventually("kubectl cryopod doctor", kube::PATIENCE, || {
        let done = kube::try_kubectl(&["cryopod", "doctor"])?;
        Ok((done.code == 0).then_some(()))
    })
    .or_else(|error| {
        let done = kube::try_kubectl(&["cryopod", "doctor"])?;
        Err(format!("{error}:\n{}{}", done.stdout, done.stderr))
    })
}

pub(super) fn round_trip(handler: &str) -> Result<(), Failure> {
    let (pod, checkpoint) = (format!("trip-{handler}"), format!("cp-{handler}"));
    apply(&counter(&pod, Some(handler)))?;
    until_running(&pod)?;
    let before = count(&pod)?;
    let said = kubectl(&["checkpoint", &pod, "--name", &checkpoint, "--mode", "full", "--timeout", "5m"])?;
    ensure(said.contains("stood still for"), || said.clone())?;
    let object = get("podcheckpoint", &checkpoint)?.ok_or("the checkpoint has no object")?;
    for field in ["nodeName", "checkpointID", "completionTime", "freezeDuration", "size", "sourcePodUID"] {
        ensure(object["status"][field].is_string(), || format!("status.{field} is not set: {object}"))?;
    }
    ensure(object["status"]["mode"] == "Full", || format!("mode {}", object["status"]["mode"]))?;
    // It runs on while it is captured and afterwards.
    let running = count(&pod)?;
    ensure(running.0 == before.0 && running.1 > before.1, || format!("{before:?}, then {running:?}"))?;
    kubectl(&["delete", "pod", &pod, "--timeout=120s"])?;
    kubectl(&["restore", &checkpoint, "--name", &checkpoint, "--timeout", "5m"])?;
    goes_on(&pod, &before)?;
    let after = get("pod", &pod)?.ok_or("no pod")?;
    ensure(after["metadata"]["annotations"]["cryopod.dev/restore-from"] == checkpoint.as_str(), || {
        format!("annotations {}", after["metadata"]["annotations"])
    })?;
    kubectl(&["cryopod", "describe", &checkpoint])?;
    delete(&["pod", &pod])?;
    delete(&["podrestore", &checkpoint])?;
    let gone = kubectl(&["cryopod", "delete", &checkpoint])?;
    ensure(gone.contains("deleted"), || gone.clone())?;
    let id = object["status"]["checkpointID"].as_str().unwrap_or_default();
    let stored = kube::in_node(&kube::node_name()?, "cryopod checkpoints list -o json")?;
    ensure(!stored.contains(id), || format!("{id} is still in the store: {stored}"))
}

pub(super) fn clones() -> Result<(), Failure> {
    apply(&counter("origin", Some("cryopod")))?;
    until_running("origin")?;
    let before = count("origin")?;
    kubectl(&["checkpoint", "pod/origin", "--name", "seed", "--timeout", "5m"])?;
    kubectl(&["cryopod", "clone", "seed", "--count", "3", "--name", "copy", "--timeout", "5m"])?;
    for number in 0..3 {
        goes_on(&format!("copy-{number}"), &before)?;
    }
    let addresses: Vec<Value> = kube::list(&["pods", "-l", "cryopod.dev/podrestore=copy"])?
        .into_iter()
        .map(|pod| pod["status"]["podIP"].clone())
        .collect();
    ensure(addresses.len() == 3 && addresses[0] != addresses[1], || format!("{addresses:?}"))?;
    // The origin runs on, and deleting what the clones stand on does not hurt them.
    kubectl(&["cryopod", "delete", "seed"])?;
    goes_on("copy-0", &before)?;
    delete(&["pods", "origin", "copy-0", "copy-1", "copy-2"])?;
    delete(&["podrestore", "copy"])
}

pub(super) fn by_annotation() -> Result<(), Failure> {
    apply(&counter("plain", Some("cryopod")))?;
    until_running("plain")?;
    let before = count("plain")?;
    kubectl(&["checkpoint", "plain", "--name", "plain.v1", "--timeout", "5m"])?;
    kubectl(&["delete", "pod", "plain", "--timeout=120s"])?;
    let mut again = counter("plain-again", Some("cryopod"));
    again["metadata"]["annotations"] = json!({ "cryopod.dev/restore-from": "plain.v1" });
    apply(&again)?;
    until_running("plain-again")?;
    goes_on("plain-again", &before)?;
    delete(&["pod", "plain-again"])?;
    delete(&["podcheckpoint", "plain.v1"])
}

pub(super) fn kubelet_endpoint() -> Result<(), Failure> {
    let node = kube::node_name()?;
    apply(&counter("byhand", Some("cryopod")))?;
    until_running("byhand")?;
    let before = count("byhand")?;
    let path = format!("/api/v1/nodes/{node}/proxy/checkpoint/default/byhand/app?timeout=120");
    let said = kubectl(&["create", "--raw", &path, "-f", "/dev/null"])?;
    let answer: Value = serde_json::from_str(&said).map_err(|error| format!("{said}: {error}"))?;
    let archive = answer["items"][0].as_str().ok_or_else(|| format!("no archive in {said}"))?.to_owned();
    let listed = kube::in_node(
        &node,
        &format!("tar tf {archive} | head -50; checkpointctl show {archive} >/dev/null"),
    )?;
    ensure(listed.contains("checkpoint/inventory.img"), || listed.clone())?;
    let stored = kube::in_node(&node, "cryopod checkpoints list -o json")?;
    ensure(stored.contains("byhand"), || format!("the store does not have it: {stored}"))?;
    let after = count("byhand")?;
    ensure(after.0 == before.0 && after.1 > before.1, || format!("{before:?}, then {after:?}"))?;
    kube::in_node(
        &node,
        &format!(
            "rm {archive}; cryopod checkpoints list -o json | grep -o '\"id\": *\"[^\"]*\"' | cut -d'\"' -f4 | grep byhand | xargs -n1 cryopod checkpoints delete"
        ),
    )?;
    delete(&["pod", "byhand"])
}

pub(super) fn metrics() -> Result<(), Failure> {
    apply(&counter("measured", Some("cryopod")))?;
    until_running("measured")?;
    kubectl(&["checkpoint", "measured", "--name", "measured", "--timeout", "5m"])?;
    let text = kube::agent("metrics")?;
    for wanted in [
        "cryopod_build_info{version=",
        "cryopod_pods{backend=\"oci/crun\"}",
        "cryopod_checkpoint_operations_total{result=\"success\"}",
        "cryopod_checkpoint_freeze_seconds_count",
        "cryopod_store_available_bytes ",
        "cryopod_leader 1",
        "cryopod_container_memory_bytes{pod=\"measured\",namespace=\"default\"",
    ] {
        ensure(text.contains(wanted), || format!("{wanted} is not in the metrics:\n{text}"))?;
    }
    kube::agent("readyz")?;
    delete(&["pod", "measured"])?;
    delete(&["podcheckpoint", "measured"])
}
