//! The suite `unit`: formatting, lints and cargo's tests of the whole workspace, and that the fuzz targets fit it, on this
//! host.

use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use super::outcome::{Outcome, Reader};
use super::{closing, shown};
use crate::{repository, stream};

/// Each counts as one check.
const CHECKS: &[(&str, &[&str])] = &[
    ("cargo fmt --all --check", &["fmt", "--all", "--check", "--", "--color", "never"]),
    (
        "cargo clippy --workspace --all-targets -- -D warnings",
        &["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"],
    ),
];

/// Crates with fuzz targets: workspaces of their own, which `--workspace` does not see.
const FUZZ: &[&str] = &["checkpoint/fuzz", "shim/fuzz", "zfs/fuzz"];

/// Runs it until `until`.
pub(super) fn suite(until: Instant) -> Outcome {
    let mut outcome = Outcome::default();
    for (name, arguments) in CHECKS {
        check(name, cargo(arguments), until, &mut outcome);
    }
    for folder in FUZZ {
        let manifest = format!("{folder}/Cargo.toml");
        let name = format!("cargo check --manifest-path {manifest}");
        let mut cargo =
            cargo(&["check", "--quiet", "--locked", "--manifest-path", &manifest, "--target-dir"]);
        cargo.arg(target_folder());
        // The fuzzer itself, which is C++, is linked only by cargo fuzz.
        cargo.env("CUSTOM_LIBFUZZER_PATH", "/nonexistent/libfuzzer.a");
        check(&name, cargo, until, &mut outcome);
    }
    let name = "cargo test --workspace --no-fail-fast";
    println!("{name}");
    let began = Instant::now();
    let mut reader = Reader::default();
    let end = stream::stream(cargo(&["test", "--workspace", "--no-fail-fast"]), until, |line| {
        reader.line(line);
        if interesting(line) {
            println!("{line}");
        }
    });
    let tests = match end {
        Ok(end) => reader.cargo_test(end),
        Err(error) => Outcome::broken(format!("cannot start cargo: {error}")),
    };
    println!("{name}: {} in {}", verdict(tests.failed == 0), closing::clock(began.elapsed()));
    outcome.add(tests);
    outcome
}

fn check(name: &str, command: Command, until: Instant, outcome: &mut Outcome) {
    println!("{name}");
    let began = Instant::now();
    let result = shown(command, until);
    println!("{name}: {} in {}", verdict(result.is_ok()), closing::clock(began.elapsed()));
    outcome.check(name, result);
}

/// Where the workspace is built, so that its dependencies are not built again.
fn target_folder() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository::root().join("target"), PathBuf::from)
}

fn verdict(good: bool) -> &'static str {
    if good { "ok" } else { "FAILED" }
}

/// Over a thousand passed tests and empty doc test runs say nothing.
fn interesting(line: &str) -> bool {
    let noise = line.is_empty()
        || (line.starts_with("test ") && line.ends_with("... ok"))
        || line.starts_with("running ")
        || line.starts_with("test result: ok. 0 passed");
    !noise
}

fn cargo(arguments: &[&str]) -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(repository::root()).args(arguments);
    cargo
}
