//! Which runtime a program is, whatever its configuration calls it: `[runtime.crun-debug]` with the path of a crun is a
//! crun, and captures memory like one.

use std::sync::OnceLock;
use std::time::Duration;

use cryopod_command::{Command, Error, Limits};

use super::OciOptions;

/// Any of them says its version in milliseconds, also on a busy node.
const ASKING: Duration = Duration::from_secs(10);

/// Runtimes whose ways we know beyond the common command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    Crun,
    Runc,
    Lxc,
    Other,
}

/// What the program has answered; asked again only as long as it could not.
#[derive(Debug, Default)]
pub(super) struct Asked(OnceLock<Dialect>);

impl Asked {
    /// By its name in the configuration; the program is asked only where that says nothing. A failure (a busy node,
    /// limits that are over) is no answer, and the next caller asks again.
    pub(super) fn dialect(&self, options: &OciOptions, limits: &Limits) -> Result<Dialect, Error> {
        if let Some(known) = self.0.get() {
            return Ok(*known);
        }
        let answer = match named(&options.name) {
            Some(dialect) => dialect,
            None => said(options, limits)?,
        };
        Ok(*self.0.get_or_init(|| answer))
    }

    /// Whether it is one that captures memory; while it cannot be asked, it is not.
    pub(super) fn captures(&self, options: &OciOptions, limits: &Limits) -> bool {
        match self.dialect(options, limits) {
            Ok(dialect) => dialect != Dialect::Other,
            Err(error) => {
                let program = options.program.display();
                tracing::warn!(%program, %error, "taken for a runtime that cannot capture memory until it answers");
                false
            }
        }
    }
}

fn named(name: &str) -> Option<Dialect> {
    match name {
        "crun" => Some(Dialect::Crun),
        "runc" => Some(Dialect::Runc),
        "lxc" | "cryopod-lxc" => Some(Dialect::Lxc),
        _ => None,
    }
}

/// All begin with their name: `crun version 1.21`, `runc version 1.1.15`, `cryopod-lxc 0.1.0`.
fn said(options: &OciOptions, limits: &Limits) -> Result<Dialect, Error> {
    let output = Command::new(&options.program).arg("--version").run(&limits.at_most(ASKING))?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.split_whitespace().next().and_then(named).unwrap_or(Dialect::Other))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A program that notes each time that it is asked, and is configured under a name that says nothing.
    struct Program {
        dir: tempfile::TempDir,
        options: OciOptions,
    }

    impl Program {
        fn new(script: &str) -> Self {
            let dir = tempfile::tempdir().expect("temporary directory");
            let options =
                OciOptions { name: "debug".into(), program: dir.path().join("crun-1.22"), ..options() };
            let program = Self { dir, options };
            program.becomes(script);
            program
        }

        fn becomes(&self, script: &str) {
            let asked = self.dir.path().join("asked");
            let text = format!("#!/bin/sh\necho x >> {}\n{script}\n", asked.display());
            crate::test_script::write(&self.options.program, &text);
        }

        fn asked(&self) -> usize {
            let notes = std::fs::read_to_string(self.dir.path().join("asked"));
            notes.map_or(0, |notes| notes.lines().count())
        }
    }

    #[test]
    fn a_program_is_known_by_what_it_says_and_asked_only_once() {
        let cases = [
            ("echo crun version 1.22; echo commit: x", Dialect::Crun),
            ("echo runc version 1.3.0", Dialect::Runc),
            ("echo cryopod-lxc 0.1.0", Dialect::Lxc),
            ("echo youki version 0.5", Dialect::Other),
        ];
        for (script, expected) in cases {
            let program = Program::new(script);
            let cache = Asked::default();
            for _ in 0..2 {
                let said = cache.dialect(&program.options, &Limits::none()).expect(script);
                assert_eq!(said, expected, "{script}");
            }
            assert_eq!(program.asked(), 1, "{script}");
        }
        let options = OciOptions { program: "/nonexistent/crun".into(), ..options() };
        let said =
            Asked::default().dialect(&options, &Limits::none()).expect("the usual names cost no process");
        assert_eq!(said, Dialect::Crun);
    }

    #[test]
    fn a_program_that_could_not_answer_is_asked_again() {
        let program = Program::new("exit 1");
        let cache = Asked::default();
        for _ in 0..2 {
            assert!(!cache.captures(&program.options, &Limits::none()));
        }
        assert_eq!(program.asked(), 2);
        program.becomes("echo crun version 1.22");
        assert!(cache.captures(&program.options, &Limits::none()), "a failure is kept");
        program.becomes("exit 1");
        assert!(cache.captures(&program.options, &Limits::none()), "an answer is not kept");
        assert_eq!(program.asked(), 3);
    }

    #[test]
    fn the_question_ends_with_the_limits_of_the_caller() {
        let program = Program::new("sleep 60; echo crun version 1.22");
        let began = std::time::Instant::now();
        let cache = Asked::default();
        assert!(cache.dialect(&program.options, &Limits::within(Duration::from_millis(100))).is_err());
        assert!(began.elapsed() < ASKING, "took {:?}", began.elapsed());
    }

    fn options() -> OciOptions {
        let config = crate::config::Config::load(&crate::config::Sources {
            directory: Some("/nonexistent".into()),
            ..Default::default()
        });
        OciOptions::from_config(&config.expect("defaults"), "crun", "k8s.io").expect("built in")
    }
}
