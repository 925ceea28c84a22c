//! Runs a list of tests in order and counts them.

use std::process::ExitCode;
use std::time::Instant;

use libtest_mimic::{Arguments, Conclusion, Trial};

/// Why a test failed, in words.
pub type Failure = String;

/// A list of tests and what was left out of it.
pub struct Suite {
    /// In the order in which they run.
    pub tests: Vec<Trial>,
    /// What `--full` would add, for the closing lines.
    pub left_out: Vec<String>,
}

/// One test.
pub fn test(name: impl Into<String>, body: impl FnOnce() -> Result<(), Failure> + Send + 'static) -> Trial {
    let name = name.into();
    let title = name.clone();
    Trial::test(name, move || {
        let start = Instant::now();
        let outcome = body();
        // At once: a long suite that is cut off would otherwise take the reason with it.
        match &outcome {
            Ok(()) => print!("{:.0} s ", start.elapsed().as_secs_f64()),
            Err(why) => println!("\n{title} failed after {:.0} s: {why}", start.elapsed().as_secs_f64()),
        }
        outcome.map_err(Into::into)
    })
}

/// Runs them one after the other and prints the closing line.
pub fn run(suite: Suite, filter: Option<String>) -> ExitCode {
    let arguments = Arguments { test_threads: Some(1), filter, ..Arguments::default() };
    let Conclusion { num_passed, num_failed, .. } = libtest_mimic::run(&arguments, suite.tests);
    for what in &suite.left_out {
        println!("left out (run with --full): {what}");
    }
    println!("{num_passed} passed, {num_failed} failed");
    // A filter that matches nothing must not look green.
    if num_failed == 0 && num_passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Fails the test unless `condition` holds.
pub fn ensure(condition: bool, message: impl FnOnce() -> String) -> Result<(), Failure> {
    if condition { Ok(()) } else { Err(message()) }
}
