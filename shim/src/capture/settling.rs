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

/// Begins settling a committed checkpoint. A failure to begin is logged: the next settling or recovery does it.
pub fn begin(store: &Store, id: &CheckpointId) {
    spawn(store, Some(id));
}

/// Begins to free what nothing needs any more, since something that needed or shared it has gone.
pub fn tidy(store: &Store) {
    spawn(store, None);
}

fn spawn(store: &Store, id: Option<&CheckpointId>) {
    // A directory store copies while it captures, and shares nothing.
    let Store::Zfs(zfs) = store else { return };
    let mut command = Command::new(own_path());
    command.arg0(crate::called::name());
    if let Some(id) = id {
        command.args(["-id", id.as_str()]);
    }
    command
        .args(["-store", zfs.root().as_ref(), "-bundle"])
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
        let checkpoint = id.map(CheckpointId::as_str).unwrap_or_default();
        tracing::warn!(checkpoint, %error, "settling did not begin; the next one or recovery does it");
    }
}

/// The settling process: `-store` is the root dataset, `-bundle` the store's directory, `-id` the checkpoint, if one is to
/// be settled. Then it takes along what killed ones have left.
///
/// # Errors
/// See [`DoorError`]; settling may be repeated.
pub fn run(args: &Args) -> Result<(), DoorError> {
    let limits = Limits::within(WHOLE);
    let node = Node::reopen(Some(&args.store), args.bundle.clone().unwrap_or_default(), &limits)?;
    let settled = if args.id.is_empty() {
        Ok(())
    } else {
        settle::settle(&node.store, &args.id.parse()?, &Silent, &limits).map(drop)
    };
    settle::rest(&node.store, &Silent, &limits)?;
    Ok(settled?)
}
