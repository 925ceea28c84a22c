//! What a run of a test says about us: the rule of the suite, without any effect.
//!
//! No test may do worse with our handlers than with containerd's own shim: what passes there has to pass here, what
//! is skipped there may be skipped here, and what fails there, or passes only sometimes, binds us to nothing.

use serde::{Deserialize, Serialize};

/// How one call of a test ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// All that it asks for held.
    Passed,
    /// It left itself out, with this reason.
    Skipped(String),
    /// It failed, with this message.
    Failed(String),
}

/// What a handler makes of a test, after repeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Standing {
    /// Passed at the first call.
    Passed,
    /// Failed at the first call and passed at every one of the repeats.
    Flaky,
    /// Left itself out.
    Skipped,
    /// Failed at the first call and again at a repeat.
    Failed,
}

/// How often a failed test is repeated.
pub(super) const REPEATS: usize = 2;

/// Sums up the calls of a test.
pub(super) fn standing(calls: &[Outcome]) -> Standing {
    match calls.split_first() {
        Some((Outcome::Passed, _)) => Standing::Passed,
        Some((Outcome::Skipped(_), _)) => Standing::Skipped,
        Some((Outcome::Failed(_), rest))
            if rest.len() == REPEATS && rest.iter().all(|o| *o == Outcome::Passed) =>
        {
            Standing::Flaky
        }
        _ => Standing::Failed,
    }
}

/// Whether `ours` is good enough where containerd's own shim stands at `stock`.
pub(super) fn acceptable(stock: Standing, ours: Standing) -> bool {
    match stock {
        Standing::Passed => matches!(ours, Standing::Passed | Standing::Flaky),
        Standing::Skipped => ours != Standing::Failed,
        Standing::Flaky | Standing::Failed => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed() -> Outcome {
        Outcome::Failed("why".into())
    }

    #[test]
    fn one_failure_among_passes_is_flaky_and_two_are_a_failure() {
        assert_eq!(standing(&[Outcome::Passed]), Standing::Passed);
        assert_eq!(standing(&[failed(), Outcome::Passed, Outcome::Passed]), Standing::Flaky);
        assert_eq!(standing(&[failed(), Outcome::Passed, failed()]), Standing::Failed);
        assert_eq!(standing(&[failed(), failed()]), Standing::Failed);
        assert_eq!(standing(&[failed(), Outcome::Passed]), Standing::Failed);
        assert_eq!(standing(&[]), Standing::Failed);
    }

    #[test]
    fn what_passes_with_the_stock_shim_must_neither_fail_nor_be_skipped() {
        assert!(acceptable(Standing::Passed, Standing::Passed));
        assert!(!acceptable(Standing::Passed, Standing::Skipped));
        assert!(!acceptable(Standing::Passed, Standing::Failed));
    }

    #[test]
    fn what_the_stock_shim_skips_must_not_fail() {
        assert!(acceptable(Standing::Skipped, Standing::Skipped));
        assert!(acceptable(Standing::Skipped, Standing::Passed));
        assert!(!acceptable(Standing::Skipped, Standing::Failed));
    }

    #[test]
    fn what_the_stock_shim_cannot_do_reliably_binds_nobody() {
        for stock in [Standing::Flaky, Standing::Failed] {
            assert!(acceptable(stock, Standing::Failed));
        }
    }
}
