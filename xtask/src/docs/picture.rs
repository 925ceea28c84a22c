//! The picture of the dashboard in the documentation, drawn from the dashboard's own panels and from what a Prometheus answered
//! to their queries while the suite `kube` ran (`<cache>/log/dashboard-answers.json`, kept as docs/pictures/dashboard.json).
//! It is no screenshot of Grafana: places, titles, units and curves are the dashboard's, the look is not.
//!
//! The same files make the same picture, to the byte.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use serde_json::Value;

use super::units;

const DASHBOARD: &str = "deploy/grafana/cryopod.json";
const RECORDING: &str = "docs/pictures/dashboard.json";
const PICTURE: &str = "docs/pictures/dashboard.svg";
/// Of a column and of a row of the dashboard's grid, which has 24 columns.
const COLUMN: f64 = 50.0;
const ROW: f64 = 30.0;
/// Lines of a legend or a table that a panel has room for.
const LINES: usize = 4;
const COLOURS: &[&str] =
    &["#3274d9", "#e0752d", "#56a64b", "#b877d9", "#c4162a", "#1f9e9e", "#8a6d3b", "#6b7280"];

/// Path and text of the picture; none as long as nothing is recorded.
pub(super) fn file(root: &Path) -> Result<Option<(String, String)>, String> {
    let Ok(recording) = fs::read_to_string(root.join(RECORDING)) else { return Ok(None) };
    let dashboard =
        fs::read_to_string(root.join(DASHBOARD)).map_err(|error| format!("{DASHBOARD}: {error}"))?;
    let parse = |name: &str, text: &str| {
        serde_json::from_str::<Value>(text).map_err(|error| format!("{name}: {error}"))
    };
    Ok(Some((PICTURE.into(), draw(&parse(DASHBOARD, &dashboard)?, &parse(RECORDING, &recording)?))))
}

/// A series as it is shown.
struct Curve<'a> {
    name: String,
    values: Vec<Option<f64>>,
    labels: &'a Value,
}

struct Place {
    x: f64,
    y: f64,
    width: f64,
    height: f64,
}

fn draw(dashboard: &Value, recording: &Value) -> String {
    let panels: Vec<&Value> = dashboard["panels"].as_array().into_iter().flatten().collect();
    let bottom = panels.iter().map(|panel| place(panel).y + place(panel).height).fold(0.0, f64::max);
    let width = 24.0 * COLUMN;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {bottom}\" font-family=\"sans-serif\" \
         font-size=\"11\">\n<rect width=\"{width}\" height=\"{bottom}\" fill=\"#f4f5f5\"/>\n"
    );
    let span = span(recording);
    for panel in panels {
        let place = place(panel);
        let title = escaped(panel["title"].as_str().unwrap_or_default());
        if panel["type"] == "row" {
            text(&mut svg, 8.0, place.y + 20.0, "font-size=\"14\" font-weight=\"bold\"", &title);
            continue;
        }
        let (w, h) = (place.width - 6.0, place.height - 6.0);
        line(
            &mut svg,
            &format!(
                "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{w:.1}\" height=\"{h:.1}\" fill=\"#fff\" stroke=\"#d8d9da\"/>",
                place.x + 3.0,
                place.y + 3.0
            ),
        );
        text(&mut svg, place.x + 10.0, place.y + 18.0, "font-weight=\"bold\"", &title);
        let unit = panel["fieldConfig"]["defaults"]["unit"].as_str().unwrap_or_default();
        let curves = curves(panel, recording);
        match panel["type"].as_str() {
            _ if curves.iter().all(|curve| last(curve).is_none()) => {
                let middle = place.x + place.width / 2.0;
                text(
                    &mut svg,
                    middle,
                    place.y + place.height / 2.0,
                    "text-anchor=\"middle\" fill=\"#888\"",
                    "no data",
                );
            }
            Some("stat") => stat(&mut svg, &place, unit, &curves),
            Some("table") => table(&mut svg, &place, unit, &curves),
            _ => chart(&mut svg, &place, unit, &curves, span),
        }
    }
    svg.push_str("</svg>\n");
    svg
}

