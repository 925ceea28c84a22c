//! `cryopod checkpoint`: a standalone container is captured here, a pod by its shim; both show the same.

mod pod;
mod standalone;

use std::time::Duration;

use cryopod_checkpoint::id::CheckpointId;
use cryopod_checkpoint::manifest::Manifest;
use cryopod_checkpoint::store::Chosen;
use serde_json::json;
pub(crate) use standalone::tcp;

use super::checkpoints::view;
use crate::args::CheckpointArgs;
use crate::context::{Context, need_root};
use crate::error::Error;
use crate::exit;
use crate::output::style::{Palette, Style};
use crate::output::{timeline, units};
use crate::pods;

/// More than any capture takes: where nobody sets a time, SIGINT ends it, or who does the work.
const WHOLE: Duration = Duration::from_secs(24 * 3600);

/// Captures, and says what came of it.
pub(crate) fn run(context: &Context, args: &CheckpointArgs) -> Result<u8, Error> {
    need_root("checkpoint")?;
    let container = match context.registry().find(&args.target) {
        // A pod may be called namespace/name, which no container can be.
        Err(Error::BadContainerId { .. }) => None,
        found => found?,
    };
    let done = match container {
        Some(entry) => standalone::capture(context, args, &entry)?,
        None => match pods::by_name(context, &args.target)? {
            Some(found) => pod::capture(context, args, &found)?,
            None => return Err(Error::NoTarget { name: args.target.clone() }),
        },
    };
    let value = json!({
        "id": done.id,
        "mode": done.manifest.mode,
        "settled": done.settled,
        "store": done.store,
        "manifest": done.manifest,
    });
    context.output.result(&value, |palette| render(&done, palette))?;
    Ok(exit::OK)
}

/// A committed checkpoint.
#[derive(Debug)]
struct Done {
    id: CheckpointId,
    manifest: Manifest,
    store: Chosen,
    settled: bool,
    /// What to type to bring it back.
    next: String,
}

fn render(done: &Done, palette: Palette) -> String {
    let manifest = &done.manifest;
    let summary = manifest.summary();
    let seen = view::view(&manifest.timeline);
    let id = palette.paint(Style::Strong, done.id.as_str());
    let mut text = format!("{id}  {}\n\n", view::mode_and_why(manifest));
    text.push_str(&timeline::render(&seen, palette));
    text.push_str(&format!("\n  {}", timeline::summary(&seen, palette)));
    let sizes =
        format!("memory {}, disk {}", units::bytes(summary.memory_bytes), units::bytes(summary.disk_bytes));
    text.push_str(&format!("; {sizes}\n"));
    let settled = if done.settled { "settled" } else { "settling in the background" };
    text.push_str(&super::fields(
        &[
            ("  store", format!("{} ({}), {settled}", done.store.place, done.store.why)),
            ("  next", done.next.clone()),
        ],
        palette,
    ));
    text
}
