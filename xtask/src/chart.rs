//! The files of the chart that are made from something else: definitions from the agent's types, copies of alerts and
//! dashboard (Helm reads nothing outside of a chart), the table of values in its README. `cargo xtask docs --write` writes
//! them, the suite `chart` fails when one is not what it would write.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use crate::stream;

const CHART: &str = "charts/cryopod";
const FROM: &str = "<!-- values: written by `cargo xtask docs --write` from values.yaml -->\n";
const TO: &str = "<!-- end of values -->";
/// Files of the repository and their copies in the chart.
const COPIES: &[(&str, &str)] = &[
    ("deploy/prometheus/alerts.yaml", "files/alerts.yaml"),
    ("deploy/grafana/cryopod.json", "files/dashboard.json"),
];

/// Path in the repository and text of each file.
pub(crate) fn files(root: &Path, until: Instant) -> Result<Vec<(String, String)>, String> {
    let read = |path: &str| fs::read_to_string(root.join(path)).map_err(|error| format!("{path}: {error}"));
    let mut files = definitions(root, until)?;
    for (from, to) in COPIES {
        files.push((format!("{CHART}/{to}"), read(from)?));
    }
    let readme = format!("{CHART}/README.md");
    let text = with_values(&read(&readme)?, &table(&read(&format!("{CHART}/values.yaml"))?))?;
    files.push((readme, text));
    Ok(files)
}

/// The definitions as the agent prints them, a file each.
fn definitions(root: &Path, until: Instant) -> Result<Vec<(String, String)>, String> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root).args(["run", "--quiet", "--package", "cryopod-agent", "--", "crds"]);
    let mut text = String::new();
    let end = stream::stream_stdout(cargo, until, |line| {
        text.push_str(line);
        text.push('\n');
    });
    end.map_err(|error| format!("cannot start cargo: {error}"))?.good()?;
    let named = text.split("---\n").filter(|part| !part.trim().is_empty()).map(|definition| {
        let name = definition.lines().find_map(|line| line.strip_prefix("  name: "));
        let plural = name.and_then(|name| name.split('.').next()).ok_or("a definition without a name")?;
        Ok((format!("{CHART}/files/crds/{plural}.yaml"), definition.to_owned()))
    });
    named.collect()
}

/// The README with the table in its place.
fn with_values(readme: &str, table: &str) -> Result<String, String> {
    let (before, rest) =
        readme.split_once(FROM).ok_or("charts/cryopod/README.md has no place for the values")?;
    let (_, after) =
        rest.split_once(TO).ok_or("charts/cryopod/README.md: the place for the values has no end")?;
    Ok(format!("{before}{FROM}\n{table}\n{TO}{after}"))
}

/// Keys with a comment `# --`, their defaults and the comment, as a table.
fn table(values: &str) -> String {
    let mut rows = String::from("| value | default | meaning |\n|---|---|---|\n");
    let mut path: Vec<(usize, String)> = Vec::new();
    let mut comment: Option<String> = None;
    let mut lines = values.lines().peekable();
    while let Some(line) = lines.next() {
        let text = line.trim_start();
        let indent = line.len() - text.len();
        if let Some(begun) = text.strip_prefix("# -- ") {
            comment = Some(begun.to_owned());
        } else if let Some(more) = text.strip_prefix("# ") {
            if let Some(comment) = &mut comment {
                comment.push(' ');
                comment.push_str(more);
            }
        } else if let Some((key, value)) = text.split_once(':').filter(|(key, _)| !key.starts_with('-')) {
            path.retain(|(at, _)| *at < indent);
            path.push((indent, key.to_owned()));
            if let Some(meaning) = comment.take() {
                let name = path.iter().map(|(_, key)| key.as_str()).collect::<Vec<_>>().join(".");
                let default = match value.trim() {
                    // What follows, one level deeper, belongs to it.
                    "" => block(&mut lines, indent),
                    plain => plain.to_owned(),
                };
                rows.push_str(&format!("| `{name}` | `{default}` | {meaning} |\n"));
            }
        }
    }
    rows
}

/// A nested value in one line.
fn block<'a>(lines: &mut std::iter::Peekable<impl Iterator<Item = &'a str>>, indent: usize) -> String {
    let mut parts = Vec::new();
    while let Some(line) = lines.peek() {
        let text = line.trim_start();
        if text.is_empty() || text.starts_with('#') || line.len() - text.len() <= indent {
            break;
        }
        parts.push(text.to_owned());
        lines.next();
    }
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_named_by_its_path_with_its_default_and_its_comment() {
        let values = "# -- Image.\nimage: x\na:\n  # -- Deep,\n  # and long.\n  b: 1\n  # -- Block.\n  c:\n    - d: 2\n      e: 3\n  f: 4\n";
        let rows: Vec<String> = table(values).lines().skip(2).map(str::to_owned).collect();
        assert_eq!(
            rows,
            [
                "| `image` | `x` | Image. |",
                "| `a.b` | `1` | Deep, and long. |",
                "| `a.c` | `- d: 2; e: 3` | Block. |"
            ]
        );
    }

    #[test]
    fn the_table_is_put_in_its_place() {
        let readme = format!("# A\n{FROM}old{TO}\nend\n");
        assert_eq!(with_values(&readme, "new").unwrap(), format!("# A\n{FROM}\nnew\n{TO}\nend\n"));
        assert!(with_values("# A\n", "new").is_err());
    }
}
