//! Captures a standalone container in this process.
//!
//! Whatever ends the capture – an error, a deadline, SIGINT – the container runs on: `cryopod_checkpoint::capture`
//! thaws on every path, and SIGINT reaches it as a cancel, never as our death.

use std::sync::Arc;
use std::time::Duration;

use cryopod_checkpoint::capture::{self, CaptureOptions, Mode};
use cryopod_checkpoint::recover;
use cryopod_checkpoint::refusal::Refusal;
use cryopod_checkpoint::target::{Member, PodIdentity, TcpPolicy};
use cryopod_command::Limits;
use cryopod_runtime::backend::Backend;
use cryopod_runtime::choice::{self, UnknownMode};
use cryopod_runtime::config::CheckpointSection;
use cryopod_runtime::members::{self, Running};
use cryopod_runtime::oci::OciBackend;
use cryopod_runtime::pod_target::PodTarget;
use cryopod_runtime::repair::OciRepair;
use cryopod_runtime::spec::{Spec, annotation};
use cryopod_runtime::{node_facts, preflight};

use super::Done;
use crate::args::{CheckpointArgs, ModeArg, TcpArg};
use crate::context::Context;
use crate::error::Error;
use crate::output::progress::Progress;
use crate::settling;
use crate::standalone::registry::Entry;
use crate::standalone::state::{State, Status};
use crate::verb::lifecycle::in_status;

/// SIGKILL, to a container that is to stay stopped; it is frozen and so cannot run on meanwhile.
const KILL: i32 = 9;
/// How long the runtime may take for it.
const END_WITHIN: Duration = Duration::from_secs(30);

/// Captures it, commits, and lets it settle.
pub(super) fn capture(context: &Context, args: &CheckpointArgs, entry: &Entry) -> Result<Done, Error> {
    if args.container.is_some() {
        return Err(Error::NotAPod { id: entry.id().to_owned() });
    }
    let statuses = [Status::Running, Status::Paused];
    let (_, state) = in_status(context, entry.id(), "checkpoint", &statuses)?;
    let config = context.config()?;
    let spec = Spec::of_bundle(&state.bundle).map_err(cryopod_runtime::error::Error::from)?;
    let chosen = chosen(args, spec.annotation(annotation::CHECKPOINT_MODE), &config.checkpoint)?;
    let limits = context.signals.limits(chosen.timeout);
    let opened = context.open_store(&limits)?;
    let journal = context.journal()?;
    // Before its state counts: a freeze of another capture would pass for a pause.
    let _turn = recover::turn(entry.id(), &opened.store, &journal, &OciRepair, &limits)?;
    let (_, state) = in_status(context, entry.id(), "checkpoint", &statuses)?;
    let backend = Arc::new(context.backend(Some(&state.runtime))?);
    let progress = Progress::begin(&context.output, "looking at the container");
    let version = backend.version(&limits)?;
    let pid = state.init.map_or(0, |init| init.pid);
    let running = Running { id: entry.id(), bundle: &state.bundle, rootfs: Some(&state.rootfs), pid };
    let members = members::describe(&[running], backend.as_ref(), &version, &config.volumes)?;
    let node = node_facts::read(&config.criu.path, &limits);
    let mut options = CaptureOptions::new(node, &progress);
    options.id = args.id.as_deref().map(str::parse).transpose().map_err(Error::CheckpointName)?;
    options.mode = chosen.mode;
    options.exit = args.exit;
    options.tcp = chosen.tcp;
    options.labels = args.labels.iter().cloned().collect();
    options.copy_limit = config.checkpoint.volume_copy_limit.0;
    options.pre_dump_min_rss = config.checkpoint.pre_dump_min_rss.0;
    options.memory_preflight = memory(context, &backend, &members, &limits)?;
    let target = PodTarget::new(identity(&state), members, Arc::clone(&backend) as Arc<dyn Backend>);
    let captured = capture::capture(Arc::new(target), &opened.store, &journal, options, &limits)?;
    drop(progress);
    if let Some(ending) = captured.ending {
        // It must end although the capture has used up its time, or was cancelled after its commit.
        backend.kill(entry.id(), pid, KILL, true, &Limits::within(END_WITHIN))?;
        ending.ended();
    }
    let settled = settling::begin(context, &opened, &captured.id, args.wait)?;
    let again = if args.exit { String::new() } else { format!(" --name {}-2", entry.id()) };
    Ok(Done {
        next: format!("cryopod restore {}{again}", captured.id),
        id: captured.id,
        manifest: captured.manifest,
        store: opened.chosen,
        settled,
    })
}

