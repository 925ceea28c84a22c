//! Several containers in one pod: one shim, one life each.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{CRUN, Case, NONE, PAUSE, RUNC, RUNTIMES};
use crate::crictl::{Pod, Spec};
use crate::ctr::{Task, ctr};
use crate::shell;
use crate::suite::{Failure, ensure};

pub const CASES: &[Case] = &[
    ("many_containers_share_one_shim_and_live_their_own_lives", CRUN, PAUSE, many),
    ("a_shared_process_namespace_shows_all_and_leaves_no_process_of_the_dead", CRUN, RUNC, shared),
    ("processes_of_the_host_are_seen_and_left_alone", NONE, CRUN, host),
    ("a_slow_runtime_delays_nobody_else", CRUN, NONE, slow),
    ("many_execs_at_once_all_end", NONE, RUNTIMES, execs),
];

const LONG: Duration = Duration::from_secs(30);

/// Shim processes that serve the pod.
fn shims(id: &str) -> Result<usize, Failure> {
    let text = shell::ok(&format!("pgrep -f '[c]ontainerd-shim-cryopod.*{id}' || true"))?;
    Ok(text.lines().count())
}

/// Scripts take the PID and the network namespace of a pod from `crictl inspectp`.
fn network_is_shown(pod: &Pod) -> Result<(), Failure> {
    let text = shell::exec_ok(&["crictl", "inspectp", &pod.id])?;
    let seen: Value = serde_json::from_str(&text).map_err(|e| format!("crictl inspectp: {e}"))?;
    let info = &seen["info"];
    ensure(info["pid"].as_u64().is_some_and(|pid| pid > 0), || format!("no pid in {info}"))?;
    let namespaces = info["runtimeSpec"]["linux"]["namespaces"].as_array().cloned().unwrap_or_default();
    let network = namespaces.iter().find(|namespace| namespace["type"] == "network");
    let path = network.and_then(|namespace| namespace["path"].as_str()).unwrap_or_default().to_owned();
    ensure(std::fs::metadata(&path).is_ok(), || format!("network namespace {path:?} in {info}"))
}

fn many(handler: &str) -> Result<(), Failure> {
    let pod = Pod::run(handler, "many")?;
    let mut containers = Vec::new();
    for n in 0..5 {
        let script = format!("trap 'exit {}' TERM; while :; do echo {n}; sleep 0.2; done", 10 + n);
        containers.push(pod.start(&Spec::sh(&format!("c{n}"), &script))?);
    }
    let count = shims(&pod.id)?;
    ensure(count == 1, || format!("{count} shims for one pod"))?;
    network_is_shown(&pod)?;
    for (n, c) in containers.iter().enumerate() {
        c.stop(20)?;
        let code = c.wait_exit(LONG)?;
        ensure(code == 10 + n as i64, || format!("container {n} ended with {code}"))?;
        for other in &containers[n + 1..] {
            ensure(other.state()? == "RUNNING", || format!("{} went with container {n}", other.name))?;
        }
        let logs = c.logs()?;
        ensure(!logs.is_empty() && logs.iter().all(|(_, line)| *line == n.to_string()), || {
            format!("log of container {n}: {logs:?}")
        })?;
        c.remove()?;
    }
    pod.remove()?;
    Ok(())
}

fn shared(handler: &str) -> Result<(), Failure> {
    let options = json!({"linux": {"security_context": {"namespace_options": {"pid": 0}}}});
    let pod = Pod::run_with(handler, "shared", &BTreeMap::new(), &options)?;
    let first = pod.start(&Spec::sh("first", "sleep 4241").with(&options))?;
    let script = "sleep 4242 & while [ ! -e /go ]; do sleep 0.1; done; exit 5";
    let second = pod.start(&Spec::sh("second", script).with(&options))?;
    let seen = first.exec(&["ps"])?.stdout;
    ensure(seen.contains("sleep 4242") && seen.contains("sleep 4241"), || format!("ps shows {seen}"))?;
    second.exec(&["touch", "/go"])?;
    let code = second.wait_exit(LONG)?;
    ensure(code == 5, || format!("exit code {code}, not 5"))?;
    // Its init did not take the namespace with it, so the shim has to end what is left.
    let seen = first.exec(&["ps"])?.stdout;
    ensure(!seen.contains("sleep 4242"), || format!("a process of the dead container lives: {seen}"))?;
    ensure(seen.contains("sleep 4241"), || "the other container was killed too".into())?;
    pod.remove()
}

