//! What kubelet does with a restored pod later: it restarts its containers, and it gave it an address, hosts and
//! mounts of its own.

use std::time::Duration;

use serde_json::json;

use super::Case;
use crate::crictl::{Container, Pod, Spec};
use crate::cryopod::Checkpoint;
use crate::shell::{self, eventually, exec_ok};
use crate::story::{Volume, counting, restored_pod};
use crate::suite::{Failure, ensure};
use crate::{ticks, workloads};

/// PID of the client that is left connected.
const CLIENT: &str = "/run/cryopod-e2e-client";

pub const CASES: &[Case] = &[
    ("a_restart_after_a_restore_is_a_fresh_start", true, restart_is_fresh),
    ("a_restart_after_a_restore_of_the_disk_keeps_the_volume_and_gets_a_fresh_root", false, disk_restart),
    ("an_init_container_runs_again_and_the_application_goes_on", false, init_container),
    ("with_policy_always_a_restart_is_restored_again", false, restart_is_restored),
    ("the_restored_pod_has_the_address_hosts_and_mounts_of_the_new_one", true, new_surroundings),
    ("a_client_outside_is_cut_off_and_the_server_serves_at_its_new_address", true, outside),
    ("a_restarted_containerd_finds_its_pods_again", false, containerd_restart),
];

/// Ends the container as a crash would, and makes the next attempt as kubelet would.
fn restart(pod: &Pod, container: &Container, spec: &Spec) -> Result<Container, Failure> {
    shell::ok(&format!("kill -9 {}", container.pid()?))?;
    container.wait_exit(Duration::from_secs(30))?;
    let next = spec.clone().with(&json!({"metadata": {"attempt": 1}, "log_path": "counter_1.log"}));
    pod.start(&next)
}

fn restart_is_fresh() -> Result<(), Failure> {
    let source = counting("cryopod")?;
    let checkpoint = Checkpoint::with(&source.pod.id, &["--mode", "full"])?;
    source.pod.remove()?;
    let pod = restored_pod("cryopod", "restored", &checkpoint.id, &[])?;
    let restored = pod.start(&source.spec)?;
    ticks::goes_on(&restored, &source.before)?;
    let again = restart(&pod, &restored, &source.spec)?;
    let fresh = ticks::beyond(&again, 2)?;
    ensure(fresh.token != source.before.token, || "the restarted container was restored again".into())?;
    pod.remove()?;
    checkpoint.delete().map(drop)
}

/// kubelet runs an init container to its end, then the application; the checkpoint knows the application alone.
fn init_container() -> Result<(), Failure> {
    let setup = |pod: &Pod, volume: &Volume| {
        let spec = Spec::sh("setup", "echo done > /volume/setup; exit 7").with(&volume.mount());
        let exit = pod.start(&spec)?.wait_exit(Duration::from_secs(30))?;
        ensure(exit == 7, || format!("the init container ended with {exit}"))
    };
    let source = Pod::run("cryopod", "source")?;
    let volume = Volume::empty_dir(&source, "/volume")?;
    setup(&source, &volume)?;
    let spec = Spec::counter("app");
    let before = ticks::beyond(&source.start(&spec)?, 3)?;
    let checkpoint = Checkpoint::with(&source.id, &["--mode", "full"])?;
    source.remove()?;
    drop(volume);
    let pod = restored_pod("cryopod", "restored", &checkpoint.id, &[])?;
    let volume = Volume::empty_dir(&pod, "/volume")?;
    setup(&pod, &volume)?;
    ensure(volume.path().join("setup").exists(), || "the init container did not run again".into())?;
    ticks::goes_on(&pod.start(&spec)?, &before)?;
    pod.remove()?;
    checkpoint.delete().map(drop)
}

/// Adds a line to a file of its root and one to a file of its volume with every start.
fn starter(volume: &Volume) -> Spec {
    const SCRIPT: &str = "echo start >> /starts; echo start >> /volume/starts; trap 'exit 0' TERM; \
                          while :; do sleep 0.1; done";
    Spec::sh("counter", SCRIPT).with(&volume.mount())
}

