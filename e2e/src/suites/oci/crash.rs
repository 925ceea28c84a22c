//! Unclean ends: a shim that is killed, a node that loses everything that ran.

use std::time::Duration;

use super::{ALL, CRUN, Case, NONE, RUNC, WITH_AND_WITHOUT_PAUSE};
use crate::crictl::{Pod, Spec};
use crate::ctr::{Task, restart_containerd};
use crate::shell::{self, eventually};
use crate::suite::{Failure, ensure};
use crate::suites::faults::Armed;

pub const CASES: &[Case] = &[
    (
        "a_killed_shim_takes_its_pod_with_it_and_the_pod_can_be_removed",
        WITH_AND_WITHOUT_PAUSE,
        RUNC,
        killed_shim,
    ),
    ("a_shim_that_dies_while_it_makes_a_pod_leaves_nothing", CRUN, NONE, killed_half_way),
    ("a_task_whose_shim_was_killed_is_stopped_and_can_be_removed", NONE, CRUN, killed_task_shim),
    ("what_ended_with_containerd_away_is_cleaned_at_its_start", CRUN, NONE, stale_bundles),
    ("a_shim_that_was_killed_with_containerd_away_leaves_no_process", NONE, CRUN, killed_while_away),
    ("after_a_reboot_the_old_pods_are_gone_and_can_be_removed", NONE, ALL, reboot),
];

const LONG: Duration = Duration::from_secs(60);

/// PID of the shim that serves a pod or task.
fn shim(id: &str) -> Result<String, Failure> {
    let pid = shell::ok(&format!("pgrep -f '[c]ontainerd-shim-cryopod.*-id {id}'"))?;
    ensure(pid.lines().count() == 1, || format!("shims of {id}: {pid:?}"))?;
    Ok(pid)
}

fn gone(pids: &[u32]) -> Result<(), Failure> {
    eventually(&format!("processes {pids:?} end"), LONG, || {
        Ok(pids.iter().all(|pid| std::fs::metadata(format!("/proc/{pid}")).is_err()).then_some(()))
    })
}

fn killed_shim(handler: &str) -> Result<(), Failure> {
    let pod = Pod::run(handler, "crash")?;
    let a = pod.start(&Spec::counter("a"))?;
    let b = pod.start(&Spec::sh("b", "trap '' TERM; sleep 4251 & while :; do sleep 1; done"))?;
    let pids = [a.pid()?, b.pid()?];
    shell::ok(&format!("kill -KILL {}", shim(&pod.id)?))?;
    for c in [&a, &b] {
        let code = c.wait_exit(LONG)?;
        ensure(code != 0, || format!("{} ended well", c.name))?;
    }
    gone(&pids)?;
    let left = shell::ok("pgrep -f '[s]leep 4251' || true")?;
    ensure(left.is_empty(), || "a child of a container is still there".into())?;
    let pods = shell::exec_ok(&["crictl", "inspectp", &pod.id])?;
    eventually("the pod is not ready", LONG, || {
        let text = shell::exec_ok(&["crictl", "inspectp", &pod.id])?;
        Ok(text.contains("SANDBOX_NOTREADY").then_some(()))
    })
    .map_err(|e| format!("{e}: {pods}"))?;
    pod.remove()
}

/// The namespaces are there, and nobody has noted yet who holds them.
fn killed_half_way(handler: &str) -> Result<(), Failure> {
    for what in ["kill", "error"] {
        let armed = Armed::with("shim.sandbox.held", what)?;
        let run = Pod::run(handler, "half");
        armed.disarm()?;
        ensure(run.is_err(), || format!("the pod was made in spite of the {what}"))?;
        eventually("the process that held its namespaces ends", LONG, || {
            Ok((shell::sh("pgrep -f '[c]ryopod-pause'")?.code != 0).then_some(()))
        })?;
    }
    // containerd removes what it has of such pods, kubelet has never heard of them.
    let pods = shell::exec_ok(&["crictl", "pods", "-q"])?;
    ensure(pods.is_empty(), || format!("pods are left: {pods}"))?;
    // The same name is free, also after a restart.
    restart_containerd(|| Ok(()))?;
    Pod::run(handler, "half")?.remove()
}

fn killed_task_shim(handler: &str) -> Result<(), Failure> {
    let task = Task::sh(super::runtime_options(handler), "sleep 1000")?;
    shell::ok(&format!("kill -KILL {}", shim(&task.id)?))?;
    eventually("the task is gone or stopped", LONG, || {
        Ok(task.state()?.is_none_or(|state| state == "STOPPED").then_some(()))
    })?;
    task.remove()
}

/// Kills everything of a pod: its shim and all its processes, as a crash of the node does.
fn kill_all(pod: &Pod) -> Result<(), Failure> {
    shell::ok(&format!("kill -KILL {}", shim(&pod.id)?))?;
    shell::ok("pkill -KILL -f '[c]ryopod-pause hold-namespaces' || true")?;
    shell::ok(&format!("echo 1 >/sys/fs/cgroup/kubepods/pod{}/cgroup.kill", pod.uid())).map(drop)
}

fn stale_bundles(handler: &str) -> Result<(), Failure> {
    let pod = Pod::run(handler, "stale")?;
    let c = pod.start(&Spec::counter("c"))?;
    restart_containerd(|| kill_all(&pod))?;
    let code = c.wait_exit(LONG)?;
    ensure(code != 0, || "a container that was killed ended well".into())?;
    ensure(crate::ctr::state(&c.id)?.is_none(), || "its task is still there".into())?;
    let left = shell::ok(&format!("grep -c {} /proc/self/mountinfo || true", c.id))?;
    ensure(left == "0", || format!("{left} mounts of the dead container"))?;
    pod.remove()
}

fn killed_while_away(handler: &str) -> Result<(), Failure> {
    let pod = Pod::run(handler, "away")?;
    let c = pod.start(&Spec::counter("c"))?;
    let pid = c.pid()?;
    restart_containerd(|| shell::ok(&format!("kill -KILL {}", shim(&pod.id)?)).map(drop))?;
    gone(&[pid])?;
    let code = c.wait_exit(LONG)?;
    ensure(code != 0, || "a container that was killed ended well".into())?;
    pod.remove()
}

fn reboot(handler: &str) -> Result<(), Failure> {
    let pod = Pod::run(handler, "reboot")?;
    let c = pod.start(&Spec::counter("c"))?;
    restart_containerd(|| {
        kill_all(&pod)?;
        // What a boot does to a node: nothing of /run, no mount, no group is there any more.
        shell::ok(
            "sleep 1; grep -o ' /run/\\(containerd\\|netns\\|cryopod\\)[^ ]*' /proc/self/mountinfo | sort -ru | \
             while read m; do umount -l $m; done; \
             rm -rf /run/containerd /run/cryopod /run/crun /run/runc /run/netns; \
             find /sys/fs/cgroup/kubepods/pod* -depth -type d -exec rmdir {} \\;",
        )?;
        // What is kept on disk is told from the living by the id of the boot, which only a boot changes.
        shell::ok(
            "for s in /var/lib/lxc/*/state.json; do [ ! -e $s ] || \
             sed -i 's/\"boot\":\"[^\"]*\"/\"boot\":\"an earlier one\"/' $s; done",
        )
        .map(drop)
    })?;
    let code = c.wait_exit(LONG)?;
    ensure(code != 0, || "a container that the reboot ended has exit code 0".into())?;
    pod.remove()
}
