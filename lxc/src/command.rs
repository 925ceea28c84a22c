//! `cryopod-lxc`: the command line of an OCI runtime, as runc has it, so that containerd, podman and CRI-O can call it.

mod args;
mod cgroup;
mod create;
mod events;
mod exec;
mod log;
mod memory;
mod show;
mod values;

use std::process::ExitCode;

use clap::Parser;

use crate::directory::{clear, clear_all};
use crate::state::Container;
use crate::{making, operate};
use args::{Cli, Verb};

/// Any error, in words.
pub(crate) type Failure = Box<dyn std::error::Error>;

/// Reads the command line and does what it says.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            log::failure(&cli.global, error.as_ref());
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<u8, Failure> {
    let find = |id: &str| Container::find(&cli.global.root, id);
    // Whoever works on a container brings its monitor back, should that have been killed.
    let tended = |id: &str| -> Result<Container, Failure> {
        let container = find(id)?;
        if container.process().is_some() {
            making::answer(&container, &create::programs()?.monitor)?;
        }
        Ok(container)
    };
    match &cli.verb {
        Verb::Create(args) => create::create(&cli.global, args).map(|_| ())?,
        Verb::Run(args) => return create::run(&cli.global, args),
        Verb::Start { id } => operate::start(&tended(id)?)?,
        Verb::State { id } => show::state(&tended(id)?)?,
        Verb::Kill { all, id, signal } => operate::kill(&find(id)?, signal.0, *all)?,
        Verb::Delete { force, id } => match find(id) {
            Ok(container) => operate::delete(&container, *force)?,
            // What is gone is removed, and what somebody left half-made as well.
            Err(crate::state::Error::Missing(_)) if clear(&cli.global.root, id)? && *force => {}
            Err(error) => return Err(error.into()),
        },
        Verb::Checkpoint(args) => memory::checkpoint(&tended(&args.id)?, args)?,
        Verb::Restore(args) => return memory::restore(&cli.global, args),
        Verb::Pause { id } => operate::freeze(&tended(id)?, true)?,
        Verb::Resume { id } => operate::freeze(&tended(id)?, false)?,
        Verb::Update { resources, id } => {
            let text = if resources == "-" {
                std::io::read_to_string(std::io::stdin())?
            } else {
                std::fs::read_to_string(resources)?
            };
            operate::update(&tended(id)?, &serde_json::from_str(&text)?)?;
        }
        Verb::Exec(args) => return exec::exec(&tended(&args.id)?, args),
        Verb::Ps { format, id } => show::processes(&tended(id)?, *format)?,
        Verb::List { format, quiet } => show::list(&cli.global.root, *format, *quiet)?,
        Verb::Events(args) => events::events(&tended(&args.id)?, args)?,
        Verb::Spec { bundle } => show::spec(bundle)?,
        Verb::Features => show::features()?,
        Verb::Sweep => show::lines(&clear_all(&cli.global.root)?)?,
        Verb::Wait => drop(std::io::copy(&mut std::io::stdin(), &mut std::io::sink())),
    }
    Ok(0)
}
