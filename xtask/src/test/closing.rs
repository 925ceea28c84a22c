//! The closing report of a run: a table, what failed, what was left out, and one last plain line for machines.

use std::fmt::Write;
use std::time::Duration;

use super::outcome::Outcome;

const SHOWN: usize = 10;

/// The text; its last line is `N passed, N failed` over all suites.
pub(super) fn report(outcomes: &[(&str, Outcome)], total: Duration) -> String {
    let mut text = String::from("\nsuite         passed  failed    time\n");
    for (name, outcome) in outcomes {
        let Outcome { passed, failed, time, .. } = outcome;
        text.push_str(&format!("{name:<12} {passed:>7} {failed:>7} {:>7}\n", clock(*time)));
    }
    let mut section = |title: &str, items: &dyn Fn(&Outcome) -> Vec<String>| {
        let lines: Vec<String> = outcomes
            .iter()
            .flat_map(|(name, outcome)| {
                items(outcome).into_iter().map(move |item| format!("  {name}: {item}\n"))
            })
            .collect();
        if !lines.is_empty() {
            // Writing to a String does not fail.
            write!(text, "\n{title}\n{}", lines.concat()).ok();
        }
    };
    section("left out (run with --full):", &|outcome| shortened(&outcome.left_out));
    section("failed:", &|outcome| outcome.failures.clone());
    let passed: u64 = outcomes.iter().map(|(_, outcome)| outcome.passed).sum();
    let failed: u64 = outcomes.iter().map(|(_, outcome)| outcome.failed).sum();
    text.push_str(&format!("\nin {} minutes\n{passed} passed, {failed} failed\n", clock(total)));
    text
}

/// The first ones; each suite has printed all of its own above.
fn shortened(items: &[String]) -> Vec<String> {
    let mut lines: Vec<String> = items.iter().take(SHOWN).cloned().collect();
    if items.len() > SHOWN {
        lines.push(format!("and {} more, listed where the suite ends", items.len() - SHOWN));
    }
    lines
}

/// `3:07`.
pub(super) fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_sums_up_all_suites() {
        let good = Outcome { passed: 7, left_out: vec!["12 pairs".into()], ..Outcome::default() };
        let bad = Outcome::broken("its time was over before it ended");
        let text = report(&[("unit", good), ("oci", bad)], Duration::from_secs(67));
        assert_eq!(text.lines().last(), Some("7 passed, 1 failed"));
        assert!(text.contains("  unit: 12 pairs\n"), "{text}");
        assert!(text.contains("  oci: its time was over before it ended\n"), "{text}");
        assert_eq!(
            text.lines().filter(|line| line.ends_with("failed") && line.contains(" passed, ")).count(),
            1
        );
    }
}
