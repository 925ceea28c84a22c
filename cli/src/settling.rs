//! Settling: the part of a checkpoint that nobody has to wait for – its disks go into the store, its snapshots at the
//! source go away – done by `cryopod settle ID` in a process of its own, which outlives the caller and the container.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use cryopod_checkpoint::id::CheckpointId;
use cryopod_checkpoint::progress::Silent;
use cryopod_checkpoint::settle;
use cryopod_checkpoint::store::StoreKind;
use serde_json::json;

use crate::args::SettleArgs;
use crate::context::{Context, Opened};
use crate::error::Error;
use crate::exit;
use crate::output::progress::Progress;

/// A send of any size; SIGINT ends it earlier, and the next try goes on where it was.
const WHOLE: Duration = Duration::from_secs(24 * 3600);

/// Settles here when `wait` says so, else begins it in the background. Returns whether it is settled.
pub(crate) fn begin(
    context: &Context,
    opened: &Opened,
    id: &CheckpointId,
    wait: bool,
) -> Result<bool, Error> {
    if opened.store.kind() == StoreKind::Dir {
        // A directory store copies while it captures.
        return Ok(true);
    }
    if wait {
        let progress = Progress::begin(&context.output, &format!("settling {id}"));
        settle::settle(&opened.store, id, &progress, &context.signals.limits(WHOLE))?;
        return Ok(true);
    }
    let mut command = Command::new("/proc/self/exe");
    command.arg("--root").arg(&context.root);
    if let Some(config) = &context.config_file {
        command.arg("--config").arg(config);
    }
    command.args(["settle", id.as_str()]);
    // A group of its own: the terminal's Ctrl-C is not meant for it.
    command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    match command.spawn() {
        Ok(_) => {}
        // The checkpoint is committed; `recover` settles it later.
        Err(error) => {
            context.output.note(&format!("settling did not begin: {error}; `cryopod recover` does it"));
        }
    }
    Ok(false)
}

/// `cryopod settle`.
pub(crate) fn run(context: &Context, args: &SettleArgs) -> Result<u8, Error> {
    let id: CheckpointId = args.id.parse().map_err(Error::CheckpointName)?;
    let limits = context.signals.limits(WHOLE);
    let store = context.open_store(&limits)?.store;
    let settled = settle::settle(&store, &id, &Silent, &limits);
    // Also when this one has been deleted meanwhile: a source that was adopted goes with its last checkpoint.
    if let Err(error) = settle::rest(&store, &Silent, &limits) {
        context.output.note(&format!("space is not freed yet: {error}; `cryopod recover` does it"));
    }
    let settled = settled?;
    context.output.result(&json!({ "id": id, "disks": settled.disks }), |_| {
        format!("{id} is settled, {} disks were sent", settled.disks)
    })?;
    Ok(exit::OK)
}
