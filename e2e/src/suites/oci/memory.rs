//! Ends for want of memory: what kubelet shows as `OOMKilled`.

use std::time::Duration;

use serde_json::json;

use super::{CRUN, Case, NONE, PAUSE, RUNTIMES};
use crate::crictl::{Pod, Spec};
use crate::ctr::Events;
use crate::suite::{Failure, ensure};

pub const CASES: &[Case] = &[
    ("a_container_beyond_its_memory_is_oom_killed", RUNTIMES, PAUSE, killed),
    ("a_child_that_is_oom_killed_is_reported_while_its_container_lives", NONE, CRUN, child),
];

/// More than [`limited`] allows, in one piece.
const GREEDY: &str = "dd if=/dev/zero of=/dev/null bs=200M count=1";

fn limited(script: &str) -> Spec {
    Spec::sh("c", script).with(&json!({"linux": {"resources": {"memory_limit_in_bytes": 33_554_432}}}))
}

fn killed(handler: &str) -> Result<(), Failure> {
    let events = Events::listen()?;
    let pod = Pod::run(handler, "oom")?;
    let c = pod.start(&limited(&format!("exec {GREEDY}")))?;
    let code = c.wait_exit(Duration::from_secs(60))?;
    ensure(code == 137, || format!("exit code {code}, not 137"))?;
    let topics = events.until(&c.id, "exit")?;
    ensure(
        topics == ["create", "start", "oom", "exit"]
            || topics == ["create", "start", "oom", "exit", "delete"],
        || format!("events {topics:?}"),
    )?;
    let status = c.status()?;
    ensure(status["reason"] == "OOMKilled", || format!("reason {}", status["reason"]))?;
    pod.remove()
}

fn child(handler: &str) -> Result<(), Failure> {
    let events = Events::listen()?;
    let pod = Pod::run(handler, "oom-child")?;
    let c = pod.start(&limited(&format!("{GREEDY}; echo ended with $?; sleep 1000")))?;
    let topics = events.until(&c.id, "oom")?;
    ensure(!topics.iter().any(|topic| topic == "exit"), || format!("events {topics:?}"))?;
    ensure(c.state()? == "RUNNING", || "the container went with its child".into())?;
    ensure(c.logs()?.iter().any(|(_, line)| line == "ended with 137"), || format!("log {:?}", c.logs()))?;
    pod.remove()
}