fn place(panel: &Value) -> Place {
    let number = |key: &str| panel["gridPos"][key].as_f64().unwrap_or_default();
    Place {
        x: number("x") * COLUMN,
        y: number("y") * ROW,
        width: number("w") * COLUMN,
        height: number("h") * ROW,
    }
}

/// Seconds between the first and the last value.
fn span(recording: &Value) -> f64 {
    let series = recording["answers"].as_array().into_iter().flatten().flat_map(|it| it["series"].as_array());
    let most = series.flatten().filter_map(|one| Some(one["values"].as_array()?.len())).max().unwrap_or(1);
    (most.saturating_sub(1)) as f64 * recording["step"].as_f64().unwrap_or_default()
}

/// What was answered to the queries of a panel, in their order, under the names that the legend gives.
fn curves<'a>(panel: &Value, recording: &'a Value) -> Vec<Curve<'a>> {
    let answers = recording["answers"].as_array().into_iter().flatten();
    let ours = answers.filter(|answer| answer["panel"] == panel["id"]);
    ours.flat_map(|answer| {
        let target = usize::try_from(answer["target"].as_u64().unwrap_or_default()).unwrap_or_default();
        let format = panel["targets"][target]["legendFormat"].as_str().unwrap_or_default().to_owned();
        let series = answer["series"].as_array().into_iter().flatten();
        series.map(move |one| Curve {
            name: named(&format, &one["labels"]),
            values: one["values"].as_array().into_iter().flatten().map(Value::as_f64).collect(),
            labels: &one["labels"],
        })
    })
    .collect()
}

/// `{{label}}` is the label's value, as in Grafana.
fn named(format: &str, labels: &Value) -> String {
    let mut name = format.to_owned();
    for (key, value) in labels.as_object().into_iter().flatten() {
        name = name.replace(&format!("{{{{{key}}}}}"), value.as_str().unwrap_or_default());
    }
    name
}

fn last(curve: &Curve<'_>) -> Option<f64> {
    curve.values.iter().rev().find_map(|value| *value)
}

