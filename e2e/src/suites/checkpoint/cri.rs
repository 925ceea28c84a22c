//! containerd's own door: `crictl checkpoint`.

use std::time::Duration;

use serde_json::Value;

use super::Case;
use crate::crictl::Spec;
use crate::cryopod::{self, Checkpoint};
use crate::shell::{self, eventually, exec_ok};
use crate::story::{Counting, counting, counting_with, restore};
use crate::suite::{Failure, ensure};
use crate::{ticks, workloads};

pub const CASES: &[Case] = &[
    ("crictl_checkpoint_gives_an_archive_and_the_store_has_it_too", true, archive),
    ("crictl_checkpoint_stops_the_application_shortly_whatever_it_wrote", false, short_freeze),
    ("after_crictl_checkpoint_containerd_removes_the_pod_as_ever", false, removed_as_ever),
];

const ARCHIVE: &str = "/var/tmp/e2e-checkpoint.tar";

/// `crictl checkpoint`; returns the checkpoint that appeared in the store.
fn by_crictl(source: &Counting) -> Result<Checkpoint, Failure> {
    shell::ok(&format!("rm -f {ARCHIVE}"))?;
    let known = cryopod::checkpoints()?;
    let export = format!("--export={ARCHIVE}");
    exec_ok(&["crictl", "--timeout", "300s", "checkpoint", &export, &source.container.id])?;
    let new = eventually("the store has it too", Duration::from_secs(60), || {
        Ok(cryopod::checkpoints()?.into_iter().find(|id| !known.contains(id)))
    })?;
    Ok(Checkpoint::named(&new))
}

fn archive() -> Result<(), Failure> {
    let source = counting("cryopod")?;
    let checkpoint = by_crictl(&source)?;
    let entries = shell::ok(&format!("tar -tf {ARCHIVE}"))?;
    for entry in ["config.dump", "spec.dump", "status.dump", "rootfs-diff.tar", "checkpoint/inventory.img"] {
        ensure(entries.lines().any(|line| line == entry), || {
            format!("no {entry} in the archive: {entries}")
        })?;
    }
    let nested =
        entries.lines().find(|line| line.starts_with("checkpoint/") && line.matches('/').count() > 1);
    ensure(nested.is_none(), || format!("the images are not flat: {nested:?}"))?;
    understood(&source)?;
    ticks::goes_on(&source.container, &source.before)?;
    source.pod.remove()?;
    let (pod, restored) = restore("cryopod", "restored", &checkpoint.id, &source.spec)?;
    ticks::goes_on(&restored, &source.before)?;
    pod.remove()?;
    shell::ok(&format!("rm {ARCHIVE}"))?;
    checkpoint.delete().map(drop)
}

/// checkpointctl, by which people look into such archives, finds container, engine and processes in it.
fn understood(source: &Counting) -> Result<(), Failure> {
    let text = exec_ok(&["checkpointctl", "inspect", "--ps-tree", "--format", "json", ARCHIVE])?;
    let found: Value = serde_json::from_str(&text).map_err(|e| format!("checkpointctl: {e}: {text}"))?;
    let found = &found[0];
    ensure(found["id"].as_str() == Some(&source.container.id), || format!("checkpointctl sees {found}"))?;
    ensure(found["process_tree"]["command"] == "sh", || format!("its processes are {found}"))
}

/// Notes the longest time between two ticks, in milliseconds, in /data/gap.
const GAPS: &str = "longest, then = 0, time.monotonic()\n\
                    def step(i):\n\
                    \x20   global longest, then\n\
                    \x20   now = time.monotonic()\n\
                    \x20   if now - then > longest:\n\
                    \x20       longest = now - then\n\
                    \x20       with open('/data/gap', 'w') as f: f.write(str(int(longest * 1000)))\n\
                    \x20   then = now\n\
                    run(step, 0.01)\n";

fn gapped() -> Spec {
    workloads::python("gaps", GAPS)
}

fn short_freeze() -> Result<(), Failure> {
    let source = counting_with("cryopod", &[], gapped())?;
    let data = source.container.path("/data/bulk")?;
    shell::ok(&format!("dd if=/dev/urandom of={} bs=1M count=128 2>/dev/null; sync", data.display()))?;
    let clock = std::time::Instant::now();
    let checkpoint = by_crictl(&source)?;
    let total = clock.elapsed().as_millis() as u64;
    let after = ticks::read(&source.container)?;
    ticks::goes_on(&source.container, &after)?;
    let gap: u64 = source.container.file("/data/gap")?.parse().map_err(|e| format!("/data/gap: {e}"))?;
    println!("  longest stop {gap} ms of {total} ms");
    // containerd's diff of 128 MiB is the larger part of the total; had it been inside the freeze, this would show.
    ensure(gap * 3 < total, || format!("the application stood still for {gap} ms of {total} ms"))?;
    source.pod.remove()?;
    shell::ok(&format!("rm {ARCHIVE}"))?;
    checkpoint.delete().map(drop)
}

fn removed_as_ever() -> Result<(), Failure> {
    let source = counting("cryopod")?;
    let datasets = || shell::ok("zfs list -H -o name -t all -r tank/containerd");
    let before = datasets()?;
    let checkpoint = by_crictl(&source)?;
    checkpoint.settle()?;
    eventually("the swap is undone", Duration::from_secs(60), || Ok((datasets()? == before).then_some(())))?;
    source.pod.remove()?;
    checkpoint.verify()?;
    shell::ok(&format!("rm {ARCHIVE}"))?;
    checkpoint.delete().map(drop)
}
