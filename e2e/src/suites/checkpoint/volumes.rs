//! Writable volumes are part of the truth: captured, skipped or refused, by name and never silently.

use std::time::Duration;

use serde_json::json;

use super::Case;
use crate::crictl::{Container, Pod, Spec};
use crate::cryopod::{self, Checkpoint};
use crate::shell::eventually;
use crate::story::{Volume, restored_pod};
use crate::suite::{Failure, ensure};
use crate::{ticks, workloads};

pub const CASES: &[Case] = &[
    ("an_empty_dir_is_captured_and_restored_into_the_new_pods_own", false, empty_dir),
    ("a_shared_volume_comes_back_once_with_whichever_container_is_made_first", true, shared_in_any_order),
    ("a_writable_host_path_is_refused_by_name", false, host_path_refused),
    ("a_writable_host_path_is_skipped_by_annotation", false, host_path_skipped),
    ("a_writable_host_path_is_captured_by_annotation", false, host_path_captured),
    ("shared_memory_of_the_pod_is_captured", false, shared_memory),
];

/// Counts into a volume as well: `/volume/count` has the numbers of `/data/count`.
const BOTH: &str = "out = append('/volume/count')\n\
                    run(lambda i: os.write(out, f'{i} {TOKEN}\\n'.encode()))\n";

fn both(volume: &Volume) -> Spec {
    workloads::python("both", BOTH).with(&volume.mount())
}

/// The volume has every number up to at least the last one on the root.
fn in_step(volume: &Volume, container: &Container) -> Result<(), Failure> {
    let path = volume.path().join("count");
    let text = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let root = ticks::read(container)?;
    let mut expected = 0;
    for line in text.lines() {
        expected += 1;
        ensure(line == format!("{expected} {}", root.token), || {
            format!("line {expected} of the volume: {line}")
        })?;
    }
    ensure(expected >= root.last, || format!("the volume has {expected} lines, the root {}", root.last))
}

fn empty_dir() -> Result<(), Failure> {
    let source = Pod::run("cryopod", "source")?;
    let volume = Volume::empty_dir(&source, "/volume")?;
    let container = source.start(&both(&volume))?;
    let before = ticks::beyond(&container, 5)?;
    let checkpoint = Checkpoint::with(&source.id, &["--mode", "full"])?;
    source.remove()?;
    drop(volume);
    let pod = restored_pod("cryopod", "restored", &checkpoint.id, &[])?;
    let volume = Volume::empty_dir(&pod, "/volume")?;
    let restored = pod.start(&both(&volume))?;
    ticks::goes_on(&restored, &before)?;
    in_step(&volume, &restored)?;
    pod.remove()?;
    checkpoint.delete().map(drop)
}

/// A container that writes its name into the volume when it starts.
fn signs(name: &str, volume: &Volume) -> Spec {
    let script = format!("echo {name} >> /volume/names; trap 'exit 0' TERM; while :; do sleep 0.1; done");
    Spec::sh(name, &script).with(&volume.mount())
}

/// Starts the container, and waits until the names in the volume are these.
fn signed(pod: &Pod, name: &str, volume: &Volume, names: &str) -> Result<(), Failure> {
    pod.start(&signs(name, volume))?;
    let mut text = String::new();
    let what = format!("{name} has written");
    let written = eventually(&what, Duration::from_secs(30), || {
        text = std::fs::read_to_string(volume.path().join("names")).unwrap_or_default().replace('\n', " ");
        Ok((text.trim() == names).then_some(()))
    });
    written.map_err(|e| format!("{e}: the volume has {text:?}, not {names:?}"))
}

fn shared_in_any_order() -> Result<(), Failure> {
    let source = Pod::run("cryopod", "source")?;
    let volume = Volume::empty_dir(&source, "/volume")?;
    signed(&source, "one", &volume, "one")?;
    signed(&source, "two", &volume, "one two")?;
    let checkpoint = Checkpoint::with(&source.id, &["--mode", "disk"])?;
    source.remove()?;
    drop(volume);
    let pod = restored_pod("cryopod", "restored", &checkpoint.id, &[])?;
    let volume = Volume::empty_dir(&pod, "/volume")?;
    signed(&pod, "two", &volume, "one two two")?;
    signed(&pod, "one", &volume, "one two two one")?;
    pod.remove()?;
    checkpoint.delete().map(drop)
}