fn stat(svg: &mut String, place: &Place, unit: &str, curves: &[Curve<'_>]) {
    let shown = curves.iter().find_map(last).map_or("–".to_owned(), |value| units::shown(value, unit));
    let (x, y) = (place.x + place.width / 2.0, place.y + place.height / 2.0 + 18.0);
    text(svg, x, y, "font-size=\"28\" text-anchor=\"middle\"", &escaped(&shown));
}

fn table(svg: &mut String, place: &Place, unit: &str, curves: &[Curve<'_>]) {
    for (at, curve) in curves.iter().take(LINES).enumerate() {
        let labels = curve.labels.as_object().into_iter().flatten();
        let mut words: Vec<String> =
            labels.map(|(_, value)| value.as_str().unwrap_or_default().to_owned()).collect();
        words.extend(last(curve).map(|value| units::shown(value, unit)));
        text(svg, place.x + 10.0, place.y + 40.0 + 18.0 * at as f64, "", &escaped(&words.join("   ")));
    }
}

fn chart(svg: &mut String, place: &Place, unit: &str, curves: &[Curve<'_>], span: f64) {
    let (left, top) = (place.x + 62.0, place.y + 30.0);
    let shown = curves.len().min(LINES);
    let right = place.x + place.width - 14.0;
    let bottom = place.y + place.height - 32.0 - 14.0 * shown as f64;
    let most = curves.iter().flat_map(|curve| curve.values.iter().flatten()).fold(0.0, |a: f64, b| a.max(*b));
    let most = if most > 0.0 { most } else { 1.0 };
    for (part, share) in [(0.0, 1.0), (0.5, 0.5), (1.0, 0.0)] {
        let y = top + (bottom - top) * share;
        line(svg, &format!("<path d=\"M{left:.1} {y:.1}H{right:.1}\" stroke=\"#e4e5e6\"/>"));
        text(
            svg,
            left - 4.0,
            y + 4.0,
            "text-anchor=\"end\" fill=\"#555\"",
            &escaped(&units::shown(most * part, unit)),
        );
    }
    let end = format!("after {}", units::shown(span, "s"));
    text(svg, right, bottom + 14.0, "text-anchor=\"end\" fill=\"#555\"", &end);
    for (at, curve) in curves.iter().enumerate() {
        let colour = COLOURS[at % COLOURS.len()];
        let step = (right - left) / (curve.values.len().saturating_sub(1).max(1)) as f64;
        // A line begins anew where there was nothing.
        let (mut path, mut pen_down) = (String::new(), false);
        for (number, value) in curve.values.iter().enumerate() {
            if let Some(value) = value {
                let (x, y) = (left + step * number as f64, bottom - (bottom - top) * value.max(0.0) / most);
                // Writing to a String does not fail. A point alone is a short stroke.
                write!(path, "{}{x:.1} {y:.1}", if pen_down { "L" } else { "M" }).ok();
                if !pen_down {
                    path.push_str("h1");
                }
            }
            pen_down = value.is_some();
        }
        line(svg, &format!("<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>"));
        if at < LINES {
            let y = bottom + 30.0 + 14.0 * at as f64;
            line(
                svg,
                &format!(
                    "<path d=\"M{:.1} {:.1}h12\" stroke=\"{colour}\" stroke-width=\"3\"/>",
                    left - 50.0,
                    y - 4.0
                ),
            );
            let more = if at + 1 == LINES && curves.len() > LINES {
                format!(" and {} more", curves.len() - LINES)
            } else {
                String::new()
            };
            text(svg, left - 34.0, y, "", &escaped(&format!("{}{more}", curve.name)));
        }
    }
}

fn text(svg: &mut String, x: f64, y: f64, attributes: &str, text: &str) {
    line(svg, &format!("<text x=\"{x:.1}\" y=\"{y:.1}\" {attributes}>{text}</text>"));
}

fn line(svg: &mut String, line: &str) {
    svg.push_str(line);
    svg.push('\n');
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn dashboard() -> Value {
        let panel = |id: u64, kind: &str, title: &str| {
            json!({
                "id": id, "type": kind, "title": title, "gridPos": { "x": 0, "y": id * 8, "w": 8, "h": 8 },
                "fieldConfig": { "defaults": { "unit": "bytes" } },
                "targets": [{ "expr": "x", "legendFormat": "{{node}} used" }],
            })
        };
        json!({ "panels": [panel(1, "timeseries", "A & B"), panel(2, "stat", "S"), panel(3, "row", "Well?")] })
    }

    #[test]
    fn a_panel_has_its_title_its_curve_and_its_legend() {
        let series = json!([{ "labels": { "node": "pve1" }, "values": [null, 1024.0, 2048.0] }]);
        let recording =
            json!({ "start": 0, "step": 30, "answers": [{ "panel": 1, "target": 0, "series": series }] });
        let svg = draw(&dashboard(), &recording);
        assert!(svg.contains("A &amp; B") && svg.contains("pve1 used") && svg.contains("2 KiB"), "{svg}");
        assert!(svg.contains("after 1 min") && svg.contains(">Well?<"), "{svg}");
        // The other panel was asked for nothing.
        assert_eq!(svg.matches("no data").count(), 1);
        assert_eq!(svg, draw(&dashboard(), &recording));
    }

    #[test]
    fn a_curve_has_a_gap_where_there_was_nothing() {
        let series = json!([{ "labels": {}, "values": [1.0, 2.0, null, 2.0] }]);
        let recording = json!({ "step": 1, "answers": [{ "panel": 1, "target": 0, "series": series }] });
        let svg = draw(&dashboard(), &recording);
        let path = svg.lines().find(|line| line.contains("fill=\"none\"")).unwrap();
        assert_eq!((path.matches('M').count(), path.matches('L').count()), (2, 1), "{path}");
    }
}
