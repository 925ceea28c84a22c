//! Signals: real-time ones, to one process and to all, to what is dead already.

use std::time::Duration;

use serde_json::json;

use super::{CRUN, Case, NONE, RUNC, RUNTIMES, runtime_options};
use crate::crictl::{Pod, Spec};
use crate::ctr::{self, Task};
use crate::shell::{self, eventually};
use crate::suite::{Failure, ensure};

pub const CASES: &[Case] = &[
    ("a_real_time_stop_signal_arrives", CRUN, RUNC, real_time),
    ("kill_of_a_dead_process_is_not_found", CRUN, RUNC, dead),
    ("a_paused_container_can_be_killed", NONE, RUNTIMES, paused),
    ("kill_all_reaches_every_process", NONE, RUNTIMES, all),
    ("kill_all_passes_threaded_cgroups", NONE, CRUN, all_threaded),
    ("an_exec_can_be_killed_alone", NONE, CRUN, one_exec),
];

/// SIGRTMIN+3 in CRI's enumeration, 37 to the kernel; systemd in a container wants it.
const CRI_SIGRTMIN_PLUS_3: u32 = 38;

fn real_time(handler: &str) -> Result<(), Failure> {
    let pod = Pod::run_with(handler, "realtime", &Default::default(), &json!({}))?;
    let spec = Spec::sh("c", "trap 'exit 9' 37; while :; do sleep 0.1; done")
        .with(&json!({"stop_signal": CRI_SIGRTMIN_PLUS_3}));
    let c = pod.start(&spec)?;
    // The shell needs a moment to set its trap.
    std::thread::sleep(Duration::from_secs(1));
    c.stop(20)?;
    let code = c.wait_exit(Duration::from_secs(30))?;
    ensure(code == 9, || format!("exit code {code}, not that of the trap"))?;
    pod.remove()
}

fn dead(handler: &str) -> Result<(), Failure> {
    let task = Task::sh(runtime_options(handler), "exit 3")?;
    task.wait("STOPPED")?;
    let done = task.task("kill", &["--signal", "SIGKILL"])?;
    ensure(done.code != 0 && done.stderr.contains("ended already"), || {
        format!("kill of a dead task: {} {}", done.code, done.stderr)
    })?;
    // ctr shows only the words of an error. Its forced delete kills first and goes on only where that is NOT_FOUND.
    task.task("rm", &["--force"])?;
    let again = task.task("rm", &[])?;
    ensure(again.code != 0 && again.stderr.contains("not found"), || {
        format!("a second delete: {} {}", again.code, again.stderr)
    })?;
    task.remove()
}

fn paused(handler: &str) -> Result<(), Failure> {
    let task = Task::sh(runtime_options(handler), "while :; do sleep 0.1; done")?;
    task.task_ok("pause", &[])?;
    task.wait("PAUSED")?;
    task.task_ok("kill", &["--signal", "SIGKILL"])?;
    task.wait("STOPPED")?;
    task.remove()
}

fn all(handler: &str) -> Result<(), Failure> {
    let script = "trap 'echo init' USR1; (trap 'touch /child' USR1; while :; do sleep 0.1; done) & \
                  while :; do sleep 0.1; done";
    let task = Task::sh(runtime_options(handler), script)?;
    std::thread::sleep(Duration::from_secs(1));
    task.task_ok("kill", &["--all", "--signal", "SIGUSR1"])?;
    eventually("the child got it", Duration::from_secs(20), || {
        Ok((task.exec("look", &["ls", "/child"])?.code == 0).then_some(()))
    })?;
    task.remove()
}

/// A container with a cgroup namespace of its own may make such cgroups; their `cgroup.procs` cannot be read.
fn all_threaded(handler: &str) -> Result<(), Failure> {
    let script = "trap 'touch /got' USR2; while :; do sleep 0.1; done";
    let task = Task::sh(runtime_options(handler), script)?;
    std::thread::sleep(Duration::from_secs(1));
    let listed = task.task_ok("ps", &[])?;
    let pid = listed.split_whitespace().find(|word| word.parse::<u32>().is_ok());
    let pid = pid.ok_or_else(|| format!("no process: {listed}"))?;
    shell::ok(&format!(
        "group=/sys/fs/cgroup$(sed -n 's/^0:://p' /proc/{pid}/cgroup); \
         mkdir $group/inner && echo threaded > $group/inner/cgroup.type"
    ))?;
    task.task_ok("kill", &["--all", "--signal", "SIGUSR2"])?;
    eventually("the signal arrives", Duration::from_secs(20), || {
        Ok((task.exec("look", &["ls", "/got"])?.code == 0).then_some(()))
    })?;
    task.task_ok("kill", &["--all", "--signal", "SIGKILL"])?;
    task.wait("STOPPED")?;
    task.remove()
}

fn one_exec(handler: &str) -> Result<(), Failure> {
    let task = Task::sh(runtime_options(handler), "while :; do sleep 0.1; done")?;
    ctr::ctr_ok(&["task", "exec", "-d", "--exec-id", "victim", &task.id, "sleep", "1000"])?;
    let listed = task.task_ok("ps", &[])?;
    ensure(listed.contains("victim"), || format!("ps does not name the exec: {listed}"))?;
    task.task_ok("kill", &["--exec-id", "victim", "--signal", "SIGKILL"])?;
    eventually("the exec is gone", Duration::from_secs(20), || {
        Ok((!task.task_ok("ps", &[])?.contains("victim")).then_some(()))
    })?;
    ensure(task.state()?.as_deref() == Some("RUNNING"), || "its container went with it".into())?;
    task.remove()
}
