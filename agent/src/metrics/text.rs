//! Prometheus' text exposition format, version 0.0.4.

use std::fmt::Write;

use jiff::Timestamp;

/// An exposition that is being written.
#[derive(Debug, Default)]
pub struct Text(String);

impl Text {
    /// What a family of metrics is.
    pub fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String cannot fail.
        writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}").ok();
    }

    /// One sample; labels with an empty value are left out, which means the same.
    pub fn line(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        self.0.push_str(name);
        let mut open = false;
        for (label, value) in labels.iter().filter(|(_, value)| !value.is_empty()) {
            self.0.push(if open { ',' } else { '{' });
            open = true;
            write!(self.0, "{label}=\"{}\"", escape(value)).ok();
        }
        if open {
            self.0.push('}');
        }
        writeln!(self.0, " {value}").ok();
    }

    /// A time of a schedule; nothing where there is none.
    pub fn time(&mut self, name: &str, namespace: &str, schedule: &str, at: Option<Timestamp>) {
        if let Some(at) = at {
            self.line(name, &[("namespace", namespace), ("schedule", schedule)], at.as_second() as f64);
        }
    }

    /// What was written.
    pub fn into_string(self) -> String {
        self.0
    }
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_values_are_escaped_and_empty_ones_left_out() {
        let mut text = Text::default();
        text.line("x", &[("a", "q\"\\\n"), ("b", "")], 1.5);
        text.line("y", &[("b", "")], 2.0);
        assert_eq!(text.into_string(), "x{a=\"q\\\"\\\\\\n\"} 1.5\ny 2\n");
    }
}
