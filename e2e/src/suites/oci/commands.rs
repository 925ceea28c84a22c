//! `cryopod pause`, `resume`, `kill` and `exec` of running pods, through their shim: containerd sees the same state.

use std::time::Duration;

use super::{CRUN, Case, RUNC};
use crate::crictl::{Pod, Spec};
use crate::suite::{Failure, ensure};
use crate::{cryopod, ctr, shell, ticks};

pub const CASES: &[Case] = &[
    ("the_command_pauses_resumes_and_signals_containers_of_a_pod", CRUN, RUNC, through_the_shim),
    ("the_command_runs_processes_in_a_container_of_a_pod", CRUN, RUNC, processes),
];

const SCRIPTS: &str = "/run/cryopod-e2e";

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

/// A line of shell with `cryopod exec` into container `one` of the pod, and what comes of it.
fn ends(line: &str, code: i32, stdout: &str) -> Result<shell::Finished, Failure> {
    let done = shell::sh(line)?;
    ensure(done.code == code && done.stdout == stdout, || {
        let (seen, out, err) = (done.code, done.stdout.trim(), done.stderr.trim());
        format!("`{line}` ended with {seen}, not {code}, and wrote {out:?}, not {stdout:?}; {err}")
    })?;
    Ok(done)
}

fn processes(handler: &str) -> Result<(), Failure> {
    let pod = Pod::run(handler, "exec")?;
    let (one, _two) = (pod.start(&Spec::counter("one"))?, pod.start(&Spec::counter("two"))?);
    let exec = format!("cryopod exec {} --container one", pod.id);

    let done = ends(&format!("{exec} -- sh -c 'echo out; echo err >&2; exit 7'"), 7, "out\n")?;
    ensure(done.stderr == "err\n", || format!("the error stream is {:?}", done.stderr))?;
    let options = "--user 65534:65534 --env GREETING=hello --cwd /tmp";
    ends(&format!("{exec} {options} -- sh -c 'echo $(id -u) $GREETING $(pwd)'"), 0, "65534 hello /tmp\n")?;
    // By the id of the container as well. More than fits into a pipe, both ways, and the end of the input arrives.
    let cat = format!("cryopod exec {} -- cat", one.id);
    ends(&format!("head -c 3000000 /dev/zero | {cat} | wc -c"), 0, "3000000\n")?;
    ends(&format!("{exec} -- cat < /dev/null"), 0, "")?;
    ends(&format!("{exec} -- sh -c 'kill -9 $$'"), 137, "")?;
    // A reader that takes its time gets everything, and one that goes away ends the process.
    ends(&format!("{exec} -- head -c 150000 /dev/zero | (sleep 3; wc -c)"), 0, "150000\n")?;
    let gone = format!("{{ timeout 60 {exec} -- yes; echo $? >&2; }} | head -n 1");
    let done = ends(&gone, 0, "y\n")?;
    ensure(done.stderr == "141\n", || format!("without a reader `exec` ended with {:?}", done.stderr))?;
    let trap = r#"trap "exit 5" TERM; while :; do sleep 0.1; done"#;
    ends(&format!("timeout --preserve-status -s TERM 5 {exec} -- sh -c '{trap}'"), 5, "")?;
    // crun sets the size when the process runs already. The end of a session leader makes the kernel drop what its
    // terminal has not passed on yet (tty_ldisc_hangup), so both leaders stay for a moment.
    let inside = "test -t 0 && test -t 1 && i=0 && while [ $i -lt 100 ] && ! stty size | grep -q 33; do \
                  i=$((i+1)); sleep 0.1; done; stty size; sleep 1; exit 6";
    shell::ok(&format!(
        "mkdir -p {SCRIPTS} && cat >{SCRIPTS}/sized <<'EOF'\n\
         stty rows 33 cols 77; {exec} --tty -- sh -c '{inside}'; code=$?; sleep 1; exit $code\nEOF\n"
    ))?;
    // `script` would type an end of input; nobody types anything.
    let silent = "{ sleep 60 2>/dev/null & } |";
    ends(&format!("{silent} script -qec 'sh {SCRIPTS}/sized' /dev/null"), 6, "33 77\r\n")?;

    let error = cryopod::refused(&["exec", &pod.id, "--", "true"], 125)?;
    ensure(error.contains("one, two") && error.contains("--container"), || format!("the error is {error}"))?;
    let missing = shell::sh(&format!("{exec} -- /no/such/command"))?;
    ensure(missing.code != 0 && missing.stderr.contains("/no/such/command"), || {
        format!("a command that is not there ended with {}: {}", missing.code, missing.stderr)
    })?;
    let detached = cryopod::ok(&["exec", "--detach", &one.id, "--", "sleep", "1"])?;
    ensure(detached["pid"].as_u64().is_some_and(|pid| pid > 1), || format!("`exec -d` answers {detached}"))?;

    shell::eventually("the shim to forget every process", Duration::from_secs(30), || {
        let state = cryopod::ok(&["state", &pod.id])?;
        let none = |container: &serde_json::Value| container["execs"].as_u64() == Some(0);
        Ok(state["containers"].as_array().is_some_and(|all| all.iter().all(none)).then_some(()))
    })?;

    // A session that nobody attends any more keeps neither the pod nor its checkpoint from anything.
    let left = shell::ok("find /run/cryopod -maxdepth 1 -name 'cli-*' | wc -l")?;
    ensure(left.trim() == "0", || format!("{} directories of streams are left", left.trim()))?;
    let checkpoint = shell::eventually("a checkpoint after exec", Duration::from_secs(30), || {
        Ok(cryopod::Checkpoint::of(&pod.id).ok())
    })?;
    drop(checkpoint);
    pod.remove()
}
