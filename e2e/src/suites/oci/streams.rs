//! Standard streams without a terminal: loggers, files, input and its end, attach, much output.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use serde_json::json;

use super::{CRUN, Case, NONE, RUNC};
use crate::crictl::{Pod, Spec};
use crate::ctr::{BUSYBOX, Task};
use crate::shell;
use crate::suite::{Failure, ensure};

pub const CASES: &[Case] = &[
    ("output_goes_to_a_file", CRUN, NONE, to_file),
    ("output_goes_to_a_logger_with_its_arguments", CRUN, NONE, to_logger),
    ("a_logger_that_fails_is_an_error_and_leaves_nothing", NONE, CRUN, bad_logger),
    ("input_arrives_whole_and_ends", CRUN, RUNC, input),
    ("exec_reads_its_input_to_the_end", NONE, CRUN, exec_input),
    ("much_output_arrives_whole", CRUN, NONE, much_output),
    ("attach_sees_output_and_gives_input", CRUN, NONE, attach),
    ("an_end_of_input_by_attach_ends_a_container_that_reads_once", NONE, CRUN, attach_once),
];

const DIR: &str = "/run/cryopod-e2e";
const LONG: Duration = Duration::from_secs(30);

/// `ctr run --rm` in the foreground inside a shell script, with words before and after it.
fn foreground(before: &str, options: &str, command: &str, after: &str) -> Result<shell::Finished, Failure> {
    let task = Task::new();
    let script = format!(
        "{before} timeout 60 ctr -n k8s.io run --rm --snapshotter zfs --runtime io.containerd.cryopod.v2 \
         {options} {BUSYBOX} {} {command} {after}",
        task.id
    );
    let done = shell::sh(&script)?;
    if done.code == 0 {
        // Nothing is left to be cleaned up.
        let left = crate::ctr::ctr_ok(&["container", "ls", "-q"])?.lines().any(|id| id == task.id);
        ensure(!left, || format!("container {} is still there", task.id))?;
        task.forget();
    }
    Ok(done)
}

fn to_file(_: &str) -> Result<(), Failure> {
    let path = format!("{DIR}/streams/a b.log");
    let uri = format!("--log-uri 'file://{DIR}/streams/a%20b.log'");
    let done = foreground("", &uri, "sh -c 'echo out; echo err >&2'", "")?;
    ensure(done.code == 0, || done.stderr.clone())?;
    let text = std::fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?;
    std::fs::remove_dir_all(format!("{DIR}/streams")).map_err(|e| e.to_string())?;
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    ensure(lines == ["err", "out"], || format!("the file has {text:?}"))
}

/// A program as containerd's contract for loggers wants it: 3 and 4 to read, 5 to close when ready.
fn logger(body: &str) -> Result<String, Failure> {
    std::fs::create_dir_all(DIR).map_err(|e| e.to_string())?;
    let path = format!("{DIR}/logger.sh");
    std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).map_err(|e| format!("{path}: {e}"))?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).map_err(|e| e.to_string())?;
    Ok(path)
}

fn to_logger(_: &str) -> Result<(), Failure> {
    let path = logger(&format!(
        "exec 5>&-\ncat <&3 >{DIR}/log.out & cat <&4 >{DIR}/log.err & \
         echo \"$CONTAINER_NAMESPACE $*\" >{DIR}/log.args; exec 3<&- 4<&-; wait"
    ))?;
    let uri = format!("--log-uri 'binary://{path}?color=blue%20sky'");
    let done = foreground("", &uri, "sh -c 'echo out; echo err >&2'", "")?;
    ensure(done.code == 0, || done.stderr.clone())?;
    let read = |name: &str| {
        let path = format!("{DIR}/log.{name}");
        std::fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))
    };
    let (out, err, args) = (read("out")?, read("err")?, read("args")?);
    ensure(out == "out\n" && err == "err\n" && args == "k8s.io color blue sky\n", || {
        format!("stdout {out:?}, stderr {err:?}, arguments {args:?}")
    })?;
    shell::ok(&format!("rm {DIR}/log.*")).map(drop)
}

fn bad_logger(_: &str) -> Result<(), Failure> {
    let path = logger("exit 1")?;
    let done = foreground("", &format!("--log-uri binary-v2://{path}"), "sleep 1000", "")?;
    ensure(done.code != 0 && done.stderr.contains("did not say that it is ready"), || {
        format!("ended with {}: {}", done.code, done.stderr)
    })?;
    let done = foreground("", "--log-uri binary:///no/such/logger", "sleep 1000", "")?;
    ensure(done.code != 0 && done.stderr.contains("/no/such/logger"), || {
        format!("ended with {}: {}", done.code, done.stderr)
    })
}

fn input(handler: &str) -> Result<(), Failure> {
    let options = super::runtime_options(handler).join(" ");
    let done = foreground("head -c 3000000 /dev/zero |", &options, "wc -c", "")?;
    ensure(done.code == 0 && done.stdout.trim() == "3000000", || {
        format!("{} {:?} {}", done.code, done.stdout, done.stderr)
    })
}

fn exec_input(handler: &str) -> Result<(), Failure> {
    let pod = Pod::run(handler, "stdin")?;
    let c = pod.start(&Spec::sh("c", "sleep 1000"))?;
    let done = shell::sh(&format!("head -c 300000 /dev/zero | timeout 60 crictl exec -i {} wc -c", c.id))?;
    ensure(done.code == 0 && done.stdout.trim() == "300000", || {
        format!("{} {:?} {}", done.code, done.stdout, done.stderr)
    })?;
    pod.remove()
}

fn much_output(_: &str) -> Result<(), Failure> {
    let done = foreground("", "", "head -c 5000000 /dev/zero", "| wc -c")?;
    ensure(done.stdout.trim() == "5000000", || format!("{:?} {}", done.stdout, done.stderr))
}

fn attach(handler: &str) -> Result<(), Failure> {
    let pod = Pod::run(handler, "attach")?;
    let script = "while read line; do echo \"got $line\"; [ \"$line\" = bye ] && exit 4; done; exit 1";
    let c = pod.start(&Spec::sh("c", script).with(&json!({"stdin": true})))?;
    // Twice: input of a container that does not read once outlives an attach.
    for word in ["one", "bye"] {
        let attached = format!("(echo {word}; sleep 3) | timeout 60 crictl attach -i {}", c.id);
        let done = shell::sh(&attached)?;
        ensure(done.stdout.contains(&format!("got {word}")), || {
            format!("attach ended with {}: {:?} {}", done.code, done.stdout, done.stderr)
        })?;
    }
    let code = c.wait_exit(LONG)?;
    ensure(code == 4, || format!("exit code {code}, not 4"))?;
    pod.remove()
}

fn attach_once(handler: &str) -> Result<(), Failure> {
    let pod = Pod::run(handler, "once")?;
    let c = pod.start(&Spec::sh("c", "wc -l; exit 6").with(&json!({"stdin": true, "stdin_once": true})))?;
    shell::sh(&format!("printf 'a\\nb\\n' | timeout 60 crictl attach -i {}", c.id))?;
    let code = c.wait_exit(LONG)?;
    ensure(code == 6, || format!("exit code {code}, not 6"))?;
    let logs = c.logs()?;
    ensure(logs.iter().any(|(_, line)| line.trim() == "2"), || format!("log {logs:?}"))?;
    pod.remove()
}
