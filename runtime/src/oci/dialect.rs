//! Which runtime a program is, whatever its configuration calls it: `[runtime.crun-debug]` with the path of a crun is a
//! crun, and captures memory like one.

use std::sync::OnceLock;
use std::time::Duration;

use cryopod_command::{Command, Limits};

use super::OciOptions;

/// A program that has not said its version by then is taken for one that we do not know.
const ASKING: Duration = Duration::from_secs(10);

/// Runtimes whose ways we know beyond the common command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    Crun,
    Runc,
    Other,
}

/// Asked at most once.
#[derive(Debug, Default)]
pub(super) struct Asked(OnceLock<Dialect>);

impl Asked {
    /// By its name in the configuration; the program is asked only where that says nothing.
    pub(super) fn dialect(&self, options: &OciOptions) -> Dialect {
        *self.0.get_or_init(|| named(&options.name).unwrap_or_else(|| said(options)))
    }
}

fn named(name: &str) -> Option<Dialect> {
    match name {
        "crun" => Some(Dialect::Crun),
        "runc" => Some(Dialect::Runc),
        _ => None,
    }
}

/// Both begin with their name: `crun version 1.21`, `runc version 1.1.15`.
fn said(options: &OciOptions) -> Dialect {
    match Command::new(&options.program).arg("--version").run(&Limits::within(ASKING)) {
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout);
            text.split_whitespace().next().and_then(named).unwrap_or(Dialect::Other)
        }
        Err(error) => {
            let program = options.program.display();
            tracing::warn!(%program, %error, "taken for a runtime that cannot capture memory");
            Dialect::Other
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_known_by_what_it_says_and_asked_only_once() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let program = dir.path().join("crun-1.22");
        let cases = [
            ("echo crun version 1.22; echo commit: x", Dialect::Crun),
            ("echo runc version 1.3.0", Dialect::Runc),
            ("echo youki version 0.5", Dialect::Other),
            ("exit 1", Dialect::Other),
        ];
        for (script, expected) in cases {
            let asked = dir.path().join("asked");
            std::fs::remove_file(&asked).ok();
            let text = format!("#!/bin/sh\necho x >> {}\n{script}\n", asked.display());
            crate::test_script::write(&program, &text);
            let options = OciOptions { name: "debug".into(), program: program.clone(), ..options() };
            let cache = Asked::default();
            assert_eq!((cache.dialect(&options), cache.dialect(&options)), (expected, expected), "{script}");
            assert_eq!(std::fs::read_to_string(&asked).expect("asked"), "x\n");
        }
        let options = OciOptions { program: "/nonexistent/crun".into(), ..options() };
        assert_eq!(Asked::default().dialect(&options), Dialect::Crun, "the usual names cost no process");
    }

    fn options() -> OciOptions {
        let config = crate::config::Config::load(&crate::config::Sources {
            directory: Some("/nonexistent".into()),
            ..Default::default()
        });
        OciOptions::from_config(&config.expect("defaults"), "crun", "k8s.io").expect("built in")
    }
}