/// A pod with a writable hostPath, its volume policy, and its container.
fn on_host_path(policy: Option<&str>) -> Result<(Pod, Volume, Container), Failure> {
    let notes = policy.map(|policy| ("cryopod.dev/volumes".to_owned(), policy.to_owned()));
    let pod = Pod::run_with("cryopod", "source", &notes.into_iter().collect(), &json!({}))?;
    let volume = Volume::host_path(&pod, "/volume")?;
    let container = pod.start(&both(&volume))?;
    Ok((pod, volume, container))
}

fn host_path_refused() -> Result<(), Failure> {
    let (pod, volume, container) = on_host_path(None)?;
    let before = ticks::beyond(&container, 3)?;
    for mode in ["full", "disk"] {
        let refusal = cryopod::refused(&["checkpoint", &pod.id, "--mode", mode], 6)?;
        for word in ["volume-refused", "/volume", "cryopod.dev/volumes"] {
            ensure(refusal.contains(word), || format!("{mode}: the refusal does not say {word}: {refusal}"))?;
        }
    }
    ensure(cryopod::checkpoints()?.is_empty(), || "a refused checkpoint is in the store".into())?;
    ticks::goes_on(&container, &before)?;
    pod.remove()?;
    drop(volume);
    Ok(())
}

fn host_path_skipped() -> Result<(), Failure> {
    let (pod, volume, container) = on_host_path(Some("skip"))?;
    let before = ticks::beyond(&container, 3)?;
    let checkpoint = Checkpoint::with(&pod.id, &["--mode", "disk"])?;
    let disks = checkpoint.manifest()?["members"][0]["disks"].as_array().map_or(0, Vec::len);
    ensure(disks == 1, || format!("{disks} disks were captured, not only the root"))?;
    ticks::goes_on(&container, &before)?;
    pod.remove()?;
    drop(volume);
    checkpoint.delete().map(drop)
}

fn host_path_captured() -> Result<(), Failure> {
    let (pod, volume, container) = on_host_path(Some("capture"))?;
    let before = ticks::beyond(&container, 5)?;
    let checkpoint = Checkpoint::with(&pod.id, &["--mode", "full"])?;
    pod.remove()?;
    drop(volume);
    let notes = [("cryopod.dev/volumes", "capture")];
    let pod = restored_pod("cryopod", "restored", &checkpoint.id, &notes)?;
    let volume = Volume::host_path(&pod, "/volume")?;
    let restored = pod.start(&both(&volume))?;
    ticks::goes_on(&restored, &before)?;
    in_step(&volume, &restored)?;
    pod.remove()?;
    checkpoint.delete().map(drop)
}

fn shared_memory() -> Result<(), Failure> {
    const SHM: &str = "import mmap\n\
                       fd = os.open('/dev/shm/m', os.O_RDWR | os.O_CREAT)\n\
                       os.ftruncate(fd, 8192)\n\
                       m = mmap.mmap(fd, 8192)\n\
                       def step(i):\n\
                       \x20   check(i == 1 or int.from_bytes(m[:8], 'little') == i - 1, 'the mapping is another one')\n\
                       \x20   m[:8] = i.to_bytes(8, 'little')\n\
                       \x20   check(open('/dev/shm/m', 'rb').read(8) == m[:8], 'file and mapping differ')\n\
                       run(step)\n";
    let spec = workloads::python("shm", SHM);
    let source = Pod::run("cryopod", "source")?;
    let container = source.start(&spec)?;
    let before = ticks::beyond(&container, 5)?;
    let checkpoint = Checkpoint::with(&source.id, &["--mode", "full"])?;
    source.remove()?;
    let pod = restored_pod("cryopod", "restored", &checkpoint.id, &[])?;
    let restored = pod.start(&spec)?;
    ticks::goes_on(&restored, &before)?;
    pod.remove()?;
    checkpoint.delete().map(drop)
}
