//! Calls of the Task API that CRI makes seldom or never: pause, resume, processes, metrics, a whole task by `ctr`.

use std::time::Duration;

use super::{CRUN, Case, NONE, RUNC, runtime_options};
use crate::ctr::{Events, Task, ctr_ok};
use crate::suite::{Failure, ensure};

pub const CASES: &[Case] = &[
    ("pause_stops_it_and_resume_lets_it_go_on", CRUN, RUNC, pause),
    ("processes_and_metrics_of_a_task_are_right", CRUN, RUNC, processes),
    ("what_does_not_fit_its_state_is_refused", NONE, CRUN, refused),
];

/// Counts into a file.
const COUNT: &str = "i=0; while :; do i=$((i+1)); echo $i >/count; sleep 0.05; done";

fn count(task: &Task, exec_id: &str) -> Result<u64, Failure> {
    let done = task.exec(exec_id, &["cat", "/count"])?;
    done.stdout.trim().parse().map_err(|e| format!("/count is {:?}: {e}; {}", done.stdout, done.stderr))
}

/// Lines of `/count` as the host sees them, for while it is paused.
fn count_outside(task: &Task) -> Result<String, Failure> {
    let list = ctr_ok(&["task", "ls"])?;
    let row = list.lines().find(|line| line.starts_with(&task.id)).ok_or("no such task")?;
    let pid = row.split_whitespace().nth(1).unwrap_or_default();
    std::fs::read_to_string(format!("/proc/{pid}/root/count")).map_err(|e| e.to_string())
}

fn pause(handler: &str) -> Result<(), Failure> {
    let events = Events::listen()?;
    let task = Task::sh(runtime_options(handler), COUNT)?;
    std::thread::sleep(Duration::from_secs(1));
    task.task_ok("pause", &[])?;
    ensure(task.state()?.as_deref() == Some("PAUSED"), || "not PAUSED".into())?;
    let before = count_outside(&task)?;
    std::thread::sleep(Duration::from_secs(1));
    ensure(count_outside(&task)? == before, || "it counts while it is paused".into())?;
    // A second pause, and an exec that would hang, are refused, not waited for.
    let again = task.task("pause", &[])?;
    ensure(again.duration < Duration::from_secs(10), || "a second pause hangs".into())?;
    let exec = task.exec("late", &["true"])?;
    ensure(exec.code != 0 && exec.stderr.contains("paused"), || {
        format!("an exec in a paused container: {} {}", exec.code, exec.stderr)
    })?;
    ensure(task.metrics()?["memory"]["usage"].as_u64() > Some(0), || "no metrics while paused".into())?;
    task.task_ok("resume", &[])?;
    ensure(task.state()?.as_deref() == Some("RUNNING"), || "not RUNNING after resume".into())?;
    let first = count(&task, "first")?;
    std::thread::sleep(Duration::from_secs(1));
    ensure(count(&task, "second")? > first, || "it does not count after resume".into())?;
    let topics = events.until(&task.id, "resumed")?;
    ensure(topics.iter().filter(|t| *t == "paused").count() == 1, || format!("events {topics:?}"))?;
    task.remove()
}

fn processes(handler: &str) -> Result<(), Failure> {
    let mut options = runtime_options(handler).to_vec();
    options.extend(["--memory-limit", "67108864"]);
    let task = Task::sh(&options, "sleep 1001 & sleep 1002 & head -c 20000000 /dev/zero >/dev/shm/x; wait")?;
    ctr_ok(&["task", "exec", "-d", "--exec-id", "named", &task.id, "sleep", "1003"])?;
    std::thread::sleep(Duration::from_secs(2));
    let listed = task.task_ok("ps", &[])?;
    let rows: Vec<&str> = listed.lines().skip(1).collect();
    ensure(rows.len() == 4, || format!("not 4 processes: {listed}"))?;
    ensure(rows.iter().filter(|row| row.contains("named")).count() == 1, || format!("exec id: {listed}"))?;
    let metrics = task.metrics()?;
    let number = |path: &str| metrics.pointer(path).and_then(serde_json::Value::as_u64).unwrap_or(0);
    ensure(number("/pids/current") == 4, || format!("pids {}", metrics["pids"]))?;
    ensure(number("/memory/usage_limit") == 67_108_864, || format!("limit in {}", metrics["memory"]))?;
    ensure((20_000_000..67_108_864).contains(&number("/memory/usage")), || {
        format!("usage in {}", metrics["memory"])
    })?;
    ensure(number("/memory/shmem") >= 20_000_000, || format!("shmem in {}", metrics["memory"]))?;
    let (all, user, system) =
        (number("/cpu/usage_usec"), number("/cpu/user_usec"), number("/cpu/system_usec"));
    ensure(all > 0 && all >= user.max(system), || format!("cpu {}", metrics["cpu"]))?;
    ensure(metrics["io"].is_object() && metrics["memory"]["psi"].is_object(), || "no io, no psi".into())?;
    task.remove()
}

fn refused(handler: &str) -> Result<(), Failure> {
    let task = Task::sh(runtime_options(handler), "sleep 1000")?;
    let refusals: [(&str, &[&str]); 2] = [("resume", &[]), ("rm", &[])];
    for (verb, args) in refusals {
        let done = task.task(verb, args)?;
        ensure(done.code != 0, || format!("{verb} of a running task was accepted"))?;
        ensure(task.state()?.as_deref() == Some("RUNNING"), || format!("{verb} changed it"))?;
    }
    let bad = task.exec("same", &["/no/such/program"])?;
    ensure(bad.code != 0 && bad.stderr.contains("/no/such/program"), || {
        format!("{} {}", bad.code, bad.stderr)
    })?;
    // The id of an exec is free again once it is deleted.
    let good = task.exec("same", &["echo", "hello"])?;
    ensure(good.code == 0 && good.stdout == "hello\n", || format!("{} {}", good.code, good.stderr))?;
    task.task_ok("kill", &["--signal", "SIGKILL"])?;
    task.wait("STOPPED")?;
    let late = task.exec("late", &["true"])?;
    ensure(late.code != 0, || "an exec in a dead container was accepted".into())?;
    task.remove()
}
