//! What the LXC tools see of a pod's container, as an administrator uses them.

use super::{Case, HANDLER};
use crate::crictl::{Container, Pod, Spec};
use crate::shell::{eventually, exec, exec_ok, ok};
use crate::suite::{Failure, ensure};
use std::time::Duration;

pub const CASES: &[Case] = &[
    ("lxc_ls_and_lxc_info_see_the_container_of_a_pod", true, seen),
    ("lxc_attach_runs_in_it_and_answers_its_exit_code", true, attach),
    ("lxc_freeze_and_lxc_unfreeze_pause_it", true, freeze),
    ("lxc_stop_ends_it_and_kubernetes_learns_of_it", true, stop),
    ("a_monitor_that_was_killed_takes_nothing_along", true, no_monitor),
];

const LONG: Duration = Duration::from_secs(30);

fn running(name: &str) -> Result<(Pod, Container), Failure> {
    let pod = Pod::run(HANDLER, name)?;
    let container =
        pod.start(&Spec::sh("c", "i=0; while :; do i=$((i+1)); echo $i > /m; mv /m /n; sleep 0.1; done"))?;
    eventually("it counts", LONG, || Ok(container.file("/n").ok()))?;
    Ok((pod, container))
}

fn info(container: &Container, field: &str) -> Result<String, Failure> {
    exec_ok(&["lxc-info", "-n", &container.id, "-H", field]).map(|said| said.trim().to_owned())
}

fn seen() -> Result<(), Failure> {
    let (pod, container) = running("seen")?;
    let list = ok("lxc-ls -f")?;
    let line = list.lines().find(|line| line.starts_with(&container.id));
    let line = line.ok_or_else(|| format!("lxc-ls -f does not show {}:\n{list}", container.id))?;
    ensure(line.contains("RUNNING"), || format!("lxc-ls -f says {line}"))?;
    let address = pod.address()?;
    ensure(line.contains(address), || format!("lxc-ls -f says {line}, the pod has the address {address}"))?;
    ensure(info(&container, "-s")? == "RUNNING", || "lxc-info does not say RUNNING".to_owned())?;
    let (pid, expected) = (info(&container, "-p")?, container.pid()?);
    ensure(pid == expected.to_string(), || format!("lxc-info says PID {pid}, CRI says {expected}"))?;
    let cgroup = exec_ok(&["lxc-cgroup", "-n", &container.id, "pids.current"])?;
    ensure(cgroup.trim().parse::<u32>().is_ok_and(|count| count > 0), || {
        format!("pids.current is {cgroup}")
    })?;
    pod.remove()?;
    let list = ok("lxc-ls -1")?;
    ensure(!list.contains(&container.id), || format!("lxc-ls still shows it:\n{list}"))
}

fn attach() -> Result<(), Failure> {
    let (pod, container) = running("attach")?;
    let done = exec(&[
        "lxc-attach",
        "-n",
        &container.id,
        "--",
        "sh",
        "-c",
        "cat /proc/self/cgroup; hostname; exit 9",
    ])?;
    ensure(done.code == 9, || format!("lxc-attach ended with {}: {}", done.code, done.stderr))?;
    let own = container.exec(&["hostname"])?.stdout;
    ensure(done.stdout.ends_with(&own), || format!("lxc-attach sees {}, exec sees {own}", done.stdout))?;
    // Below the container's group, so that its limits hold.
    let cgroup = done.stdout.lines().next().unwrap_or_default();
    ensure(!cgroup.contains(".."), || format!("lxc-attach is in {cgroup}"))?;
    pod.remove()
}

fn count(container: &Container) -> Result<u64, Failure> {
    let text = container.file("/n")?;
    text.trim().parse().map_err(|_| format!("/n holds {text:?}"))
}

fn freeze() -> Result<(), Failure> {
    let (pod, container) = running("freeze")?;
    exec_ok(&["lxc-freeze", "-n", &container.id])?;
    ensure(info(&container, "-s")? == "FROZEN", || "lxc-info does not say FROZEN".to_owned())?;
    let path = format!("/proc/{}/root/n", container.pid()?);
    let read = || std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"));
    let before = read()?;
    std::thread::sleep(Duration::from_secs(1));
    ensure(read()? == before, || "it counts on while it is frozen".to_owned())?;
    exec_ok(&["lxc-unfreeze", "-n", &container.id])?;
    let before = count(&container)?;
    eventually("it counts again", LONG, || Ok((count(&container)? > before).then_some(())))?;
    pod.remove()
}

fn stop() -> Result<(), Failure> {
    let (pod, container) = running("stop")?;
    exec_ok(&["lxc-stop", "-k", "-n", &container.id])?;
    let code = container.wait_exit(LONG)?;
    ensure(code == 137, || format!("after lxc-stop -k: exit code {code}, not 137"))?;
    // Its pod decides whether it runs again.
    let again = exec(&["lxc-start", "-F", "-n", &container.id])?;
    ensure(again.code != 0, || format!("lxc-start starts the container of a pod: {}", again.stdout))?;
    pod.remove()
}

fn no_monitor() -> Result<(), Failure> {
    let (pod, container) = running("monitor")?;
    ok(&format!("pkill -9 -f '^[^ ]*cryopod-lxc-monitor {} '", container.id))?;
    let before = count(&container)?;
    eventually("it counts on", LONG, || Ok((count(&container)? > before).then_some(())))?;
    let done = container.exec(&["sh", "-c", "exit 4"])?;
    ensure(done.stderr.contains("exit code 4"), || format!("exec says {}", done.stderr))?;
    // Whoever works on it next brings its monitor back.
    eventually("lxc-info answers again", LONG, || Ok((info(&container, "-s")? == "RUNNING").then_some(())))?;
    pod.remove()
}
