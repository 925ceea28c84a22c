//! What the run found out, and the files that a whole run leaves: the table for people, the expected results that the
//! fixed part is compared with, and all results, which a second run of some tests on the same node amends.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::judge::Standing;
use crate::suite::Failure;

/// Where a whole run leaves `critest.md`, `expected.json` and `results.json`, in the node.
pub(super) const RESULTS: &str = "/var/lib/cryopod-e2e/critest";
const EXPECTED: &str = include_str!("../../../critest/expected.json");

/// `expected.json`: how containerd's own shim stood on this node when it was last run in whole.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Expected {
    /// Full name of the test, and how it stood.
    pub(super) stock: BTreeMap<String, Standing>,
}

impl Expected {
    /// The committed one.
    pub(super) fn load() -> Result<Self, Failure> {
        serde_json::from_str(EXPECTED).map_err(|e| format!("e2e/critest/expected.json: {e}"))
    }
}

/// One cell of the table.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Entry {
    /// The result.
    pub(super) standing: Standing,
    /// Wall time of the first call.
    pub(super) seconds: f64,
    /// Why it was skipped or failed.
    pub(super) note: String,
}

/// All results of this run: test, handler, result.
#[derive(Debug, Default)]
pub(super) struct Book {
    entries: BTreeMap<String, BTreeMap<String, Entry>>,
}

impl Book {
    /// With what an earlier run on this node has found out.
    pub(super) fn resume() -> Self {
        let text = std::fs::read(format!("{RESULTS}/results.json")).ok();
        let entries = text.and_then(|text| serde_json::from_slice(&text).ok());
        Self { entries: entries.unwrap_or_default() }
    }

    /// Adds a result.
    pub(super) fn enter(&mut self, name: &str, handler: &str, entry: Entry) {
        self.entries.entry(name.to_owned()).or_default().insert(handler.to_owned(), entry);
    }

    /// How a handler stood, if it was run.
    pub(super) fn standing(&self, name: &str, handler: &str) -> Option<Standing> {
        Some(self.entries.get(name)?.get(handler)?.standing)
    }

    /// Writes both files; called after each test, so that an interrupted run leaves what it has.
    pub(super) fn write(&self, stock: &str, handlers: &[&str]) -> Result<(), Failure> {
        let expected = Expected {
            stock: self
                .entries
                .keys()
                .filter_map(|name| Some((name.clone(), self.standing(name, stock)?)))
                .collect(),
        };
        let json = serde_json::to_string_pretty(&expected).map_err(|e| e.to_string())?;
        let results = serde_json::to_string(&self.entries).map_err(|e| e.to_string())?;
        std::fs::create_dir_all(RESULTS).map_err(|e| format!("{RESULTS}: {e}"))?;
        let table = self.table(handlers);
        for (name, text) in [("critest.md", table), ("expected.json", json + "\n"), ("results.json", results)]
        {
            let path = format!("{RESULTS}/{name}");
            std::fs::write(&path, text).map_err(|e| format!("{path}: {e}"))?;
        }
        Ok(())
    }

    /// The table in Markdown.
    fn table(&self, handlers: &[&str]) -> String {
        let mut out = HEAD.to_owned();
        for row in ["passed", "flaky", "skipped", "failed", "minutes"] {
            _ = write!(out, "| {row} |");
            for handler in handlers {
                let all = self.entries.values().filter_map(|of| of.get(*handler));
                if row == "minutes" {
                    _ = write!(out, " {:.1} |", all.map(|e| e.seconds).fold(0.0, |sum, s| sum + s) / 60.0);
                } else {
                    _ = write!(out, " {} |", all.filter(|e| word(e.standing) == row).count());
                }
            }
            out.push('\n');
        }
        out.push_str("\n| test |");
        for handler in handlers {
            _ = write!(out, " `{handler}` |");
        }
        out.push_str("\n|---|");
        out.push_str(&"---|".repeat(handlers.len()));
        out.push('\n');
        for (name, of) in &self.entries {
            _ = write!(out, "| {} |", shorten(name));
            for handler in handlers {
                match of.get(*handler) {
                    Some(e) => _ = write!(out, " {}, {:.1} s |", word(e.standing), e.seconds),
                    None => out.push_str(" not run |"),
                }
            }
            out.push('\n');
        }
        let notes: Vec<String> = self
            .entries
            .iter()
            .flat_map(|(name, of)| of.iter().map(move |(handler, e)| (name, handler, e)))
            .filter(|(_, _, e)| e.standing != Standing::Passed)
            .map(|(name, handler, e)| {
                format!("* {}, `{handler}`, {}: {}\n", shorten(name), word(e.standing), first_line(&e.note))
            })
            .collect();
        if !notes.is_empty() {
            out.push_str("\n## Not simply passed\n\n");
            out.push_str(&notes.concat());
        }
        out
    }
}

const HEAD: &str = "# critest

The validation suite of cri-tools, whole, on the test node: containerd's own shim (`runc`: `io.containerd.runc.v2` and
runc) and cryopod with the sandbox in the shim (`cryopod`), in a pause container (`cryopod-pause`) and with LXC containers
(`cryopod-lxc`), all with the zfs snapshotter, in one run. `cryopod-e2e critest --full` writes this table; the node is usually emulated, so times compare
columns and nothing else.

*passed*: at the first call. *flaky*: failed at the first call and passed at both repeats. *skipped*: the test left
itself out. The rule is that nothing fails with cryopod that passes with containerd's own shim.

| | `runc` | `cryopod` | `cryopod-pause` | `cryopod-lxc` |
|---|---|---|---|---|
";

/// The word for it in the table.
pub(super) fn word(standing: Standing) -> &'static str {
    match standing {
        Standing::Passed => "passed",
        Standing::Flaky => "flaky",
        Standing::Skipped => "skipped",
        Standing::Failed => "failed",
    }
}

/// A test's name without the marks that nearly all have.
pub(super) fn shorten(name: &str) -> String {
    name.replace("[k8s.io] ", "").replace(" [Conformance]", "")
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_shows_each_handler_and_why_a_test_did_not_pass() {
        let mut book = Book::default();
        let entry = |standing, note: &str| Entry { standing, seconds: 1.25, note: note.into() };
        book.enter("[k8s.io] A b [Conformance]", "runc", entry(Standing::Passed, ""));
        book.enter("[k8s.io] A b [Conformance]", "cryopod", entry(Standing::Failed, "no answer\nmore"));
        let table = book.table(&["runc", "cryopod", "cryopod-pause", "cryopod-lxc"]);
        assert!(table.contains("| A b | passed, 1.2 s | failed, 1.2 s | not run | not run |"), "{table}");
        assert!(table.contains("| failed | 0 | 1 | 0 | 0 |"), "{table}");
        assert!(table.contains("* A b, `cryopod`, failed: no answer\n"), "{table}");
    }

    #[test]
    fn the_committed_expected_results_can_be_read() {
        assert!(Expected::load().is_ok());
    }
}
