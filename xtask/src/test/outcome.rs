//! What a suite came to, read from what it printed.
//!
//! A suite must say how it ended: `N passed, N failed` as a line of its own. One that does not, or whose exit code says
//! otherwise, has failed, whatever it printed before.

use std::time::Duration;

use crate::stream::End;

/// What the line begins with that names something a default run leaves out.
const LEFT_OUT: &str = "left out (run with --full): ";

/// The result of one suite.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) passed: u64,
    pub(super) failed: u64,
    pub(super) time: Duration,
    /// The names of failed tests, and what went wrong outside of a test; each of the latter counts as failed.
    pub(super) failures: Vec<String>,
    /// What `--full` would add, and tests marked as ignored.
    pub(super) left_out: Vec<String>,
}

impl Outcome {
    /// One that could not be run at all.
    pub(super) fn broken(why: impl Into<String>) -> Self {
        let mut outcome = Self::default();
        outcome.fail(why);
        outcome
    }

    /// Adds a failure that is not a test's.
    pub(super) fn fail(&mut self, why: impl Into<String>) {
        self.failed += 1;
        self.failures.push(why.into());
    }

    /// Adds a check that passed or did not.
    pub(super) fn check(&mut self, name: &str, result: Result<(), String>) {
        match result {
            Ok(()) => self.passed += 1,
            Err(why) => self.fail(format!("{name}: {why}")),
        }
    }

    /// Takes in the counts and names of another.
    pub(super) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.failures.extend(other.failures);
        self.left_out.extend(other.left_out);
    }
}

/// Reads the output of a suite line by line.
#[derive(Debug, Default)]
pub(super) struct Reader {
    closing: Option<(u64, u64)>,
    /// Sum of the closing lines of Rust's own test harness.
    harness: Option<(u64, u64, u64)>,
    failures: Vec<String>,
    left_out: Vec<String>,
}

impl Reader {
    pub(super) fn line(&mut self, line: &str) {
        let line = line.trim();
        if let Some(counts) = closing(line) {
            self.closing = Some(counts);
        } else if let Some((passed, failed, ignored)) = harness(line) {
            let sum = self.harness.get_or_insert_default();
            *sum = (sum.0 + passed, sum.1 + failed, sum.2 + ignored);
        } else if let Some(what) = line.strip_prefix(LEFT_OUT) {
            self.left_out.push(what.to_owned());
        } else if let Some(name) = failed_test(line) {
            self.failures.push(name.to_owned());
        }
    }

    /// The outcome of a suite that has to print a closing line.
    pub(super) fn suite(self, end: End) -> Outcome {
        let counts = self.closing;
        let none = "it ended without its closing line `N passed, N failed`";
        self.outcome(end, counts, none)
    }

    /// The outcome of `cargo test`.
    pub(super) fn cargo_test(mut self, end: End) -> Outcome {
        let counts = self.harness.map(|(passed, failed, _)| (passed, failed));
        if let Some((_, _, ignored)) = self.harness.filter(|counts| counts.2 > 0) {
            self.left_out.push(format!("{ignored} tests marked #[ignore]"));
        }
        self.outcome(end, counts, "no test ran")
    }

    fn outcome(self, end: End, counts: Option<(u64, u64)>, none: &str) -> Outcome {
        let (passed, failed) = counts.unwrap_or_default();
        let mut outcome = Outcome {
            passed,
            failed,
            failures: self.failures,
            left_out: self.left_out,
            ..Outcome::default()
        };
        match (end, counts) {
            (End::TimedOut, _) => outcome.fail("its time was over before it ended"),
            (End::Interrupted, _) => outcome.fail("interrupted"),
            (End::Signalled(signal), _) => outcome.fail(format!("ended by signal {signal}")),
            (End::Exited(code), None) => outcome.fail(format!("{none}; exit code {code}")),
            (End::Exited(0), Some((0, 0))) => outcome.fail("it ran no test"),
            (End::Exited(0), Some(_)) => {}
            (End::Exited(code), Some((_, 0))) => {
                outcome.fail(format!("exit code {code}, though no test failed"));
            }
            (End::Exited(_), Some(_)) => {}
        }
        outcome
    }
}

/// `12 passed, 3 failed` and nothing else.
fn closing(line: &str) -> Option<(u64, u64)> {
    let (passed, failed) = line.split_once(" passed, ")?;
    Some((passed.parse().ok()?, failed.strip_suffix(" failed")?.parse().ok()?))
}

/// `test result: ok. 12 passed; 0 failed; 1 ignored; …`, as libtest and libtest-mimic print it.
fn harness(line: &str) -> Option<(u64, u64, u64)> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let count = |word: &str| {
        counts.split(';').find_map(|part| part.trim().strip_suffix(word)?.trim().parse::<u64>().ok())
    };
    Some((count("passed")?, count("failed")?, count("ignored")?))
}

/// `test some::name ... FAILED`.
fn failed_test(line: &str) -> Option<&str> {
    Some(line.strip_prefix("test ")?.strip_suffix("FAILED")?.trim_end().strip_suffix("...")?.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Reader {
        let mut reader = Reader::default();
        text.lines().for_each(|line| reader.line(line));
        reader
    }

    const E2E: &str = "
running 2 tests
test cryopod::exec ... ok
test cryopod::stop ... FAILED
test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 3.00s
left out (run with --full): 12 pairs
1 passed, 1 failed";

    #[test]
    fn the_closing_line_counts_and_failed_tests_are_named() {
        let outcome = read(E2E).suite(End::Exited(1));
        assert_eq!((outcome.passed, outcome.failed), (1, 1));
        assert_eq!(outcome.failures, ["cryopod::stop"]);
        assert_eq!(outcome.left_out, ["12 pairs"]);
    }

    #[test]
    fn a_suite_that_dies_before_its_closing_line_has_failed() {
        let cut = E2E.rsplit_once("1 passed, 1 failed").unwrap().0;
        assert_eq!(read(cut).suite(End::Exited(0)).failed, 1);
        assert_eq!(read(cut).suite(End::Exited(101)).failed, 1);
        assert_eq!(read("").suite(End::Signalled(9)).failed, 1);
    }

    #[test]
    fn one_that_was_stopped_has_failed_even_after_a_good_closing_line() {
        for end in [End::TimedOut, End::Interrupted, End::Signalled(11), End::Exited(1)] {
            let outcome = read("3 passed, 0 failed").suite(end);
            assert_eq!((outcome.passed, outcome.failed), (3, 1), "{end:?}");
        }
        assert_eq!(read("3 passed, 0 failed").suite(End::Exited(0)).failed, 0);
    }

    #[test]
    fn running_nothing_is_a_failure() {
        assert_eq!(read("0 passed, 0 failed").suite(End::Exited(0)).failed, 1);
        assert_eq!(read("error: could not compile").cargo_test(End::Exited(101)).failed, 1);
    }

    #[test]
    fn the_harness_lines_of_all_test_programs_are_summed() {
        let outcome = read(
            "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.1s
             test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.1s",
        )
        .cargo_test(End::Exited(101));
        assert_eq!((outcome.passed, outcome.failed), (15, 2));
        assert_eq!(outcome.left_out, ["1 tests marked #[ignore]"]);
    }

    #[test]
    fn a_line_that_only_looks_like_a_closing_line_is_none() {
        for line in ["12 passed, 3 failed today", "x passed, 3 failed", "I think 1 passed, 3 failed"] {
            assert_eq!(closing(line), None, "{line}");
        }
    }
}