fn host(handler: &str) -> Result<(), Failure> {
    let options = json!({"linux": {"security_context": {"namespace_options": {"pid": 2, "network": 2}}}});
    // As kubelet does it: a pod in the host's network has the host's name.
    let mut config = options.clone();
    config["hostname"] = json!("");
    let pod = Pod::run_with(handler, "host", &BTreeMap::new(), &config)?;
    let c = pod.start(&Spec::sh("c", "sleep 4243 & ps; exit 0").with(&options))?;
    c.wait_exit(LONG)?;
    let logs = c.logs()?;
    ensure(logs.iter().any(|(_, line)| line.contains("containerd")), || format!("ps shows {logs:?}"))?;
    let left = shell::ok("pgrep -f '[s]leep 4243' || true")?;
    ensure(left.is_empty(), || format!("its process {left} is still there"))?;
    pod.remove()
}

/// A runtime whose `exec` takes long, for one container.
const SLOW: &str =
    "#!/bin/sh\ncase \"$*\" in *' exec '*SLOW*|'exec '*SLOW*) sleep 8;; esac\nexec crun \"$@\"\n";

fn slow(_: &str) -> Result<(), Failure> {
    let dir = "/run/cryopod-e2e";
    std::fs::create_dir_all(dir).map_err(|e| e.to_string())?;
    let program = format!("{dir}/slow-runtime");
    let (slow, quick) = (Task::new(), Task::new());
    std::fs::write(&program, SLOW.replace("SLOW", &slow.id)).map_err(|e| format!("{program}: {e}"))?;
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).map_err(|e| e.to_string())?;
    let config = format!("{dir}/slow.toml");
    let text = format!(
        "[runtime]\ndefault = \"slow\"\n[runtime.slow]\npath = \"{program}\"\n[store.zfs]\nroot = \"tank/cryopod\"\n"
    );
    std::fs::write(&config, text).map_err(|e| format!("{config}: {e}"))?;
    // One shim for both, as for containers of one pod.
    let group = format!("io.containerd.runc.v2.group={}", slow.id);
    let options = ["--runtime-config-path", &config, "--annotation", &group];
    slow.start(&options, &["sleep", "1000"])?;
    quick.start(&options, &["sleep", "1000"])?;
    let count = shims(&slow.id)?;
    ensure(count == 1, || format!("{count} shims for one group"))?;
    let began = Instant::now();
    let exec = std::thread::spawn({
        let id = slow.id.clone();
        move || ctr(&["task", "exec", "--exec-id", "x", &id, "true"])
    });
    std::thread::sleep(Duration::from_secs(2));
    let state = Instant::now();
    ensure(quick.state()?.as_deref() == Some("RUNNING"), || "State of the other one".into())?;
    let state = state.elapsed();
    let done = quick.exec("y", &["true"])?;
    ensure(done.code == 0, || format!("exec in the other one: {}", done.stderr))?;
    let both = began.elapsed();
    let exec = exec.join().map_err(|_| "the exec panicked")??;
    ensure(exec.code == 0, || format!("the slow exec: {}", exec.stderr))?;
    ensure(began.elapsed() >= Duration::from_secs(8), || "the runtime was not slow".into())?;
    println!("  State {} ms, State and exec after {} ms of 8 s", state.as_millis(), both.as_millis());
    ensure(both < Duration::from_secs(7), || format!("State {state:?} and exec ended after {both:?}"))?;
    quick.remove()?;
    slow.remove()
}

fn execs(handler: &str) -> Result<(), Failure> {
    let pod = Pod::run(handler, "execs")?;
    let c = pod.start(&Spec::sh("c", "sleep 1000"))?;
    let script = format!(
        "for i in $(seq 20); do (timeout 120 crictl exec {} sh -c \"echo $i\" || echo failed) & done; wait",
        c.id
    );
    let out = shell::ok(&script)?;
    let mut numbers: Vec<u32> = out.lines().filter_map(|line| line.parse().ok()).collect();
    numbers.sort_unstable();
    ensure(numbers == (1..=20).collect::<Vec<_>>(), || format!("output {out:?}"))?;
    pod.remove()
}
