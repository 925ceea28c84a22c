//! Settling in a process of its own (`containerd-shim-cryopod-v2 … settle`), which outlives the pod.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use cryopod_checkpoint::id::CheckpointId;
use cryopod_checkpoint::progress::Silent;
use cryopod_checkpoint::settle;
use cryopod_checkpoint::store::Store;
use cryopod_command::Limits;

use super::{DoorError, Node};
use crate::args::Args;
use crate::spawn::own_path;

/// A send of any size.
const WHOLE: Duration = Duration::from_secs(24 * 3600);

/// Begins settling a committed checkpoint. A failure to begin is logged: recovery settles it later.
pub fn begin(store: &Store, id: &CheckpointId) {
    // A directory store copies while it captures.
    let Store::Zfs(zfs) = store else { return };
    let mut command = Command::new(own_path());
    command
        .arg0("containerd-shim-cryopod-v2")
        .args(["-id", id.as_str(), "-store", zfs.root().as_ref(), "-bundle"])
        .arg(zfs.dir())
        .arg("settle")
        .env_remove("NOTIFY_SOCKET")
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    // Its zombie is swept with the other strangers; until then it costs one process table entry.
    if let Err(error) = command.spawn() {
        tracing::warn!(checkpoint = id.as_str(), %error, "settling did not begin; recovery does it later");
    }
}

/// The settling process: `-store` is the root dataset, `-bundle` the store's directory, `-id` the checkpoint.
///
/// # Errors
/// See [`DoorError`]; settling may be repeated.
pub fn run(args: &Args) -> Result<(), DoorError> {
    let limits = Limits::within(WHOLE);
    let node = Node::reopen(Some(&args.store), args.bundle.clone().unwrap_or_default(), &limits)?;
    settle::settle(&node.store, &args.id.parse()?, &Silent, &limits)?;
    Ok(())
}
