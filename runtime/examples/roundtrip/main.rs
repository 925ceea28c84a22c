//! Runs the OCI backend on a real node: create, exec, pause, signals, limits, dump in an instant with a ZFS snapshot,
//! restore from a clone, and what happens when a dump or restore fails. Needs root, ZFS, CRIU and busybox.
//!
//! `cargo build --example roundtrip`, then in the node: `roundtrip POOL [crun|runc]…`. Prints one line per check and
//! ends with `roundtrip: ok`; the first failed check ends it with status 1.

mod checks;
mod node;
mod pod;
mod terminal;

use std::process::ExitCode;

use cryopod_runtime::criu::hook;

/// Anything that went wrong; the words go to stderr.
pub(crate) type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    if hook::is_hook() {
        return ExitCode::from(u8::try_from(hook::main()).unwrap_or(1));
    }
    let mut arguments = std::env::args().skip(1);
    let Some(pool) = arguments.next() else {
        eprintln!("usage: roundtrip POOL [crun|runc]...");
        return ExitCode::from(2);
    };
    let mut runtimes: Vec<String> = arguments.collect();
    if runtimes.is_empty() {
        runtimes = vec!["crun".into(), "runc".into()];
    }
    for runtime in runtimes {
        println!("== {runtime}");
        if let Err(error) = all(&pool, &runtime) {
            eprintln!("roundtrip: {runtime}: {error}");
            return ExitCode::FAILURE;
        }
    }
    println!("roundtrip: ok");
    ExitCode::SUCCESS
}

fn all(pool: &str, runtime: &str) -> Outcome {
    // ROUNDTRIP_ONLY=terminal runs that part alone.
    let only = std::env::var("ROUNDTRIP_ONLY").unwrap_or_default();
    let wanted = |part: &str| only.is_empty() || only == part;
    if wanted("life") {
        checks::all(pool, runtime)?;
    }
    if wanted("pod") {
        pod::all(pool, runtime)?;
    }
    if wanted("terminal") {
        terminal::all(pool, runtime)?;
    }
    Ok(())
}
