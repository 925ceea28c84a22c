//! Processes with a terminal. `script` gives the clients one of their own, as a person's shell would.

use std::time::Duration;

use serde_json::json;

use super::{CRUN, Case, NONE, RUNC};
use crate::crictl::{Pod, Spec};
use crate::ctr::{BUSYBOX, Task};
use crate::shell;
use crate::suite::{Failure, ensure};

pub const CASES: &[Case] = &[
    ("exec_with_a_terminal_has_its_size_and_follows_it", CRUN, RUNC, exec_resize),
    ("a_container_with_a_terminal_is_attached_to", NONE, CRUN, attach),
    ("ctr_runs_a_task_with_a_terminal", CRUN, NONE, ctr_tty),
    ("ctr_attaches_to_a_task_with_a_terminal", NONE, CRUN, ctr_attach),
];

const NOTE: &str = "/run/cryopod-e2e/tty";

/// Runs `command` in a terminal of 33 rows and 77 columns that notes its name; `beside` runs meanwhile, `keys` is
/// typed.
fn in_terminal(keys: &str, command: &str, beside: &str) -> Result<shell::Finished, Failure> {
    let typed = format!("{NOTE}.keys");
    shell::ok(&format!("mkdir -p /run/cryopod-e2e; rm -f {NOTE} {typed}; mkfifo {typed}"))?;
    // Keys that outlast the command are not waited for.
    let done = shell::sh(&format!(
        "({keys}) >{typed} 2>/dev/null & keys=$!; ({beside}) & beside=$!; \
         timeout 60 script -qec 'stty rows 33 cols 77; tty >{NOTE}; {command}' /dev/null <{typed}; \
         code=$?; wait $beside; kill $keys 2>/dev/null; exit $code"
    ))?;
    shell::ok(&format!("rm {typed}"))?;
    Ok(done)
}

fn exec_resize(handler: &str) -> Result<(), Failure> {
    let pod = Pod::run(handler, "resize")?;
    let c = pod.start(&Spec::sh("c", "sleep 1000"))?;
    // Sizes arrive in their own time, on a busy node after seconds.
    let until = |size: &str| {
        format!(
            "i=0; while [ $i -lt 150 -a \"$(stty size)\" != \"{size}\" ]; do i=$((i+1)); sleep 0.1; done; stty size"
        )
    };
    let inside = format!("{}; touch /ready; {}; tty; exit 5", until("33 77"), until("44 99"));
    let command =
        format!("crictl exec -it {} sh -c \"{}\"", c.id, inside.replace('"', "\\\"").replace('$', "\\$"));
    let ready = c.path("/ready")?;
    let beside = format!(
        "i=0; while [ $i -lt 150 -a ! -e {} ]; do i=$((i+1)); sleep 0.2; done; stty -F $(cat {NOTE}) rows 44 cols 99",
        ready.display()
    );
    let done = in_terminal("sleep 40", &command, &beside)?;
    for wanted in ["33 77", "44 99", "/dev/pts/"] {
        ensure(done.stdout.contains(wanted), || {
            format!("no {wanted:?} in {:?} {}", done.stdout, done.stderr)
        })?;
    }
    ensure(done.code != 0, || "the exit code of the exec is lost".into())?;
    pod.remove()
}

fn attach(handler: &str) -> Result<(), Failure> {
    let pod = Pod::run(handler, "tty")?;
    let script =
        "stty -echo; while read line; do tty; echo \"got $line\"; [ \"$line\" = bye ] && exit 4; done";
    let c = pod.start(&Spec::sh("c", script).with(&json!({"stdin": true, "tty": true})))?;
    let done = in_terminal("sleep 2; echo bye; sleep 3", &format!("crictl attach -it {}", c.id), "true")?;
    ensure(done.stdout.contains("got bye") && done.stdout.contains("/dev/pts/"), || {
        format!("{:?} {}", done.stdout, done.stderr)
    })?;
    let code = c.wait_exit(Duration::from_secs(30))?;
    ensure(code == 4, || format!("exit code {code}, not 4"))?;
    let logs = c.logs()?;
    ensure(logs.iter().any(|(_, line)| line.trim() == "got bye"), || format!("log {logs:?}"))?;
    pod.remove()
}

fn ctr_run(task: &Task, options: &str, script: &str) -> String {
    format!(
        "ctr -n k8s.io run {options} --snapshotter zfs --runtime io.containerd.cryopod.v2 --tty {BUSYBOX} {} \
         sh -c \"{script}\"",
        task.id
    )
}

fn ctr_tty(_: &str) -> Result<(), Failure> {
    let task = Task::new();
    let done = in_terminal(
        "sleep 4; echo hello; sleep 1",
        &ctr_run(&task, "--rm", "tty; read x; echo got \\$x; exit 3"),
        "true",
    )?;
    ensure(done.stdout.contains("/dev/pts/0") && done.stdout.contains("got hello"), || {
        format!("{} {:?} {}", done.code, done.stdout, done.stderr)
    })?;
    ensure(done.code == 3, || format!("exit code {}, not 3", done.code))?;
    task.forget();
    Ok(())
}

fn ctr_attach(_: &str) -> Result<(), Failure> {
    let task = Task::new();
    let command = ctr_run(&task, "-d", "while read x; do echo got \\$x; done");
    let started = in_terminal("sleep 1", &command, "true")?;
    ensure(started.code == 0, || format!("{} {}", started.stdout, started.stderr))?;
    let command = format!("timeout 10 ctr -n k8s.io task attach {}", task.id);
    // The keys outlast the attach: at their end `script` would type an end of file.
    let done = in_terminal("sleep 2; echo hello; sleep 12", &command, "true")?;
    ensure(done.stdout.contains("got hello"), || format!("{:?} {}", done.stdout, done.stderr))?;
    ensure(task.state()?.as_deref() == Some("RUNNING"), || "the end of an attach ended the task".into())?;
    task.remove()
}
