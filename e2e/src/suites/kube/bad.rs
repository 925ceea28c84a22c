//! What cannot be done says why and what to do, and harms nothing.

use serde_json::{Value, json};

use crate::kube::{self, apply, counter, delete, get, kubectl, try_kubectl, until_reason, until_running};
use crate::suite::{Failure, ensure};

fn checkpoint(name: &str, pod: &str, more: &Value) -> Value {
    let mut object = json!({
        "apiVersion": "cryopod.dev/v1alpha1", "kind": "PodCheckpoint", "metadata": { "name": name },
        "spec": { "sourcePod": { "name": pod } },
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        object["spec"][key] = value.clone();
    }
    object
}

fn says(kind: &str, name: &str, reason: &str, words: &[&str]) -> Result<(), Failure> {
    let object = until_reason(kind, name, reason)?;
    let message = kube::ready(&object).2;
    for word in words {
        ensure(message.contains(word), || format!("{kind} {name} says {message:?}, which lacks {word:?}"))?;
    }
    Ok(())
}

pub(super) fn captures() -> Result<(), Failure> {
    apply(&counter("stock", None))?;
    apply(&counter("ours", Some("cryopod")))?;
    until_running("stock")?;
    until_running("ours")?;
    apply(&checkpoint("no-pod", "nobody", &json!({})))?;
    apply(&checkpoint("stock", "stock", &json!({})))?;
    let replaced = json!({ "sourcePod": { "name": "ours", "uid": "00000000-0000-0000-0000-000000000000" } });
    apply(&checkpoint("replaced", "ours", &replaced))?;
    apply(&checkpoint("no-container", "ours", &json!({ "containers": ["sidecar"] })))?;
    says("podcheckpoint", "no-pod", "SourcePodNotFound", &["nobody", "kubectl"])?;
    says("podcheckpoint", "stock", "CheckpointFailed", &["runtimeClassName"])?;
    says("podcheckpoint", "replaced", "SourcePodReplaced", &["00000000"])?;
    says("podcheckpoint", "no-container", "CheckpointFailed", &["sidecar"])?;
    // An event says it where people look first.
    let events =
        kubectl(&["get", "events", "--field-selector", "involvedObject.name=stock,involvedObject.kind=Pod"])?;
    ensure(events.contains("CheckpointFailed"), || events.clone())?;
    for (arguments, word) in [
        (vec!["checkpoint", "nobody"], "nobody"),
        (vec!["checkpoint", "deployment/web"], "only pods can"),
        (vec!["checkpoint", "ours", "--ttl", "soon"], "soon"),
        (vec!["restore", "ours", "--patch", "[1]"], "--patch"),
        (vec!["cryopod", "schedule", "create", "x", "--schedule", "every day"], "every day"),
        (vec!["cryopod", "describe", "nothing"], "nothing"),
    ] {
        let done = try_kubectl(&arguments)?;
        ensure(done.code != 0 && done.stderr.contains(word), || {
            format!("{arguments:?}: {} {}", done.code, done.stderr)
        })?;
    }
    // What the API server itself refuses.
    let wrong = checkpoint("wrong", "ours", &json!({ "ttl": "7x" }));
    let done = kube::try_apply(&wrong)?;
    ensure(done.code != 0 && get("podcheckpoint", "wrong")?.is_none(), || done.stdout.clone())?;
    delete(&["podcheckpoints", "no-pod", "stock", "replaced", "no-container"])?;
    delete(&["pods", "stock", "ours"])
}

pub(super) fn restores() -> Result<(), Failure> {
    apply(&counter("kept", Some("cryopod")))?;
    until_running("kept")?;
    kubectl(&["checkpoint", "kept", "--name", "kept", "--timeout", "5m"])?;
    // The captured pod still runs under the name.
    let restore = |name: &str, checkpoint: &str| {
        json!({
            "apiVersion": "cryopod.dev/v1alpha1", "kind": "PodRestore", "metadata": { "name": name },
            "spec": { "checkpointName": checkpoint, "timeoutSeconds": 20 },
        })
    };
    apply(&restore("taken", "kept"))?;
    apply(&restore("no-checkpoint", "nothing"))?;
    says("podrestore", "taken", "PodExists", &["kept", "podName"])?;
    says("podrestore", "no-checkpoint", "RestoreFailed", &["nothing", "own namespace"])?;
    says("podrestore", "taken", "RestoreFailed", &["exists already"])?;
    // Whoever may make pods elsewhere may not for that reason read this one's memory.
    kubectl(&["create", "namespace", "elsewhere"])?;
    let id = get("podcheckpoint", "kept")?.unwrap_or_default()["status"]["checkpointID"].clone();
    let mut thief = counter("thief", Some("cryopod"));
    thief["metadata"]["namespace"] = "elsewhere".into();
    thief["metadata"]["annotations"] = json!({ "cryopod.dev/restore-from": id });
    apply(&thief)?;
    crate::shell::eventually("the pod in another namespace is refused", kube::PATIENCE, || {
        let pod = kubectl(&["-n", "elsewhere", "get", "pod", "thief", "-o", "json"])?;
        Ok(pod.contains("cannot be restored from it").then_some(()))
    })?;
    delete(&["namespace", "elsewhere"])?;
    delete(&["podrestores", "taken", "no-checkpoint"])?;
    delete(&["podcheckpoint", "kept"])?;
    delete(&["pod", "kept"])
}
