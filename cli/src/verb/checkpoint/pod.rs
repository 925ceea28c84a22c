//! Captures a running pod, or one container of it, through its shim.
//!
//! The work is the shim's, so an interrupted command closes the connection: that ends the capture, and the pod runs on.

use std::path::{Path, PathBuf};
use std::time::Duration;

use cryopod_checkpoint::id::CheckpointId;
use cryopod_checkpoint::manifest::Manifest;
use cryopod_checkpoint::progress::Progress as _;
use cryopod_checkpoint::store::{Chosen, StoreKind};
use cryopod_runtime::config::{Config, Sources};
use cryopod_shim::control::api;
use cryopod_shim::control::client::Client;

use super::{Done, WHOLE};
use crate::args::{CheckpointArgs, ModeArg, TcpArg};
use crate::context::Context;
use crate::error::{Error, pod_advice};
use crate::output::progress::Progress;
use crate::pods::Pod;
use crate::settling;
use crate::verb::checkpoints::LOOK;

/// Asks the shim and waits for its answer.
pub(super) fn capture(context: &Context, args: &CheckpointArgs, pod: &Pod) -> Result<Done, Error> {
    // A wrong id is said here, before a pod is asked.
    let wanted =
        args.id.as_deref().map(str::parse::<CheckpointId>).transpose().map_err(Error::CheckpointName)?;
    let progress = Progress::begin(&context.output, "asking the shim");
    // Without the option the time is the shim's to keep: it knows the configuration of its handler.
    let limits = context.signals.limits(args.timeout.map_or(WHOLE, Duration::from_secs));
    let mut show = |seen: &api::ProgressResponse| {
        progress.step(&seen.phase);
        if seen.total_bytes > 0 {
            progress.bytes(seen.done_bytes, Some(seen.total_bytes));
        }
    };
    let client = Client::connect(&pod.socket)?;
    let answer = client.checkpoint(&request(args, wanted.as_ref()), &mut show, &limits)?;
    drop(progress);
    let manifest = Manifest::parse(&answer.manifest).map_err(Error::Manifest)?;
    let id = manifest.id.clone();
    let next = pod_advice(id.as_str());
    let limits = context.signals.limits(LOOK);
    let Some(told) = told(&answer) else {
        // A shim of an earlier version: our own configuration is all there is to go by.
        let opened = context.open_store(&limits)?;
        let settled = match args.wait {
            true => settling::begin(context, &opened, &id, true)?,
            false => opened.store.info(&id, &limits).is_ok_and(|info| info.settled),
        };
        return Ok(Done { id, manifest, store: opened.chosen, settled, next });
    };
    let settled = match args.wait && !answer.settled {
        true => {
            let opened = context.open_other(told.store.clone(), told.dir, &limits)?;
            settling::begin(context, &opened, &id, true)?
        }
        // The shim has begun it.
        false => answer.settled,
    };
    if let Some(file) = told.config.filter(|file| keeps_elsewhere(context, file)) {
        let file = file.display();
        context.output.note(&format!(
            "the pod's handler has a store of its own: `cryopod --config {file} checkpoints show {id}`"
        ));
    }
    Ok(Done { id, manifest, store: told.store, settled, next })
}

/// Where the shim says that it has put the checkpoint.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    store: Chosen,
    /// Directory of the store's contents.
    dir: PathBuf,
    /// Configuration file of the pod's handler.
    config: Option<PathBuf>,
}

/// None from a shim that does not tell it, or names a kind of store that is not known here.
fn told(answer: &api::CheckpointResponse) -> Option<Told> {
    let store = answer.store.as_ref()?;
    let kind = match store.kind.as_str() {
        "zfs" => StoreKind::Zfs,
        "dir" => StoreKind::Dir,
        _ => return None,
    };
    Some(Told {
        store: Chosen { kind, place: store.place.clone(), why: store.why.clone() },
        dir: store.dir.clone().into(),
        config: Some(store.config.clone()).filter(|file| !file.is_empty()).map(PathBuf::from),
    })
}

/// Whether this configuration file leads to another store than ours, so that a person has to name it to find the
/// checkpoint again.
fn keeps_elsewhere(context: &Context, file: &Path) -> bool {
    let theirs = Config::load(&Sources { file: Some(file.to_owned()), ..Sources::default() });
    match (theirs, context.config()) {
        (Ok(theirs), Ok(ours)) => theirs.store != ours.store,
        _ => false,
    }
}

fn request(args: &CheckpointArgs, id: Option<&CheckpointId>) -> api::CheckpointRequest {
    let mut request = api::CheckpointRequest::new();
    request.container = args.container.clone().unwrap_or_default();
    request.id = id.map(ToString::to_string).unwrap_or_default();
    request.exit = args.exit;
    request.labels = args.labels.iter().cloned().collect();
    // An empty word leaves the choice to the annotation and to the configuration of the pod's handler.
    request.mode = match args.mode {
        None => "",
        Some(ModeArg::Auto) => "auto",
        Some(ModeArg::Full) => "full",
        Some(ModeArg::Disk) => "disk",
    }
    .to_owned();
    request.tcp = match args.tcp {
        None => "",
        Some(TcpArg::Keep) => "keep",
        Some(TcpArg::Close) => "close",
    }
    .to_owned();
    request.timeout_seconds = args.timeout.unwrap_or(0);
    request
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Verb};

    fn asked(line: &str) -> api::CheckpointRequest {
        let cli = Cli::try_parse_from(line.split_whitespace()).unwrap();
        let Verb::Checkpoint(args) = cli.verb else { panic!("{line} is another verb") };
        request(&args, None)
    }

    #[test]
    fn what_no_option_says_is_left_to_annotation_and_configuration() {
        let request = asked("cryopod checkpoint web");
        assert_eq!((request.mode.as_str(), request.tcp.as_str(), request.timeout_seconds), ("", "", 0));
    }

    #[test]
    fn the_store_is_the_one_that_the_shim_names() {
        let mut answer = api::CheckpointResponse::new();
        assert_eq!(told(&answer), None, "an earlier shim names none");
        let mut store = api::Store::new();
        (store.kind, store.place) = ("dir".into(), "/srv/checkpoints".into());
        (store.why, store.dir) = ("the configuration asks for it".into(), "/srv/checkpoints".into());
        store.config = "/etc/cryopod/dir.toml".into();
        answer.store = Some(store.clone()).into();
        let told_store = told(&answer).unwrap();
        assert_eq!(told_store.store.kind, StoreKind::Dir);
        assert_eq!(told_store.store.place, "/srv/checkpoints");
        assert_eq!(told_store.config, Some("/etc/cryopod/dir.toml".into()));
        store.kind = "cloud".into();
        answer.store = Some(store).into();
        assert_eq!(told(&answer), None);
    }

    #[test]
    fn options_reach_the_shim_even_where_they_say_the_default() {
        let request = asked("cryopod checkpoint web --mode auto --tcp keep --timeout 7");
        assert_eq!(
            (request.mode.as_str(), request.tcp.as_str(), request.timeout_seconds),
            ("auto", "keep", 7)
        );
        let request = asked("cryopod checkpoint web --mode disk --tcp close");
        assert_eq!((request.mode.as_str(), request.tcp.as_str()), ("disk", "close"));
    }
}
