//! The ground gives way: the store's pool fills up, or the store is destroyed, in the middle of an operation. The store
//! is on a small pool in a file; the workload is elsewhere and must not notice.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::Case;
use super::injection::Armed;
use super::subject::Subject;
use crate::cryopod::{self, Checkpoint};
use crate::leaks::Footprint;
use crate::shell::{eventually, ok, sh};
use crate::suite::{Failure, ensure};

pub const CASES: &[Case] = &[
    ("pool::fills_up_during_a_capture", true, filled_in_capture),
    ("pool::fills_up_while_settling", false, filled_in_settling),
    ("pool::store_is_destroyed_during_a_capture", true, destroyed_in_capture),
];

const PATIENCE: Duration = Duration::from_secs(60);
const POOL: &str = "small";
const DISK: &str = "/var/tmp/cryopod-small.img";
const CONFIG: &str = "/run/cryopod-e2e/small.toml";

/// A pool of its own with a store that a configuration names; both go when dropped.
struct Small;

impl Small {
    fn make() -> Result<Self, Failure> {
        let small = Self;
        Self::remove()?;
        ok(&format!(
            "truncate -s 192M {DISK} && zpool create -O compression=off -m /{POOL} {POOL} {DISK} && \
             mkdir -p /run/cryopod-e2e && \
             printf '[store]\nkind = \"zfs\"\n[store.zfs]\nroot = \"{POOL}/cryopod\"\n' > {CONFIG}"
        ))?;
        Ok(small)
    }

    fn remove() -> Result<(), Failure> {
        sh(&format!("zpool list {POOL} && zpool destroy -f {POOL}; rm -f {DISK} {CONFIG}")).map(drop)
    }

    /// Writes until nothing fits any more: first in large pieces, then in small ones.
    fn fill() -> Result<(), Failure> {
        ok(&format!(
            "for bs in 1M 64k 4k; do dd if=/dev/urandom of=/{POOL}/filler-$bs bs=$bs 2>/dev/null && exit 1; sync; done; true"
        ))
        .map(drop)
    }

    fn empty() -> Result<(), Failure> {
        ok(&format!("rm -f /{POOL}/filler-*; zpool sync {POOL}")).map(drop)
    }

    fn checkpoints() -> Result<Vec<String>, Failure> {
        let listed = cryopod::ok(&["--config", CONFIG, "checkpoints", "list"])?;
        let list =
            listed["checkpoints"].as_array().or_else(|| listed.as_array()).cloned().unwrap_or_default();
        Ok(list.iter().filter_map(|one| one["id"].as_str().map(str::to_owned)).collect())
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        if let Err(e) = Self::remove() {
            eprintln!("clean-up: {e}");
        }
    }
}

/// Starts a capture into the small pool and stops it at a step.
fn capture_until(step: &str, name: &str, more: &[&str]) -> Result<(Child, Armed), Failure> {
    let armed = Armed::with(step, "wait")?;
    let mut command = Command::new("cryopod");
    command.args(["--config", CONFIG, "-o", "json", "checkpoint", "--mode", "full"]).args(more).arg(name);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let child = command.spawn().map_err(|e| format!("cannot run cryopod: {e}"))?;
    armed.reached(PATIENCE)?;
    Ok((child, armed))
}

/// Lets it go on; its exit code and what it said.
fn ended(child: Child, armed: Armed) -> Result<(i32, String), Failure> {
    drop(armed);
    let output = child.wait_with_output().map_err(|e| e.to_string())?;
    Ok((output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

/// A capture and its settling work.
fn works(subject: &Subject) -> Result<(), Failure> {
    let store = ["--config", CONFIG];
    let answer =
        cryopod::ok(&[&store[..], &["checkpoint", "--mode", "full", "--wait", &subject.name]].concat())?;
    let id = answer["id"].as_str().ok_or_else(|| format!("no id in {answer}"))?;
    let mut checkpoint = Checkpoint::named(id);
    checkpoint.store = store.map(str::to_owned).to_vec();
    checkpoint.verify()?;
    checkpoint.delete().map(drop)
}

fn filled_in_capture() -> Result<(), Failure> {
    let before = Footprint::take()?;
    let small = Small::make()?;
    let subject = Subject::start("subject")?;
    let (child, armed) = capture_until("capture.frozen", &subject.name, &[])?;
    Small::fill()?;
    let (code, said) = ended(child, armed)?;
    ensure(code != 0, || "a capture into a full pool succeeded".into())?;
    ensure(said.to_lowercase().contains("space"), || format!("the error does not tell of space: {said}"))?;
    subject.survived()?;
    Small::empty()?;
    cryopod::ok(&["--config", CONFIG, "recover"])?;
    let left = Small::checkpoints()?;
    ensure(left.is_empty(), || format!("I2: {left:?} is listed"))?;
    works(&subject)?;
    subject.remove()?;
    drop(small);
    before.unchanged().map_err(|e| format!("I3: {e}"))
}

fn filled_in_settling() -> Result<(), Failure> {
    let before = Footprint::take()?;
    let small = Small::make()?;
    let subject = Subject::start("subject")?;
    let (child, armed) = capture_until("settle.send", &subject.name, &["--wait"])?;
    Small::fill()?;
    // The checkpoint is committed; whether the waiting command reports the failure or leaves is its affair.
    ended(child, armed)?;
    subject.survived()?;
    let ids = Small::checkpoints()?;
    ensure(ids.len() == 1, || format!("I2: the committed checkpoint is lost: {ids:?}"))?;
    Small::empty()?;
    for id in &ids {
        cryopod::ok(&["--config", CONFIG, "settle", id])?;
        cryopod::ok(&["--config", CONFIG, "checkpoints", "verify", id])?;
        cryopod::ok(&["--config", CONFIG, "checkpoints", "delete", id])?;
    }
    subject.remove()?;
    drop(small);
    before.unchanged().map_err(|e| format!("I3: {e}"))
}

fn destroyed_in_capture() -> Result<(), Failure> {
    let before = Footprint::take()?;
    let small = Small::make()?;
    let subject = Subject::start("subject")?;
    let (child, armed) = capture_until("capture.dumped", &subject.name, &[])?;
    // As an administrator would who means it: busy mounts are taken away first.
    let destroy = format!(
        "for d in $(zfs list -H -o mountpoint -r {POOL}/cryopod | tac); do umount -l $d 2>/dev/null; done; \
         zfs destroy -rf {POOL}/cryopod"
    );
    let destroyed =
        eventually("the store is destroyed", PATIENCE, || Ok((sh(&destroy)?.code == 0).then_some(())));
    let (code, said) = ended(child, armed)?;
    destroyed?;
    ensure(code != 0, || "a capture into a store that is gone succeeded".into())?;
    ensure(!said.contains("panicked"), || said.clone())?;
    subject.survived()?;
    cryopod::ok(&["--config", CONFIG, "recover"])?;
    works(&subject)?;
    subject.remove()?;
    drop(small);
    before.unchanged().map_err(|e| format!("I3: {e}"))
}
