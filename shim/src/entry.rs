//! What the binary does for each way of calling it.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use cryopod_runtime::criu::hook;

use cryopod_checkpoint::audit::{self, Actor};

use crate::args::{self, Invocation};
use crate::backends::Configured;
use crate::capture::settling;
use crate::sandbox::holder;
use crate::{delete, info, server, spawn, sys};

/// Runs the binary. Errors go to stderr, which containerd shows with the failed call.
pub fn main() -> ExitCode {
    if hook::is_hook() {
        // CRIU calls this binary during a dump.
        return if hook::main() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    if std::env::args_os().nth(1).is_some_and(|word| word == holder::ACTION) {
        return holder::main();
    }
    sys::tune_allocator();
    let invocation = match args::parse(std::env::args().skip(1), |name| std::env::var(name).ok()) {
        Ok(invocation) => invocation,
        Err(error) => return fail(&error),
    };
    audit::begin(Path::new(audit::DIR), Actor::this("containerd-shim-cryopod-v2"));
    match invocation {
        Invocation::Start(args) => end(spawn::start(&args)),
        Invocation::Serve(args) => end(server::serve(&args, Box::new(Configured::default()))),
        Invocation::Settle(args) => end(settling::run(&args)),
        Invocation::Delete(args) => end(delete::delete(&args)),
        Invocation::Info(args) => end(info::info(&args.namespace)),
        Invocation::Version => {
            let version =
                concat!("containerd-shim-cryopod-v2:\n  Version:  ", env!("CARGO_PKG_VERSION"), "\n");
            end(std::io::stdout().write_all(version.as_bytes()))
        }
    }
}

fn end<E: std::fmt::Display>(result: Result<(), E>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn fail(error: &dyn std::fmt::Display) -> ExitCode {
    writeln!(std::io::stderr(), "containerd-shim-cryopod-v2: {error}").ok();
    ExitCode::FAILURE
}
