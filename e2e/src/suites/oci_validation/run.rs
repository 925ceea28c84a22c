//! Calls of the validation programs. They find the runtime by the variable `RUNTIME`, and in their working directory the
//! root file system of their bundles (`rootfs-ARCH.tar.gz`) and the program that looks around inside (`runtimetest`).

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::tap::{self, Report};
use crate::shell;
use crate::suite::Failure;

/// Where the node image has the programs.
pub(super) const PROGRAMS: &str = "/usr/local/lib/oci-validation";
const INSIDE: &str = "runtimetest";
/// On a disk, since /run is mounted nodev, and where user namespaces reach it.
const WORK: &str = "/var/tmp/cryopod-e2e-oci-validation";
/// Several times what any of them takes that gets somewhere.
const TIMEOUT_S: u32 = 120;

/// The programs for cgroups; they read version 1, and where that is not there they fail for minutes.
pub(super) fn is_about_cgroups(program: &str) -> bool {
    program.starts_with("linux_cgroups")
}

/// The names of the programs, sorted, the slow ones last.
pub(super) fn list() -> Result<Vec<String>, Failure> {
    let entries = std::fs::read_dir(PROGRAMS).map_err(|e| format!("{PROGRAMS}: {e}"))?;
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter(|name| name != INSIDE).collect();
    names.sort_by_cached_key(|name| (is_about_cgroups(name), name.clone()));
    Ok(names)
}

/// The working directory of the programs; removed when dropped.
#[derive(Debug)]
pub(super) struct Place(PathBuf);

impl Place {
    /// Makes it.
    pub(super) fn prepare() -> Result<Self, Failure> {
        let place = Self(PathBuf::from(WORK));
        let bundles = place.0.join("bundles");
        std::fs::create_dir_all(&bundles).map_err(|e| format!("{}: {e}", bundles.display()))?;
        shell::ok(&format!("cp {PROGRAMS}/{INSIDE} {WORK}/"))?;
        root(&place.0.join("root"), &place.0.join(format!("rootfs-{}.tar.gz", architecture()?)))?;
        Ok(place)
    }

    /// Runs a program with a runtime; containers that it leaves are removed. It gets a mount namespace of its own: one
    /// program asks for a container without, and runc then leaves its mounts there and makes the node's root private.
    pub(super) fn run(&self, program: &str, runtime: &str) -> Result<Report, Failure> {
        let work = self.0.display();
        let called = shell::sh(&format!(
            "cd {work} && exec env RUNTIME={runtime} TMPDIR={work}/bundles unshare --mount --propagation slave \
             timeout --kill-after=5 {TIMEOUT_S} {PROGRAMS}/{program}"
        ))?;
        self.remove_containers(runtime)?;
        Ok(tap::read(&called.stdout, called.code, &called.stderr))
    }

    fn remove_containers(&self, runtime: &str) -> Result<(), Failure> {
        let bundles = self.0.join("bundles");
        let text = shell::exec_ok(&[runtime, "list", "--format", "json"])?;
        let list: Value = serde_json::from_str(&text).map_err(|e| format!("{runtime} list: {e}: {text}"))?;
        for container in list.as_array().into_iter().flatten() {
            let bundle = container["bundle"].as_str().unwrap_or_default();
            if let (true, Some(id)) = (Path::new(bundle).starts_with(&bundles), container["id"].as_str()) {
                shell::exec_ok(&[runtime, "delete", "--force", id])?;
            }
        }
        shell::ok(&format!("rm -rf --one-file-system {}/*", bundles.display())).map(drop)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Err(e) = std::fs::remove_dir_all(&self.0) {
            eprintln!("clean-up: {}: {e}", self.0.display());
        }
    }
}

/// As Go calls it.
fn architecture() -> Result<&'static str, Failure> {
    match std::env::consts::ARCH {
        "x86_64" => Ok("amd64"),
        "aarch64" => Ok("arm64"),
        other => Err(format!("no name in Go for the architecture {other}")),
    }
}

/// The root file system: Debian's busybox with a link for each of its programs.
fn root(tree: &Path, archive: &Path) -> Result<(), Failure> {
    let at = tree.display();
    shell::ok(&format!(
        "mkdir -p {at}/bin {at}/dev {at}/etc {at}/proc {at}/sys {at}/tmp && chmod 1777 {at}/tmp && \
         cp /usr/bin/busybox {at}/bin/ && echo root:x:0:0:root:/root:/bin/sh > {at}/etc/passwd && \
         echo root:x:0: > {at}/etc/group"
    ))?;
    for name in shell::exec_ok(&["busybox", "--list"])?.lines().filter(|name| *name != "busybox") {
        let link = tree.join("bin").join(name);
        std::os::unix::fs::symlink("busybox", &link).map_err(|e| format!("{}: {e}", link.display()))?;
    }
    shell::ok(&format!("tar -czf {} -C {at} . && rm -r {at}", archive.display())).map(drop)
}
