//! What a validation program prints: TAP version 13, with one JSON object in each YAML block.
//!
//! ```text
//! ok 3 - `kill` operation MUST …          a result; `# SKIP why` in place of the name leaves it out
//!   ---
//!   { "error": "exit status 1", … }       belongs to the result above
//!   ...
//!   { "stdout": "TAP version 13\nok 1 …"} in such a block: what `runtimetest` found inside the container
//! # cgroupv2 is not supported yet         a remark on the result above
//! ```
//!
//! Numbers and order say nothing across runtimes, so a result is known by its name, the second of the same name by
//! `name (2)`; long numbers in it are random parts of paths. Programs for hooks print no result: an `error` in a block
//! without a result above is their failure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The name of the result that the program itself is: it ended, with exit code 0 and without an error of its own.
pub(super) const PROGRAM: &str = "the program ends well";
/// What names from inside of the container begin with.
const INSIDE: &str = "inside: ";

/// How one assertion ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    /// It held.
    Passed,
    /// It did not hold.
    Failed,
    /// It left itself out.
    Skipped,
}

/// A verdict and what was said about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Finding {
    /// The verdict.
    pub(super) verdict: Verdict,
    /// Error, remark or diagnostic block; empty where there was none.
    pub(super) note: String,
}

/// All results of one call of a program, by name.
pub(super) type Report = BTreeMap<String, Finding>;

/// Reads what a program printed; `code` is its exit code, `stderr` what it complained about.
pub(super) fn read(stdout: &str, code: i32, stderr: &str) -> Report {
    let mut reader = Reader::default();
    reader.text(stdout, "");
    let own = match (code, reader.orphan) {
        (0, None) => Finding { verdict: Verdict::Passed, note: String::new() },
        (0, Some(note)) => Finding { verdict: Verdict::Failed, note },
        (code, orphan) => {
            let said = orphan.unwrap_or_else(|| stderr.trim().to_owned());
            Finding { verdict: Verdict::Failed, note: format!("exit code {code}: {said}") }
        }
    };
    reader.report.insert(PROGRAM.to_owned(), own);
    reader.report
}

#[derive(Debug, Default)]
struct Reader {
    report: Report,
    /// The error of a block that belongs to no result.
    orphan: Option<String>,
}

impl Reader {
    fn text(&mut self, text: &str, prefix: &str) {
        let mut last: Option<String> = None;
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            if let Some((name, verdict)) = result(line) {
                last = Some(self.enter(format!("{prefix}{name}"), verdict));
            } else if line.trim() == "---" {
                let block: Vec<&str> = lines.by_ref().take_while(|line| line.trim() != "...").collect();
                self.block(&block.join("\n"), last.as_deref());
            } else if let Some(remark) = line.strip_prefix("# ") {
                self.note(last.as_deref(), remark);
            }
        }
    }

    fn enter(&mut self, name: String, verdict: Verdict) -> String {
        let name = (1..)
            .map(|n| if n == 1 { name.clone() } else { format!("{name} ({n})") })
            .find(|name| !self.report.contains_key(name))
            .unwrap_or(name);
        self.report.insert(name.clone(), Finding { verdict, note: String::new() });
        name
    }

    fn block(&mut self, text: &str, last: Option<&str>) {
        let Ok(block) = serde_json::from_str::<Value>(text) else {
            return self.note(last, text);
        };
        if let Some(inside) = block["stdout"].as_str().filter(|text| text.starts_with("TAP version")) {
            self.text(inside, INSIDE);
            return;
        }
        match (block["error"].as_str(), last) {
            (Some(error), None) => {
                let more = block["stderr"].as_str().unwrap_or_default();
                self.orphan = Some(format!("{error} {more}").trim().to_owned());
            }
            _ => self.note(last, &block.to_string()),
        }
    }

    fn note(&mut self, last: Option<&str>, text: &str) {
        let finding = last.and_then(|name| self.report.get_mut(name));
        if let Some(finding) = finding.filter(|finding| finding.verdict != Verdict::Passed) {
            finding.note = format!("{} {text}", finding.note).trim().to_owned();
        }
    }
}

