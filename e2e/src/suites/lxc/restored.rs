//! What a restored container has that CRIU does not bring: the LXC tools, limits, the freezer, device rules, its terminal.

use std::time::Duration;

use serde_json::json;

use super::{Case, HANDLER};
use crate::crictl::{Container, Pod, Spec};
use crate::cryopod::Checkpoint;
use crate::shell::{eventually, exec_ok, ok};
use crate::story::{counting_with, restore};
use crate::suite::{Failure, ensure};
use crate::ticks;

pub const CASES: &[Case] = &[
    ("it_has_limits_device_rules_and_the_freezer", true, managed),
    ("its_terminal_comes_back", true, terminal),
    ("a_pod_with_a_user_namespace_is_captured_without_memory", false, user_namespace),
];

const LONG: Duration = Duration::from_secs(60);
const LIMIT: u64 = 96 << 20;

/// A counting container, captured and back; the checkpoint is gone again.
fn back(spec: Spec) -> Result<(Pod, Container), Failure> {
    let source = counting_with(HANDLER, &[], spec)?;
    let before = ticks::read(&source.container)?;
    let checkpoint = Checkpoint::with(&source.pod.id, &["--mode", "full", "--wait"])?;
    source.pod.remove()?;
    let (pod, container) = restore(HANDLER, "restored", &checkpoint.id, &source.spec)?;
    ticks::goes_on(&container, &before)?;
    checkpoint.delete()?;
    Ok((pod, container))
}

/// A device that no container is given: the node may be made, and not opened.
fn cannot_open_memory(container: &Container) -> Result<(), Failure> {
    let done = container.exec(&["sh", "-c", "mknod /dev/forbidden c 1 1 && head -c 1 /dev/forbidden"])?;
    ensure(done.code != 0 && done.stderr.contains("not permitted"), || {
        format!("/dev/mem was opened: {} {}", done.stdout, done.stderr)
    })
}

fn managed() -> Result<(), Failure> {
    let limited = Spec::counter("counter").with(&json!({
        "linux": { "resources": { "memory_limit_in_bytes": LIMIT } }
    }));
    let source = Pod::run(HANDLER, "plain")?;
    cannot_open_memory(&source.start(&Spec::sh("plain", "sleep 1000"))?)?;
    source.remove()?;
    let (pod, container) = back(limited)?;
    let limit = exec_ok(&["lxc-cgroup", "-n", &container.id, "memory.max"])?;
    ensure(limit.trim() == LIMIT.to_string(), || format!("memory.max is {}", limit.trim()))?;
    cannot_open_memory(&container)?;
    let list = ok("lxc-ls -f")?;
    let line = list.lines().find(|line| line.starts_with(&container.id)).unwrap_or_default();
    ensure(line.contains("RUNNING"), || format!("lxc-ls -f says {line:?}"))?;
    exec_ok(&["lxc-freeze", "-n", &container.id])?;
    let frozen = ticks::read(&container)?;
    std::thread::sleep(Duration::from_secs(1));
    ensure(ticks::read(&container)? == frozen, || "it counts on while it is frozen".to_owned())?;
    exec_ok(&["lxc-unfreeze", "-n", &container.id])?;
    ticks::beyond(&container, frozen.last + 2)?;
    pod.remove()
}

fn terminal() -> Result<(), Failure> {
    let (pod, container) = back(Spec::counter("tty").with(&json!({ "tty": true })))?;
    eventually("output by the new terminal", LONG, || Ok((!container.logs()?.is_empty()).then_some(())))?;
    let link = format!("readlink /proc/{}/fd/1", container.pid()?);
    let target = ok(&link)?;
    ensure(target.trim().starts_with("/dev/pts/"), || format!("standard output is {}", target.trim()))?;
    pod.remove()
}

fn user_namespace() -> Result<(), Failure> {
    let mapped = json!([{ "host_id": 200_000, "container_id": 0, "length": 65_536 }]);
    let options = json!({ "namespace_options": { "pid": 1, "userns_options": { "mode": 0, "uids": mapped, "gids": mapped } } });
    let security = json!({ "linux": { "security_context": options } });
    let pod = Pod::run_with(HANDLER, "mapped", &Default::default(), &security)?;
    let container = pod.start(&Spec::counter("counter").with(&security))?;
    ticks::beyond(&container, 3)?;
    let map = container.exec(&["cat", "/proc/self/uid_map"])?.stdout;
    ensure(map.split_whitespace().collect::<Vec<_>>() == ["0", "200000", "65536"], || {
        format!("uid_map is {map}")
    })?;
    let owner = container.exec(&["stat", "-c", "%u", "/sys/fs/cgroup"])?.stdout;
    ensure(owner.trim() == "0", || format!("the container's cgroup belongs to {owner}, not to its root"))?;
    // Said when the pod is made, not only when somebody needs its memory.
    let warned = format!(
        "journalctl -u containerd -o cat | grep 'captured without memory' | grep -c {}",
        container.id
    );
    ensure(ok(&warned)? == "1", || "nobody was told that its memory is not captured".to_owned())?;
    let refused = crate::cryopod::run(&["checkpoint", "--mode", "full", &pod.id])?;
    ensure(refused.code != 0 && refused.stderr.contains("userns"), || format!("full: {}", refused.stderr))?;
    let checkpoint = Checkpoint::with(&pod.id, &["--mode", "disk", "--wait"])?;
    pod.remove()?;
    checkpoint.delete().map(drop)
}
