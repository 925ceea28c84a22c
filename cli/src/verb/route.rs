//! `cryopod route`: which rule of the configuration decides the runtime of a pod, and why the ones before it do not.

use cryopod_runtime::config::{Config, Rule};
use cryopod_runtime::routing::{self, Mismatch, Subject, Verdict};
use serde::Serialize;

use crate::args::{ExplainArgs, RouteVerb};
use crate::context::Context;
use crate::error::Error;
use crate::exit;
use crate::output::printable;
use crate::output::style::{Palette, Style};
use crate::output::table::{Cell, Table};

/// A rule, by where it stands and what it gives.
#[derive(Debug, Serialize)]
struct RuleView<'a> {
    file: &'a str,
    line: usize,
    backend: &'a str,
}

/// A rule that does not match.
#[derive(Debug, Serialize)]
struct PassedView<'a> {
    #[serde(flatten)]
    rule: RuleView<'a>,
    failed: &'a [Mismatch],
}

/// The runtime, and the rule that gives it; without one it is `runtime.default`.
#[derive(Debug, Serialize)]
struct AnswerView<'a> {
    backend: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<RuleView<'a>>,
}

#[derive(Debug, Serialize)]
struct ExplainView<'a> {
    #[serde(flatten)]
    answer: AnswerView<'a>,
    passed: Vec<PassedView<'a>>,
    /// For the same pod with a pause container.
    with_pause: AnswerView<'a>,
}

/// Answers a question about the rules.
pub(crate) fn run(context: &Context, verb: &RouteVerb) -> Result<u8, Error> {
    let RouteVerb::Explain(args) = verb;
    let (config, subject) = (context.config()?, subject(args));
    let verdict = routing::decide(config, &subject);
    let with_pause = routing::decide(config, &subject.with_pause());
    let view = ExplainView {
        answer: answer(&verdict),
        passed: verdict
            .passed
            .iter()
            .map(|(rule, failed)| PassedView { rule: place(rule), failed: failed.as_slice() })
            .collect(),
        with_pause: answer(&with_pause),
    };
    context.output.result(&view, |palette| describe(config, &verdict, &with_pause, palette))?;
    Ok(exit::OK)
}

fn subject(args: &ExplainArgs) -> Subject {
    Subject {
        namespace: args.namespace.clone(),
        pod: args.pod.clone(),
        image: args.image.clone(),
        labels: args.labels.iter().cloned().collect(),
        annotations: args.annotations.iter().cloned().collect(),
    }
}

fn place(rule: &Rule) -> RuleView<'_> {
    let place = rule.place();
    RuleView { file: &place.file, line: place.line, backend: &rule.backend }
}

fn answer<'a>(verdict: &Verdict<'a>) -> AnswerView<'a> {
    AnswerView { backend: verdict.backend, rule: verdict.rule.map(place) }
}

fn describe(config: &Config, verdict: &Verdict<'_>, with_pause: &Verdict<'_>, palette: Palette) -> String {
    let by = match verdict.rule {
        Some(_) => format!("the rule at {}", verdict.by()),
        None if config.routing.is_empty() => format!("{}, since there are no rules", verdict.by()),
        None => format!("{}, since no rule matches", verdict.by()),
    };
    let backend = palette.paint(Style::Strong, &printable(verdict.backend));
    let mut text = format!("{backend}, by {}\n", printable(&by));
    if !verdict.passed.is_empty() {
        let mut table = Table::new(["RULE", "RUNTIME", "DOES NOT MATCH, SINCE"]);
        for (rule, failed) in &verdict.passed {
            let mut first =
                Some((format!("{}:{}", rule.place().file, rule.place().line), rule.backend.as_str()));
            for mismatch in failed {
                let (place, backend) = first.take().unwrap_or_default();
                table.row([place.into(), backend.into(), Cell::from(mismatch.to_string())]);
            }
        }
        text.push_str(&table.render(palette));
    }
    if with_pause.rule.map(Rule::place) != verdict.rule.map(Rule::place) {
        text.push_str(&printable(&format!(
            "with a pause container: {}, by {}; it is made before an image is known, and labels are not told to it",
            with_pause.backend,
            with_pause.by()
        )));
        text.push('\n');
    }
    text
}
