//! `cryopod checkpoints`: looks after what is stored.

mod hold;
mod prune;
mod ship;
mod stream;
pub(crate) mod view;

use std::time::Duration;

use cryopod_checkpoint::id::CheckpointId;
use cryopod_checkpoint::info::CheckpointInfo;
use cryopod_checkpoint::store::Deleted;
use cryopod_command::Limits;
use cryopod_zfs::SnapshotName;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::lifecycle::several;
use crate::args::{CheckpointsVerb, DeleteCheckpointArgs, ListCheckpointsArgs, ShowArgs, VerifyArgs};
use crate::context::{Context, need_root};
use crate::error::Error;
use crate::exit;
use crate::output::progress::Progress;
use crate::output::units;
use crate::select;
use hold::Hold;

/// Looking into the store; pools with thousands of datasets take seconds.
pub(super) const LOOK: Duration = Duration::from_secs(120);
/// Deleting one; a settling that is under way is stopped first.
const DELETE: Duration = Duration::from_secs(120);
/// Reading or writing a whole checkpoint: bounded by SIGINT, not by a guess at its size.
pub(super) const WHOLE: Duration = Duration::from_secs(24 * 3600);

/// Does it.
pub(crate) fn run(context: &Context, verb: &CheckpointsVerb) -> Result<u8, Error> {
    match verb {
        CheckpointsVerb::List(args) => list(context, args),
        CheckpointsVerb::Show(args) => show(context, args),
        CheckpointsVerb::Verify(args) => verify(context, args),
        CheckpointsVerb::Delete(args) => delete(context, args),
        CheckpointsVerb::Hold(args) => hold::run(context, args, Hold::Set),
        CheckpointsVerb::Release(args) => hold::run(context, args, Hold::Release),
        CheckpointsVerb::Prune(args) => prune::run(context, args),
        CheckpointsVerb::Export(args) => ship::export(context, args),
        CheckpointsVerb::Import(args) => ship::import(context, args),
    }
}

/// All checkpoints, or those of one pod or container, newest first.
fn of(all: Vec<CheckpointInfo>, pod: Option<&str>) -> Result<Vec<CheckpointInfo>, Error> {
    let mut chosen = match pod {
        None => all,
        Some(name) => select::of_pod(&all, name)?.into_iter().cloned().collect(),
    };
    chosen.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| b.id.cmp(&a.id)));
    Ok(chosen)
}

fn list(context: &Context, args: &ListCheckpointsArgs) -> Result<u8, Error> {
    need_root("checkpoints list")?;
    let limits = context.signals.limits(LOOK);
    let checkpoints = of(context.open_store(&limits)?.store.list(&limits)?, args.pod.as_deref())?;
    context.output.result(&checkpoints, |palette| {
        if args.quiet {
            let ids: Vec<&str> = checkpoints.iter().map(|checkpoint| checkpoint.id.as_str()).collect();
            return ids.join("\n");
        }
        view::list(&checkpoints, Timestamp::now(), palette)
    })?;
    Ok(exit::OK)
}

fn show(context: &Context, args: &ShowArgs) -> Result<u8, Error> {
    need_root("checkpoints show")?;
    let limits = context.signals.limits(LOOK);
    let store = context.open_store(&limits)?.store;
    let all = store.list(&limits)?;
    let info = select::one(&all, &args.id, None)?;
    let manifest = store.manifest(&info.id, &limits)?;
    let value = json!({ "checkpoint": info, "manifest": manifest });
    context.output.result(&value, |palette| view::show(info, &manifest, palette))?;
    Ok(exit::OK)
}

fn verify(context: &Context, args: &VerifyArgs) -> Result<u8, Error> {
    need_root("checkpoints verify")?;
    let limits = context.signals.limits(WHOLE);
    let store = context.open_store(&limits)?.store;
    let ids = if args.all {
        store.list(&limits)?.into_iter().map(|info| info.id).collect()
    } else {
        parse_ids(&args.ids)?
    };
    let (mut verified, mut lines, mut errors) = (Vec::new(), Vec::new(), Vec::new());
    for id in &ids {
        let progress = Progress::begin(&context.output, &format!("verifying {id}"));
        let outcome = store.verify(id, &progress, &limits);
        drop(progress);
        match outcome {
            Ok(found) => {
                let (files, disks, bytes) = (found.files, found.disks, found.bytes);
                verified.push(json!({ "id": id, "files": files, "disks": disks, "bytes": bytes }));
                lines.push(format!("{id}  {files} files, {disks} disks, {} intact", units::bytes(bytes)));
            }
            Err(error) => errors.push(Error::from(error)),
        }
    }
    if errors.is_empty() || !lines.is_empty() {
        context.output.result(&json!({ "verified": verified }), |_| lines.join("\n"))?;
    }
    several(errors, ids.len())
}

