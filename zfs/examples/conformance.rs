//! Runs the conformance cases against a real pool: `conformance cli|tables|lzc|fake ROOT [--full] [CASE..]`.
//!
//! `tables` is `cli` as with tools before 2.3. ROOT is a dataset that may be worked in (for the fake, a pool's name);
//! it is made if it is missing. `lzc` and `tables` run what they do otherwise than `cli`, unless `--full` or cases are
//! given. Prints one line per case and a closing one; the exit status is 1 when a case failed and 2 when none could be run.

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cryopod_zfs::{CreateRequest, DatasetName, Fake, Limits, Properties, Zfs, conformance, open, open_cli};

/// The argument with which this program starts itself to be killed.
const HOLD_AND_DIE: &str = "hold-and-die";
const TAG: &str = "dies-with-its-process";

fn hold_and_die(snapshot: &str) -> Result<(), Box<dyn std::error::Error>> {
    let limits = Limits::within(Duration::from_secs(60));
    let zfs = open(&limits)?;
    let snapshot = snapshot.parse()?;
    let hold = zfs.hold_while(std::slice::from_ref(&snapshot), &TAG.parse()?, &limits)?;
    if zfs.holds(&snapshot, &limits)?.is_empty() {
        return Err("the hold is not there while its process lives".into());
    }
    // As with kill -9: no destructor runs.
    std::mem::forget(hold);
    std::process::abort()
}

/// What no case within one process can show, and only libzfs_core can do.
fn a_temporary_hold_dies_with_its_process(
    zfs: &dyn Zfs,
    root: &DatasetName,
    limits: &Limits,
) -> Result<(), Box<dyn std::error::Error>> {
    let dataset = root.child("hold-and-die")?;
    zfs.create(&CreateRequest::filesystem(&dataset, Properties::new()), limits)?;
    let snapshot = dataset.snapshot("s")?;
    zfs.snapshot_set(std::slice::from_ref(&snapshot), &Properties::new(), limits)?;
    let child = std::process::Command::new(std::env::current_exe()?)
        .args([HOLD_AND_DIE, snapshot.as_str()])
        .stderr(std::process::Stdio::piped())
        .output()?;
    if child.status.code().is_some() {
        return Err(format!("it did not die: {}", String::from_utf8_lossy(&child.stderr)).into());
    }
    if !zfs.holds(&snapshot, limits)?.is_empty() {
        return Err("the hold outlived its process".into());
    }
    Ok(zfs.destroy(&dataset, true, limits)?)
}

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
    if let [HOLD_AND_DIE, snapshot] = args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        hold_and_die(snapshot)?;
    }
    let [backend, root, wanted @ ..] = args else {
        return Err("usage: conformance cli|tables|lzc|fake ROOT [--full] [CASE..]".into());
    };
    let full = wanted.iter().any(|word| word == "--full");
    let wanted: Vec<&String> = wanted.iter().filter(|word| *word != "--full").collect();
    let root: DatasetName = root.parse()?;
    let limits = Limits::within(Duration::from_secs(60));
    let zfs: Arc<dyn Zfs> = match backend.as_str() {
        "cli" => Arc::new(open_cli(&limits)?),
        "tables" => Arc::new(open_cli(&limits)?.reading_tables()),
        "lzc" => open(&limits)?,
        "fake" => Arc::new(Fake::new(&[root.pool().as_str()])?),
        other => return Err(format!("no backend {other:?}: cli, tables, lzc or fake").into()),
    };
    if backend != "tables" && zfs.backend() != backend {
        return Err(format!("the backend {backend} is not available, only {}", zfs.backend()).into());
    }
    if !root.is_pool_root() {
        zfs.create(&CreateRequest::filesystem(&root, Properties::new()).with_parents(), &limits)?;
    }
    let (mut passed, mut failed) = (0, 0);
    let mut out = std::io::stdout();
    if backend == "lzc" && wanted.is_empty() {
        a_temporary_hold_dies_with_its_process(zfs.as_ref(), &root, &limits)?;
        passed += 1;
        writeln!(out, "ok a_temporary_hold_dies_with_its_process")?;
    }
    let all = conformance::cases();
    let total = all.len();
    let cases = if wanted.is_empty() && !full {
        conformance::cases_of_its_own(backend)
    } else {
        all.into_iter()
            .filter(|case| wanted.is_empty() || wanted.iter().any(|name| *name == case.name))
            .collect()
    };
    if wanted.is_empty() && cases.len() < total {
        let rest = total - cases.len();
        writeln!(out, "left out (run with --full): {rest} cases in which {backend} does what cli does")?;
    }
    for case in cases {
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
