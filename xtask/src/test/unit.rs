//! The suite `unit`: formatting, lints and cargo's tests of the whole workspace, on this host.

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

/// Runs it until `until`.
pub(super) fn suite(until: Instant) -> Outcome {
    let mut outcome = Outcome::default();
    for (name, arguments) in CHECKS {
        println!("{name}");
        let began = Instant::now();
        let result = shown(cargo(arguments), until);
        println!("{name}: {} in {}", verdict(result.is_ok()), closing::clock(began.elapsed()));
        outcome.check(name, result);
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
