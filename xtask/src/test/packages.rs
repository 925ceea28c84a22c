//! The suite `packages`, on this host: the Debian packages are built of what `cargo test` has built already (what is in a
//! package does not depend on how its programs were optimised), lintian finds nothing, they have what they should, and their
//! life – install, upgrade, remove, purge – goes by in a tree of Debian that nothing runs in but dpkg. The manifest for krew too.

mod krew;
mod life;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use cryopod_command::{Command, Limits};

use super::outcome::Outcome;
use crate::cache::Cache;
use crate::cross::Build;
use crate::deploy::Profile;
use crate::{deb, host, report, repository};

const PACKAGES: &[(&str, &str)] = &[
    ("lintian", "lintian"),
    ("dpkg-shlibdeps", "dpkg-dev"),
    ("strip", "binutils"),
    ("systemd-analyze", "systemd"),
    ("mmdebstrap", "mmdebstrap"),
];
/// `systemd-analyze security` counts to 100.
const EXPOSURE: &str = "--threshold=50";
/// What must be in which package, besides its documents.
const CONTENTS: &[(&str, &[&str])] = &[
    (
        "cryopod",
        &[
            "usr/bin/containerd-shim-cryopod-v2",
            "usr/bin/containerd-shim-cryopod-lxc-v2",
            "usr/bin/cryopod",
            "usr/bin/cryopod-init",
            "usr/bin/cryopod-lxc",
            "usr/bin/cryopod-lxc-monitor",
            "usr/lib/systemd/system/cryopod-recover.service",
            "etc/cryopod/config.toml",
            "usr/share/man/man1/cryopod.1.gz",
            "usr/share/man/man1/cryopod-checkpoint.1.gz",
            "usr/share/bash-completion/completions/cryopod",
            "usr/share/zsh/vendor-completions/_cryopod",
            "usr/share/fish/vendor_completions.d/cryopod.fish",
        ],
    ),
    (
        "cryopod-agent",
        &[
            "usr/bin/cryopod-agent",
            "usr/lib/systemd/system/cryopod-agent.service",
            "etc/default/cryopod-agent",
            "usr/share/man/man8/cryopod-agent.8.gz",
        ],
    ),
    (
        "kubectl-cryopod",
        &["usr/bin/kubectl-cryopod", "usr/bin/kubectl-checkpoint", "usr/bin/kubectl-restore"],
    ),
];

type Check<'a> = dyn FnMut(&str, Result<(), String>) + 'a;

/// Runs it until `until`.
pub(super) fn suite(until: Instant) -> Outcome {
    let mut outcome = Outcome::default();
    let mut check = |name: &str, result: Result<(), String>| {
        println!("{}: {name}", if result.is_ok() { "ok" } else { "FAILED" });
        if let Err(why) = &result {
            println!("  {why}");
        }
        outcome.check(name, result);
    };
    if let Err(why) = all(&Limits { deadline: Some(until), cancel: None }, &mut check) {
        check("building the packages", Err(why));
    }
    outcome
}

fn all(limits: &Limits, check: &mut Check<'_>) -> Result<(), String> {
    let said = |error: &dyn std::error::Error| report::chain(error);
    let cache = Cache::from_env().map_err(|error| said(&error))?;
    host::install(&cache, PACKAGES).map_err(|error| said(&error))?;
    let work = tempfile::tempdir().map_err(|error| error.to_string())?;
    let build = Build::host(Profile::Debug).map_err(|error| said(&error))?;
    let packages = deb::build(build, work.path(), 1).map_err(|error| said(&error))?;
    for package in &packages {
        let name = name(package);
        let lintian =
            Command::new("lintian").args(["--fail-on", "error,warning", "--tag-display-limit", "0"]);
        // Debian's own policy on uploads is not about a package from elsewhere; root is what this host runs as.
        check(&format!("{name}: lintian"), quiet(lintian.arg("--allow-root").arg(package), limits));
        check(&format!("{name}: contents"), contents(&name, package, limits));
    }
    units(&repository::root(), limits, check);
    manual(&repository::root(), build, limits, check);
    krew::checks(build, work.path(), limits, check);
    let later = work.path().join("later");
    let next = deb::build(build, &later, 2).map_err(|error| said(&error))?;
    life::checks(&cache, work.path(), &packages, &next, limits, check)
}