fn delete(context: &Context, args: &DeleteCheckpointArgs) -> Result<u8, Error> {
    need_root("checkpoints delete")?;
    let store = context.open_store(&context.signals.limits(LOOK))?.store;
    let ids = parse_ids(&args.ids)?;
    let (mut deleted, mut lines, mut errors) = (Vec::new(), Vec::new(), Vec::new());
    for id in &ids {
        // Each has its own time: a slow one, or many, take none from the others.
        match store.delete(id, &context.signals.limits(DELETE)) {
            Ok(outcome) => {
                deleted.push(outcome_json(id, &outcome));
                lines.push(outcome_line(id, &outcome));
            }
            Err(error) => errors.push(Error::from(error)),
        }
    }
    if errors.is_empty() || !lines.is_empty() {
        context.output.result(&json!({ "deleted": deleted }), |_| lines.join("\n"))?;
    }
    several(errors, ids.len())
}

/// Checked before the first is touched: one typing error leaves all as they were.
fn parse_ids(words: &[String]) -> Result<Vec<CheckpointId>, Error> {
    words.iter().map(|word| word.parse().map_err(Error::CheckpointName)).collect()
}

fn outcome_json(id: &CheckpointId, outcome: &Deleted) -> Value {
    let deferred = |sharers: &[String]| json!({ "id": id, "state": "deferred", "sharers": sharers });
    let gone = json!({ "id": id, "state": "gone" });
    match outcome {
        Deleted::Gone => gone,
        Deleted::Deferred { sharers } => deferred(sharers),
        Deleted::GivenUp { snapshots, sharers } => {
            let mut value = if sharers.is_empty() { gone } else { deferred(sharers) };
            let names: Vec<&str> = snapshots.iter().map(SnapshotName::as_str).collect();
            value["given_up"] = json!(names);
            value
        }
    }
}

fn outcome_line(id: &CheckpointId, outcome: &Deleted) -> String {
    let deferred = |sharers: &[String]| {
        format!("{id} is deleted; its space is freed when the last of these goes: {}", sharers.join(" "))
    };
    let gone = format!("{id} is deleted");
    match outcome {
        Deleted::Gone => gone,
        Deleted::Deferred { sharers } => deferred(sharers),
        Deleted::GivenUp { snapshots, sharers } => {
            let mut text = if sharers.is_empty() { gone } else { deferred(sharers) };
            text.push_str("\n  snapshots of it stay on a pool that is not imported; once it is back, run:");
            for snapshot in snapshots {
                text.push_str(&format!("\n    zfs destroy {snapshot}"));
            }
            text
        }
    }
}

/// The checkpoint that is meant by an id, the beginning of one, or a pod or container.
pub(super) fn find(
    context: &Context,
    name: &str,
    snapshot: Option<&str>,
    limits: &Limits,
) -> Result<CheckpointInfo, Error> {
    let all = context.open_store(limits)?.store.list(limits)?;
    select::one(&all, name, snapshot).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_deletion_gave_up_is_named_with_the_command_that_removes_it() {
        let id: CheckpointId = "web-1".parse().unwrap();
        let snapshots =
            vec!["tank/c/1@cryopod-web-1".parse().unwrap(), "tank/c/2@cryopod-web-1".parse().unwrap()];
        let outcome = Deleted::GivenUp { snapshots: snapshots.clone(), sharers: Vec::new() };
        let expected = "web-1 is deleted\n  \
                        snapshots of it stay on a pool that is not imported; once it is back, run:\n    \
                        zfs destroy tank/c/1@cryopod-web-1\n    \
                        zfs destroy tank/c/2@cryopod-web-1";
        assert_eq!(outcome_line(&id, &outcome), expected);
        let names = ["tank/c/1@cryopod-web-1", "tank/c/2@cryopod-web-1"];
        assert_eq!(outcome_json(&id, &outcome), json!({ "id": "web-1", "state": "gone", "given_up": names }));
        let outcome = Deleted::GivenUp { snapshots, sharers: vec!["tank/x".to_owned()] };
        assert!(outcome_line(&id, &outcome).contains("the last of these goes: tank/x\n"));
        let expected =
            json!({ "id": "web-1", "state": "deferred", "sharers": ["tank/x"], "given_up": names });
        assert_eq!(outcome_json(&id, &outcome), expected);
    }
}
