//! The capture itself: one instant for the whole pod, and a source that does not notice.

use std::time::Duration;

use serde_json::json;

use super::Case;
use crate::crictl::{Container, Pod, Spec};
use crate::cryopod::{self, Checkpoint};
use crate::shell::{self, exec_ok};
use crate::story::{Volume, counting, counting_with, restore, restored_pod};
use crate::suite::{Failure, ensure};
use crate::suites::faults::Armed;
use crate::{ticks, workloads};

pub const CASES: &[Case] = &[
    ("two_containers_and_their_shared_volume_are_one_instant", true, || one_instant(Volume::empty_dir)),
    ("two_containers_and_a_volume_on_zfs_are_one_instant", false, || one_instant(Volume::on_zfs)),
    ("the_source_goes_on_after_a_checkpoint_with_the_same_processes", false, source_goes_on),
    ("disk_mode_captures_the_files_and_a_restore_starts_afresh", false, disk_mode),
    ("the_annotation_chooses_the_mode_where_no_option_does", false, annotated_mode),
    ("auto_mode_leaves_memory_out_where_it_must_and_says_why", false, auto_says_why),
    ("a_paused_container_stays_paused", false, paused_stays_paused),
    ("a_process_can_be_started_while_a_checkpoint_is_hashed", false, exec_while_hashing),
    ("a_hook_in_the_first_restored_container_runs_and_lets_the_pod_go", false, hook_in_the_first),
    ("a_restored_pod_can_be_checkpointed_and_restored_again", true, second_generation),
    ("two_restores_of_one_checkpoint_are_two_clones", false, two_clones),
    ("large_memory_is_captured_with_pre_dump_rounds", false, pre_dump),
];

fn turns(name: &str, me: u8, volume: &Volume) -> Spec {
    workloads::python(name, include_str!("../../workloads/turns.py"))
        .with(&json!({"envs": [{"key": "ME", "value": me.to_string()}]}))
        .with(&volume.mount())
}

