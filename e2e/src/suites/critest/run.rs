//! Calls of the critest program: its list of tests, and one test at a time.
//!
//! One process per test costs half a second and gives each its own deadline, its own result line and a repeat
//! that does not run anything else again.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::images::Digests;
use super::judge::Outcome;
use crate::shell;
use crate::suite::Failure;

/// Enough for the slowest test on an emulated machine; gomega's own waits end after one minute each.
const TEST_TIMEOUT: &str = "5m";
/// For the process, where the test's own deadline did not end it.
const PROCESS_TIMEOUT_S: u32 = 360;
/// The digest that critest has for `test-image-digest`; see [`Critest::prepare`].
const DIGEST: &str = "sha256:9700f9a2f5bf2c45f2f605a0bd3bce7cf37420ec9d3ed50ac2758413308766bf";

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Report {
    spec_reports: Vec<Spec>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Spec {
    #[serde(default)]
    container_hierarchy_texts: Option<Vec<String>>,
    leaf_node_type: String,
    leaf_node_text: String,
    state: String,
    #[serde(default)]
    failure: SpecFailure,
    #[serde(default)]
    captured_ginkgo_writer_output: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SpecFailure {
    #[serde(default)]
    message: String,
    #[serde(default)]
    location: Location,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Location {
    #[serde(default)]
    file_name: String,
    #[serde(default)]
    line_number: u32,
}

impl Spec {
    fn name(&self) -> String {
        let mut texts = self.container_hierarchy_texts.clone().unwrap_or_default();
        texts.push(self.leaf_node_text.clone());
        texts.join(" ")
    }
}

/// The full names of critest's tests, benchmarks excepted, sorted.
pub(super) fn list() -> Result<Vec<String>, Failure> {
    let report = "/run/cryopod-e2e/critest-list.json";
    std::fs::create_dir_all("/run/cryopod-e2e").map_err(|e| e.to_string())?;
    shell::ok(&format!("critest -ginkgo.dry-run -ginkgo.json-report {report}"))?;
    let mut names: Vec<String> = specs(Path::new(report))?
        .into_iter()
        .filter(|spec| spec.leaf_node_type == "It" && spec.state != "skipped")
        .map(|spec| spec.name())
        .collect();
    names.sort();
    let distinct: HashSet<&String> = names.iter().collect();
    if distinct.len() != names.len() {
        return Err("two tests of critest have the same name".into());
    }
    Ok(names)
}

fn specs(report: &Path) -> Result<Vec<Spec>, Failure> {
    let text = std::fs::read(report).map_err(|e| format!("{}: {e}", report.display()))?;
    let suites: Vec<Report> =
        serde_json::from_slice(&text).map_err(|e| format!("{}: {e}", report.display()))?;
    Ok(suites.into_iter().flat_map(|suite| suite.spec_reports).collect())
}

/// The program, ready to be called.
#[derive(Debug)]
pub(super) struct Critest {
    work: PathBuf,
}

impl Critest {
    /// Puts the program into `work`, with two things that it wants of its surroundings:
    ///
    /// * It pulls one image by the digest of its authors' build, which nobody else can make. In our copy of the
    ///   program the digest of the image that is served here stands in that place.
    /// * It calls `sudo apparmor_parser`; we are root and have no sudo.
    pub(super) fn prepare(work: &Path, digests: &Digests) -> Result<Self, Failure> {
        let ours = digests
            .get("k8s-staging-cri-tools/test-image-digest:latest")
            .ok_or("images.json has no test-image-digest")?;
        let program = shell::exec_ok(&["which", "critest"])?;
        let mut bytes = std::fs::read(&program).map_err(|e| format!("{program}: {e}"))?;
        let found: Vec<usize> = memchr_all(&bytes, DIGEST.as_bytes());
        if found.is_empty() || ours.len() != DIGEST.len() {
            return Err(format!("{program} does not have the digest {DIGEST}: another version?"));
        }
        for at in found {
            bytes[at..at + DIGEST.len()].copy_from_slice(ours.as_bytes());
        }
        let bin = work.join("bin");
        std::fs::create_dir_all(&bin).map_err(|e| format!("{}: {e}", bin.display()))?;
        for (name, content) in [("critest", &bytes[..]), ("sudo", b"#!/bin/sh\nexec \"$@\"\n")] {
            let path = bin.join(name);
            std::fs::write(&path, content).map_err(|e| format!("{}: {e}", path.display()))?;
            shell::ok(&format!("chmod 755 {}", path.display()))?;
        }
        Ok(Critest { work: work.to_owned() })
    }

    /// Runs the test of that full name with the runtime handler.
    pub(super) fn run(&self, name: &str, handler: &str) -> Result<Outcome, Failure> {
        let bin = self.work.join("bin").display().to_string();
        let report = self.work.join("report.json");
        std::fs::remove_file(&report).ok();
        let called = shell::exec(&[
            "env",
            &format!("PATH={bin}:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
            "timeout",
            "--signal=QUIT",
            "--kill-after=10",
            &PROCESS_TIMEOUT_S.to_string(),
            "critest",
            "-ginkgo.seed=1",
            "-ginkgo.no-color",
            &format!("-ginkgo.timeout={TEST_TIMEOUT}"),
            &format!("-ginkgo.json-report={}", report.display()),
            &format!("-ginkgo.focus={}$", quoted(name)),
            &format!("-runtime-handler={handler}"),
        ])?;
        let Ok(specs) = specs(&report) else {
            let said: String =
                called.stdout.chars().rev().take(2000).collect::<Vec<_>>().into_iter().rev().collect();
            return Ok(Outcome::Failed(format!(
                "critest ended with {} and without a report: {}{said}",
                called.code, called.stderr
            )));
        };
        let suite = specs.iter().find(|spec| spec.leaf_node_type != "It" && spec.state != "passed");
        if let Some(broken) = suite {
            return Ok(Outcome::Failed(format!("{}: {}", broken.leaf_node_type, broken.failure.message)));
        }
        let spec = specs.iter().find(|spec| spec.leaf_node_type == "It" && spec.name() == name);
        let Some(spec) = spec else {
            return Err(format!("critest has no test {name:?}"));
        };
        Ok(match spec.state.as_str() {
            "passed" => Outcome::Passed,
            "skipped" if !spec.failure.message.is_empty() => Outcome::Skipped(spec.failure.message.clone()),
            "skipped" => return Err(format!("the focus for {name:?} does not select it")),
            state => Outcome::Failed(explain(state, spec)),
        })
    }
}

/// State, message and place of a failure, and the last lines of what the test told while it ran.
fn explain(state: &str, spec: &Spec) -> String {
    let told: Vec<&str> = spec.captured_ginkgo_writer_output.lines().collect();
    let told = told[told.len().saturating_sub(12)..].join("\n    ");
    let place = &spec.failure.location;
    format!(
        "{state}: {} ({}:{})\n    {told}",
        spec.failure.message.trim(),
        place.file_name,
        place.line_number
    )
}

/// A text as a regular expression of Go that matches it alone.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if r"\.+*?()|[]{}^$".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// All places of `needle`, which do not overlap.
fn memchr_all(haystack: &[u8], needle: &[u8]) -> Vec<usize> {
    let (first, mut places, mut from) = (needle[0], Vec::new(), 0);
    while let Some(at) = haystack[from..].iter().position(|byte| *byte == first).map(|at| from + at) {
        if haystack[at..].starts_with(needle) {
            places.push(at);
            from = at + needle.len();
        } else {
            from = at + 1;
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_is_quoted_for_the_focus() {
        assert_eq!(quoted("a [Conformance] (b) c.d"), r"a \[Conformance\] \(b\) c\.d");
    }

    #[test]
    fn every_place_of_the_digest_is_found() {
        assert_eq!(memchr_all(b"xabyababz", b"ab"), [1, 4, 6]);
        assert!(memchr_all(b"aaaa", b"ab").is_empty());
    }
}
