//! `kubectl cryopod`: checkpoints, restores and schedules of pods, with what `kubectl` users expect of flags and output.
//!
//! Installed as `kubectl-checkpoint` and `kubectl-restore` too, it takes the verb from its name, and as
//! `kubectl_complete-cryopod` it answers kubectl's request for completions.

mod args;
mod client;
mod complete;
mod error;
mod follow;
mod labels;
mod output;
mod verb;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Cli, Verb};
use crate::client::Cluster;
use crate::error::Error;

fn main() -> ExitCode {
    let argv: Vec<String> = std::env::args().collect();
    if complete::is_asked(&argv) {
        return complete::answer(&argv);
    }
    let cli = Cli::parse_from(args::with_verb_of_name(argv));
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(source) => return fail(&Error::System { action: "begin", source }),
    };
    match runtime.block_on(run(cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn fail(error: &Error) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::from(error.code())
}

async fn run(cli: Cli) -> Result<(), Error> {
    if let Verb::Completion(completion) = &cli.verb {
        return complete::print(completion.shell);
    }
    let cluster = Cluster::connect(&cli.global).await?;
    let global = &cli.global;
    match cli.verb {
        Verb::Checkpoint(args) => verb::checkpoint::run(&cluster, global, &args).await,
        Verb::Restore(args) => verb::restore::run(&cluster, global, &args).await,
        Verb::Clone(args) => verb::restore::clone(&cluster, global, &args).await,
        Verb::List(args) => verb::list::run(&cluster, global, &args).await,
        Verb::Describe(args) => verb::describe::run(&cluster, &args).await,
        Verb::Delete(args) => verb::delete::run(&cluster, global, &args).await,
        Verb::Schedule(args) => verb::schedule::run(&cluster, global, &args.verb).await,
        Verb::Doctor => verb::doctor::run(&cluster, global).await,
        Verb::Completion(_) => Ok(()),
    }
}
