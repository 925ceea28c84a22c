//! containerd's Checkpoint of one container: flat images for its archive, the same capture in the store, and a clone
//! for its diff.
//!
//! ```text
//! containerd   Pause ──► Checkpoint ─────────────────────────────► diff of the root ──► Resume
//! here                   dump + snapshot ─► THAW ─► copy ─► commit ─► swap           swap back, settle
//! ```
//! containerd's diff mounts the container's dataset read-only, which ZFS refuses while it is in use; it gets a clone of
//! the snapshot instead, so the container may run meanwhile (experiments.md E7). Without ZFS the diff reads the live
//! root, so there the container stays paused until Resume.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use cryopod_checkpoint::capture::{Captured, Ending, Mode};
use cryopod_checkpoint::fault;
use cryopod_checkpoint::id::CheckpointId;
use cryopod_checkpoint::store::Store;
use cryopod_checkpoint::swap::Swap;
use cryopod_command::Limits;
use cryopod_zfs::DatasetName;

use super::{DoorError, Node, Running, order, settling};
use crate::capture::order::Order;

/// How long removing a checkpoint may take that failed after its commit.
const TAKE_BACK: Duration = Duration::from_secs(30);

/// What is left to do when containerd has read the root.
#[derive(Debug)]
pub struct Pending {
    /// The stand-in under the dataset's name.
    swap: Swap,
    node: Opened,
    checkpoint: CheckpointId,
}

/// A store that stays open between Checkpoint and Resume.
#[derive(Clone)]
pub struct Opened(std::sync::Arc<Node>);

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Opened")
    }
}

/// What containerd asked for, its message decoded.
pub struct CriOrder {
    /// The container, as an order of one.
    pub order: Order,
    /// Where the images go.
    pub images: PathBuf,
    /// Its dataset, if its root is one.
    pub dataset: Option<DatasetName>,
    /// The pause is containerd's own, so the container may run as soon as the diff has a stand-in.
    pub early: bool,
}

/// What came of it.
pub struct CriCaptured {
    /// In the store.
    pub checkpoint: CheckpointId,
    /// The container runs although containerd believes it paused.
    pub thawed: bool,
    /// To be finished at Resume.
    pub pending: Option<Pending>,
    /// The container is to be ended, whatever else is to be said.
    pub ending: Option<Ending>,
    /// Whether containerd can read the root now. The checkpoint is committed in any case.
    pub prepared: Result<(), DoorError>,
}

/// Captures one container. `thawed` is called as soon as it runs again.
///
/// # Errors
/// See [`DoorError`]; then no checkpoint is left in the store, and the container is as it was.
pub fn capture(
    mut cri: CriOrder,
    node: Node,
    running: &Running,
    limits: &Limits,
    thawed: &dyn Fn(),
) -> Result<CriCaptured, DoorError> {
    let stand_in = cri.dataset.as_ref().filter(|_| matches!(&*node.store, Store::Zfs(_)));
    cri.order.ends_pause = cri.early && stand_in.is_some() && !cri.order.choices.exit;
    cri.order.choices.mode = Some(Mode::Full);
    cri.order.flat = true;
    let taken = order::take(&node, &cri.order, running.watch(), limits)?;
    if cri.order.ends_pause {
        thawed();
    }
    fault::step("shim.cri.taken")?;
    let member = cri.order.subjects.first().map(|subject| subject.bundle.clone()).unwrap_or_default();
    let spec =
        cryopod_runtime::spec::Spec::of_bundle(&member).map_err(cryopod_runtime::error::Error::from)?;
    let id = cri.order.subjects.first().map(|subject| subject.id.as_str()).unwrap_or_default();
    let images = taken.images(spec.name(id)).ok_or_else(|| DoorError::NoMemory(taken.id().to_string()))?;
    let copied = copy_flat(&images, &cri.images)?;
    fault::step("shim.cri.copied")?;
    let Captured { id: checkpoint, ending, .. } = taken.commit(running.watch(), limits)?;
    // Also for one that is to end: the diff comes before containerd deletes the task and unmounts its root.
    let (pending, prepared) = match swap_out(&node, stand_in, &checkpoint, limits) {
        Ok(Some(swap)) => {
            let node = Opened(std::sync::Arc::new(node));
            (Some(Pending { swap, node, checkpoint: checkpoint.clone() }), Ok(()))
        }
        Ok(None) => {
            settling::begin(&node.store, &checkpoint);
            (None, Ok(()))
        }
        // What is left of one that ends is in its checkpoint.
        Err(error) if ending.is_some() => (None, Err(error)),
        Err(error) => {
            take_back(&node.store, &checkpoint);
            return Err(error);
        }
    };
    copied.keep();
    Ok(CriCaptured { checkpoint, thawed: cri.order.ends_pause, pending, ending, prepared })
}

