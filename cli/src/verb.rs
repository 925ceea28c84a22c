//! What each verb does: one file each, called by `main` with what clap has read.
//!
//! A verb returns its exit code, or an error from which the code follows.

mod audit;
mod checkpoint;
mod checkpoints;
mod config;
mod exec;
mod lifecycle;
mod list;
mod manual;
mod pod;
mod recover;
mod restore;
mod route;
mod run;
mod signal;
mod spec;
mod template;

use std::time::Duration;

use crate::args::Verb;
use crate::context::Context;
use crate::doctor;
use crate::error::Error;
use crate::output::printable;
use crate::output::style::{Palette, Style};
use crate::settling;
use crate::standalone::detached;

pub(crate) use spec::default_spec;

/// Tidying up after the work is not cancelled, but bounded.
const TIDY: Duration = Duration::from_secs(300);

/// Whether the exit code of the verb is that of a process, so that our own failures need another.
pub(crate) fn speaks_for_a_process(verb: &Verb) -> bool {
    match verb {
        Verb::Run(args) => !args.detach,
        Verb::Exec(args) => !args.detach,
        Verb::Restore(args) => args.attach,
        _ => false,
    }
}

/// Does it.
pub(crate) fn dispatch(context: &Context, verb: &Verb) -> Result<u8, Error> {
    match verb {
        Verb::Run(args) => run::run(context, args),
        Verb::Spec(args) => spec::run(context, args),
        Verb::Create(args) => lifecycle::create(context, args),
        Verb::Start(args) => lifecycle::start(context, args),
        Verb::State(args) => list::state(context, args),
        Verb::Kill(args) => lifecycle::kill(context, args),
        Verb::Delete(args) => lifecycle::delete(context, args),
        Verb::List(args) => list::list(context, args),
        Verb::Exec(args) => exec::run(context, args),
        Verb::Pause(args) => lifecycle::pause(context, args),
        Verb::Resume(args) => lifecycle::resume(context, args),
        Verb::Config(verb) => config::run(context, *verb),
        Verb::Route(verb) => route::run(context, verb),
        Verb::Completions(args) => manual::completions(context, args),
        Verb::Man(args) => manual::man(context, args),
        Verb::Checkpoint(args) => checkpoint::run(context, args),
        Verb::Checkpoints(verb) => checkpoints::run(context, verb),
        Verb::Template(verb) => template::run(context, verb),
        Verb::Doctor => doctor::run(context),
        Verb::Settle(args) => settling::run(context, args),
        Verb::Restore(args) => restore::run(context, args),
        Verb::Audit(verb) => audit::run(context, *verb),
        Verb::Recover => recover::run(context),
        Verb::Monitor(args) => detached::monitor(context, &args.id),
    }
}

/// `name  value` lines, aligned.
fn fields(lines: &[(&str, String)], palette: Palette) -> String {
    let width = lines.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    lines
        .iter()
        .map(|(name, value)| {
            format!("{}  {}\n", palette.paint(Style::Dim, &format!("{name:width$}")), printable(value))
        })
        .collect()
}
