//! The cgroup driver of systemd, as kubelet and podman use it on most nodes: a container's group is in a scope that systemd
//! knows, and goes with it.

use super::Case;
use crate::shell::{ok, sh};
use crate::suite::{Failure, ensure};

pub const CASES: &[Case] = &[("systemd_has_the_container_in_a_scope_with_its_limits", true, scope)];

const WORK: &str = "/run/cryopod-e2e/lxc-systemd";
const SCOPE: &str = "cryopod-e2e-sd.scope";

fn scope() -> Result<(), Failure> {
    let outcome = bundle().and_then(|()| lives());
    // The first error is the one to report.
    let removed = ok(&format!("cryopod-lxc delete --force sd && rm -rf {WORK}")).map(drop);
    outcome.and(removed)
}

fn bundle() -> Result<(), Failure> {
    ok(&format!(
        "rm -rf {WORK} && mkdir -p {WORK}/rootfs/bin && cp /bin/busybox {WORK}/rootfs/bin/ && ln -s busybox {WORK}/rootfs/bin/sleep && \
         cd {WORK} && cryopod-lxc spec && \
         jq '.process.terminal = false | .root.readonly = false | .process.args = [\"/bin/sleep\", \"1000\"] | \
             .linux.cgroupsPath = \"system.slice:cryopod-e2e:sd\" | .linux.resources.memory = {{ \"limit\": 67108864 }} | \
             .linux.resources.pids = {{ \"limit\": 50 }}' config.json > new.json && mv new.json config.json"
    ))
    .map(drop)
}

fn lives() -> Result<(), Failure> {
    ok(&format!(
        "cryopod --backend lxc --systemd-cgroup run --detach --bundle {WORK} --pid-file {WORK}/pid sd </dev/null >/dev/null 2>&1"
    ))?;
    let active = ok(&format!("systemctl is-active {SCOPE}"))?;
    ensure(active == "active", || format!("systemd says that {SCOPE} is {active}"))?;
    let slice = ok(&format!("systemctl show --value -p Slice {SCOPE}"))?;
    ensure(slice == "system.slice", || format!("{SCOPE} is in {slice}"))?;
    let group = ok(&format!("sed -n 's/^0:://p' /proc/$(cat {WORK}/pid)/cgroup"))?;
    ensure(group.contains(SCOPE), || format!("the container is in {group}"))?;
    for (file, expected) in [("memory.max", "67108864"), ("pids.max", "50")] {
        let found = ok(&format!("cat /sys/fs/cgroup{group}/{file}"))?;
        ensure(found == expected, || format!("{file} of {group} is {found}, not {expected}"))?;
    }
    // It waited for the container in there, and nobody needs it any more.
    let there = ok(&format!("cat $(find /sys/fs/cgroup/system.slice/{SCOPE} -name cgroup.procs)"))?;
    let pid = ok(&format!("cat {WORK}/pid"))?;
    ensure(there == pid, || format!("in {SCOPE} are {there}, and the container is {pid}"))?;
    // A word to systemd is a word to the container.
    ok(&format!("systemctl kill --signal=KILL {SCOPE}"))?;
    crate::shell::eventually("it has ended", std::time::Duration::from_secs(30), || {
        Ok(ok("cryopod-lxc state sd")?.contains("\"stopped\"").then_some(()))
    })?;
    ok("cryopod-lxc delete sd")?;
    let known = sh(&format!("systemctl is-active {SCOPE}"))?.stdout;
    ensure(known.trim() == "inactive", || format!("after its end {SCOPE} is {}", known.trim()))?;
    let left = ok(&format!("find /sys/fs/cgroup/system.slice -name {SCOPE} || true"))?;
    ensure(left.is_empty(), || format!("left: {left}"))
}
