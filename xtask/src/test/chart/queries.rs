//! Every query of the dashboard and of the alerts: promtool parses it, the metrics in it are in docs/reference/metrics.md, and what
//! that page names is what shim and agent say. Also what a dashboard owes to its reader, and that runbooks exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use cryopod_command::{Command, Limits};
use serde_json::{Value, json};

const DASHBOARD: &str = "deploy/grafana/cryopod.json";
const ALERTS: &str = "deploy/prometheus/alerts.yaml";
const REFERENCE: &str = "docs/reference/metrics.md";
/// Where metrics are written.
const SOURCES: &[&str] = &["agent/src", "shim/src/metrics.rs"];
/// Suffixes of the series that a histogram has.
const HISTOGRAM: &[&str] = &["_bucket", "_sum", "_count"];

/// Names of ours that are no metrics.
const CRATES: &[&str] =
    &["cryopod_agent", "cryopod_shim", "cryopod_runtime", "cryopod_checkpoint", "cryopod_zfs"];

type Check = (String, Result<(), String>);

/// All of them.
pub(super) fn checks(root: &Path, work: &Path, limits: &Limits) -> Vec<Check> {
    let read = |path: &str| fs::read_to_string(root.join(path)).map_err(|error| format!("{path}: {error}"));
    match (read(DASHBOARD), read(ALERTS), read(REFERENCE)) {
        (Ok(dashboard), Ok(alerts), Ok(reference)) => match serde_json::from_str(&dashboard) {
            Ok(dashboard) => all(root, work, limits, &dashboard, &alerts, &documented(&reference)),
            Err(error) => vec![(DASHBOARD.into(), Err(error.to_string()))],
        },
        (dashboard, alerts, reference) => {
            let failed = [dashboard, alerts, reference].into_iter().filter_map(Result::err);
            failed.map(|why| ("dashboard, alerts and reference".to_owned(), Err(why))).collect()
        }
    }
}

fn all(
    root: &Path,
    work: &Path,
    limits: &Limits,
    dashboard: &Value,
    alerts: &str,
    documented: &BTreeSet<String>,
) -> Vec<Check> {
    let queries: Vec<(String, String)> = panels(dashboard).flat_map(queries).collect();
    let mut checks: Vec<Check> = vec![
        (format!("{DASHBOARD}: {} queries parse", queries.len()), parse(&queries, work, limits)),
        (format!("{DASHBOARD}: units, descriptions, data source, places"), fit(dashboard)),
    ];
    let asked = queries.iter().flat_map(|(_, query)| metrics(query)).chain(alerts.lines().flat_map(metrics));
    let unknown: BTreeSet<String> = asked.filter(|name| !knows(documented, name)).collect();
    checks.push((format!("metrics of queries are in {REFERENCE}"), none(&unknown)));
    let code = in_code(root);
    let unwritten: BTreeSet<String> =
        code.iter().filter(|name| !documented.contains(*name)).cloned().collect();
    checks.push((format!("metrics of the code are in {REFERENCE}"), none(&unwritten)));
    let gone: BTreeSet<String> = documented.iter().filter(|name| !code.contains(*name)).cloned().collect();
    checks.push((format!("metrics in {REFERENCE} are in the code"), none(&gone)));
    checks.push((format!("{ALERTS}: each alert has a runbook"), runbooks(root, alerts)));
    checks
}

fn none(names: &BTreeSet<String>) -> Result<(), String> {
    if names.is_empty() { Ok(()) } else { Err(names.iter().cloned().collect::<Vec<_>>().join(", ")) }
}

fn panels(dashboard: &Value) -> impl Iterator<Item = &Value> {
    dashboard["panels"].as_array().into_iter().flatten()
}

/// Title and query.
fn queries(panel: &Value) -> Vec<(String, String)> {
    let targets = panel["targets"].as_array().into_iter().flatten();
    let title = panel["title"].as_str().unwrap_or_default();
    targets.map(|target| (title.to_owned(), target["expr"].as_str().unwrap_or_default().to_owned())).collect()
}

/// As rules, with something in the place of Grafana's variables: promtool parses them all in one call.
fn parse(queries: &[(String, String)], work: &Path, limits: &Limits) -> Result<(), String> {
    if queries.is_empty() {
        return Err("there are none".into());
    }
    let rules: Vec<Value> = queries
        .iter()
        .enumerate()
        .map(|(at, (_, query))| {
            let query =
                query.replace("$__rate_interval", "5m").replace("$node", ".*").replace("$namespace", ".*");
            json!({"record": format!("query:{at}"), "expr": query})
        })
        .collect();
    let file = work.join("queries.json");
    let text = json!({"groups": [{"name": "dashboard", "rules": rules}]}).to_string();
    fs::write(&file, text).map_err(|error| error.to_string())?;
    let (status, output) = Command::new("promtool")
        .args(["check", "rules", "--lint=none"])
        .arg(&file)
        .status(limits)
        .map_err(|error| error.to_string())?;
    if status.success() { Ok(()) } else { Err(output.stderr.trim().to_owned()) }
}

