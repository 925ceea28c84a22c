//! What kubelet and the horizontal autoscaler read: processor time, memory and processes of containers and pods.

use std::time::Duration;

use serde_json::Value;

use super::{Case, RUNC, WITH_AND_WITHOUT_PAUSE};
use crate::crictl::{Pod, Spec};
use crate::shell::{eventually, exec_ok};
use crate::suite::{Failure, ensure};

pub const CASES: &[Case] = &[("containers_and_pods_have_sane_stats", WITH_AND_WITHOUT_PAUSE, RUNC, sane)];

const MIB: u64 = 1 << 20;

/// A number that protojson may have written as a string, in an object `{value: N}`.
fn value(of: &Value) -> u64 {
    let of = if of["value"].is_null() { of } else { &of["value"] };
    of.as_u64().or_else(|| of.as_str()?.parse().ok()).unwrap_or(0)
}

fn first(list: &str, argv: &[&str]) -> Result<Value, Failure> {
    let text = exec_ok(argv)?;
    let json: Value = serde_json::from_str(&text).map_err(|e| format!("{}: {e}: {text}", argv.join(" ")))?;
    let first = &json[list][0];
    ensure(first.is_object(), || format!("{} has nothing in {list}: {text}", argv.join(" ")))?;
    Ok(first.clone())
}

fn sane(handler: &str) -> Result<(), Failure> {
    let pod = Pod::run(handler, "stats")?;
    let script = "head -c 20971520 /dev/zero >/dev/shm/x; sleep 1001 & while :; do :; done";
    let c = pod.start(&Spec::sh("c", script))?;
    std::thread::sleep(Duration::from_secs(2));
    let container = || first("stats", &["crictl", "stats", "-o", "json", "--id", &c.id]);
    let before = container()?;
    std::thread::sleep(Duration::from_secs(2));
    let after = container()?;
    let cpu = |stats: &Value| value(&stats["cpu"]["usageCoreNanoSeconds"]);
    let (spent, clock) = (cpu(&after) - cpu(&before), |s: &Value| value(&s["cpu"]["timestamp"]));
    let wall = clock(&after).saturating_sub(clock(&before));
    // A busy loop on a loaded machine of two processors: some of one processor, never more than two.
    ensure(spent > wall / 20 && spent < wall * 2, || format!("{spent} ns of processor time in {wall} ns"))?;
    let memory = &after["memory"];
    for field in ["workingSetBytes", "usageBytes"] {
        let bytes = value(&memory[field]);
        ensure((20 * MIB..80 * MIB).contains(&bytes), || format!("{field} {bytes} in {memory}"))?;
    }
    // containerd looks at snapshots every 10 s.
    eventually("containerd knows the size of the writable layer", Duration::from_secs(30), || {
        Ok((value(&container()?["writableLayer"]["timestamp"]) > 0).then_some(()))
    })?;
    let stats = first("stats", &["crictl", "statsp", "-o", "json", "--id", &pod.id])?;
    let linux = &stats["linux"];
    ensure(value(&linux["cpu"]["usageCoreNanoSeconds"]) >= cpu(&before), || format!("pod cpu {linux}"))?;
    let bytes = value(&linux["memory"]["workingSetBytes"]);
    ensure((20 * MIB..120 * MIB).contains(&bytes), || format!("pod memory {bytes} in {}", linux["memory"]))?;
    ensure(value(&linux["process"]["processCount"]) >= 2, || format!("pod processes {}", linux["process"]))?;
    ensure(linux["containers"].as_array().is_some_and(|list| list.len() == 1), || {
        format!("containers of the pod: {}", linux["containers"])
    })?;
    pod.remove()
}