/// Waits until both files tell of so many starts.
fn starts(container: &Container, root: usize, volume: usize) -> Result<(), Failure> {
    let mut seen = (0, 0);
    eventually("the container has started", Duration::from_secs(30), || {
        let lines = |path: &str| container.file(path).map_or(0, |text| text.lines().count());
        seen = (lines("/starts"), lines("/volume/starts"));
        Ok((seen == (root, volume)).then_some(()))
    })
    .map_err(|e| format!("{e}: (root, volume) tell of {seen:?} starts, not {:?}", (root, volume)))
}

fn disk_restart() -> Result<(), Failure> {
    let source = Pod::run("cryopod", "source")?;
    let volume = Volume::empty_dir(&source, "/volume")?;
    starts(&source.start(&starter(&volume))?, 1, 1)?;
    let checkpoint = Checkpoint::with(&source.id, &["--mode", "disk"])?;
    source.remove()?;
    drop(volume);
    let pod = restored_pod("cryopod", "restored", &checkpoint.id, &[])?;
    let volume = Volume::empty_dir(&pod, "/volume")?;
    let spec = starter(&volume);
    let restored = pod.start(&spec)?;
    starts(&restored, 2, 2)?;
    // The root is the image's again; what the pod wrote into its volume is the pod's.
    starts(&restart(&pod, &restored, &spec)?, 1, 3)?;
    pod.remove()?;
    checkpoint.delete().map(drop)
}

fn restart_is_restored() -> Result<(), Failure> {
    let source = counting("cryopod")?;
    let checkpoint = Checkpoint::with(&source.pod.id, &["--mode", "full"])?;
    source.pod.remove()?;
    let pod =
        restored_pod("cryopod", "restored", &checkpoint.id, &[("cryopod.dev/restore-policy", "always")])?;
    let restored = pod.start(&source.spec)?;
    ticks::goes_on(&restored, &source.before)?;
    let again = restart(&pod, &restored, &source.spec)?;
    ticks::goes_on(&again, &source.before)?;
    pod.remove()?;
    checkpoint.delete().map(drop)
}

/// A hosts file as kubelet writes it for a pod, and a token that changes with each pod.
fn of_kubelet(pod: &Pod, spec: Spec) -> Result<Spec, Failure> {
    let folder = format!("/var/lib/kubelet/pods/{}", pod.uid());
    let token = format!("{folder}/volumes/kubernetes.io~projected/token");
    let write = |path: &str, text: String| std::fs::write(path, text).map_err(|e| format!("{path}: {e}"));
    std::fs::create_dir_all(&token).map_err(|e| format!("{token}: {e}"))?;
    write(&format!("{folder}/etc-hosts"), format!("127.0.0.1 localhost\n{} {}\n", pod.address()?, pod.name))?;
    write(&format!("{token}/token"), format!("token of {}\n", pod.uid()))?;
    Ok(spec.with(&json!({"mounts": [
        {"container_path": "/etc/hosts", "host_path": format!("{folder}/etc-hosts")},
        {"container_path": "/var/run/secrets", "host_path": token, "readonly": true},
    ]})))
}