/// `cryopod` of `cryopod_0.1.0-1_amd64.deb`.
fn name(package: &Path) -> String {
    let file = package.file_name().unwrap_or_default().to_string_lossy().into_owned();
    file.split('_').next().unwrap_or_default().to_owned()
}

fn contents(name: &str, package: &Path, limits: &Limits) -> Result<(), String> {
    let list = Command::new("dpkg-deb")
        .arg("--contents")
        .arg(package)
        .run(limits)
        .map_err(|error| error.to_string())?;
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    let paths: Vec<&str> = list.lines().filter_map(|line| line.split_whitespace().nth(5)).collect();
    let wanted = CONTENTS.iter().find(|(other, _)| *other == name).map_or(&[][..], |(_, paths)| paths);
    if wanted.is_empty() {
        return Err("nobody says what is in it".into());
    }
    let missing: Vec<&str> =
        wanted.iter().copied().filter(|path| !paths.contains(&format!("./{path}").as_str())).collect();
    let local: Vec<&str> = paths.iter().copied().filter(|path| path.contains("/usr/local")).collect();
    if missing.is_empty() && local.is_empty() {
        return Ok(());
    }
    Err(format!("missing: {missing:?}; in the administrator's folders: {local:?}"))
}

fn units(root: &Path, limits: &Limits, check: &mut Check<'_>) {
    for unit in ["cryopod-agent.service", "cryopod-recover.service"] {
        let path = root.join("deploy/systemd").join(unit);
        let ask = Command::new("systemd-analyze").args(["security", "--offline=yes", EXPOSURE, "--no-pager"]);
        check(&format!("{unit}: exposure below 5.0"), quiet(ask.arg(path), limits));
    }
}

/// Verbs and options of the agent are in its manual page, which is written by hand.
fn manual(root: &Path, build: Build, limits: &Limits, check: &mut Check<'_>) {
    let page = fs::read_to_string(root.join("deploy/man/cryopod-agent.8")).unwrap_or_default();
    let agent =
        crate::programs::file(build, "cryopod-agent").unwrap_or_else(|| PathBuf::from("cryopod-agent"));
    let help = |arguments: &[&str]| {
        let output = Command::new(&agent).args(arguments).arg("--help").run(limits);
        output
            .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
            .map_err(|error| error.to_string())
    };
    let result = help(&[]).and_then(|text| {
        let verbs = text.lines().skip_while(|line| !line.starts_with("Commands:")).skip(1);
        // Names are indented by two; what is wrapped, by more.
        let verbs = verbs.take_while(|line| line.starts_with("  ")).filter(|line| !line.starts_with("   "));
        let verbs = verbs.filter_map(|line| line.split_whitespace().next());
        let mut missing = Vec::new();
        for verb in verbs.filter(|verb| *verb != "help") {
            if !page.contains(&format!(".Cm {verb}\n")) {
                missing.push(verb.to_owned());
            }
            for option in help(&[verb])?.split_whitespace().filter(|word| word.starts_with("--")) {
                let name = option.trim_start_matches("--").trim_end_matches([',', '.']);
                if !["", "help", "version"].contains(&name) && !page.contains(&format!("Fl -{name}")) {
                    missing.push(format!("{verb} --{name}"));
                }
            }
        }
        if missing.is_empty() { Ok(()) } else { Err(format!("not in the page: {}", missing.join(", "))) }
    });
    check("cryopod-agent(8) has all verbs and options", result);
}

/// Runs it; what it says only if it fails.
fn quiet(command: Command, limits: &Limits) -> Result<(), String> {
    let (status, output) = command.status(limits).map_err(|error| error.to_string())?;
    if status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &output.stderr;
    let lines: Vec<&str> = said.trim().lines().collect();
    Err(lines[lines.len().saturating_sub(20)..].join("\n  "))
}
