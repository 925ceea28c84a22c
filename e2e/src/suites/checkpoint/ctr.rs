//! containerd's own door without CRI: `ctr task checkpoint`, `ctr container checkpoint` and `restore`.

use std::time::Duration;

use super::Case;
use crate::crictl::Spec;
use crate::cryopod::{self, Checkpoint};
use crate::ctr::{Task, ctr_ok};
use crate::shell::{self, eventually};
use crate::suite::{Failure, ensure};
use crate::ticks::{self, Ticks};

pub const CASES: &[Case] = &[
    ("ctr_task_checkpoint_leaves_the_images_and_the_task_goes_on", false, into_a_directory),
    ("ctr_task_checkpoint_exit_ends_the_task", false, and_exit),
    ("ctr_task_checkpoint_can_be_repeated_within_one_pause", false, twice_in_one_pause),
    ("ctr_container_restore_goes_on_where_the_checkpoint_was", true, by_an_image),
];

const PATIENCE: Duration = Duration::from_secs(60);
const IMAGES: &str = "/run/cryopod-e2e/ctr-images";
const REFERENCE: &str = "localhost/e2e-checkpoint:1";

fn counting(snapshotter: &str) -> Result<Task, Failure> {
    let script = &Spec::counter("counter").command[2];
    let task = Task::sh(&["--null-io", "--snapshotter", snapshotter], script)?;
    beyond(&task, 3)?;
    Ok(task)
}

fn count(task: &Task) -> Result<Ticks, Failure> {
    let read = task.exec("count", &["cat", "/data/count"])?;
    ensure(read.code == 0, || format!("/data/count: {}", read.stderr))?;
    ticks::parse(&read.stdout)
}

fn beyond(task: &Task, number: u64) -> Result<Ticks, Failure> {
    eventually(&format!("{} counts beyond {number}", task.id), PATIENCE, || {
        Ok(count(task).ok().filter(|ticks| ticks.last > number))
    })
}

/// Checkpoints by containerd; the store has each of them as well.
fn captured(by_containerd: impl FnOnce() -> Result<String, Failure>) -> Result<Checkpoint, Failure> {
    let known = cryopod::checkpoints()?;
    by_containerd()?;
    let new = eventually("the store has it too", PATIENCE, || {
        Ok(cryopod::checkpoints()?.into_iter().find(|id| !known.contains(id)))
    })?;
    Ok(Checkpoint::named(&new))
}

/// The same process counts on, without a gap.
fn goes_on(task: &Task, before: &Ticks) -> Result<(), Failure> {
    let now = beyond(task, before.last + 3)?;
    ensure(now.token == before.token, || "another process counts".into())
}

fn into_a_directory() -> Result<(), Failure> {
    shell::ok(&format!("rm -rf {IMAGES}"))?;
    let task = counting("zfs")?;
    let before = count(&task)?;
    let checkpoint = captured(|| task.task_ok("checkpoint", &["--image-path", IMAGES]))?;
    task.wait("RUNNING")?;
    goes_on(&task, &before)?;
    shell::ok(&format!("test -s {IMAGES}/inventory.img && rm -r {IMAGES}"))?;
    task.remove()?;
    checkpoint.delete().map(drop)
}

fn and_exit() -> Result<(), Failure> {
    shell::ok(&format!("rm -rf {IMAGES}"))?;
    let task = counting("zfs")?;
    let checkpoint = captured(|| task.task_ok("checkpoint", &["--exit", "--image-path", IMAGES]))?;
    task.wait("STOPPED")?;
    shell::ok(&format!("test -s {IMAGES}/inventory.img && rm -r {IMAGES}"))?;
    task.remove()?;
    checkpoint.delete().map(drop)
}

/// ctr resumes only what it has paused itself, so between the two nobody gives the dataset its name back.
fn twice_in_one_pause() -> Result<(), Failure> {
    shell::ok(&format!("rm -rf {IMAGES}"))?;
    let task = counting("zfs")?;
    let before = count(&task)?;
    task.task_ok("pause", &[])?;
    let first = captured(|| task.task_ok("checkpoint", &["--image-path", IMAGES]))?;
    let known = cryopod::checkpoints()?;
    let refused = task.task("checkpoint", &["--image-path", IMAGES])?;
    ensure(refused.code != 0, || "images that are there were overwritten".into())?;
    ensure(cryopod::checkpoints()? == known, || "a checkpoint that failed is in the store".into())?;
    shell::ok(&format!("rm -r {IMAGES}"))?;
    let second = captured(|| task.task_ok("checkpoint", &["--image-path", IMAGES]))?;
    task.task_ok("resume", &[])?;
    goes_on(&task, &before)?;
    shell::ok(&format!("rm -r {IMAGES}"))?;
    task.remove()?;
    first.delete()?;
    second.delete().map(drop)
}

/// On overlayfs: here ctr makes its diff before the shim hears of anything, which ZFS refuses for a root in use.
fn by_an_image() -> Result<(), Failure> {
    let task = counting("overlayfs")?;
    let before = count(&task)?;
    let all = ["container", "checkpoint", "--rw", "--image", "--task", &task.id, REFERENCE];
    let checkpoint = captured(|| ctr_ok(&all))?;
    task.wait("RUNNING")?;
    goes_on(&task, &before)?;
    task.remove()?;
    let restored = Task::new();
    // It hands its own streams on and ends.
    ctr_ok(&["container", "restore", "--rw", "--live", &restored.id, REFERENCE])?;
    goes_on(&restored, &before)?;
    restored.remove()?;
    ctr_ok(&["image", "rm", "--sync", REFERENCE])?;
    checkpoint.delete().map(drop)
}