fn new_surroundings() -> Result<(), Failure> {
    let source = Pod::run("cryopod", "old")?;
    let container = source.start(&of_kubelet(&source, Spec::counter("counter"))?)?;
    let before = ticks::beyond(&container, 3)?;
    let checkpoint = Checkpoint::with(&source.id, &["--mode", "full"])?;
    let (old_address, old_uid) = (source.address()?.to_owned(), source.uid().to_owned());

    // The old pod still has its address, so the new one must have another.
    let pod = restored_pod("cryopod", "new", &checkpoint.id, &[])?;
    let restored = pod.start(&of_kubelet(&pod, Spec::counter("counter"))?)?;
    ticks::goes_on(&restored, &before)?;
    let address = pod.address()?;
    ensure(address != old_address, || format!("both pods have {address}"))?;
    let inside = shell::ok(&format!("nsenter -n -t {} ip -4 -o addr show dev eth0", restored.pid()?))?;
    ensure(inside.contains(&format!(" {address}/")), || format!("inside it is {inside}"))?;
    let hosts = restored.file("/etc/hosts")?;
    ensure(hosts.contains(&format!("{address} new")), || format!("/etc/hosts of the old pod: {hosts}"))?;
    let token = restored.file("/var/run/secrets/token")?;
    ensure(token.contains(pod.uid()), || format!("the token is {token}"))?;
    let name = shell::ok(&format!("nsenter -u -t {} hostname", restored.pid()?))?;
    ensure(name == "new", || format!("the host name is {name}"))?;
    let mounts = restored.file("/proc/1/mountinfo")?;
    ensure(!mounts.contains(&old_uid), || "a mount of the old pod is left in the new one".into())?;
    let cgroup = shell::ok(&format!("cat /proc/{}/cgroup", restored.pid()?))?;
    ensure(cgroup.contains(&restored.id), || format!("it runs in the cgroup {cgroup}"))?;
    let done = restored.exec(&["cat", "/etc/hosts"])?;
    ensure(done.stdout == hosts, || format!("exec sees {:?}", done.stdout))?;
    pod.remove()?;
    source.remove()?;
    shell::ok("rm -rf /var/lib/kubelet/pods/old-* /var/lib/kubelet/pods/new-*")?;
    checkpoint.delete().map(drop)
}

/// The pod's old address is not the new one's, so "keep", which is the default, can keep nothing; the rest goes on.
fn outside() -> Result<(), Failure> {
    let server = workloads::ALL.iter().find(|workload| workload.name == "nginx").ok_or("no such workload")?;
    let source = Pod::run("cryopod", "old")?;
    let container = source.start(&(server.spec)())?;
    let before = ticks::beyond(&container, 3)?;
    let served = (server.probe)(&source, &container, None)?;
    let address = source.address()?.to_owned();
    shell::ok(&format!("(sleep 300 | nc {address} 80) >/dev/null 2>&1 & echo $! > {CLIENT}"))?;
    let established = |container: &Container| {
        let pid = container.pid()?;
        shell::ok(&format!("nsenter -n -t {pid} ss -Htn state established sport = :80"))
    };
    eventually("the client is connected", Duration::from_secs(30), || {
        Ok((!established(&container)?.is_empty()).then_some(()))
    })?;
    let checkpoint = Checkpoint::with(&source.id, &["--mode", "full"])?;
    ensure(!established(&container)?.is_empty(), || "the capture cut the client off".into())?;
    ticks::goes_on(&container, &before)?;
    let pod = restored_pod("cryopod", "new", &checkpoint.id, &[])?;
    let restored = pod.start(&(server.spec)())?;
    ticks::goes_on(&restored, &before)?;
    let connections = established(&restored)?;
    ensure(connections.is_empty(), || format!("connections of another address go on: {connections}"))?;
    (server.probe)(&pod, &restored, Some(served))?;
    shell::ok(&format!("pkill -P $(cat {CLIENT}); rm {CLIENT}"))?;
    pod.remove()?;
    source.remove()?;
    checkpoint.delete().map(drop)
}

fn containerd_restart() -> Result<(), Failure> {
    let source = counting("cryopod")?;
    let early = Checkpoint::with(&source.pod.id, &["--mode", "full"])?;
    let lines = source.container.logs()?.len();
    exec_ok(&["systemctl", "restart", "containerd"])?;
    eventually("containerd answers", Duration::from_secs(120), || {
        Ok((shell::exec(&["crictl", "info"])?.code == 0).then_some(()))
    })?;
    let state = source.container.state()?;
    ensure(state == "RUNNING", || format!("after containerd's restart the container is {state}"))?;
    eventually("its log goes on", Duration::from_secs(60), || {
        Ok((source.container.logs()?.len() > lines + 10).then_some(()))
    })?;
    let before = ticks::read(&source.container)?;
    let late = Checkpoint::with(&source.pod.id, &["--mode", "full"])?;
    source.pod.remove()?;
    let pod = restored_pod("cryopod", "restored", &late.id, &[])?;
    let restored = pod.start(&source.spec)?;
    ticks::goes_on(&restored, &before)?;
    pod.remove()?;
    early.delete()?;
    late.delete().map(drop)
}
