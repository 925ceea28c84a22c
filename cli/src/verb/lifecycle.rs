//! The verbs that take one container from state to state: create, start, kill, pause, resume, delete. Those that a shim
//! can do too work on running pods as well ([`super::pod`]).

use std::time::Duration;

use cryopod_command::Limits;
use cryopod_runtime::backend::Backend;
use serde_json::json;

use super::{pod, signal};
use crate::args::{CreateArgs, DeleteArgs, FreezeArgs, IdArgs, KillArgs};
use crate::context::{Context, need_root};
use crate::error::Error;
use crate::exit;
use crate::pods;
use crate::standalone::bundle::Bundle;
use crate::standalone::registry::Entry;
use crate::standalone::session::Begin;
use crate::standalone::state::{State, Status};
use crate::standalone::{self, detached};

/// One call of a runtime; a freeze may wait for a task in the kernel.
const CALL: Duration = Duration::from_secs(60);
/// Deleting may move a root file system into the store first, since a checkpoint that is not settled lives on it.
const DELETE: Duration = Duration::from_secs(300);

/// `cryopod create`.
pub(crate) fn create(context: &Context, args: &CreateArgs) -> Result<u8, Error> {
    need_root("create")?;
    let entry = prepare(context, args)?;
    let pid = detached::spawn(context, &entry, Begin::Create, args.pid_file.clone())
        .inspect_err(|_| drop(entry.remove()))?;
    context.output.note(&format!("{} is created (PID {pid}); `cryopod start {0}` lets it run", args.id));
    report(context, &args.id, Status::Created)
}

/// Checks bundle and runtime and takes the name; nothing runs yet.
pub(super) fn prepare(context: &Context, args: &CreateArgs) -> Result<Entry, Error> {
    let bundle = Bundle::open(&args.bundle)?;
    let runtime = match &args.runtime {
        Some(runtime) => runtime.clone(),
        None => context.config()?.runtime.default.clone(),
    };
    // Before the name is taken: a runtime that is not there could not delete the container either.
    context.backend(Some(&runtime))?;
    let state = State::new(&args.id, bundle.dir, bundle.rootfs, runtime, bundle.terminal);
    let entry = context.registry().claim(&args.id)?;
    match entry.begin(&state) {
        Ok(()) => Ok(entry),
        Err(error) => {
            drop(entry.remove());
            Err(error)
        }
    }
}

/// `cryopod start`.
pub(crate) fn start(context: &Context, args: &IdArgs) -> Result<u8, Error> {
    let (entry, state) = in_status(context, &args.id, "start", &[Status::Created])?;
    context.backend(Some(&state.runtime))?.start(&args.id, &limits(context))?;
    entry.update(|state| state.started = true)?;
    report(context, &args.id, Status::Running)
}

/// `cryopod kill`.
pub(crate) fn kill(context: &Context, args: &KillArgs) -> Result<u8, Error> {
    let number = signal::parse(&args.signal)?;
    if let Some(target) = pod::target(context, &args.id, args.container.as_deref())? {
        return pod::kill(context, &target, number, args.all);
    }
    let alive = [Status::Created, Status::Running, Status::Paused];
    let (_, state) = in_status(context, &args.id, "kill", &alive)?;
    let pid = state.init.map_or(0, |init| init.pid);
    context.backend(Some(&state.runtime))?.kill(&args.id, pid, number, args.all, &limits(context))?;
    context.output.result(&json!({ "id": args.id, "signal": number }), |_| String::new())?;
    Ok(exit::OK)
}

/// `cryopod pause`.
pub(crate) fn pause(context: &Context, args: &FreezeArgs) -> Result<u8, Error> {
    if let Some(target) = pod::target(context, &args.id, args.container.as_deref())? {
        return pod::pause(context, &target);
    }
    let (_, state) = in_status(context, &args.id, "pause", &[Status::Running])?;
    context.backend(Some(&state.runtime))?.pause(&args.id, &limits(context))?;
    report(context, &args.id, Status::Paused)
}

