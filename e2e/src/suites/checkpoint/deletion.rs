//! Sources, checkpoints and restored pods go in any order, and nobody loses what is theirs.

use super::Case;
use crate::cryopod::{self, Checkpoint};
use crate::shell::{self, eventually};
use crate::story::{counting, restore};
use crate::suite::{Failure, ensure};
use crate::ticks;
use std::time::Duration;

pub const CASES: &[Case] = &[
    ("freeze_then_delete_keeps_the_checkpoint", true, freeze_then_delete),
    ("a_deleted_checkpoint_frees_its_space_when_the_last_restored_pod_goes", true, shared_space),
    ("prune_keeps_what_a_rule_keeps", false, prune),
    ("verify_finds_a_flipped_byte", false, flipped_byte),
];

fn freeze_then_delete() -> Result<(), Failure> {
    let source = counting("cryopod")?;
    // Enough to ship that the pod is gone before it is settled.
    let data = source.container.path("/data/bulk")?;
    shell::ok(&format!("dd if=/dev/urandom of={} bs=1M count=96 2>/dev/null", data.display()))?;
    let sum = shell::ok(&format!("sha256sum < {}", data.display()))?;
    let checkpoint = Checkpoint::with(&source.pod.id, &["--mode", "full"])?;
    source.pod.remove()?;
    ensure(cryopod::checkpoints()?.contains(&checkpoint.id), || "the checkpoint went with its pod".into())?;
    checkpoint.settle()?;
    checkpoint.verify()?;
    let (pod, restored) = restore("cryopod", "restored", &checkpoint.id, &source.spec)?;
    ticks::goes_on(&restored, &source.before)?;
    let again = shell::ok(&format!("sha256sum < {}", restored.path("/data/bulk")?.display()))?;
    ensure(sum == again, || "the restored file has other contents".into())?;
    pod.remove()?;
    checkpoint.delete().map(drop)
}

fn shared_space() -> Result<(), Failure> {
    let source = counting("cryopod")?;
    let checkpoint = Checkpoint::with(&source.pod.id, &["--mode", "full"])?;
    source.pod.remove()?;
    checkpoint.settle()?;
    let (pod, restored) = restore("cryopod", "restored", &checkpoint.id, &source.spec)?;
    let middle = ticks::goes_on(&restored, &source.before)?;
    let sharers = checkpoint.sharers()?;
    ensure(!sharers.is_empty(), || "nobody shares the checkpoint's disk, it says".into())?;
    let id = checkpoint.id.clone();
    let state = checkpoint.delete()?;
    ensure(state == "deferred", || format!("delete says {state}, while {sharers:?} share it"))?;
    ensure(!cryopod::checkpoints()?.contains(&id), || "the deleted checkpoint is still listed".into())?;
    ticks::goes_on(&restored, &middle)?;
    pod.remove()?;
    eventually("its space is freed", Duration::from_secs(60), || {
        let left = shell::ok("zfs list -H -o name -t all -r tank/cryopod")?;
        Ok((!left.contains(&id)).then_some(()))
    })
}

fn prune() -> Result<(), Failure> {
    let source = counting("cryopod")?;
    let mut all = Vec::new();
    for _ in 0..3 {
        let checkpoint = Checkpoint::with(&source.pod.id, &["--mode", "disk"])?;
        checkpoint.settle()?;
        all.push(checkpoint);
    }
    let rule = ["checkpoints", "prune", "--pod", source.pod.name.as_str(), "--keep-last", "1"];
    let plan = cryopod::ok(&[&rule[..], &["--dry-run"]].concat())?;
    ensure(plan["delete"].as_array().map_or(0, Vec::len) == 2, || format!("the plan is {plan}"))?;
    ensure(cryopod::checkpoints()?.len() == 3, || "the dry run deleted something".into())?;
    cryopod::ok(&rule)?;
    let left = cryopod::checkpoints()?;
    let newest = all.pop().ok_or("no checkpoint")?;
    ensure(left == [newest.id.clone()], || format!("{left:?} are left, not the newest"))?;
    all.into_iter().for_each(std::mem::forget);
    source.pod.remove()?;
    newest.delete().map(drop)
}

/// Flips one byte in the middle of the largest memory image.
pub fn flip(checkpoint: &Checkpoint) -> Result<(), Failure> {
    checkpoint.unlock()?;
    let find = format!(
        "find {} -name 'pages-*.img' -printf '%s %p\\n' | sort -n | tail -1 | cut -d' ' -f2",
        checkpoint.content()?.display()
    );
    let path = shell::ok(&find)?;
    let failed = |e: std::io::Error| format!("{path}: {e}");
    let mut bytes = std::fs::read(&path).map_err(failed)?;
    let middle = bytes.len() / 2;
    *bytes.get_mut(middle).ok_or_else(|| format!("{path} is empty"))? ^= 1;
    std::fs::write(&path, bytes).map_err(failed)
}

fn flipped_byte() -> Result<(), Failure> {
    let source = counting("cryopod")?;
    let checkpoint = Checkpoint::with(&source.pod.id, &["--mode", "full"])?;
    source.pod.remove()?;
    checkpoint.settle()?;
    checkpoint.verify()?;
    flip(&checkpoint)?;
    let error = cryopod::refused(&["checkpoints", "verify", &checkpoint.id], 12)?;
    ensure(error.contains("pages-"), || format!("the damaged file is not named: {error}"))?;
    checkpoint.delete().map(drop)
}
