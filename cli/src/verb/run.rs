//! `cryopod run`: create and start, in the foreground until the process ends or detached.

use cryopod_image::TemplateName;
use serde_json::json;

use super::lifecycle::prepare;
use super::template::LOOK;
use crate::args::RunArgs;
use crate::context::{Context, need_root};
use crate::error::Error;
use crate::exit;
use crate::standalone::detached;
use crate::standalone::discard;
use crate::standalone::registry::Entry;
use crate::standalone::session::{Alive, Begin, Session};
use crate::standalone::state::Status;
use crate::standalone::stdio::Ends;
use crate::standalone::{self};

/// Runs a container; returns the code of its process.
pub(crate) fn run(context: &Context, args: &RunArgs) -> Result<u8, Error> {
    need_root("run")?;
    let entry = match &args.template {
        Some(template) => of_template(context, args, template)?,
        None => prepare(context, &args.create)?,
    };
    let pid_file = args.create.pid_file.clone();
    if args.detach {
        let pid = detached::spawn(context, &entry, Begin::Run, pid_file)
            .inspect_err(|_| discard(context, &entry))?;
        let id = entry.id();
        let value = json!({ "id": id, "status": Status::Running, "pid": pid });
        context.output.result(&value, |_| id.to_owned())?;
        return Ok(exit::OK);
    }
    let session = Session { context, entry: &entry, begin: Begin::Run, ends: Ends::Ours, pid_file };
    stay(context, &session, session.begin()?, args.keep)
}

/// Takes the name and makes a clone of the template for it; nothing runs yet.
fn of_template(context: &Context, args: &RunArgs, template: &TemplateName) -> Result<Entry, Error> {
    let runtime = match &args.create.runtime {
        Some(runtime) => runtime.clone(),
        None => context.config()?.runtime.default.clone(),
    };
    // Before the name is taken: a runtime that is not there could not delete the container either.
    context.backend(Some(&runtime))?;
    let entry = context.registry().claim(&args.create.id)?;
    let limits = context.signals.limits(LOOK);
    let prepared =
        standalone::template::prepare(context, &entry, template, &args.arguments, runtime, &limits);
    match prepared {
        Ok(()) => Ok(entry),
        Err(error) => {
            discard(context, &entry);
            Err(error)
        }
    }
}

/// Stays with a container in the foreground until it has ended.
pub(super) fn stay(context: &Context, session: &Session<'_>, alive: Alive, keep: bool) -> Result<u8, Error> {
    let ended = session.wait(alive);
    if !keep {
        standalone::dispose(context, session.entry, &cryopod_command::Limits::within(super::TIDY))?;
    }
    Ok(ended?.code)
}
