//! `cryopod doctor`: what works on this node, and what to do about the rest. Looks, changes nothing.

mod checks;
mod containerd;
mod facts;
mod gather;

use serde_json::json;

use crate::context::Context;
use crate::error::Error;
use crate::exit;
use crate::output::printable;
use crate::output::progress::Progress;
use crate::output::style::{Palette, Style};
use checks::{Finding, Level};

/// Looks and reports; the exit code says how bad the worst finding is.
pub(crate) fn run(context: &Context) -> Result<u8, Error> {
    let progress = Progress::begin(&context.output, "looking at this node");
    let facts = gather::gather(context)?;
    drop(progress);
    let findings = checks::judge(&facts);
    let worst = checks::worst(&findings);
    context
        .output
        .result(&json!({ "worst": worst, "findings": findings }), |palette| render(&findings, palette))?;
    Ok(match worst {
        Level::Ok => exit::OK,
        Level::Warn => exit::DOCTOR_WARN,
        Level::Fail => exit::DOCTOR_FAIL,
    })
}

fn render(findings: &[Finding], palette: Palette) -> String {
    let width = findings.iter().map(|finding| finding.check.len()).max().unwrap_or(0);
    let mut text = String::new();
    for finding in findings {
        let (word, style) = match finding.level {
            Level::Ok => ("ok  ", Style::Success),
            Level::Warn => ("warn", Style::Warning),
            Level::Fail => ("fail", Style::Failure),
        };
        let word = palette.paint(style, word);
        text.push_str(&format!("{word}  {:width$}  {}\n", finding.check, printable(&finding.text)));
        if let Some(advice) = &finding.advice {
            text.push_str(&format!("      {:width$}  {} {advice}\n", "", palette.paint(Style::Dim, "→")));
        }
    }
    let count = |level| findings.iter().filter(|finding| finding.level == level).count();
    let (warnings, failures) = (count(Level::Warn), count(Level::Fail));
    text.push_str(&format!("\n{} checks: {failures} failed, {warnings} could be better\n", findings.len()));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_do_stands_under_what_is_wrong() {
        let finding = |check, level, advice: Option<&str>| Finding {
            check,
            level,
            text: "seen".into(),
            advice: advice.map(str::to_owned),
        };
        let findings =
            [finding("kernel", Level::Ok, None), finding("criu check", Level::Fail, Some("install it"))];
        let expected = "ok    kernel      seen\n\
                        fail  criu check  seen\n                  → install it\n\n\
                        2 checks: 1 failed, 0 could be better\n";
        assert_eq!(render(&findings, Palette::new(false)), expected);
    }
}
