//! What a program's results with both runtimes say about ours: the rule of the suite, without any effect.
//!
//! What passes with runc has to pass with ours, what is skipped there must not fail here, what fails there binds us to
//! nothing, and of a program that itself fails there, no result does. Exceptions are committed one by one, with a reason that a user accepts; one that is not needed any more fails.

use serde::Deserialize;

use super::tap::{PROGRAM, Report, Verdict};
use crate::suite::Failure;

const EXCEPTIONS: &str = include_str!("../../../oci-validation/exceptions.json");

/// A result that may be worse with ours.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Exception {
    /// The program.
    pub(super) program: String,
    /// The name of the result.
    pub(super) result: String,
    /// Why, for the table.
    pub(super) reason: String,
}

/// The committed ones.
pub(super) fn exceptions() -> Result<Vec<Exception>, Failure> {
    serde_json::from_str(EXCEPTIONS).map_err(|e| format!("e2e/oci-validation/exceptions.json: {e}"))
}

/// Whether anything of a program passes with runc. That it ends well says something where it has no other result.
pub(super) fn binds(stock: &Report) -> bool {
    let passed = |name: &String| stock[name].verdict == Verdict::Passed;
    stock.keys().filter(|name| stock.len() == 1 || *name != PROGRAM).any(passed)
}

/// Results that are worse with ours, each with what was said about it.
pub(super) fn worse(stock: &Report, ours: &Report) -> Vec<(String, String)> {
    let mut worse = Vec::new();
    if stock.get(PROGRAM).is_some_and(|own| own.verdict == Verdict::Failed) {
        return worse;
    }
    for (name, finding) in stock {
        let mine = ours.get(name);
        let verdict = mine.map(|mine| mine.verdict);
        let acceptable = match finding.verdict {
            Verdict::Passed => verdict == Some(Verdict::Passed),
            Verdict::Skipped => verdict != Some(Verdict::Failed),
            Verdict::Failed => true,
        };
        if !acceptable {
            let note = mine.map_or("it was not reached", |mine| &mine.note);
            worse.push((name.clone(), note.to_owned()));
        }
    }
    // A failure names itself by its error; where runc fails at all, it may be the same one in other words.
    if stock.values().all(|finding| finding.verdict != Verdict::Failed) {
        let new =
            ours.iter().filter(|(name, mine)| mine.verdict == Verdict::Failed && !stock.contains_key(*name));
        worse.extend(new.map(|(name, mine)| (name.clone(), mine.note.clone())));
    }
    worse
}

/// Whether ours does what the rule and the exceptions of `program` ask for.
pub(super) fn judge(
    program: &str,
    stock: &Report,
    ours: &Report,
    exceptions: &[Exception],
) -> Result<(), Failure> {
    let of_program = |e: &&Exception| e.program == program;
    let mut complaints = Vec::new();
    for (name, note) in worse(stock, ours) {
        if !exceptions.iter().filter(of_program).any(|exception| exception.result == name) {
            complaints.push(format!("{name:?} does not pass as with runc: {note}"));
        }
    }
    for exception in exceptions.iter().filter(of_program) {
        if ours.get(&exception.result).is_some_and(|mine| mine.verdict == Verdict::Passed) {
            complaints.push(format!("{:?} passes: its exception is not needed any more", exception.result));
        }
    }
    if complaints.is_empty() { Ok(()) } else { Err(complaints.join("\n")) }
}

#[cfg(test)]
mod tests {
    use super::super::tap::Finding;
    use super::*;

    fn report(results: &[(&str, Verdict)]) -> Report {
        let finding = |verdict| Finding { verdict, note: String::new() };
        results.iter().map(|(name, verdict)| ((*name).to_owned(), finding(*verdict))).collect()
    }

    fn names(stock: &[(&str, Verdict)], ours: &[(&str, Verdict)]) -> Vec<String> {
        worse(&report(stock), &report(ours)).into_iter().map(|(name, _)| name).collect()
    }

    use Verdict::{Failed, Passed, Skipped};

    #[test]
    fn what_passes_with_runc_has_to_be_reached_and_to_pass() {
        assert!(names(&[("a", Passed)], &[("a", Passed)]).is_empty());
        assert_eq!(names(&[("a", Passed)], &[("a", Failed)]), ["a"]);
        assert_eq!(names(&[("a", Passed)], &[("a", Skipped)]), ["a"]);
        assert_eq!(names(&[("a", Passed)], &[]), ["a"]);
    }

    #[test]
    fn what_runc_skips_must_not_fail_and_what_it_fails_binds_nobody() {
        assert!(names(&[("a", Skipped)], &[]).is_empty());
        assert_eq!(names(&[("a", Skipped)], &[("a", Failed)]), ["a"]);
        assert!(names(&[("a", Failed)], &[("a", Failed)]).is_empty());
    }

    #[test]
    fn a_failure_that_runc_does_not_have_counts_unless_runc_fails_in_words_of_its_own() {
        assert_eq!(names(&[("a", Passed)], &[("a", Passed), ("exit status 1", Failed)]), ["exit status 1"]);
        assert!(names(&[("exit status 2", Failed)], &[("exit status 1", Failed)]).is_empty());
    }

    #[test]
    fn a_program_that_fails_with_runc_binds_nobody() {
        assert!(names(&[(PROGRAM, Failed), ("a", Passed)], &[(PROGRAM, Passed)]).is_empty());
        assert_eq!(names(&[(PROGRAM, Passed)], &[(PROGRAM, Failed)]), [PROGRAM]);
    }

    #[test]
    fn only_a_program_with_something_that_passes_can_be_compared() {
        assert!(binds(&report(&[(PROGRAM, Passed)])));
        assert!(!binds(&report(&[(PROGRAM, Passed), ("a", Failed)])));
        assert!(binds(&report(&[(PROGRAM, Failed), ("a", Passed)])));
    }

    #[test]
    fn an_exception_is_for_one_result_and_only_while_it_fails() {
        let exceptions = [Exception { program: "p".into(), result: "a".into(), reason: "why".into() }];
        let passed = report(&[("a", Passed)]);
        let failed = report(&[("a", Failed)]);
        assert!(judge("p", &passed, &failed, &exceptions).is_ok());
        assert!(judge("q", &passed, &failed, &exceptions).is_err());
        assert!(judge("p", &passed, &passed, &exceptions).is_err());
    }

    #[test]
    fn the_committed_exceptions_have_reasons() {
        assert!(exceptions().is_ok_and(|all| all.iter().all(|exception| !exception.reason.is_empty())));
    }
}
