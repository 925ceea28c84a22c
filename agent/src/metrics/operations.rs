//! What became of operations, counted by reason.
//!
//! Prometheus sees an increase only between two values: a series that begins with 1 has none, and the first failure of a
//! reason would raise no alert. So a new series is 0 for as long as it takes until everybody has seen it once.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::text::Text;

/// Longer than any interval at which nodes are usually scraped.
const NEW: Duration = Duration::from_secs(60);

/// `checkpoint` or `restore`, and the metric's name and meaning.
const OPERATIONS: [(&str, &str, &str); 2] = [
    (
        "checkpoint",
        "cryopod_checkpoint_operations_total",
        "Checkpoints taken or tried for objects, by result and reason.",
    ),
    ("restore", "cryopod_restore_operations_total", "Restores by objects, by result and reason."),
];

/// Counts since the agent's start.
#[derive(Debug, Default)]
pub(super) struct Operations(BTreeMap<(&'static str, String), Count>);

#[derive(Debug)]
struct Count {
    all: u64,
    since: Instant,
}

impl Operations {
    /// One that did not succeed.
    pub(super) fn failed(&mut self, operation: &'static str, reason: &str, now: Instant) {
        self.note(operation, reason.to_owned(), now);
    }

    /// One that did.
    pub(super) fn succeeded(&mut self, operation: &'static str, now: Instant) {
        self.note(operation, String::new(), now);
    }

    fn note(&mut self, operation: &'static str, reason: String, now: Instant) {
        self.0.entry((operation, reason)).or_insert(Count { all: 0, since: now }).all += 1;
    }

    pub(super) fn render(&self, text: &mut Text, now: Instant) {
        for (operation, name, help) in OPERATIONS {
            text.head(name, "counter", help);
            // There from the start, so its first one counts at once.
            let success = self.0.get(&(operation, String::new())).map_or(0, |count| count.all);
            text.line(name, &[("result", "success"), ("reason", "")], success as f64);
            let failures = self.0.iter().filter(|((of, reason), _)| *of == operation && !reason.is_empty());
            for ((_, reason), count) in failures {
                let shown = if now.duration_since(count.since) < NEW { 0 } else { count.all };
                text.line(name, &[("result", "failure"), ("reason", reason)], shown as f64);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_seen_with_0_before_it_counts() {
        let began = Instant::now();
        let mut operations = Operations::default();
        let shown = |operations: &Operations, seconds: u64| {
            let mut text = Text::default();
            operations.render(&mut text, began + Duration::from_secs(seconds));
            let text = text.into_string();
            text.lines()
                .filter(|line| line.starts_with("cryopod_checkpoint"))
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let line = |result: &str, reason: &str, count: u64| {
            format!("cryopod_checkpoint_operations_total{{result=\"{result}\",reason=\"{reason}\"}} {count}")
        };
        let success = |count| format!("cryopod_checkpoint_operations_total{{result=\"success\"}} {count}");
        assert_eq!(shown(&operations, 0), [success(0)]);
        operations.failed("checkpoint", "no-space", began);
        operations.succeeded("checkpoint", began);
        assert_eq!(shown(&operations, 59), [success(1), line("failure", "no-space", 0)]);
        assert_eq!(shown(&operations, 60), [success(1), line("failure", "no-space", 1)]);
        operations.failed("checkpoint", "no-space", began + Duration::from_secs(61));
        assert_eq!(shown(&operations, 61), [success(1), line("failure", "no-space", 2)]);
    }
}
