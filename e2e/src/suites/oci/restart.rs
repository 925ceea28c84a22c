//! containerd is restarted while pods run: upgrades of a node do that.

use std::time::Duration;

use super::{CRUN, Case, NONE, RUNC, WITH_AND_WITHOUT_PAUSE};
use crate::crictl::{Container, Pod, Spec};
use crate::ctr::{Task, restart_containerd};
use crate::shell::{self, eventually};
use crate::suite::{Failure, ensure};

pub const CASES: &[Case] = &[
    ("pods_go_on_while_containerd_restarts", WITH_AND_WITHOUT_PAUSE, RUNC, goes_on),
    ("a_container_that_fills_its_fifo_meanwhile_goes_on_afterwards", NONE, CRUN, full_fifo),
    ("a_task_of_ctr_goes_on_while_containerd_restarts", NONE, CRUN, task),
];

const LONG: Duration = Duration::from_secs(30);

/// What the containers of a pod share, as text; fails where one is missing.
const OF_THE_POD: &str = "grep . /etc/hostname /etc/resolv.conf /dev/shm/note";

/// The numbers in the log of a counter.
fn numbers(c: &Container) -> Result<Vec<u64>, Failure> {
    Ok(c.logs()?.iter().filter_map(|(_, line)| line.parse().ok()).collect())
}

/// Every number from the first to the last, none twice.
fn gapless(numbers: &[u64]) -> Result<(), Failure> {
    let gap = numbers.windows(2).find(|pair| pair[1] != pair[0] + 1);
    ensure(gap.is_none(), || format!("the log jumps at {gap:?}"))
}

fn goes_on(handler: &str) -> Result<(), Failure> {
    let pod = Pod::run(handler, "restart")?;
    let counter = pod.start(&Spec::counter("counter"))?;
    let ends =
        pod.start(&Spec::sh("ends", "while [ ! -e /go ]; do sleep 0.1; done; echo last words; exit 7"))?;
    let (pid, go) = (counter.pid()?, ends.path("/go")?);
    let of_the_pod = ["sh", "-c", OF_THE_POD];
    counter.exec(&["sh", "-c", "echo kept >/dev/shm/note"])?;
    let files = counter.exec(&of_the_pod)?;
    ensure(files.code == 0, || format!("files of the pod: {} {}", files.stdout, files.stderr))?;
    restart_containerd(|| {
        std::fs::write(&go, "").map_err(|e| format!("{}: {e}", go.display()))?;
        std::thread::sleep(Duration::from_secs(4));
        Ok(())
    })?;
    let code = ends.wait_exit(LONG)?;
    ensure(code == 7, || format!("exit code {code} of what ended meanwhile, not 7"))?;
    ensure(ends.logs()?.contains(&("stdout".into(), "last words".into())), || {
        format!("its log: {:?}", ends.logs())
    })?;
    let status = counter.status()?;
    ensure(status["state"] == "CONTAINER_RUNNING", || format!("the counter is {}", status["state"]))?;
    ensure(std::fs::metadata(format!("/proc/{pid}")).is_ok(), || "its process is another one".into())?;
    let before = numbers(&counter)?;
    eventually("its log goes on", LONG, || Ok((numbers(&counter)?.len() > before.len() + 5).then_some(())))?;
    let all = numbers(&counter)?;
    ensure(all.first() == Some(&1), || format!("the log begins at {:?}", all.first()))?;
    gapless(&all)?;
    let done = counter.exec(&["echo", "hello"])?;
    ensure(done.code == 0 && done.stdout == "hello\n", || format!("exec: {} {}", done.code, done.stderr))?;
    // A new container comes into the pod that was there before, and finds what belongs to it.
    let late = pod.start(&Spec::sh("late", &format!("{OF_THE_POD} && exit 3")))?;
    let code = late.wait_exit(LONG)?;
    ensure(code == 3, || format!("exit code {code} of a container started afterwards"))?;
    let seen: String = late.logs()?.into_iter().map(|(_, line)| line + "\n").collect();
    ensure(seen == files.stdout, || format!("files of the pod before: {:?}, now: {seen:?}", files.stdout))?;
    counter.stop(10)?;
    let code = counter.wait_exit(LONG)?;
    ensure(code == 0, || format!("exit code {code} of the counter"))?;
    counter.remove()?;
    pod.remove()
}

fn full_fifo(handler: &str) -> Result<(), Failure> {
    let pod = Pod::run(handler, "chatty")?;
    let script = "while [ ! -e /go ]; do sleep 0.1; done; seq 1 40000; echo; while :; do sleep 1; done";
    let c = pod.start(&Spec::sh("c", script))?;
    let go = c.path("/go")?;
    restart_containerd(|| {
        std::fs::write(&go, "").map_err(|e| format!("{}: {e}", go.display()))?;
        std::thread::sleep(Duration::from_secs(3));
        Ok(())
    })?;
    eventually("all of it arrives", LONG, || Ok((numbers(&c)?.last() == Some(&40_000)).then_some(())))?;
    let all = numbers(&c)?;
    ensure(all.len() == 40_000, || format!("{} lines of 40000", all.len()))?;
    gapless(&all)?;
    pod.remove()
}

fn task(_: &str) -> Result<(), Failure> {
    let log = "/run/cryopod-e2e/restart.log";
    let uri = format!("file://{log}");
    let task = Task::sh(&["--log-uri", &uri], "i=0; while :; do i=$((i+1)); echo $i; sleep 0.1; done")?;
    restart_containerd(|| {
        std::thread::sleep(Duration::from_secs(2));
        Ok(())
    })?;
    ensure(task.state()?.as_deref() == Some("RUNNING"), || "the task is gone".into())?;
    let before = shell::ok(&format!("wc -l <{log}"))?;
    std::thread::sleep(Duration::from_secs(2));
    let text = std::fs::read_to_string(log).map_err(|e| e.to_string())?;
    let all: Vec<u64> = text.lines().filter_map(|line| line.parse().ok()).collect();
    ensure(all.len() > before.trim().parse().unwrap_or(usize::MAX), || "its log does not go on".into())?;
    gapless(&all)?;
    std::fs::remove_file(log).map_err(|e| e.to_string())?;
    task.remove()
}
