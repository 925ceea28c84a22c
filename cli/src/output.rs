//! What `cryopod` says: text for people, or one JSON value for programs, never both.
//!
//! Results go to standard output, everything else (progress, notes, errors) to standard error. Colours appear on a
//! terminal only, and never with `--no-color` or `NO_COLOR`. Text that comes from outside (names in a manifest,
//! say) loses its control characters before it reaches a terminal.

pub(crate) mod progress;
pub(crate) mod style;
pub(crate) mod table;
pub(crate) mod timeline;
pub(crate) mod units;

use std::io::{IsTerminal, Write};

use serde::Serialize;

use crate::error::Error;
use style::{Palette, Style};

/// The form of results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Text,
    /// One documented JSON value on standard output.
    Json,
}

/// Where results go, and in which form.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    format: Format,
    stdout: Palette,
    stderr: Palette,
    progress: bool,
}

impl Output {
    /// Decides about colours from the terminal, `--no-color` and `NO_COLOR` (no-color.org: set and not empty).
    pub(crate) fn new(format: Format, no_color: bool) -> Self {
        let unwanted = no_color
            || std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let stderr = std::io::stderr().is_terminal();
        Self {
            format,
            stdout: Palette::new(!unwanted && std::io::stdout().is_terminal()),
            stderr: Palette::new(!unwanted && stderr),
            progress: stderr && format == Format::Text,
        }
    }

    /// Whether results are JSON.
    pub(crate) fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// Whether moving progress may be drawn on standard error.
    pub(crate) fn shows_progress(&self) -> bool {
        self.progress
    }

    /// Whether it may have colours.
    pub(crate) fn colours_progress(&self) -> bool {
        self.stderr.is_coloured()
    }

    /// Writes a result: `json` for programs, or what `text` makes for people.
    pub(crate) fn result<T: Serialize>(
        &self,
        json: &T,
        text: impl FnOnce(Palette) -> String,
    ) -> Result<(), Error> {
        match self.format {
            Format::Json => self.json(json),
            Format::Text => self.text(&text(self.stdout)),
        }
    }

    /// Writes one JSON value and a line end.
    pub(crate) fn json<T: Serialize>(&self, value: &T) -> Result<(), Error> {
        let mut line = serde_json::to_vec_pretty(value).map_err(|error| Error::Stdout(error.into()))?;
        line.push(b'\n');
        self.bytes(&line)
    }

    /// Writes text as it is, with a line end where it lacks one.
    pub(crate) fn text(&self, text: &str) -> Result<(), Error> {
        if text.is_empty() {
            return Ok(());
        }
        let end = if text.ends_with('\n') { "" } else { "\n" };
        self.bytes(format!("{text}{end}").as_bytes())
    }

    /// Writes bytes to standard output.
    pub(crate) fn bytes(&self, bytes: &[u8]) -> Result<(), Error> {
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(Error::Stdout)
    }

    /// Tells a person something beside the result; silent in JSON.
    pub(crate) fn note(&self, text: &str) {
        if !self.is_json() {
            to_stderr(&format!("{} {text}\n", self.stderr.paint(Style::Dim, "cryopod:")));
        }
    }

    /// Reports a failure on standard error.
    pub(crate) fn failure(&self, report: &FailureReport) {
        if self.is_json() {
            let value = serde_json::json!({ "error": report });
            to_stderr(&format!("{value}\n"));
            return;
        }
        to_stderr(&for_people(report, self.stderr));
    }
}

fn for_people(report: &FailureReport, palette: Palette) -> String {
    let mark = palette.paint(Style::Failure, "cryopod:");
    let mut text = format!("{mark} {}\n", printable_lines(&report.message));
    // What a tool said may have the advice in it already.
    if let Some(advice) = report.advice.as_ref().filter(|advice| !report.message.contains(*advice)) {
        text.push_str(&format!("   {} {advice}\n", palette.paint(Style::Strong, "try:")));
    }
    text
}

fn to_stderr(text: &str) {
    // Nobody is left to tell when standard error is gone.
    std::io::stderr().lock().write_all(text.as_bytes()).ok();
}

/// An error as programs and people get it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct FailureReport {
    /// The kind of `docs/reference/exit-codes.md`.
    pub(crate) kind: String,
    /// The stable code of a refusal (`docs/reference/refusals.md`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) code: Option<String>,
    /// What was tried, on what, and what was said.
    pub(crate) message: String,
    /// What to do, where we know it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) advice: Option<String>,
}

/// Text from outside on one line, with control characters shown as `?`: a name must not steer a terminal.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || is_direction_mark(c) { '?' } else { c }).collect()
}

/// As [`printable`], but lines stay lines.
pub(crate) fn printable_lines(text: &str) -> String {
    text.lines().map(printable).collect::<Vec<_>>().join("\n")
}

/// Marks that turn the reading direction and so can show one name as another.
fn is_direction_mark(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_from_outside_cannot_steer_the_terminal() {
        assert_eq!(printable("web\u{1b}[2J\u{202e}x\n"), "web?[2J?x?");
        assert_eq!(printable("größe-日本"), "größe-日本");
    }

    #[test]
    fn an_error_for_programs_leaves_unknown_advice_out() {
        let report =
            FailureReport { kind: "not-found".into(), code: None, message: "gone".into(), advice: None };
        assert_eq!(serde_json::to_string(&report).unwrap(), r#"{"kind":"not-found","message":"gone"}"#);
    }

    #[test]
    fn advice_is_given_once() {
        let report = |message: &str| FailureReport {
            kind: "failed-precondition".into(),
            code: None,
            message: message.into(),
            advice: Some("remove it".into()),
        };
        let shown = |message| for_people(&report(message), Palette::new(false));
        assert_eq!(shown("in the way"), "cryopod: in the way\n   try: remove it\n");
        assert_eq!(shown("in the way; remove it"), "cryopod: in the way; remove it\n");
    }
}
