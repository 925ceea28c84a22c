//! What was asked for, and by whom: some containers of a pod alone, and the user in the node's audit log.

use serde_json::{Value, json};

use crate::kube::{self, apply, count, counter, delete, get, kubectl, try_kubectl, until_running};
use crate::suite::{Failure, ensure};

const USER: &str = "jane@example.com";

/// A counting pod with two containers more.
fn three(name: &str) -> Value {
    let mut pod = counter(name, Some("cryopod"));
    for other in ["second", "third"] {
        let mut container = pod["spec"]["containers"][0].clone();
        container["name"] = json!(other);
        if let Some(containers) = pod["spec"]["containers"].as_array_mut() {
            containers.push(container);
        }
    }
    // What kubectl shows without a name.
    pod["metadata"]["annotations"] = json!({ "kubectl.kubernetes.io/default-container": "app" });
    pod
}

/// The word that a container has in its memory.
fn word(pod: &str, container: &str) -> Result<String, Failure> {
    crate::shell::eventually(&format!("container {container} of {pod} counts"), kube::PATIENCE, || {
        let done = try_kubectl(&["logs", pod, "-c", container, "--tail=1"])?;
        Ok(done.stdout.trim().rsplit_once(' ').map(|(word, _)| word.to_owned()))
    })
}

pub(super) fn some_containers() -> Result<(), Failure> {
    apply(&three("some"))?;
    until_running("some")?;
    let containers = ["app", "second", "third"];
    let words = |pod: &str| containers.map(|container| word(pod, container));
    let before = words("some");
    kubectl(&[
        "checkpoint",
        "some",
        "--name",
        "two",
        "-c",
        "app,second",
        "--mode",
        "full",
        "--timeout",
        "5m",
    ])?;
    let object = get("podcheckpoint", "two")?.ok_or("the checkpoint has no object")?;
    let captured = object["status"]["checkpointedContainers"].as_array().cloned().unwrap_or_default();
    let names: Vec<&str> = captured.iter().filter_map(|it| it["name"].as_str()).collect();
    ensure(names == ["app", "second"], || format!("captured: {names:?}"))?;
    kubectl(&["delete", "pod", "some", "--timeout=120s"])?;
    kubectl(&["restore", "two", "--name", "two", "--timeout", "5m"])?;
    for ((container, before), after) in containers.iter().zip(before).zip(words("some")) {
        let (before, after) = (before?, after?);
        ensure((before == after) == (*container != "third"), || {
            format!("{container}: {before}, then {after}")
        })?;
    }
    // One that is not there is no smaller checkpoint.
    let failed =
        try_kubectl(&["checkpoint", "some", "--name", "none", "-c", "app,fourth", "--timeout", "2m"])?;
    ensure(failed.code != 0 && failed.stderr.contains("fourth"), || failed.stderr.clone())?;
    delete(&["pod", "some"])?;
    delete(&["podrestore", "two"])?;
    delete(&["podcheckpoint", "two", "none"])
}

/// Lines of the node's audit log about a checkpoint: operation and user.
fn audited(id: &str) -> Result<Vec<(String, Option<String>)>, Failure> {
    let text = kube::in_node(&kube::node_name()?, "cryopod audit list -n 50 -o json")?;
    let records: Vec<Value> = serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))?;
    let of_this = records.iter().filter(|record| record["checkpoint"] == id);
    let text = |value: &Value| value.as_str().map(str::to_owned);
    Ok(of_this.map(|it| (text(&it["operation"]).unwrap_or_default(), text(&it["actor"]["user"]))).collect())
}

pub(super) fn by_whom() -> Result<(), Failure> {
    let role = json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": { "name": "jane" }, "subjects": [{ "kind": "User", "name": USER }],
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit" } });
    apply(&role)?;
    apply(&counter("asked", Some("cryopod")))?;
    until_running("asked")?;
    let before = count("asked")?;
    let as_jane = ["--as", USER];
    kubectl(&[&["checkpoint", "asked", "--name", "by-jane", "--timeout", "5m"][..], &as_jane].concat())?;
    let object = get("podcheckpoint", "by-jane")?.ok_or("the checkpoint has no object")?;
    let noted = &object["metadata"]["annotations"]["cryopod.dev/requested-by"];
    ensure(noted == USER, || format!("requested by {noted}"))?;
    // Nobody speaks in another's name, nor changes what was said.
    let mut forged = object.clone();
    forged["metadata"] = json!({ "name": "forged", "annotations": { "cryopod.dev/requested-by": USER } });
    let refused = kube::try_apply(&forged)?;
    ensure(refused.code != 0 && refused.stderr.contains("requested-by"), || refused.stderr.clone())?;
    let change = ["annotate", "--overwrite", "podcheckpoint", "by-jane", "cryopod.dev/requested-by=bob"];
    let refused = try_kubectl(&change)?;
    ensure(refused.code != 0 && refused.stderr.contains("cannot be changed"), || refused.stderr.clone())?;
    kubectl(&["delete", "pod", "asked", "--timeout=120s"])?;
    kubectl(&[&["restore", "by-jane", "--name", "by-jane", "--timeout", "5m"][..], &as_jane].concat())?;
    kube::goes_on("asked", &before)?;
    let id = object["status"]["checkpointID"].as_str().unwrap_or_default();
    let lines = audited(id)?;
    for operation in ["capture", "restore"] {
        let wanted = (operation.to_owned(), Some(USER.to_owned()));
        ensure(lines.contains(&wanted), || format!("{operation} by {USER} is not in {lines:?}"))?;
    }
    delete(&["pod", "asked"])?;
    delete(&["podrestore", "by-jane"])?;
    delete(&["podcheckpoint", "by-jane"])?;
    delete(&["rolebinding", "jane"])
}
