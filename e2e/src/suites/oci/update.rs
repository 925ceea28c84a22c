//! New limits for containers that are created, running and paused, as they stand in the cgroup afterwards.

use super::{CRUN, Case, NONE, OTHERS, RUNTIMES};
use crate::crictl::{Container, Pod, Spec};
use crate::ctr::ctr_ok;
use crate::shell::{exec, exec_ok};
use crate::suite::{Failure, ensure};

pub const CASES: &[Case] = &[
    ("limits_of_a_running_and_of_a_paused_container_change", CRUN, OTHERS, running),
    ("limits_of_a_created_container_change", NONE, RUNTIMES, created),
];

/// A file of the container's cgroup.
fn group(c: &Container, file: &str) -> Result<String, Failure> {
    let path = format!("/proc/{}/cgroup", c.pid()?);
    let text = std::fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?;
    let group = text.trim().strip_prefix("0::").ok_or_else(|| format!("{path}: {text}"))?;
    let path = format!("/sys/fs/cgroup{group}/{file}");
    Ok(std::fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?.trim().to_owned())
}

fn is(c: &Container, file: &str, wanted: &str) -> Result<(), Failure> {
    let found = group(c, file)?;
    ensure(found == wanted, || format!("{file} is {found}, not {wanted}"))
}

fn running(handler: &str) -> Result<(), Failure> {
    let pod = Pod::run(handler, "update")?;
    let c = pod.start(&Spec::sh("c", "while :; do sleep 1; done"))?;
    is(&c, "memory.max", "max")?;
    let limits =
        ["--cpu-period", "100000", "--cpu-quota", "50000", "--memory", "104857600", "--cpu-share", "512"];
    exec_ok(&[&["crictl", "update"] as &[&str], &limits, &[&c.id]].concat())?;
    is(&c, "memory.max", "104857600")?;
    is(&c, "cpu.max", "50000 100000")?;
    // 512 of 1024 shares, by the conversion of the runtimes (linear in old ones, quadratic in new ones).
    let weight: u32 = group(&c, "cpu.weight")?.parse().map_err(|e| format!("cpu.weight: {e}"))?;
    ensure((19..=60).contains(&weight), || format!("cpu.weight {weight} for 512 shares"))?;
    let resources = &c.status()?["resources"]["linux"];
    ensure(resources["memoryLimitInBytes"] == "104857600", || format!("CRI reports {resources}"))?;
    ctr_ok(&["task", "pause", &c.id])?;
    exec_ok(&["crictl", "update", "--memory", "52428800", &c.id])?;
    is(&c, "memory.max", "52428800")?;
    ctr_ok(&["task", "resume", &c.id])?;
    let bad = exec(&["crictl", "update", "--cpuset-cpus", "4711", &c.id])?;
    ensure(bad.code != 0, || "a processor that is not there was accepted".into())?;
    ensure(c.exec(&["true"])?.code == 0, || "a refused update broke the container".into())?;
    pod.remove()
}

fn created(handler: &str) -> Result<(), Failure> {
    let pod = Pod::run(handler, "update-created")?;
    let c = pod.create(&Spec::sh("c", "while :; do sleep 1; done"))?;
    exec_ok(&["crictl", "update", "--memory", "73400320", &c.id])?;
    exec_ok(&["crictl", "start", &c.id])?;
    is(&c, "memory.max", "73400320")?;
    pod.remove()
}
