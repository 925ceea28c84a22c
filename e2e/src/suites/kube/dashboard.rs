//! The dashboard of deploy/grafana against live data: after everything that the suite has done, each of its queries has
//! something to show. What they answer is also kept, as the picture in the documentation is drawn from it.

use std::fs;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::kube::PATIENCE;
use crate::shell::{eventually, exec_ok};
use crate::suite::{Failure, ensure};

const DASHBOARD: &str = include_str!("../../../../deploy/grafana/cryopod.json");
/// What Grafana makes of `$__rate_interval` here: at least four scrapes.
const RATE: &str = "1m";
/// How far back is looked for the first scrape: longer than the suite takes.
const BACK: u64 = 3 * 3600;
/// Points of a curve: as many as a panel can show.
const POINTS: u64 = 120;
/// Prometheus scrapes every 5 s here.
const SHORTEST_STEP: u64 = 5;

/// Panels that may be empty, each with the reason. All others must have data.
const MAY_BE_EMPTY: &[(&str, &str)] = &[
    ("Out of memory", "the query leaves out pods without kills, and no pod of the suite goes over its limit"),
    ("Failures by reason", "there is a series for each reason that occurred, and none of them has to"),
];

/// What a curve is drawn over, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Times {
    start: u64,
    step: u64,
    end: u64,
}

/// One query of a panel.
#[derive(Debug, PartialEq, Eq)]
struct Query {
    panel: u64,
    /// Which of the panel's queries.
    target: usize,
    title: String,
    expr: String,
}

pub(super) fn every_query_has_data() -> Result<(), Failure> {
    let dashboard: Value = serde_json::from_str(DASHBOARD).map_err(|error| error.to_string())?;
    let prometheus = Prometheus::of_env()?;
    // The agent may have been killed by the test before.
    eventually("Prometheus reaches an agent", PATIENCE, || {
        let found = prometheus.get("query", &[("query", "sum(up) > 0")])?;
        Ok((!found["result"].as_array().is_none_or(Vec::is_empty)).then_some(()))
    })?;
    for (name, metric, label) in variables(&dashboard)? {
        let found = prometheus.get(&format!("label/{label}/values"), &[("match[]", &metric)])?;
        ensure(found.as_array().is_some_and(|values| !values.is_empty()), || {
            format!("the variable {name} has no values")
        })?;
    }
    let times = prometheus.times()?;
    let (mut empty, mut answers) = (Vec::new(), Vec::new());
    for query in queries(&dashboard) {
        let answer = prometheus.range(&query.expr, times)?;
        if !has_data(&answer) && MAY_BE_EMPTY.iter().all(|(title, _)| *title != query.title) {
            empty.push(format!("{}: {}", query.title, query.expr));
        }
        answers
            .push(json!({ "panel": query.panel, "target": query.target, "series": curves(&answer, times) }));
    }
    keep(&json!({ "start": times.start, "step": times.step, "answers": answers }))?;
    ensure(empty.is_empty(), || format!("{} queries return nothing:\n  {}", empty.len(), empty.join("\n  ")))
}

/// Where the answers are kept: beside the logs of the tests, which stay when the cluster goes.
fn keep(answers: &Value) -> Result<(), Failure> {
    let cluster = std::env::var("CRYOPOD_CLUSTER").map_err(|_| "CRYOPOD_CLUSTER is not set")?;
    let path = PathBuf::from(cluster).join("../log/dashboard-answers.json");
    fs::write(&path, answers.to_string()).map_err(|error| format!("{}: {error}", path.display()))?;
    println!("what the dashboard's queries answered is in {}", path.display());
    Ok(())
}

/// All queries, with what Grafana puts in the place of the variables when everything is chosen.
fn queries(dashboard: &Value) -> Vec<Query> {
    let panels = dashboard["panels"].as_array().into_iter().flatten();
    let of_panel = |panel: &Value| {
        let targets = panel["targets"].as_array().cloned().unwrap_or_default();
        let (id, title) = (panel["id"].as_u64().unwrap_or_default(), panel["title"].clone());
        targets.into_iter().enumerate().map(move |(at, target)| Query {
            panel: id,
            target: at,
            title: title.as_str().unwrap_or_default().to_owned(),
            expr: substituted(target["expr"].as_str().unwrap_or_default()),
        })
    };
    panels.flat_map(of_panel).collect()
}

fn substituted(expr: &str) -> String {
    expr.replace("$__rate_interval", RATE).replace("$node", ".*").replace("$namespace", ".*")
}

/// Name, metric and label of each variable `label_values(METRIC, LABEL)`.
fn variables(dashboard: &Value) -> Result<Vec<(String, String, String)>, Failure> {
    let list = dashboard["templating"]["list"].as_array().into_iter().flatten();
    list.filter(|variable| variable["type"] == "query")
        .map(|variable| {
            let text = variable["definition"].as_str().unwrap_or_default();
            let inner = text.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
            let (metric, label) = inner
                .and_then(|inner| inner.split_once(','))
                .ok_or_else(|| format!("a variable by {text:?}"))?;
            let name = variable["name"].as_str().unwrap_or_default().to_owned();
            Ok((name, metric.trim().to_owned(), label.trim().to_owned()))
        })
        .collect()
}

