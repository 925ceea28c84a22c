//! `oci`: the Task API as kubelet uses it, on crun and on runc.

use std::time::Duration;

use crate::crictl::{Pod, Spec};
use crate::suite::{Failure, Suite, ensure, test};

const LONG: Duration = Duration::from_secs(30);

/// The tests.
pub fn suite(_full: bool) -> Suite {
    let mut tests = Vec::new();
    for handler in ["cryopod", "cryopod-runc"] {
        tests.push(test(format!("{handler}::a_container_runs_logs_and_its_exit_code_arrives"), move || {
            runs(handler)
        }));
        tests.push(test(format!("{handler}::exec_returns_output_and_exit_code"), move || exec(handler)));
        tests.push(test(format!("{handler}::stop_ends_it_with_sigterm_and_sigkill"), move || stop(handler)));
    }
    Suite { tests, left_out: Vec::new() }
}

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

fn exec(handler: &str) -> Result<(), Failure> {
    let pod = Pod::run(handler, "exec")?;
    let c = pod.start(&Spec::sh("c", "sleep 1000"))?;
    let done = c.exec(&["sh", "-c", "echo hello; exit 3"])?;
    ensure(done.stdout == "hello\n", || format!("stdout {:?}", done.stdout))?;
    ensure(done.code != 0 && done.stderr.contains('3'), || format!("code {}: {}", done.code, done.stderr))?;
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