/// `cryopod resume`.
pub(crate) fn resume(context: &Context, args: &FreezeArgs) -> Result<u8, Error> {
    if let Some(target) = pod::target(context, &args.id, args.container.as_deref())? {
        return pod::resume(context, &target);
    }
    let (_, state) = in_status(context, &args.id, "resume", &[Status::Paused])?;
    context.backend(Some(&state.runtime))?.resume(&args.id, &limits(context))?;
    report(context, &args.id, Status::Running)
}

/// `cryopod delete`: each container by itself; one that fails does not keep the others.
pub(crate) fn delete(context: &Context, args: &DeleteArgs) -> Result<u8, Error> {
    let mut deleted = Vec::new();
    let mut errors = Vec::new();
    for id in &args.ids {
        match delete_one(context, id, args.force) {
            Ok(()) => deleted.push(id),
            Err(error) => errors.push(error),
        }
    }
    if !deleted.is_empty() {
        context.output.result(&json!({ "deleted": deleted }), |_| String::new())?;
    }
    several(errors, args.ids.len())
}

/// The one error itself, or all of them in one.
pub(super) fn several(mut errors: Vec<Error>, all: usize) -> Result<u8, Error> {
    match (errors.len(), all) {
        (0, _) => Ok(exit::OK),
        (1, 1) => errors.pop().map_or(Ok(exit::OK), Err),
        (failed, _) => {
            let worst = exit::worst(errors.iter().map(Error::kind));
            let reasons = errors.iter().map(Error::to_string).collect::<Vec<_>>().join("; ");
            Err(Error::Several { failed, all, worst, reasons })
        }
    }
}

fn delete_one(context: &Context, id: &str, force: bool) -> Result<(), Error> {
    let entry = match find(context, id, "delete") {
        Err(Error::NoContainer { .. }) if force => return Ok(()),
        found => found?,
    };
    let state = match State::load(entry.dir()) {
        Err(Error::StateDamaged { .. }) if force => None,
        state => state?,
    };
    let status = state.as_ref().map(|state| standalone::status(context, state));
    if let Some(status) = status.filter(|status| *status != Status::Stopped)
        && !force
    {
        return Err(wrong_state(id, status, "be deleted"));
    }
    need_root("delete")?;
    standalone::dispose(context, &entry, &context.signals.limits(DELETE))
}

/// A standalone container; of a pod, the error says what to use instead.
pub(super) fn find(context: &Context, id: &str, verb: &str) -> Result<Entry, Error> {
    match context.registry().find(id) {
        Ok(Some(entry)) => Ok(entry),
        // A pod may be called namespace/name, which no container can be.
        missing => match pods::refusal(context, id, verb)? {
            Some(refusal) => Err(refusal),
            None => missing?.ok_or_else(|| Error::NoContainer { id: id.to_owned() }),
        },
    }
}

/// The container, if it is in one of these states.
pub(super) fn in_status(
    context: &Context,
    id: &str,
    verb: &'static str,
    wanted: &[Status],
) -> Result<(Entry, State), Error> {
    let entry = find(context, id, verb)?;
    need_root(verb)?;
    let state = entry.state()?;
    let status = standalone::status(context, &state);
    if wanted.contains(&status) { Ok((entry, state)) } else { Err(wrong_state(id, status, verb)) }
}

fn wrong_state(id: &str, status: Status, verb: &'static str) -> Error {
    let advice = match (status, verb) {
        (Status::Creating, _) => {
            "wait until it is created, or remove it: `cryopod delete --force`".to_owned()
        }
        (Status::Running | Status::Paused | Status::Created, "be deleted") => {
            format!("`cryopod delete --force {id}` kills it first")
        }
        (Status::Created, _) => format!("`cryopod start {id}` lets it run"),
        (Status::Running, _) => format!("it runs; `cryopod pause {id}` stops it"),
        (Status::Paused, _) => format!("`cryopod resume {id}` lets it go on"),
        (Status::Stopped, _) => {
            format!("`cryopod delete {id}` removes it, `cryopod restore {id}` brings it back")
        }
    };
    Error::ContainerState { id: id.to_owned(), status: status.word(), verb, advice }
}

fn report(context: &Context, id: &str, status: Status) -> Result<u8, Error> {
    context.output.result(&json!({ "id": id, "status": status }), |_| String::new())?;
    Ok(exit::OK)
}

fn limits(context: &Context) -> Limits {
    context.signals.limits(CALL)
}
