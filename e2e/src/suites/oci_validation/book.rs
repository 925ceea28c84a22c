//! The table of a whole run, for people: `docs/reference/oci-validation.md`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use super::STOCK;
use super::judge::{Exception, worse};
use super::tap::{Report, Verdict};
use crate::suite::Failure;

/// Where a whole run leaves it, in the node.
const PATH: &str = "/var/lib/cryopod-e2e/oci-validation.md";

const HEAD: &str = "# OCI runtime validation

The validation programs of opencontainers/runtime-tools, each with runc and with `cryopod-lxc` in one run on the test node.
`cryopod-e2e oci-validation --full` writes this table. Numbers are results that passed, failed and were skipped,
those of `runtimetest` inside of the container included. The rule is that nothing that passes with runc fails with
`cryopod-lxc`. The programs for cgroups read version 1, which the node does not have; where nothing of them passes with
runc, they are not run with `cryopod-lxc`.

";

/// The results of this run, by program; ours are missing where there is nothing to compare.
#[derive(Debug, Default)]
pub(super) struct Book(BTreeMap<String, (Report, Option<Report>)>);

impl Book {
    /// Adds a program.
    pub(super) fn enter(&mut self, program: &str, stock: Report, ours: Option<Report>) {
        self.0.insert(program.to_owned(), (stock, ours));
    }

    /// Writes the table; called after each program, so that an interrupted run leaves what it has.
    pub(super) fn write(&self, exceptions: &[Exception]) -> Result<(), Failure> {
        // A fresh node has no such directory.
        let dir = Path::new(PATH).parent().unwrap_or(Path::new("/"));
        std::fs::create_dir_all(dir)
            .and_then(|()| std::fs::write(PATH, self.table(exceptions)))
            .map_err(|e| format!("{PATH}: {e}"))
    }

    fn table(&self, exceptions: &[Exception]) -> String {
        let mut out = format!(
            "{HEAD}| program | `{STOCK}` | `cryopod-lxc` | worse than with `{STOCK}` |\n|---|---|---|---|\n"
        );
        for (program, (stock, ours)) in &self.0 {
            let mine = ours.as_ref().map_or("not run".to_owned(), counts);
            let worse = ours.as_ref().map(|ours| worse(stock, ours)).unwrap_or_default();
            let worse: Vec<String> = worse
                .into_iter()
                .map(|(name, note)| {
                    let known = exceptions.iter().find(|e| e.program == *program && e.result == name);
                    let why =
                        known.map_or_else(|| note.replace('|', "\\|"), |e| format!("accepted: {}", e.reason));
                    format!("{name}: {why}")
                })
                .collect();
            // Writing to a String does not fail.
            _ = writeln!(out, "| `{program}` | {} | {mine} | {} |", counts(stock), worse.join("; "));
        }
        out
    }
}

/// `12 passed, 1 failed, 2 skipped`, without what there is none of.
fn counts(report: &Report) -> String {
    let of = |verdict| report.values().filter(|finding| finding.verdict == verdict).count();
    let parts = [("passed", Verdict::Passed), ("failed", Verdict::Failed), ("skipped", Verdict::Skipped)];
    let parts = parts.into_iter().map(|(word, verdict)| (word, of(verdict))).filter(|(_, count)| *count > 0);
    parts.map(|(word, count)| format!("{count} {word}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::super::tap;
    use super::*;

    #[test]
    fn the_table_shows_both_runtimes_and_what_is_worse() {
        let mut book = Book::default();
        let stock = tap::read("ok 1 - a\nok 2 - b\n", 0, "");
        let ours = tap::read("ok 1 - a\nnot ok 2 - b\n# no such thing\n", 0, "");
        book.enter("p", stock.clone(), Some(ours));
        book.enter("q", stock, None);
        let table = book.table(&[]);
        assert!(table.contains("| `p` | 3 passed | 2 passed, 1 failed | b: no such thing |"), "{table}");
        assert!(table.contains("| `q` | 3 passed | not run |  |"), "{table}");
    }
}
