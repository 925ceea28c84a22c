//! `cryopod pause`, `resume` and `kill` of running pods, through their shim: containerd sees the same state.

use std::time::Duration;

use super::{CRUN, Case, RUNC};
use crate::crictl::{Pod, Spec};
use crate::suite::{Failure, ensure};
use crate::{cryopod, ctr, shell, ticks};

pub const CASES: &[Case] =
    &[("the_command_pauses_resumes_and_signals_containers_of_a_pod", CRUN, RUNC, through_the_shim)];

/// What containerd takes the task for.
fn is(id: &str, wanted: &str) -> Result<(), Failure> {
    let state = ctr::state(id)?.unwrap_or_default();
    ensure(state == wanted, || format!("containerd has {id} as {state:?}, not {wanted}"))
}

fn through_the_shim(handler: &str) -> Result<(), Failure> {
    let pod = Pod::run(handler, "commands")?;
    let (one, two) = (pod.start(&Spec::counter("one"))?, pod.start(&Spec::counter("two"))?);
    let before = (ticks::beyond(&one, 2)?, ticks::beyond(&two, 2)?);

    let paused = cryopod::ok(&["pause", &pod.id])?;
    let count = paused["containers"].as_array().map_or(0, Vec::len);
    ensure(count == 2, || format!("`pause` of the pod answers {paused}"))?;
    is(&one.id, "PAUSED")?;
    is(&two.id, "PAUSED")?;
    cryopod::refused(&["pause", &pod.id], 6)?;
    cryopod::ok(&["resume", &pod.id])?;
    is(&one.id, "RUNNING")?;
    is(&two.id, "RUNNING")?;

    cryopod::ok(&["pause", &pod.id, "--container", "one"])?;
    is(&one.id, "PAUSED")?;
    is(&two.id, "RUNNING")?;
    // By the id of the container as well.
    cryopod::ok(&["resume", &one.id])?;
    is(&one.id, "RUNNING")?;
    ticks::goes_on(&one, &before.0)?;
    ticks::goes_on(&two, &before.1)?;

    // Frozen by somebody whom the shim does not know of: what `resume` of a pod is for in an emergency.
    let frozen = format!("for d in $(find /sys/fs/cgroup -type d -name '*{}*'); do", two.id);
    shell::ok(&format!("{frozen} echo 1 > $d/cgroup.freeze; break; done"))?;
    let thawed = cryopod::ok(&["resume", &pod.id])?;
    ensure(thawed["thawed"] == serde_json::json!([two.id]), || format!("`resume` answers {thawed}"))?;
    ticks::goes_on(&two, &before.1)?;

    let error = cryopod::refused(&["kill", &pod.id, "TERM"], 5)?;
    for word in ["one", "two", "--container"] {
        ensure(error.contains(word), || format!("the error does not say {word}: {error}"))?;
    }
    cryopod::ok(&["kill", &pod.id, "TERM", "--container", "one"])?;
    let code = one.wait_exit(Duration::from_secs(30))?;
    ensure(code == 0, || format!("exit code {code} after SIGTERM, not that of its trap"))?;
    let error = cryopod::refused(&["delete", &pod.id], 6)?;
    ensure(error.contains("containerd owns it"), || format!("the error is {error}"))?;
    pod.remove()
}