/// Puts a stand-in under the dataset's name, where there is one to put.
fn swap_out(
    node: &Node,
    stand_in: Option<&DatasetName>,
    checkpoint: &CheckpointId,
    limits: &Limits,
) -> Result<Option<Swap>, DoorError> {
    fault::step("shim.cri.committed")?;
    let swap = match stand_in {
        Some(dataset) => Swap::out(&node.store, &node.journal, dataset, checkpoint, limits)?,
        None => None,
    };
    if let Err(injected) = fault::step("shim.cri.swapped") {
        if let Some(swap) = swap {
            swap.back(&node.store, limits)?;
        }
        return Err(injected.into());
    }
    Ok(swap)
}

/// Removes a checkpoint that containerd will not hear of. A failure is logged: the caller has an error already.
fn take_back(store: &Store, checkpoint: &CheckpointId) {
    // Not the limits of the capture, which may be why it failed.
    if let Err(error) = store.delete(checkpoint, &Limits::within(TAKE_BACK)) {
        let checkpoint = checkpoint.as_str();
        tracing::error!(checkpoint, %error, "the checkpoint of a failed request stays; delete it by hand");
    }
}

/// Files that were handed on; removed again on drop unless the capture came about, since a request that is repeated
/// overwrites none.
#[derive(Debug, Default)]
struct Copied {
    files: Vec<PathBuf>,
}

impl Copied {
    fn keep(mut self) {
        self.files.clear();
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        for file in &self.files {
            if let Err(error) = fs::remove_file(file) {
                tracing::warn!(path = %file.display(), %error, "an image of a failed checkpoint stays");
            }
        }
    }
}

/// Copies the regular files of `from` into `to`, mode 0600. Nothing else is there in a flat dump; links are not
/// followed (containerd's archive takes files only).
fn copy_flat(from: &Path, to: &Path) -> Result<Copied, DoorError> {
    let mut copied = Copied::default();
    fs::DirBuilder::new().recursive(true).mode(0o700).create(to).map_err(DoorError::file("make", to))?;
    for entry in fs::read_dir(from).map_err(DoorError::file("list", from))? {
        let entry = entry.map_err(DoorError::file("list", from))?;
        if !entry.file_type().map_err(DoorError::file("look at", &entry.path()))?.is_file() {
            continue;
        }
        let target = to.join(entry.file_name());
        let result = fs::File::open(entry.path()).and_then(|mut source| {
            let mut options = fs::OpenOptions::new();
            options.write(true).create_new(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
            let mut made = options.open(&target)?;
            copied.files.push(target.clone());
            io::copy(&mut source, &mut made)
        });
        result.map_err(DoorError::file("copy to", &target))?;
    }
    Ok(copied)
}

/// Gives the dataset its name back and lets the checkpoint settle. On error recovery does it later.
///
/// # Errors
/// When the clone is still in use.
pub fn finish(pending: Pending, limits: &Limits) -> Result<(), DoorError> {
    fault::step("shim.resume.swap-back")?;
    let Pending { swap, node, checkpoint } = pending;
    swap.back(&node.0.store, limits)?;
    settling::begin(&node.0.store, &checkpoint);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_are_handed_on() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(from.path().join("inventory.img"), "i").unwrap();
        fs::create_dir(from.path().join("sub")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", from.path().join("parent")).unwrap();
        let to = to.path().join("images");
        copy_flat(from.path(), &to).unwrap().keep();
        let names: Vec<_> = fs::read_dir(&to).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["inventory.img"]);
        assert!(copy_flat(from.path(), &to).is_err(), "files that are there already are not overwritten");
        assert!(to.join("inventory.img").exists(), "and not removed, since they are another's");
    }

    #[test]
    fn what_a_failed_capture_has_handed_on_is_removed_so_that_it_can_be_repeated() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(from.path().join("core-1.img"), "c").unwrap();
        drop(copy_flat(from.path(), to.path()).unwrap());
        assert_eq!(fs::read_dir(to.path()).unwrap().count(), 0);
        copy_flat(from.path(), to.path()).unwrap().keep();
        assert_eq!(fs::read_dir(to.path()).unwrap().count(), 1);
    }
}
