//! What a container that goes leaves to the store: called with its root unmounted, before containerd destroys it.
//!
//! Delete has 10 s and comes again, `delete` has 5 s: every step here resumes what a try before it has begun, and
//! whatever takes longer is done by a process of its own.

use cryopod_checkpoint::fault;
use cryopod_checkpoint::restore;
use cryopod_checkpoint::settle::{self, Adopted};
use cryopod_command::Limits;
use cryopod_zfs::DatasetName;

use super::{DoorError, Node, settling};

/// Before containerd destroys `dataset`: whatever of ours depends on it, or is kept by it, moves into the store.
///
/// # Errors
/// See [`DoorError`].
pub fn dataset(node: &Node, dataset: &DatasetName, limits: &Limits) -> Result<(), DoorError> {
    fault::step("shim.delete.adopt")?;
    go_on(node, &settle::adopt(&node.store, dataset, &node.journal, limits)?);
    Ok(())
}

/// A root that the store made for container `id` of a containerd namespace goes with it, but for what checkpoints need of it.
///
/// # Errors
/// See [`DoorError`].
pub fn own_root(node: &Node, namespace: &str, id: &str, limits: &Limits) -> Result<(), DoorError> {
    match restore::forget(&node.store, &restore::container_key(namespace, id), limits)? {
        // It may have been the last that shared with a checkpoint which is deleted already.
        Adopted::Nothing => settling::tidy(&node.store),
        moved => go_on(node, &moved),
    }
    Ok(())
}

fn go_on(node: &Node, adopted: &Adopted) {
    let Adopted::Moved { to, checkpoints } = adopted else { return };
    tracing::info!(adopted = %to, "the dataset lives on in the store until nothing needs it");
    match checkpoints.as_slice() {
        [] => settling::tidy(&node.store),
        checkpoints => checkpoints.iter().for_each(|id| settling::begin(&node.store, id)),
    }
}