/// Whether any sample of any series is a number: a quantile of nothing is none.
fn has_data(series: &Value) -> bool {
    let samples = series.as_array().into_iter().flatten().flat_map(|one| one["values"].as_array());
    samples.flatten().any(|sample| sample[1].as_str().is_some_and(|value| value != "NaN"))
}

/// Labels and values of each series, a value for each step: short enough to be kept in a repository.
fn curves(series: &Value, times: Times) -> Vec<Value> {
    let one = |series: &Value| {
        let count = (times.end - times.start) / times.step + 1;
        let mut values = vec![Value::Null; usize::try_from(count).unwrap_or_default()];
        for sample in series["values"].as_array().into_iter().flatten() {
            let time = sample[0].as_f64().unwrap_or_default() as u64;
            let at = usize::try_from(time.saturating_sub(times.start) / times.step).unwrap_or(usize::MAX);
            let value =
                sample[1].as_str().and_then(|text| text.parse::<f64>().ok()).filter(|it| it.is_finite());
            if let (Some(place), Some(value)) = (values.get_mut(at), value) {
                // Four digits are more than a picture shows.
                *place = format!("{value:.3e}").parse::<f64>().unwrap_or(value).into();
            }
        }
        json!({ "labels": series["metric"], "values": values })
    };
    series.as_array().into_iter().flatten().map(one).collect()
}

/// The Prometheus of `cargo xtask cluster monitor`.
struct Prometheus {
    url: String,
}

impl Prometheus {
    fn of_env() -> Result<Self, Failure> {
        let url = std::env::var("CRYOPOD_PROMETHEUS").map_err(|_| {
            "CRYOPOD_PROMETHEUS is not set: no Prometheus runs; `cargo xtask cluster monitor --node NAME`"
        })?;
        Ok(Self { url })
    }

    /// From the first scrape until now.
    fn times(&self) -> Result<Times, Failure> {
        let end = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|error| error.to_string())?.as_secs();
        let scrapes = self.range("sum(up)", Times { start: end - BACK, step: 30, end })?;
        let first = scrapes[0]["values"][0][0].as_f64().ok_or("Prometheus has scraped nothing")? as u64;
        // Grafana aligns its steps as well.
        let step = ((end - first) / POINTS).max(SHORTEST_STEP);
        let start = first - first % step;
        Ok(Times { start, step, end: end - (end - start) % step })
    }

    fn range(&self, query: &str, times: Times) -> Result<Value, Failure> {
        let (start, end, step) = (times.start.to_string(), times.end.to_string(), times.step.to_string());
        let parameters = [("query", query), ("start", &start), ("end", &end), ("step", &step)];
        Ok(self.get("query_range", &parameters)?["result"].take())
    }

    /// The `data` of an answer.
    fn get(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Value, Failure> {
        let url = format!("{}/api/v1/{path}", self.url);
        let parameters: Vec<String> =
            parameters.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let mut argv = vec!["curl", "-sS", "--get", &url];
        for parameter in &parameters {
            argv.extend(["--data-urlencode", parameter]);
        }
        let text = exec_ok(&argv)?;
        let mut answer: Value =
            serde_json::from_str(&text).map_err(|error| format!("{url}: {error}: {text}"))?;
        ensure(answer["status"] == "success", || format!("{}: {text}", parameters.join(" ")))?;
        Ok(answer["data"].take())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panels_that_may_be_empty_are_in_the_dashboard() {
        let queries = queries(&serde_json::from_str(DASHBOARD).unwrap());
        for (title, _) in MAY_BE_EMPTY {
            assert!(queries.iter().any(|query| query.title == *title), "{title}");
        }
        assert!(queries.iter().all(|query| !query.expr.is_empty() && !query.expr.contains('$')));
    }

    #[test]
    fn the_variables_are_understood() {
        let found = variables(&serde_json::from_str(DASHBOARD).unwrap()).unwrap();
        assert!(found.contains(&("node".into(), "cryopod_build_info".into(), "node".into())), "{found:?}");
    }

    #[test]
    fn a_curve_has_a_value_for_each_step() {
        let times = Times { start: 100, step: 10, end: 130 };
        let series =
            json!([{ "metric": { "node": "a" }, "values": [[110, "0.123456"], [120, "NaN"], [130, "7"]] }]);
        assert_eq!(
            curves(&series, times),
            [json!({ "labels": { "node": "a" }, "values": [null, 0.1235, null, 7.0] })]
        );
    }

    #[test]
    fn a_quantile_of_nothing_is_no_data() {
        assert!(!has_data(&json!([])));
        assert!(!has_data(&json!([{ "metric": {}, "values": [[1, "NaN"], [2, "NaN"]] }])));
        assert!(has_data(&json!([{ "metric": {}, "values": [[1, "NaN"], [2, "0"]] }])));
    }
}
