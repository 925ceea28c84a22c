//! `node deploy`: cryopod's own programs, built for release here and put into a running node when they changed.
//!
//! The host's C library is older than the node's or the same (Debian 12 and 13), so plain host builds run there.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::node::{self, Node};
use crate::progress::Step;
use crate::recipe::{self, Recipe};
use crate::repository;

/// A program of this workspace.
struct Program {
    package: &'static str,
    /// Its name in the node.
    name: &'static str,
    /// Example and feature of the package, for programs that are examples.
    example: Option<(&'static str, &'static str)>,
    /// Whether it carries its libraries with it: it runs where no file of the host is, or once per container.
    linked: Linked,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Linked {
    Dynamically,
    Statically,
}

/// How it is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// For tests: quick to build again.
    Release,
    /// As it is installed, for figures.
    Dist,
    /// What `cargo test` has built already; large and slow.
    Debug,
}

impl Profile {
    /// Cargo's name of it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Dist => "dist",
            Self::Debug => "dev",
        }
    }

    /// The folder of what is built with it.
    pub(crate) fn folder(self) -> &'static str {
        if self == Self::Debug { "debug" } else { self.name() }
    }
}

const PROGRAMS: &[Program] = &[
    Program {
        package: "cryopod-shim",
        name: "containerd-shim-cryopod-v2",
        example: None,
        linked: Linked::Dynamically,
    },
    Program { package: "cryopod-cli", name: "cryopod", example: None, linked: Linked::Dynamically },
    Program { package: "cryopod-lxc", name: "cryopod-lxc", example: None, linked: Linked::Dynamically },
    Program { package: "cryopod-init", name: "cryopod-init", example: None, linked: Linked::Statically },
    Program {
        package: "cryopod-lxc-monitor",
        name: "cryopod-lxc-monitor",
        example: None,
        linked: Linked::Statically,
    },
    Program { package: "cryopod-e2e", name: "cryopod-e2e", example: None, linked: Linked::Dynamically },
    Program {
        package: "cryopod-zfs",
        name: "zfs-conformance",
        example: Some(("conformance", "conformance")),
        linked: Linked::Dynamically,
    },
];

/// What is enabled in the node as the installation guide says.
const UNIT: &str = "cryopod-recover.service";

impl Program {
    /// Where cargo puts it, relative to its target folder.
    fn built(&self, profile: Profile) -> PathBuf {
        match (self.example, self.linked) {
            (Some((example, _)), _) => Path::new(profile.folder()).join("examples").join(example),
            (None, Linked::Dynamically) => Path::new(profile.folder()).join(self.name),
            (None, Linked::Statically) => Path::new(&static_target()).join(profile.folder()).join(self.name),
        }
    }
}

/// Why the programs are not in the node.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot start cargo: {0}")]
    Cargo(std::io::Error),
    #[error("cargo build failed; what it said is above")]
    Build,
    #[error(transparent)]
    Recipe(#[from] recipe::Error),
    #[error(transparent)]
    Node(#[from] node::Error),
}

/// Builds and installs; what the node has already is left alone.
pub(crate) fn deploy(node: &Node, profile: Profile) -> Result<(), Error> {
    let step = Step::begin("building cryopod", None);
    for linked in [Linked::Dynamically, Linked::Statically] {
        let plain = PROGRAMS.iter().filter(|program| program.example.is_none() && program.linked == linked);
        cargo(profile, linked, plain.flat_map(|program| ["--package", program.package]))?;
    }
    for program in PROGRAMS {
        if let Some((example, feature)) = program.example {
            let arguments = ["--package", program.package, "--features", feature, "--example", example];
            cargo(profile, Linked::Dynamically, arguments)?;
        }
    }
    step.done();
    for program in PROGRAMS {
        let local = repository::target().join(program.built(profile));
        let key = Recipe::default().path(&local)?.key();
        let program = program.name;
        let mark = format!("/usr/local/lib/cryopod-deployed/{program}");
        if node.run(["cat", &mark])?.stdout.trim() == key {
            continue;
        }
        let step = Step::begin(format!("installing {program} in node '{}'", node.name()), None);
        let arriving = format!("/usr/local/bin/.{program}.new");
        node.copy_in(&local, &arriving)?;
        // Renamed, not overwritten: running shims keep the program that they were started from.
        node.script(&format!(
            "chmod 755 {arriving}; mv {arriving} /usr/local/bin/{program}\n\
             mkdir -p /usr/local/lib/cryopod-deployed; echo {key} > {mark}"
        ))?;
        step.done();
    }
    // The shim whose name chooses LXC.
    node.script("ln -sfn containerd-shim-cryopod-v2 /usr/local/bin/containerd-shim-cryopod-lxc-v2")?;
    enable(node)
}

/// Recovery at boot.
fn enable(node: &Node) -> Result<(), Error> {
    let local = repository::root().join("deploy/systemd").join(UNIT);
    let key = Recipe::default().path(&local)?.key();
    let mark = format!("/usr/local/lib/cryopod-deployed/{UNIT}");
    if node.run(["cat", &mark])?.stdout.trim() == key {
        return Ok(());
    }
    node.copy_in(&local, &format!("/etc/systemd/system/{UNIT}"))?;
    node.script(&format!(
        "chmod 644 /etc/systemd/system/{UNIT}; systemctl daemon-reload; systemctl enable --quiet {UNIT}; echo {key} > {mark}"
    ))?;
    Ok(())
}

/// Builds the programs of these packages, each with its libraries or without.
pub(crate) fn build(profile: Profile, packages: &[(&'static str, bool)]) -> Result<(), Error> {
    for (linked, statically) in [(Linked::Dynamically, false), (Linked::Statically, true)] {
        let mut wanted = packages.iter().filter(|(_, it)| *it == statically).peekable();
        // Without a package cargo would build all of them.
        if wanted.peek().is_some() {
            cargo(profile, linked, wanted.flat_map(|(name, _)| ["--package", name]))?;
        }
    }
    Ok(())
}

/// Where a program is after [`build`].
pub(crate) fn built(profile: Profile, name: &str, statically: bool) -> PathBuf {
    let folder = if statically { repository::target().join(static_target()) } else { repository::target() };
    folder.join(profile.folder()).join(name)
}

/// The host's own target by its name: cargo keeps what is built with other flags apart only where the target is named.
fn static_target() -> String {
    format!("{}-unknown-linux-gnu", std::env::consts::ARCH)
}

fn cargo(
    profile: Profile,
    linked: Linked,
    arguments: impl IntoIterator<Item = &'static str>,
) -> Result<(), Error> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .current_dir(repository::root())
        .args(["build", "--quiet", "--profile", profile.name()])
        .args(arguments);
    if linked == Linked::Statically {
        cargo.args(["--target", &static_target()]).env("RUSTFLAGS", "-C target-feature=+crt-static");
    }
    if cargo.status().map_err(Error::Cargo)?.success() { Ok(()) } else { Err(Error::Build) }
}
