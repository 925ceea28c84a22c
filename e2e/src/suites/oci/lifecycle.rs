//! A container from its start to its end, as every pod lives.

use std::time::Duration;

use super::{ALL, CRUN, Case, NONE, OTHERS, RUNC, RUNTIMES};
use crate::crictl::{Pod, Spec};
use crate::ctr::Events;
use crate::shell::exec;
use crate::suite::{Failure, ensure};

pub const CASES: &[Case] = &[
    ("a_container_runs_logs_and_its_exit_code_arrives", ALL, NONE, runs),
    ("exec_returns_output_and_exit_code", CRUN, OTHERS, exec_code),
    ("stop_ends_it_with_sigterm_and_sigkill", CRUN, RUNC, stop),
    ("a_command_that_is_not_there_fails_its_start_and_leaves_nothing", CRUN, RUNC, no_such_command),
    ("an_exec_that_takes_too_long_is_killed", NONE, CRUN, exec_timeout),
    ("events_come_in_order_and_the_exit_of_init_is_the_last", CRUN, RUNC, order),
    ("a_container_that_was_never_started_can_be_removed", NONE, RUNTIMES, never_started),
];

const LONG: Duration = Duration::from_secs(30);

fn runs(handler: &str) -> Result<(), Failure> {
    let pod = Pod::run(handler, "runs")?;
    let c = pod.start(&Spec::sh("c", "echo out; echo err >&2; exit 7"))?;
    let code = c.wait_exit(LONG)?;
    ensure(code == 7, || format!("exit code {code}, not 7"))?;
    let logs = c.logs()?;
    ensure(logs.contains(&("stdout".into(), "out".into())), || format!("no stdout line in {logs:?}"))?;
    ensure(logs.contains(&("stderr".into(), "err".into())), || format!("no stderr line in {logs:?}"))?;
    c.remove()?;
    pod.remove()
}

fn exec_code(handler: &str) -> Result<(), Failure> {
    let pod = Pod::run(handler, "exec")?;
    let c = pod.start(&Spec::sh("c", "sleep 1000"))?;
    let done = c.exec(&["sh", "-c", "echo hello; exit 3"])?;
    ensure(done.stdout == "hello\n", || format!("stdout {:?}", done.stdout))?;
    ensure(done.code != 0 && done.stderr.contains('3'), || format!("code {}: {}", done.code, done.stderr))?;
    let done = c.exec(&["/no/such/program"])?;
    ensure(done.code != 0 && done.stderr.contains("/no/such/program"), || {
        format!("the error does not name the program: {}", done.stderr)
    })?;
    pod.remove()
}

fn stop(handler: &str) -> Result<(), Failure> {
    let pod = Pod::run(handler, "stop")?;
    let polite = pod.start(&Spec::sh("polite", "trap 'exit 5' TERM; while :; do sleep 0.1; done"))?;
    polite.stop(10)?;
    let code = polite.wait_exit(LONG)?;
    ensure(code == 5, || format!("after SIGTERM: exit code {code}, not 5"))?;
    let stubborn = pod.start(&Spec::sh("stubborn", "trap '' TERM; while :; do sleep 0.1; done"))?;
    stubborn.stop(1)?;
    let code = stubborn.wait_exit(LONG)?;
    ensure(code == 137, || format!("after SIGKILL: exit code {code}, not 137"))?;
    pod.remove()
}

fn no_such_command(handler: &str) -> Result<(), Failure> {
    let pod = Pod::run(handler, "absent")?;
    let mut spec = Spec::sh("c", "");
    spec.command = vec!["/no/such/program".into()];
    let c = pod.create(&spec)?;
    let done = exec(&["crictl", "start", &c.id])?;
    ensure(done.code != 0 && done.stderr.contains("/no/such/program"), || {
        format!("ended with {}: {}", done.code, done.stderr)
    })?;
    let status = c.status()?;
    ensure(status["state"] == "CONTAINER_EXITED" && status["reason"] == "StartError", || {
        format!("state {} reason {}", status["state"], status["reason"])
    })?;
    // The pod is as good as before.
    let next = pod.start(&Spec::sh("next", "exit 0"))?;
    next.wait_exit(LONG)?;
    pod.remove()
}

fn exec_timeout(handler: &str) -> Result<(), Failure> {
    let pod = Pod::run(handler, "timeout")?;
    let c = pod.start(&Spec::sh("c", "sleep 1000"))?;
    let done = exec(&["crictl", "exec", "--sync", "--timeout", "2", &c.id, "sleep", "777"])?;
    ensure(done.code != 0, || "an exec with a timeout of 2 s ended well".into())?;
    ensure(done.duration < Duration::from_secs(20), || format!("it took {} s", done.duration.as_secs()))?;
    let left = c.exec(&["ps"])?.stdout;
    ensure(!left.contains("sleep 777"), || format!("the process of the exec is still there: {left}"))?;
    pod.remove()
}

fn order(handler: &str) -> Result<(), Failure> {
    let events = Events::listen()?;
    let pod = Pod::run(handler, "order")?;
    // An exec that is alive when init ends: its exit must come first.
    let c = pod.start(&Spec::sh("c", "while [ ! -e /go ]; do sleep 0.1; done; exit 0"))?;
    c.exec(&["true"])?;
    let exec = std::thread::spawn({
        let c = c.clone();
        move || c.exec(&["sh", "-c", "touch /go; sleep 1000"])
    });
    c.wait_exit(LONG)?;
    exec.join().map_err(|_| "the exec panicked")??;
    c.remove()?;
    let topics = events.until(&c.id, "delete")?;
    pod.remove()?;
    let shape: Vec<&str> = topics.iter().map(|t| t.split(' ').next().unwrap_or_default()).collect();
    let exec = ["exec-added", "exec-started", "exit"];
    let wanted = [&["create", "start"] as &[&str], &exec, &exec, &["exit", "delete"]].concat();
    ensure(shape == wanted && topics[topics.len() - 2] == "exit", || format!("events {topics:?}"))
}

fn never_started(handler: &str) -> Result<(), Failure> {
    let pod = Pod::run(handler, "unstarted")?;
    let c = pod.create(&Spec::sh("c", "sleep 1000"))?;
    ensure(c.state()? == "CREATED", || "not CREATED".into())?;
    c.remove()?;
    // A second one stays until the pod goes.
    pod.create(&Spec::sh("d", "sleep 1000"))?;
    pod.remove()
}
