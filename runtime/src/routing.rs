//! Which runtime a pod gets by the `[[routing]]` rules: pure, from what is known of the pod to a verdict that can say
//! why. The shim asks once per pod, `cryopod route explain` for people.
//!
//! Rules are asked in their order. The first one decides of which every pattern matches; without one it is
//! `runtime.default`. What is not known of a pod matches no pattern, not even `*`.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::config::{Config, Pattern, Rule};

/// What rules are asked about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subject {
    /// Kubernetes namespace of the pod.
    pub namespace: Option<String>,
    /// Name of the pod.
    pub pod: Option<String>,
    /// Image of the container that is made.
    pub image: Option<String>,
    /// Labels of the pod.
    pub labels: BTreeMap<String, String>,
    /// Annotations of the pod.
    pub annotations: BTreeMap<String, String>,
}

impl Subject {
    /// What is known of the same pod when its pause container is made, which is before any other.
    pub fn with_pause(&self) -> Self {
        Self { image: None, labels: BTreeMap::new(), ..self.clone() }
    }
}

/// A pattern of a rule that does not match.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mismatch {
    /// The key in the rule, e.g. `namespace` or `labels.tier`.
    pub key: String,
    /// What was wanted.
    pub pattern: String,
    /// What there is; `None` where it is not set or not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, pattern, value } = self;
        match value {
            Some(value) => write!(f, "{key} is '{value}', which '{pattern}' does not match"),
            None => write!(f, "{key} is not set, and '{pattern}' is wanted"),
        }
    }
}

/// The answer for one subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict<'a> {
    /// Name of the runtime.
    pub backend: &'a str,
    /// The rule that decided; `None` for `runtime.default`.
    pub rule: Option<&'a Rule>,
    /// The rules that were asked before, and why each did not match.
    pub passed: Vec<(&'a Rule, Vec<Mismatch>)>,
}

impl Verdict<'_> {
    /// Who decided, for messages: file and line of a rule, or `runtime.default`.
    pub fn by(&self) -> String {
        let rule = |rule: &Rule| format!("{}:{}", rule.place.file, rule.place.line);
        self.rule.map_or_else(|| "runtime.default".to_owned(), rule)
    }
}

/// Asks the rules of `config` in their order.
pub fn decide<'a>(config: &'a Config, subject: &Subject) -> Verdict<'a> {
    let mut passed = Vec::new();
    for rule in &config.routing {
        let mismatches = mismatches(rule, subject);
        if mismatches.is_empty() {
            return Verdict { backend: &rule.backend, rule: Some(rule), passed };
        }
        passed.push((rule, mismatches));
    }
    Verdict { backend: &config.runtime.default, rule: None, passed }
}

/// What of a rule does not match; nothing if it does.
fn mismatches(rule: &Rule, subject: &Subject) -> Vec<Mismatch> {
    let mut found = Vec::new();
    let mut ask = |key: String, pattern: &Pattern, value: Option<&String>| {
        if !value.is_some_and(|value| pattern.matches(value)) {
            found.push(Mismatch { key, pattern: pattern.to_string(), value: value.cloned() });
        }
    };
    let single = [
        ("namespace", &rule.namespace, &subject.namespace),
        ("pod", &rule.pod, &subject.pod),
        ("image", &rule.image, &subject.image),
    ];
    for (key, pattern, value) in single {
        if let Some(pattern) = pattern {
            ask(key.to_owned(), pattern, value.as_ref());
        }
    }
    let tables =
        [("labels", &rule.labels, &subject.labels), ("annotations", &rule.annotations, &subject.annotations)];
    for (table, patterns, values) in tables {
        for (name, pattern) in patterns {
            ask(format!("{table}.{name}"), pattern, values.get(name));
        }
    }
    found
}

#[cfg(test)]
#[path = "routing/tests.rs"]
mod tests;
