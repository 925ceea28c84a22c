//! The root tree: Debian 13 with the packages of `xtask/node/packages`, by mmdebstrap.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::Error;
use super::error::at;
use super::layer::{self, Layer};
use crate::cache::Cache;
use crate::progress::Step;
use crate::recipe::Recipe;
use crate::{host, process, repository};

/// Raise it when what this file does with the same package list changes.
const REVISION: &str = "1";
const RELEASE: &str = "trixie";

pub(super) fn layer(cache: &Cache) -> Result<Layer, Error> {
    let list = repository::root().join("xtask/node/packages");
    let text = fs::read_to_string(&list).map_err(at(&list))?;
    let packages: Vec<&str> =
        text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')).collect();
    let key = Recipe::default().text(REVISION).text(RELEASE).text(packages.join(",")).key();
    layer::ensure(cache, "packages", &key, |dir| bootstrap(cache, &packages, &dir.join("tree")))
}

/// The same Debian with few packages: a tree to install packages in.
pub(super) fn bare(cache: &Cache, packages: &[&str]) -> Result<Layer, Error> {
    let key = Recipe::default().text(REVISION).text(RELEASE).text("bare").text(packages.join(",")).key();
    layer::ensure(cache, "bare", &key, |dir| bootstrap(cache, packages, &dir.join("tree")))
}

fn bootstrap(cache: &Cache, packages: &[&str], tree: &Path) -> Result<(), Error> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Error::NotRoot);
    }
    let mirror = host::mirror()?;
    let security = format!("{}-security", mirror.trim_end_matches('/'));
    let step = Step::begin("installing Debian 13 for the node", Some("2 minutes"));
    let mut command = Command::new("mmdebstrap");
    command.args(["--mode=root", "--variant=minbase", "--format=directory"]);
    command.arg(format!("--include={}", packages.join(",")));
    command.arg("--aptopt=APT::Install-Recommends \"false\"");
    // The host may live in an archive snapshot, and apt there is told so; the tree lives in the same.
    command.arg("--aptopt=Acquire::Check-Valid-Until \"false\"");
    // Ours before the package's: no initial RAM disk is made, the image has its own.
    command.arg("--dpkgopt=force-confold");
    command.arg(
        "--essential-hook=mkdir -p \"$1/etc/initramfs-tools\"; \
         echo update_initramfs=no > \"$1/etc/initramfs-tools/update-initramfs.conf\"",
    );
    for unread in ["doc", "man", "locale", "info"] {
        command.arg(format!("--dpkgopt=path-exclude=/usr/share/{unread}/*"));
    }
    command.arg(RELEASE).arg(tree);
    command.arg(format!("deb {mirror} {RELEASE} main contrib"));
    command.arg(format!("deb {mirror} {RELEASE}-updates main contrib"));
    command.arg(format!("deb {security} {RELEASE}-security main contrib"));
    process::logged(
        command,
        &step,
        "installing Debian 13 for the node",
        &cache.root().join("log/packages.log"),
    )?;
    step.done();
    Ok(())
}
