//! /etc/hostname, /etc/hosts, /etc/resolv.conf and /dev/shm of a pod.
//!
//! CRI mounts them into each container if it finds them in its own directories
//! (`internal/cri/server/container_create.go`, "could be delegated to remote sandbox controller"):
//!
//! ```text
//! <root>/io.containerd.grpc.v1.cri/sandboxes/<id>/{hostname,hosts,resolv.conf}
//! <state>/io.containerd.grpc.v1.cri/sandboxes/<id>/shm       tmpfs
//! ```
//! Both roots follow from the bundle: it lies in `<state>/…/<namespace>/<id>`, its link `work` leads to
//! `<root>/…/<namespace>/<id>`. RemovePodSandbox deletes the directories.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::SandboxError;
use super::plan::Names;

const CRI: &str = "io.containerd.grpc.v1.cri/sandboxes";

/// containerd's size for /dev/shm of a pod.
const SHM_OPTIONS: &str = "mode=1777,size=67108864";

/// Where the files of one pod are, and what is in them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    etc: PathBuf,
    shm: Option<PathBuf>,
    hostname: String,
    resolv_conf: Option<String>,
}

impl Files {
    /// The files of the pod whose sandbox has this bundle; `None` where the bundle lies in no directory of containerd.
    pub fn of(id: &str, bundle: &Path, names: &Names) -> Option<Self> {
        let base = |path: &Path| path.ancestors().nth(3).map(Path::to_owned);
        let root = base(&fs::read_link(bundle.join("work")).ok()?)?;
        let state = base(bundle)?;
        Some(Self {
            etc: root.join(CRI).join(id),
            shm: names.own_shm.then(|| state.join(CRI).join(id).join("shm")),
            hostname: format!("{}\n", names.hostname),
            resolv_conf: names.resolv_conf.clone(),
        })
    }

    /// Unmounts what a dead shim has mounted for the sandbox of this bundle.
    pub fn clean(id: &str, bundle: &Path) {
        let shm = bundle.ancestors().nth(3).map(|state| state.join(CRI).join(id).join("shm"));
        Self { shm, ..Self::none() }.remove();
    }

    /// For a sandbox that has no such place: nothing is made.
    pub fn none() -> Self {
        Self { etc: PathBuf::new(), shm: None, hostname: String::new(), resolv_conf: None }
    }

    /// Makes them.
    ///
    /// # Errors
    /// Naming the file.
    pub fn make(&self) -> Result<(), SandboxError> {
        if self.etc.as_os_str().is_empty() {
            return Ok(());
        }
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| SandboxError::File { path, source }
        };
        fs::DirBuilder::new().recursive(true).mode(0o755).create(&self.etc).map_err(failed(&self.etc))?;
        let host = |name: &str| fs::read_to_string(Path::new("/etc").join(name)).unwrap_or_default();
        let resolv_conf = self.resolv_conf.clone().unwrap_or_else(|| host("resolv.conf"));
        for (name, text) in
            [("hostname", self.hostname.clone()), ("hosts", host("hosts")), ("resolv.conf", resolv_conf)]
        {
            let path = self.etc.join(name);
            fs::write(&path, text).map_err(failed(&path))?;
        }
        if let Some(shm) = &self.shm {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(shm).map_err(failed(shm))?;
            let flags = MsFlags::MS_NOEXEC | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
            mount(Some("shm"), shm, Some("tmpfs"), flags, Some(SHM_OPTIONS))
                .map_err(|errno| failed(shm)(errno.into()))?;
        }
        Ok(())
    }

    /// Unmounts /dev/shm; CRI removes the rest. Idempotent.
    pub fn remove(&self) {
        if let Some(shm) = &self.shm {
            // Containers are gone; a straggler keeps its memory until it ends.
            umount2(shm, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_places_follow_from_the_bundle() {
        let dir = tempfile::tempdir().unwrap();
        let bundle = dir.path().join("run/io.containerd.sandbox.controller.v1.shim/k8s.io/id");
        fs::create_dir_all(&bundle).unwrap();
        let names =
            Names { hostname: "web-0".to_owned(), resolv_conf: Some("x\n".to_owned()), own_shm: true };
        assert_eq!(Files::of("id", &bundle, &names), None, "without the link there is no root");
        let work = dir.path().join("lib/io.containerd.sandbox.controller.v1.shim/k8s.io/id");
        std::os::unix::fs::symlink(&work, bundle.join("work")).unwrap();
        let files = Files::of("id", &bundle, &names).unwrap();
        assert_eq!(files.etc, dir.path().join("lib/io.containerd.grpc.v1.cri/sandboxes/id"));
        assert_eq!(files.shm, Some(dir.path().join("run/io.containerd.grpc.v1.cri/sandboxes/id/shm")));
        let files = Files { shm: None, ..files };
        files.make().unwrap();
        assert_eq!(fs::read_to_string(files.etc.join("hostname")).unwrap(), "web-0\n");
        assert_eq!(fs::read_to_string(files.etc.join("resolv.conf")).unwrap(), "x\n");
        assert!(files.etc.join("hosts").exists());
    }

    #[test]
    fn a_sandbox_without_such_a_place_gets_no_files() {
        Files::none().make().unwrap();
        Files::none().remove();
    }
}