/// Name and verdict of a line `ok N - name`, `not ok N - name` or `ok N # SKIP name`.
fn result(line: &str) -> Option<(String, Verdict)> {
    let (rest, held) = match line.strip_prefix("not ok ") {
        Some(rest) => (rest, false),
        None => (line.strip_prefix("ok ")?, true),
    };
    let name = rest.trim_start_matches(|c: char| c.is_ascii_digit()).trim_start();
    if let Some(left_out) = name.strip_prefix("# SKIP") {
        return Some((left_out.trim().to_owned(), Verdict::Skipped));
    }
    let name = without_random(name.strip_prefix('-').unwrap_or(name).trim());
    Some((name, if held { Verdict::Passed } else { Verdict::Failed }))
}

/// More digits than any number has that a spec or a program asks for.
const RANDOM: usize = 8;

fn without_random(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(at) = rest.find(|c: char| c.is_ascii_digit()) {
        let (before, from) = rest.split_at(at);
        let (digits, after) = from.split_at(from.find(|c: char| !c.is_ascii_digit()).unwrap_or(from.len()));
        out.push_str(before);
        out.push_str(if digits.len() < RANDOM { digits } else { "…" });
        rest = after;
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(report: &Report, name: &str) -> Option<Verdict> {
        report.get(name).map(|finding| finding.verdict)
    }

    #[test]
    fn results_are_known_by_name_and_keep_what_was_said_about_a_failure() {
        let text = "TAP version 13\nok 1 - a - b\nnot ok 2 - a - b\n  ---\n  {\n    \"error\": \"exit status 1\"\n  }\n  ...\n# no such thing\nok 3 # SKIP hostname not set\n1..3\n";
        let report = read(text, 0, "");
        assert_eq!(verdict(&report, "a - b"), Some(Verdict::Passed));
        assert_eq!(verdict(&report, "a - b (2)"), Some(Verdict::Failed));
        assert_eq!(report["a - b (2)"].note, "{\"error\":\"exit status 1\"} no such thing");
        assert_eq!(verdict(&report, "hostname not set"), Some(Verdict::Skipped));
        assert_eq!(verdict(&report, PROGRAM), Some(Verdict::Passed));
    }

    #[test]
    fn random_parts_of_a_name_do_not_tell_results_apart() {
        let report = read("ok 1 - does not expose \"/target3073366870/mount1\" 3 times\n", 0, "");
        assert_eq!(verdict(&report, "does not expose \"/target…/mount1\" 3 times"), Some(Verdict::Passed));
    }

    #[test]
    fn what_was_found_inside_of_the_container_counts_by_itself() {
        let text = "TAP version 13\n  ---\n  {\n    \"stdout\": \"TAP version 13\\nok 1 - root\\nnot ok 2 - mounts\\n  ---\\n  {\\n    \\\"actual\\\": 1\\n  }\\n  ...\\n\"\n  }\n  ...\nnot ok 1 - all\n1..1\n";
        let report = read(text, 0, "");
        assert_eq!(verdict(&report, "inside: root"), Some(Verdict::Passed));
        assert_eq!(report["inside: mounts"].note, "{\"actual\":1}");
        assert_eq!(verdict(&report, "all"), Some(Verdict::Failed));
    }

    #[test]
    fn a_program_without_results_fails_by_its_error() {
        let report =
            read("TAP version 13\n  ---\n  {\n    \"error\": \"hooks MUST run\"\n  }\n  ...\n1..0\n", 0, "");
        assert_eq!(report[PROGRAM], Finding { verdict: Verdict::Failed, note: "hooks MUST run".into() });
        let report = read("TAP version 13\n", 1, "no runtime\n");
        assert_eq!(report[PROGRAM].note, "exit code 1: no runtime");
    }
}
