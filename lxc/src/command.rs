//! `cryopod-lxc`: the command line of an OCI runtime, as runc has it, so that containerd, podman and CRI-O can call it.

mod args;
mod cgroup;
mod create;
mod exec;
mod log;
mod show;

use std::process::ExitCode;

use clap::Parser;

use crate::operate;
use crate::state::Container;
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
    match &cli.verb {
        Verb::Create(args) => create::create(&cli.global, args).map(|_| ())?,
        Verb::Run(args) => return create::run(&cli.global, args),
        Verb::Start { id } => operate::start(&find(id)?)?,
        Verb::State { id } => show::state(&find(id)?)?,
        Verb::Kill { all, id, signal } => operate::kill(&find(id)?, signal.0, *all)?,
        Verb::Delete { force, id } => match find(id) {
            Ok(container) => operate::delete(&container, *force)?,
            // What is gone is removed.
            Err(crate::state::Error::Missing(_)) if *force => {}
            Err(error) => return Err(error.into()),
        },
        Verb::Pause { id } => operate::freeze(&find(id)?, true)?,
        Verb::Resume { id } => operate::freeze(&find(id)?, false)?,
        Verb::Update { resources, id } => {
            let text = if resources == "-" {
                std::io::read_to_string(std::io::stdin())?
            } else {
                std::fs::read_to_string(resources)?
            };
            operate::update(&find(id)?, &serde_json::from_str(&text)?)?;
        }
        Verb::Exec(args) => return exec::exec(&cli.global, args),
        Verb::Ps { format, id } => show::processes(&find(id)?, *format)?,
        Verb::List { format, quiet } => show::list(&cli.global.root, *format, *quiet)?,
        Verb::Features => show::features()?,
        Verb::Launch { name, path, init, arguments } => crate::launch::run(name, path, *init, arguments)?,
    }
    Ok(0)
}