fn one_instant(make: fn(&Pod, &'static str) -> Result<Volume, Failure>) -> Result<(), Failure> {
    let handler = "cryopod";
    let source = Pod::run(handler, "source")?;
    let volume = make(&source, "/shared")?;
    let odd = source.start(&turns("odd", 0, &volume))?;
    let even = source.start(&turns("even", 1, &volume))?;
    let before = (ticks::beyond(&odd, 10)?, ticks::beyond(&even, 10)?);
    let checkpoint = Checkpoint::with(&source.id, &["--mode", "full"])?;
    ticks::goes_on(&odd, &before.0)?;
    ticks::goes_on(&even, &before.1)?;
    source.remove()?;
    drop(volume);

    let pod = restored_pod(handler, "restored", &checkpoint.id, &[])?;
    let volume = make(&pod, "/shared")?;
    let odd = pod.start(&turns("odd", 0, &volume))?;
    let even = pod.start(&turns("even", 1, &volume))?;
    ticks::goes_on(&odd, &before.0)?;
    ticks::goes_on(&even, &before.1)?;
    pod.remove()?;
    checkpoint.delete().map(drop)
}

fn annotated_mode() -> Result<(), Failure> {
    let note = [("cryopod.dev/checkpoint-mode", "disk")];
    let source = counting_with("cryopod", &note, Spec::counter("counter"))?;
    for (options, wanted) in [(&[][..], "disk"), (&["--mode", "full"], "full")] {
        let checkpoint = Checkpoint::with(&source.pod.id, options)?;
        let mode = checkpoint.manifest()?["mode"].clone();
        ensure(mode == wanted, || format!("with {options:?} the mode is {mode}, not {wanted}"))?;
        checkpoint.delete()?;
    }
    ticks::goes_on(&source.container, &source.before)?;
    source.pod.remove()
}

fn source_goes_on() -> Result<(), Failure> {
    let source = counting("cryopod")?;
    let pid = source.container.pid()?;
    let checkpoint = Checkpoint::of(&source.pod.id)?;
    let manifest = checkpoint.manifest()?;
    ensure(manifest["mode"] == "full", || format!("mode {}", manifest["mode"]))?;
    ticks::goes_on(&source.container, &source.before)?;
    let state = source.container.state()?;
    ensure(state == "RUNNING", || format!("the source is {state}"))?;
    let status = shell::ok(&format!("cat /proc/{pid}/status"))?;
    ensure(!status.contains("TracerPid:\t1"), || "the source is still traced".into())?;
    let frozen = manifest["timeline"]["freeze_us"].as_u64().unwrap_or(0);
    let total = manifest["timeline"]["total_us"].as_u64().unwrap_or(0);
    ensure(0 < frozen && frozen < total, || format!("frozen {frozen} µs of {total} µs"))?;
    checkpoint.settle()?;
    checkpoint.verify()?;
    source.pod.remove()?;
    checkpoint.delete().map(drop)
}

fn disk_mode() -> Result<(), Failure> {
    let source = counting("cryopod")?;
    let checkpoint = Checkpoint::with(&source.pod.id, &["--mode", "disk"])?;
    let manifest = checkpoint.manifest()?;
    ensure(manifest["mode"] == "disk", || format!("mode {}", manifest["mode"]))?;
    ticks::goes_on(&source.container, &source.before)?;
    source.pod.remove()?;
    let (pod, restored) = restore("cryopod", "restored", &checkpoint.id, &source.spec)?;
    let text = shell::eventually("a fresh process counts", Duration::from_secs(30), || {
        let text = restored.file("/data/count")?;
        let firsts = text.lines().filter(|line| line.starts_with("1 ")).count();
        Ok((firsts == 2).then_some(text))
    })?;
    let old = text.lines().filter(|line| line.ends_with(&source.before.token)).count() as u64;
    ensure(old >= source.before.last, || format!("only {old} of {} lines are there", source.before.last))?;
    pod.remove()?;
    checkpoint.delete().map(drop)
}

/// A program with an io_uring, which CRIU cannot capture.
pub fn with_io_uring() -> Spec {
    const SETUP: &str = "import ctypes, time\n\
                         fd = ctypes.CDLL(None, use_errno=True).syscall(425, 4, ctypes.create_string_buffer(120))\n\
                         check(fd >= 0, f'io_uring_setup: errno {ctypes.get_errno()}')\n\
                         run(lambda i: None)\n";
    workloads::python("uring", SETUP)
}

fn auto_says_why() -> Result<(), Failure> {
    let source = counting_with("cryopod", &[], with_io_uring())?;
    let refusal = cryopod::refused(&["checkpoint", &source.pod.id, "--mode", "full"], 6)?;
    ensure(refusal.contains("io-uring"), || format!("not refused for io-uring: {refusal}"))?;
    let checkpoint = Checkpoint::with(&source.pod.id, &["--mode", "auto"])?;
    let manifest = checkpoint.manifest()?;
    ensure(manifest["mode"] == "disk", || format!("mode {}", manifest["mode"]))?;
    let code = &manifest["memory_refused"]["code"];
    ensure(code == "io-uring", || format!("memory was refused for {code}"))?;
    ticks::goes_on(&source.container, &source.before)?;
    source.pod.remove()?;
    checkpoint.delete().map(drop)
}

fn still(container: &Container) -> Result<bool, Failure> {
    let one = ticks::read(container)?;
    std::thread::sleep(Duration::from_secs(2));
    Ok(ticks::read(container)? == one)
}

fn paused_stays_paused() -> Result<(), Failure> {
    let source = counting("cryopod")?;
    let id = source.container.id.as_str();
    exec_ok(&["ctr", "-n", "k8s.io", "tasks", "pause", id])?;
    ensure(still(&source.container)?, || "the paused container counts".into())?;
    let checkpoint = Checkpoint::with(&source.pod.id, &["--mode", "full"])?;
    ensure(still(&source.container)?, || "the checkpoint let the paused container go".into())?;
    let tasks = exec_ok(&["ctr", "-n", "k8s.io", "tasks", "ls"])?;
    let paused = tasks.lines().any(|line| line.contains(id) && line.contains("PAUSED"));
    ensure(paused, || format!("containerd does not say PAUSED: {tasks}"))?;
    exec_ok(&["ctr", "-n", "k8s.io", "tasks", "resume", id])?;
    ticks::goes_on(&source.container, &source.before)?;
    source.pod.remove()?;
    let (pod, restored) = restore("cryopod", "restored", &checkpoint.id, &source.spec)?;
    ticks::goes_on(&restored, &source.before)?;
    pod.remove()?;
    checkpoint.delete().map(drop)
}

/// What a liveness probe with `exec` does; in a large pod hashing takes longer than kubelet waits.
fn exec_while_hashing() -> Result<(), Failure> {
    let source = counting("cryopod")?;
    let held = Armed::with("capture.hash", "wait")?;
    let id = source.pod.id.clone();
    let capture = std::thread::spawn(move || Checkpoint::with(&id, &["--mode", "full"]));
    held.reached(Duration::from_secs(60))?;
    let probed = source.container.exec(&["true"]);
    drop(held);
    let checkpoint = capture.join().map_err(|_| "the capture panicked")??;
    let probed = probed?;
    ensure(probed.code == 0, || format!("exec while the checkpoint is hashed: {}", probed.stderr))?;
    ticks::goes_on(&source.container, &source.before)?;
    source.pod.remove()?;
    checkpoint.delete().map(drop)
}

/// kubelet runs a postStart hook before it makes the next container, and kills the container whose hook fails.
fn hook_in_the_first() -> Result<(), Failure> {
    let source = Pod::run("cryopod", "source")?;
    let (first, second) = (Spec::counter("first"), Spec::counter("second"));
    let (one, two) = (source.start(&first)?, source.start(&second)?);
    let before = (ticks::beyond(&one, 3)?, ticks::beyond(&two, 3)?);
    let checkpoint = Checkpoint::with(&source.id, &["--mode", "full"])?;
    source.remove()?;
    let pod = restored_pod("cryopod", "restored", &checkpoint.id, &[])?;
    let one = pod.start(&first)?;
    let hook = one.exec(&["true"])?;
    ensure(hook.code == 0, || format!("exec in a container that waits for others: {}", hook.stderr))?;
    ticks::goes_on(&one, &before.0)?;
    let two = pod.start(&second)?;
    ticks::goes_on(&two, &before.1)?;
    pod.remove()?;
    checkpoint.delete().map(drop)
}

fn second_generation() -> Result<(), Failure> {
    let source = counting("cryopod")?;
    let first = Checkpoint::with(&source.pod.id, &["--mode", "full"])?;
    source.pod.remove()?;
    let (pod, child) = restore("cryopod", "child", &first.id, &source.spec)?;
    let middle = ticks::goes_on(&child, &source.before)?;
    let second = Checkpoint::with(&pod.id, &["--mode", "full"])?;
    ticks::goes_on(&child, &middle)?;
    pod.remove()?;
    let (pod, grandchild) = restore("cryopod", "grandchild", &second.id, &source.spec)?;
    ticks::goes_on(&grandchild, &middle)?;
    pod.remove()?;
    first.delete()?;
    second.delete().map(drop)
}

fn two_clones() -> Result<(), Failure> {
    let source = counting("cryopod")?;
    let checkpoint = Checkpoint::with(&source.pod.id, &["--mode", "full"])?;
    source.pod.remove()?;
    let (left_pod, left) = restore("cryopod", "left", &checkpoint.id, &source.spec)?;
    let (right_pod, right) = restore("cryopod", "right", &checkpoint.id, &source.spec)?;
    ticks::goes_on(&left, &source.before)?;
    ticks::goes_on(&right, &source.before)?;
    checkpoint.verify()?;
    left_pod.remove()?;
    let alone = ticks::read(&right)?;
    ticks::goes_on(&right, &alone)?;
    right_pod.remove()?;
    checkpoint.delete().map(drop)
}

fn pre_dump() -> Result<(), Failure> {
    const LARGE: &str = "block = bytearray(os.urandom(1 << 20)) * 192\n\
                         run(lambda i: block.__setitem__(i * 4096 % len(block), i % 256))\n";
    let source = counting_with("cryopod", &[], workloads::python("large", LARGE))?;
    let checkpoint = Checkpoint::with(&source.pod.id, &["--mode", "full"])?;
    let manifest = checkpoint.manifest()?;
    let rounds = manifest["members"][0]["memory"]["rounds"].as_array().map_or(0, Vec::len);
    ensure(rounds > 1, || format!("{rounds} rounds for 192 MiB"))?;
    source.pod.remove()?;
    let (pod, restored) = restore("cryopod", "restored", &checkpoint.id, &source.spec)?;
    ticks::goes_on(&restored, &source.before)?;
    pod.remove()?;
    checkpoint.delete().map(drop)
}
