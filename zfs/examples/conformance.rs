//! Runs the conformance cases against a real pool: `conformance cli|lzc|fake ROOT [CASE..]`.
//!
//! ROOT is a dataset that may be worked in (for the fake, a pool's name); it is made if it is missing. Prints one
//! line per case and a closing one; the exit status is 1 when a case failed and 2 when none could be run.

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cryopod_zfs::{CreateRequest, DatasetName, Fake, Limits, Properties, Zfs, conformance, open, open_cli};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("conformance: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(args: &[String]) -> Result<bool, Box<dyn std::error::Error>> {
    let [backend, root, wanted @ ..] = args else {
        return Err("usage: conformance cli|lzc|fake ROOT [CASE..]".into());
    };
    let root: DatasetName = root.parse()?;
    let limits = Limits::within(Duration::from_secs(60));
    let zfs: Arc<dyn Zfs> = match backend.as_str() {
        "cli" => Arc::new(open_cli(&limits)?),
        "lzc" => open(&limits)?,
        "fake" => Arc::new(Fake::new(&[root.pool().as_str()])?),
        other => return Err(format!("no backend {other:?}: cli, lzc or fake").into()),
    };
    if zfs.backend() != backend {
        return Err(format!("the backend {backend} is not available, only {}", zfs.backend()).into());
    }
    if !root.is_pool_root() {
        zfs.create(&CreateRequest::filesystem(&root, Properties::new()).with_parents(), &limits)?;
    }
    let (mut passed, mut failed) = (0, 0);
    let mut out = std::io::stdout();
    for case in conformance::cases() {
        if !wanted.is_empty() && !wanted.iter().any(|name| name == case.name) {
            continue;
        }
        let started = Instant::now();
        match conformance::run(&case, zfs.as_ref(), &root) {
            Ok(()) => {
                passed += 1;
                writeln!(out, "ok {} ({} ms)", case.name, started.elapsed().as_millis())?;
            }
            Err(failure) => {
                failed += 1;
                writeln!(out, "FAILED {}: {failure}", case.name)?;
            }
        }
        out.flush()?;
    }
    writeln!(out, "{passed} passed, {failed} failed")?;
    Ok(failed == 0 && passed > 0)
}