fn identity(state: &State) -> PodIdentity {
    PodIdentity { id: state.id.clone(), name: state.id.clone(), ..PodIdentity::default() }
}

fn memory(
    context: &Context,
    backend: &OciBackend,
    members: &[Member],
    limits: &Limits,
) -> Result<Result<(), Refusal>, Error> {
    let criu = &context.config()?.criu.path;
    Ok(preflight::memory(members, criu, limits).and_then(|()| {
        if backend.capabilities().memory_checkpoint {
            return Ok(());
        }
        let text = format!("{} cannot dump memory", backend.name());
        Err(Refusal::new("backend-memory", text, "use crun or runc, or checkpoint the disk only"))
    }))
}

/// How it is captured.
#[derive(Debug, PartialEq, Eq)]
struct Chosen {
    mode: Mode,
    tcp: TcpPolicy,
    timeout: Duration,
}

/// An option decides before the annotation of the bundle, and that before the configuration.
fn chosen(
    args: &CheckpointArgs,
    annotated: Option<&str>,
    config: &CheckpointSection,
) -> Result<Chosen, UnknownMode> {
    Ok(Chosen {
        mode: choice::mode(args.mode.map(mode), annotated, config.mode)?,
        tcp: args.tcp.map_or(config.tcp, tcp),
        timeout: args.timeout.map_or_else(|| config.timeout.into(), Duration::from_secs),
    })
}

fn mode(mode: ModeArg) -> Mode {
    match mode {
        ModeArg::Auto => Mode::Auto,
        ModeArg::Full => Mode::Full,
        ModeArg::Disk => Mode::Disk,
    }
}

/// As the manifest and CRIU's options know it.
pub(crate) fn tcp(tcp: TcpArg) -> TcpPolicy {
    match tcp {
        TcpArg::Keep => TcpPolicy::Keep,
        TcpArg::Close => TcpPolicy::Close,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use cryopod_runtime::config::{CheckpointMode, Seconds};

    use super::*;
    use crate::args::{Cli, Verb};

    fn decide(
        line: &str,
        annotated: Option<&str>,
        config: &CheckpointSection,
    ) -> Result<Chosen, UnknownMode> {
        let cli = Cli::try_parse_from(line.split_whitespace()).unwrap();
        let Verb::Checkpoint(args) = cli.verb else { panic!("{line} is another verb") };
        chosen(&args, annotated, config)
    }

    fn configured() -> CheckpointSection {
        CheckpointSection {
            mode: CheckpointMode::Disk,
            tcp: TcpPolicy::Close,
            timeout: Seconds(7),
            ..CheckpointSection::default()
        }
    }

    #[test]
    fn an_option_decides_before_annotation_and_configuration() {
        let line = "cryopod checkpoint web --mode auto --tcp keep --timeout 9";
        let expected = Chosen { mode: Mode::Auto, tcp: TcpPolicy::Keep, timeout: Duration::from_secs(9) };
        assert_eq!(decide(line, Some("full"), &configured()), Ok(expected));
    }

    #[test]
    fn the_annotation_decides_before_the_configuration() {
        let chosen = decide("cryopod checkpoint web", Some("full"), &configured()).unwrap();
        assert_eq!((chosen.mode, chosen.tcp), (Mode::Full, TcpPolicy::Close));
        assert!(decide("cryopod checkpoint web", Some("x"), &configured()).is_err());
    }

    #[test]
    fn the_configuration_decides_before_the_built_in_values() {
        let line = "cryopod checkpoint web";
        let expected = Chosen { mode: Mode::Disk, tcp: TcpPolicy::Close, timeout: Duration::from_secs(7) };
        assert_eq!(decide(line, None, &configured()), Ok(expected));
        let built_in = decide(line, None, &CheckpointSection::default()).unwrap();
        let expected = Chosen { mode: Mode::Auto, tcp: TcpPolicy::Keep, timeout: Duration::from_secs(300) };
        assert_eq!(built_in, expected);
    }
}
