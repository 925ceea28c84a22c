//! containerd's own door without CRI: `ctr task checkpoint`, `ctr container checkpoint` and `restore`.

use std::time::Duration;

use super::Case;
use crate::crictl::Spec;
use crate::ctr::{Task, ctr_ok};
use crate::shell::{self, eventually};
use crate::suite::{Failure, ensure};
use crate::ticks::{self, Ticks};

pub const CASES: &[Case] = &[
    ("ctr_task_checkpoint_leaves_the_images_and_the_task_goes_on", true, into_a_directory),
    ("ctr_task_checkpoint_exit_ends_the_task", true, and_exit),
    ("ctr_container_restore_goes_on_where_the_checkpoint_was", true, by_an_image),
];

const PATIENCE: Duration = Duration::from_secs(60);
const IMAGES: &str = "/run/cryopod-e2e/ctr-images";
const REFERENCE: &str = "localhost/e2e-checkpoint:1";

fn counting() -> Result<Task, Failure> {
    let script = &Spec::counter("counter").command[2];
    let task = Task::sh(&["--null-io"], script)?;
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

/// The same process counts on, without a gap.
fn goes_on(task: &Task, before: &Ticks) -> Result<(), Failure> {
    let now = beyond(task, before.last + 3)?;
    ensure(now.token == before.token, || "another process counts".into())
}

fn into_a_directory() -> Result<(), Failure> {
    shell::ok(&format!("rm -rf {IMAGES}"))?;
    let task = counting()?;
    let before = count(&task)?;
    task.task_ok("checkpoint", &["--image-path", IMAGES])?;
    task.wait("RUNNING")?;
    goes_on(&task, &before)?;
    shell::ok(&format!("test -s {IMAGES}/inventory.img && rm -r {IMAGES}"))?;
    task.remove()
}

fn and_exit() -> Result<(), Failure> {
    shell::ok(&format!("rm -rf {IMAGES}"))?;
    let task = counting()?;
    task.task_ok("checkpoint", &["--exit", "--image-path", IMAGES])?;
    task.wait("STOPPED")?;
    shell::ok(&format!("test -s {IMAGES}/inventory.img && rm -r {IMAGES}"))?;
    task.remove()
}

fn by_an_image() -> Result<(), Failure> {
    let task = counting()?;
    let before = count(&task)?;
    ctr_ok(&["container", "checkpoint", "--rw", "--image", "--task", &task.id, REFERENCE])?;
    task.wait("RUNNING")?;
    goes_on(&task, &before)?;
    task.remove()?;
    let restored = Task::new();
    // It hands its own streams on and ends.
    ctr_ok(&["container", "restore", "--rw", "--live", &restored.id, REFERENCE])?;
    goes_on(&restored, &before)?;
    restored.remove()?;
    ctr_ok(&["image", "rm", "--sync", REFERENCE]).map(drop)
}
