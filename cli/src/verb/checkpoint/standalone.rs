//! Captures a standalone container in this process.
//!
//! Whatever ends the capture – an error, a deadline, SIGINT – the container runs on: `cryopod_checkpoint::capture`
//! thaws on every path, and SIGINT reaches it as a cancel, never as our death.

use std::sync::Arc;
use std::time::Duration;

use cryopod_checkpoint::capture::{self, CaptureOptions, Mode};
use cryopod_checkpoint::refusal::Refusal;
use cryopod_checkpoint::target::{Member, PodIdentity, TcpPolicy};
use cryopod_command::Limits;
use cryopod_runtime::backend::Backend;
use cryopod_runtime::members::{self, Running};
use cryopod_runtime::oci::OciBackend;
use cryopod_runtime::pod_target::PodTarget;
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

/// Captures it, commits, and lets it settle.
pub(super) fn capture(context: &Context, args: &CheckpointArgs, entry: &Entry) -> Result<Done, Error> {
    if args.container.is_some() {
        return Err(Error::NotAPod { id: entry.id().to_owned() });
    }
    let (_, state) = in_status(context, entry.id(), "checkpoint", &[Status::Running, Status::Paused])?;
    let limits = context.signals.limits(Duration::from_secs(args.timeout));
    let opened = context.open_store(&limits)?;
    let journal = context.journal()?;
    let backend = Arc::new(context.backend(Some(&state.runtime))?);
    let progress = Progress::begin(&context.output, "looking at the container");
    let config = context.config()?;
    let version = backend.version(&limits)?;
    let pid = state.init.map_or(0, |init| init.pid);
    let running = Running { id: entry.id(), bundle: &state.bundle, rootfs: Some(&state.rootfs), pid };
    let members = members::describe(&[running], backend.as_ref(), &version, &config.volumes)?;
    let node = node_facts::read(&config.criu.path, &limits);
    let mut options = CaptureOptions::new(node, &progress);
    options.id = args.id.as_deref().map(str::parse).transpose().map_err(Error::CheckpointName)?;
    options.mode = mode(args.mode);
    options.exit = args.exit;
    options.tcp = tcp(args.tcp);
    options.labels = args.labels.iter().cloned().collect();
    options.copy_limit = config.checkpoint.volume_copy_limit.0;
    options.memory_preflight = memory(context, &backend, &members, &limits)?;
    let target = PodTarget::new(identity(&state), members, Arc::clone(&backend) as Arc<dyn Backend>);
    let captured = capture::capture(Arc::new(target), &opened.store, &journal, options, &limits)?;
    drop(progress);
    if args.exit {
        backend.kill(entry.id(), pid, KILL, true, &limits)?;
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
