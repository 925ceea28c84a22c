//! The programs that a node gets, and the folder that an installation is put together from: for the packages and for the
//! agent's image.

use std::path::PathBuf;

use crate::cross::{self, Build};

/// A program: its crate, its name, and whether it carries its libraries with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Program {
    pub(crate) package: &'static str,
    pub(crate) name: &'static str,
    pub(crate) statically: bool,
}

const fn program(package: &'static str, name: &'static str, statically: bool) -> Program {
    Program { package, name, statically }
}

/// All of them.
pub(crate) const PROGRAMS: &[Program] = &[
    program("cryopod-shim", "containerd-shim-cryopod-v2", false),
    program("cryopod-cli", "cryopod", false),
    program("cryopod-lxc", "cryopod-lxc", false),
    program("cryopod-agent", "cryopod-agent", false),
    program("cryopod-init", "cryopod-init", true),
    program("cryopod-lxc-monitor", "cryopod-lxc-monitor", true),
    program("cryopod-kubectl", "kubectl-cryopod", false),
];

/// Those whose crates are in this checkout.
pub(crate) fn there() -> impl Iterator<Item = &'static Program> {
    let manifest = crate::repository::root().join("Cargo.lock");
    let lock = std::fs::read_to_string(manifest).unwrap_or_default();
    PROGRAMS.iter().filter(move |it| lock.contains(&format!("name = \"{}\"\n", it.package)))
}

/// Builds them.
pub(crate) fn build(build: Build) -> Result<(), cross::Error> {
    let packages: Vec<(&'static str, bool)> = there().map(|it| (it.package, it.statically)).collect();
    build.run(&packages)
}

/// The built file of a program.
pub(crate) fn file(build: Build, name: &str) -> Option<PathBuf> {
    there().find(|it| it.name == name).map(|it| build.file(it.name, it.statically))
}
