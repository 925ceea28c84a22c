//! A cluster, as its users see it: kubectl, and the plugin of cryopod. Runs on the host, where `cargo xtask cluster` has the
//! control plane; the variables that it sets name everything. Nodes are reached by `cargo xtask node run`.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::shell::{self, Finished, eventually};
use crate::suite::Failure;

/// Under emulation a pod's start takes seconds, and much longer while others work.
pub const PATIENCE: Duration = Duration::from_secs(150);
/// For an agent that was killed: kubelet waits longer each time before it starts a container again.
pub const AFTER_KILLS: Duration = Duration::from_secs(420);
/// Image of all pods here.
pub const IMAGE: &str = "localhost/busybox:1";

/// The first node of the cluster.
pub fn node_name() -> Result<String, Failure> {
    std::env::var("CRYOPOD_E2E_NODES")
        .ok()
        .and_then(|nodes| nodes.split(',').next().map(str::to_owned))
        .filter(|name| !name.is_empty())
        .ok_or_else(|| {
            "CRYOPOD_E2E_NODES names no node: run it by `cargo xtask test --suite kube`".to_owned()
        })
}

/// Runs a script in a node; its standard output.
pub fn in_node(node: &str, script: &str) -> Result<String, Failure> {
    let xtask = std::env::var("CRYOPOD_XTASK").map_err(|_| "CRYOPOD_XTASK is not set")?;
    shell::exec_ok(&[&xtask, "node", "run", "--name", node, "--", "sh", "-ec", script])
}

/// What the agent of the node serves.
pub fn agent(path: &str) -> Result<String, Failure> {
    let node = node_name()?;
    let address = "jsonpath={.status.addresses[?(@.type==\"InternalIP\")].address}";
    let address = kubectl(&["get", "node", &node, "-o", address])?;
    in_node(&node, &format!("curl -sf http://{address}:9464/{path}"))
}

/// kubectl, or its plugin, whatever it answers.
pub fn try_kubectl(arguments: &[&str]) -> Result<Finished, Failure> {
    shell::exec(&[&["kubectl"], arguments].concat())
}

/// kubectl, which has to succeed; its standard output.
pub fn kubectl(arguments: &[&str]) -> Result<String, Failure> {
    shell::exec_ok(&[&["kubectl"], arguments].concat())
}

/// An object; None where there is none.
pub fn get(kind: &str, name: &str) -> Result<Option<Value>, Failure> {
    let text = kubectl(&["get", kind, name, "--ignore-not-found", "-o", "json"])?;
    if text.trim().is_empty() {
        return Ok(None);
    }
    serde_json::from_str(&text).map(Some).map_err(|error| format!("{kind} {name}: {error}"))
}

/// All objects of a kind, or those that a selector finds.
pub fn list(arguments: &[&str]) -> Result<Vec<Value>, Failure> {
    let text = kubectl(&[&["get"], arguments, &["-o", "json"]].concat())?;
    let list: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    Ok(list["items"].as_array().cloned().unwrap_or_default())
}

/// Creates or changes objects.
pub fn apply(objects: &Value) -> Result<String, Failure> {
    let done = try_apply(objects)?;
    if done.code == 0 { Ok(done.stdout) } else { Err(format!("kubectl apply: {}", done.stderr.trim())) }
}

/// The same, whatever the API server answers.
pub fn try_apply(objects: &Value) -> Result<Finished, Failure> {
    let failed = |error: std::io::Error| format!("kubectl: {error}");
    let start = std::time::Instant::now();
    let mut child = Command::new("kubectl")
        .args(["apply", "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(objects.to_string().as_bytes()).map_err(failed)?;
    }
    let output = child.wait_with_output().map_err(failed)?;
    Ok(Finished {
        code: output.status.code().unwrap_or(128),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        duration: start.elapsed(),
    })
}

/// Deletes objects and waits until they are gone; that there are none is fine.
pub fn delete(arguments: &[&str]) -> Result<(), Failure> {
    kubectl(&[&["delete", "--ignore-not-found", "--timeout=120s"], arguments].concat()).map(|_| ())
}

/// Status, reason and message of `Ready`.
pub fn ready(object: &Value) -> (String, String, String) {
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
    let ready = conditions.into_iter().flatten().find(|it| it["type"] == "Ready");
    let text = |key: &str| ready.and_then(|it| it[key].as_str()).unwrap_or_default().to_owned();
    (text("status"), text("reason"), text("message"))
}

/// Waits until `Ready` has this reason; the object then.
pub fn until_reason(kind: &str, name: &str, reason: &str) -> Result<Value, Failure> {
    until_reason_within(PATIENCE, kind, name, reason)
}

/// The same, for as long as this.
pub fn until_reason_within(
    patience: Duration,
    kind: &str,
    name: &str,
    reason: &str,
) -> Result<Value, Failure> {
    let mut last = String::new();
    eventually(&format!("{kind} {name}: {reason}"), patience, || {
        let Some(object) = get(kind, name)? else { return Ok(None) };
        let (status, now, message) = ready(&object);
        last = format!("{status} {now}: {message}");
        Ok((now == reason).then_some(object))
    })
    .map_err(|error| format!("{error}; last seen: {last}"))
}

/// A pod that counts, in memory and in a file, and has a word in memory that no other run of it has.
pub fn counter(name: &str, handler: Option<&str>) -> Value {
    let script = "t=$(cat /proc/sys/kernel/random/uuid); i=0; while :; do i=$((i+1)); echo $i > /count; echo $t $i; sleep 0.3; done";
    serde_json::json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "labels": { "app": name } },
        "spec": {
            "runtimeClassName": handler,
            "terminationGracePeriodSeconds": 1,
            "containers": [{
                "name": "app", "image": IMAGE, "imagePullPolicy": "Never", "command": ["sh", "-c", script],
            }],
        },
    })
}

/// Waits until the pod is Ready.
pub fn until_running(pod: &str) -> Result<(), Failure> {
    let mut last = String::new();
    eventually(&format!("pod {pod} runs"), PATIENCE, || {
        let Some(object) = get("pod", pod)? else { return Ok(None) };
        last = object["status"].to_string();
        Ok((ready(&object).0 == "True").then_some(()))
    })
    .map_err(|error| format!("{error}; {last}"))
}

/// The last line that a counting pod wrote: its word and its number.
pub fn count(pod: &str) -> Result<(String, u64), Failure> {
    eventually(&format!("pod {pod} counts"), PATIENCE, || {
        let done = try_kubectl(&["logs", pod, "--tail=1"])?;
        let line = done.stdout.trim();
        let parsed =
            line.rsplit_once(' ').and_then(|(word, number)| Some((word.to_owned(), number.parse().ok()?)));
        Ok(parsed)
    })
}

/// The number in the counting pod's file.
pub fn file(pod: &str) -> Result<u64, Failure> {
    let text = kubectl(&["exec", pod, "--", "cat", "/count"])?;
    text.trim().parse().map_err(|_| format!("/count of {pod} has {text:?}"))
}

/// Fails unless `pod` goes on where the other left off: the same word in memory, and numbers in memory and file that go on
/// together from `before`.
pub fn goes_on(pod: &str, before: &(String, u64)) -> Result<(), Failure> {
    let after = count(pod)?;
    let on_disk = file(pod)?;
    let is_it =
        after.0 == before.0 && after.1 >= before.1 && on_disk.abs_diff(after.1) < 200 && on_disk >= before.1;
    if is_it {
        Ok(())
    } else {
        Err(format!("{pod} has {after:?} and {on_disk} in its file; before it was {before:?}"))
    }
}