/// What a person needs of every panel.
fn fit(dashboard: &Value) -> Result<(), String> {
    let mut wrong = Vec::new();
    let mut ids = BTreeSet::new();
    for panel in panels(dashboard) {
        let title = panel["title"].as_str().unwrap_or("(no title)");
        if !ids.insert(panel["id"].to_string()) {
            wrong.push(format!("{title}: its id is another's"));
        }
        let place = |key: &str| panel["gridPos"][key].as_u64().unwrap_or(99);
        if place("x") + place("w") > 24 {
            wrong.push(format!("{title}: wider than the board"));
        }
        if panel["type"] == "row" {
            if !title.ends_with('?') {
                wrong.push(format!("{title}: a row asks a question"));
            }
            continue;
        }
        if panel["fieldConfig"]["defaults"]["unit"].as_str().is_none_or(str::is_empty) {
            wrong.push(format!("{title}: no unit"));
        }
        if panel["description"].as_str().is_none_or(str::is_empty) {
            wrong.push(format!("{title}: no description"));
        }
        let targets = panel["targets"].as_array().into_iter().flatten();
        if targets.chain([panel]).any(|it| it["datasource"]["uid"] != "${datasource}") {
            wrong.push(format!("{title}: its data source is not the variable"));
        }
    }
    if ids.is_empty() {
        wrong.push("no panels".into());
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
}

/// Names of our metrics in a line.
fn metrics(line: &str) -> Vec<String> {
    let words = line.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with("cryopod_")).map(str::to_owned).collect()
}

fn knows(documented: &BTreeSet<String>, name: &str) -> bool {
    let plain = HISTOGRAM.iter().filter_map(|suffix| name.strip_suffix(suffix));
    documented.contains(name) || plain.into_iter().any(|name| documented.contains(name))
}

/// The names in the first column of the page's tables.
fn documented(page: &str) -> BTreeSet<String> {
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    rows.map(|(name, _)| name.split('{').next().unwrap_or(name).to_owned())
        .filter(|name| name.starts_with("cryopod_"))
        .collect()
}

/// Names of metrics in string literals of the sources, without their tests.
fn in_code(root: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut paths: Vec<_> = SOURCES.iter().map(|path| root.join(path)).collect();
    while let Some(path) = paths.pop() {
        if let Ok(entries) = fs::read_dir(&path) {
            paths.extend(entries.flatten().map(|entry| entry.path()));
        } else if let Ok(text) = fs::read_to_string(&path) {
            found.extend(literals(&text));
        }
    }
    found
}

fn literals(source: &str) -> Vec<String> {
    let code = source.split("#[cfg(test)]").next().unwrap_or(source);
    // Line by line: a quotation mark in a character literal confuses one line only.
    let strings = code.lines().flat_map(|line| line.split('"').skip(1).step_by(2));
    let name = |text: &&str| {
        text.starts_with("cryopod_")
            && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
            && !CRATES.contains(text)
    };
    strings.filter(name).map(str::to_owned).collect()
}

/// Each alert's runbook is a heading of the page that its link names.
fn runbooks(root: &Path, alerts: &str) -> Result<(), String> {
    let count = alerts.matches("- alert: ").count();
    let links: Vec<&str> = alerts
        .lines()
        .filter_map(|line| line.trim().strip_prefix("runbook_url: ")?.split_once("/main/"))
        .map(|it| it.1)
        .collect();
    if count == 0 || links.len() != count {
        return Err(format!("{count} alerts, {} runbooks", links.len()));
    }
    let dead = links.iter().filter(|link| {
        let (page, anchor) = link.split_once('#').unwrap_or((link, ""));
        let text = fs::read_to_string(root.join(page)).unwrap_or_default();
        !text
            .lines()
            .any(|line| line.starts_with('#') && line.trim_start_matches('#').trim().to_lowercase() == anchor)
    });
    let dead: BTreeSet<String> = dead.map(|link| (*link).to_owned()).collect();
    none(&dead)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_of_a_histogram_are_known_by_its_name() {
        let known = documented("| `cryopod_a_seconds{x}` | histogram |\n| `other` |\n");
        assert!(knows(&known, "cryopod_a_seconds_bucket") && knows(&known, "cryopod_a_seconds"));
        assert!(!knows(&known, "cryopod_a") && !knows(&known, "cryopod_b_seconds_sum"));
    }

    #[test]
    fn metrics_are_found_in_queries_and_in_code() {
        assert_eq!(
            metrics("sum by (a) (cryopod_x_total{b=\"c\"}) / cryopod_y"),
            ["cryopod_x_total", "cryopod_y"]
        );
        let code =
            "text.head(\"cryopod_x_total\", \"counter\");\n#[cfg(test)]\nmod tests { \"cryopod_no_total\" }";
        assert_eq!(literals(code), ["cryopod_x_total"]);
    }

    #[test]
    fn a_panel_without_a_unit_is_wrong() {
        let source = json!({"uid": "${datasource}"});
        let panel = |unit: &str| {
            json!({"panels": [{"id": 1, "title": "T", "type": "stat", "description": "d", "datasource": source,
            "gridPos": {"x": 0, "w": 4}, "fieldConfig": {"defaults": {"unit": unit}}, "targets": [{"datasource": source, "expr": "1"}]}]})
        };
        assert_eq!(fit(&panel("s")), Ok(()));
        assert!(fit(&panel("")).unwrap_err().contains("no unit"));
        assert!(fit(&json!({})).is_err());
    }
}
