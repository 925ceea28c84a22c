//! `node deploy`: cryopod's own programs, built for release here and put into a running node when they changed.
//!
//! The host's C library is older than the node's or the same (Debian 12 and 13), so plain host builds run there.

use std::process::Command;

use crate::node::{self, Node};
use crate::progress::Step;
use crate::recipe::{self, Recipe};
use crate::repository;

/// Package and program.
const PROGRAMS: &[(&str, &str)] = &[
    ("cryopod-shim", "containerd-shim-cryopod-v2"),
    ("cryopod-cli", "cryopod"),
    ("cryopod-e2e", "cryopod-e2e"),
];

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

/// Builds and installs; programs that the node has already are left alone.
pub(crate) fn deploy(node: &Node) -> Result<(), Error> {
    let root = repository::root();
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(&root).args(["build", "--quiet", "--release"]);
    for (package, _) in PROGRAMS {
        cargo.args(["--package", package]);
    }
    let step = Step::begin("building cryopod", None);
    if !cargo.status().map_err(Error::Cargo)?.success() {
        return Err(Error::Build);
    }
    step.done();
    let target = repository::target();
    for (_, program) in PROGRAMS {
        let local = target.join("release").join(program);
        let key = Recipe::default().path(&local)?.key();
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
    Ok(())
}
