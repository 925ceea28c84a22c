//! The same main job on other ground: the overlay snapshotter, and the directory store where there is no ZFS.

use super::Case;
use crate::cryopod::{self, Checkpoint};
use crate::shell;
use crate::story::{counting, restore};
use crate::suite::{Failure, ensure};
use crate::ticks;

pub const CASES: &[Case] = &[
    ("on_the_overlay_snapshotter_the_zfs_store_works", false, overlay_to_zfs),
    ("without_zfs_the_directory_store_works", true, directory),
    ("the_command_names_the_store_of_the_pods_handler", false, named_store),
    ("the_directory_store_finds_a_flipped_byte", false, directory_flipped),
];

/// Options that lead the command to the store of the handler `cryopod-dir`.
const DIRECTORY: [&str; 2] = ["--config", "/etc/cryopod/dir.toml"];

fn overlay_to_zfs() -> Result<(), Failure> {
    let source = counting("cryopod-overlay")?;
    let checkpoint = Checkpoint::with(&source.pod.id, &["--mode", "full"])?;
    ticks::goes_on(&source.container, &source.before)?;
    source.pod.remove()?;
    checkpoint.settle()?;
    checkpoint.verify()?;
    let (pod, restored) = restore("cryopod-overlay", "restored", &checkpoint.id, &source.spec)?;
    ticks::goes_on(&restored, &source.before)?;
    pod.remove()?;
    checkpoint.delete().map(drop)
}

/// The handler's configuration leads to the directory, the command's to ZFS; `--wait` has to look in the former.
fn named_store() -> Result<(), Failure> {
    let source = counting("cryopod-dir")?;
    let id = format!("named-{}", source.pod.uid());
    let answer = cryopod::ok(&["checkpoint", &source.pod.id, "--id", &id, "--wait"])?;
    let mut checkpoint = Checkpoint::named(&id);
    checkpoint.store = DIRECTORY.map(str::to_owned).to_vec();
    let store = &answer["store"];
    let named = store["kind"] == "dir" && store["place"] == "/var/lib/cryopod/directory";
    ensure(named, || format!("the command says {store}"))?;
    ensure(answer["settled"] == true, || format!("settled is {}", answer["settled"]))?;
    ensure(!cryopod::checkpoints()?.contains(&id), || "it is in the command's own store".into())?;
    checkpoint.verify()?;
    ticks::goes_on(&source.container, &source.before)?;
    source.pod.remove()?;
    checkpoint.delete().map(drop)
}

/// Captures by the handler `cryopod-dir`.
fn captured(pod: &str) -> Result<Checkpoint, Failure> {
    let mut checkpoint = Checkpoint::with(pod, &["--mode", "full"])?;
    checkpoint.store = DIRECTORY.map(str::to_owned).to_vec();
    Ok(checkpoint)
}

fn directory() -> Result<(), Failure> {
    let zfs = || shell::ok("zfs list -H -o name -t all -r tank/cryopod 2>/dev/null || true");
    let before = zfs()?;
    let source = counting("cryopod-dir")?;
    let checkpoint = captured(&source.pod.id)?;
    ticks::goes_on(&source.container, &source.before)?;
    ensure(checkpoint.is_settled()?, || "a directory checkpoint is independent from the start".into())?;
    ensure(zfs()? == before, || "the directory store made datasets".into())?;
    source.pod.remove()?;
    checkpoint.verify()?;
    let (pod, restored) = restore("cryopod-dir", "restored", &checkpoint.id, &source.spec)?;
    let middle = ticks::goes_on(&restored, &source.before)?;
    let (second, twin) = restore("cryopod-dir", "twin", &checkpoint.id, &source.spec)?;
    ticks::goes_on(&twin, &source.before)?;
    ticks::goes_on(&restored, &middle)?;
    pod.remove()?;
    second.remove()?;
    checkpoint.delete().map(drop)
}

fn directory_flipped() -> Result<(), Failure> {
    let source = counting("cryopod-dir")?;
    let checkpoint = captured(&source.pod.id)?;
    source.pod.remove()?;
    super::deletion::flip(&checkpoint)?;
    let error = match checkpoint.verify() {
        Ok(()) => return Err("the flipped byte was not found".into()),
        Err(error) => error,
    };
    ensure(error.contains("pages-") && error.contains("with 12"), || format!("the error is {error}"))?;
    checkpoint.delete().map(drop)
}
