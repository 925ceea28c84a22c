//! The cryopod command: containers without a daemon, checkpoints of them and of running pods, and the store.
//!
//! Called by the name `cryopod-hook` it is the program that CRIU runs when a dump reaches its one instant; that is
//! decided before the command line is read, since CRIU gives none.

#[cfg(test)]
mod advice;
mod args;
mod backend;
mod context;
mod doctor;
mod error;
mod exit;
mod output;
mod pods;
mod select;
mod settling;
mod signals;
mod standalone;
mod sys;
mod verb;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;
use cryopod_checkpoint::audit::{self, Actor};
use cryopod_runtime::criu::hook;

use args::{Cli, LogLevel};
use context::Context;
use error::Error;
use output::{FailureReport, Format, Output};
use signals::Signals;

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    if is_hook(words.first()) {
        return ExitCode::from(u8::try_from(hook::main()).unwrap_or(1));
    }
    match backend::asked(&words) {
        backend::Asked::Own => {}
        backend::Asked::Lxc(words) => {
            eprintln!("cryopod: {}", backend::become_lxc(words));
            return ExitCode::from(exit::USAGE);
        }
        backend::Asked::Unknown(name) => {
            eprintln!(
                "cryopod: --backend {name}: the only one is lxc; crun and runc are chosen by the configuration"
            );
            return ExitCode::from(exit::USAGE);
        }
    }
    let cli = match Cli::try_parse_from(&words) {
        Ok(cli) => cli,
        Err(error) => return ExitCode::from(usage(&error, &words)),
    };
    ExitCode::from(run(cli))
}

/// CRIU calls a link to us by its path.
fn is_hook(program: Option<&OsString>) -> bool {
    program.and_then(|path| Path::new(path).file_name()).is_some_and(|name| name == hook::NAME)
}

fn run(cli: Cli) -> u8 {
    let form = if cli.verb.wants_json() { Format::Json } else { cli.global.output };
    let output = Output::new(form, cli.global.no_color);
    log(cli.global.log_level, output.is_json());
    let outcome = Signals::install().and_then(|signals| Context::new(cli.global, output, signals)).and_then(
        |context| {
            audit::begin(&context.audit_dir(), Actor::this("cryopod"));
            verb::dispatch(&context, &cli.verb)
        },
    );
    match outcome {
        Ok(code) => code,
        // Whoever read our output has what it wanted.
        Err(Error::Stdout(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => exit::CLOSED_PIPE,
        Err(error) => {
            output.failure(&error.report());
            if verb::speaks_for_a_process(&cli.verb) { exit::NO_PROCESS } else { exit::code(error.kind()) }
        }
    }
}

/// Reports what clap found; help and version are results and no errors.
fn usage(error: &clap::Error, words: &[OsString]) -> u8 {
    let wants_help = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    if wants_help || !asks_for_json(words) {
        // Nobody is left to tell when the terminal is gone.
        error.print().ok();
    } else {
        let message = error.render().to_string();
        let report = FailureReport {
            kind: "usage".into(),
            code: None,
            message: message.trim().to_owned(),
            advice: None,
        };
        Output::new(Format::Json, true).failure(&report);
    }
    if wants_help { exit::OK } else { exit::USAGE }
}

/// The command line could not be read, so this looks for the option alone.
fn asks_for_json(words: &[OsString]) -> bool {
    let words: Vec<&str> = words.iter().filter_map(|word| word.to_str()).collect();
    let pairs = words.windows(2).any(|pair| matches!(pair, ["-o" | "--output", "json"]));
    pairs || words.iter().any(|word| matches!(*word, "-ojson" | "-o=json" | "--output=json"))
}

/// Logs go to standard error; in JSON nothing does unless it is asked for, so that an error is the only thing there.
fn log(level: Option<LogLevel>, json: bool) {
    let level = level.unwrap_or(if json { LogLevel::Off } else { LogLevel::Warn });
    let filter = tracing_subscriber::EnvFilter::new(level.directive());
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter).with_ansi(false).init();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hook_is_known_by_its_name_however_it_is_called() {
        for name in ["cryopod-hook", "/run/cryopod/cryopod-hook", "./cryopod-hook"] {
            assert!(is_hook(Some(&name.into())), "{name}");
        }
        for name in ["cryopod", "/cryopod-hook/cryopod", "cryopod-hook2"] {
            assert!(!is_hook(Some(&name.into())), "{name}");
        }
    }

    #[test]
    fn json_is_recognised_in_a_command_line_that_cannot_be_read() {
        let words = |line: &str| line.split(' ').map(OsString::from).collect::<Vec<_>>();
        assert!(asks_for_json(&words("cryopod -o json nonsense")));
        assert!(asks_for_json(&words("cryopod nonsense --output=json")));
        assert!(!asks_for_json(&words("cryopod -o text json")));
    }
}
