//! /etc/hostname, /etc/hosts, /etc/resolv.conf and /dev/shm of a pod.
//!
//! CRI mounts them into each container if it finds them in its own directories
//! (`internal/cri/server/container_create.go`, "could be delegated to remote sandbox controller"):
//!
//! ```text
//! <root>/io.containerd.grpc.v1.cri/sandboxes/<id>    → /run/cryopod/sandboxes/<namespace>/<id>
//! <state>/io.containerd.grpc.v1.cri/sandboxes/<id>   → the same
//!
//! /run/cryopod/sandboxes/<namespace>/<id>/{hostname,hosts,resolv.conf}
//! /run/cryopod/sandboxes/<namespace>/<id>/shm        tmpfs
//! ```
//! Both roots follow from the bundle: it lies in `<state>/…/<namespace>/<id>`, its link `work` leads to
//! `<root>/…/<namespace>/<id>`.
//!
//! Links, since containerd 2.3 takes directories there whose id is no pause container for leftovers: when it starts, it
//! unmounts and deletes them under the running pod (`cleanupOrphanedIDDirs`). Links it passes over with a warning. It
//! does not delete them with the pod either; [`Files::remove`] does.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::SandboxError;
use super::plan::Names;

/// Base of the directories of all pods.
pub const BASE: &str = "/run/cryopod/sandboxes";

const CRI: &str = "io.containerd.grpc.v1.cri/sandboxes";

/// containerd's size for /dev/shm of a pod.
const SHM_OPTIONS: &str = "mode=1777,size=67108864";

/// Where the files of one pod are, and what is in them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    own: PathBuf,
    links: Vec<PathBuf>,
    shm: bool,
    hostname: String,
    resolv_conf: Option<String>,
}

impl Files {
    /// The files of the pod whose sandbox has this bundle; `None` where the bundle lies in no directory of containerd.
    pub fn of(id: &str, bundle: &Path, names: &Names) -> Option<Self> {
        Self::under(Path::new(BASE), id, bundle, names)
    }

    fn under(base: &Path, id: &str, bundle: &Path, names: &Names) -> Option<Self> {
        let third = |path: &Path| path.ancestors().nth(3).map(Path::to_owned);
        let root = third(&fs::read_link(bundle.join("work")).ok()?)?;
        let state = third(bundle)?;
        let namespace = bundle.parent()?.file_name()?;
        Some(Self {
            own: base.join(namespace).join(id),
            links: vec![root.join(CRI).join(id), state.join(CRI).join(id)],
            shm: names.own_shm,
            hostname: format!("{}\n", names.hostname),
            resolv_conf: names.resolv_conf.clone(),
        })
    }

    /// Takes away what a dead shim has made for the sandbox of this bundle.
    pub fn clean(id: &str, bundle: &Path) {
        if let Some(files) = Self::of(id, bundle, &Names { own_shm: true, ..Names::default() }) {
            files.remove();
        }
    }

    /// For a sandbox that has no such place: nothing is made.
    pub fn none() -> Self {
        Self {
            own: PathBuf::new(),
            links: Vec::new(),
            shm: false,
            hostname: String::new(),
            resolv_conf: None,
        }
    }

    /// Makes them.
    ///
    /// # Errors
    /// Naming the file.
    pub fn make(&self) -> Result<(), SandboxError> {
        if self.own.as_os_str().is_empty() {
            return Ok(());
        }
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| SandboxError::File { path, source }
        };
        let directory = |path: &Path, mode: u32| {
            fs::DirBuilder::new().recursive(true).mode(mode).create(path).map_err(failed(path))
        };
        directory(&self.own, 0o711)?;
        let host = |name: &str| fs::read_to_string(Path::new("/etc").join(name)).unwrap_or_default();
        let resolv_conf = self.resolv_conf.clone().unwrap_or_else(|| host("resolv.conf"));
        for (name, text) in
            [("hostname", self.hostname.clone()), ("hosts", host("hosts")), ("resolv.conf", resolv_conf)]
        {
            let path = self.own.join(name);
            fs::write(&path, text).map_err(failed(&path))?;
        }
        if self.shm {
            let shm = self.own.join("shm");
            directory(&shm, 0o700)?;
            let flags = MsFlags::MS_NOEXEC | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
            mount(Some("shm"), &shm, Some("tmpfs"), flags, Some(SHM_OPTIONS))
                .map_err(|errno| failed(&shm)(errno.into()))?;
        }
        for link in &self.links {
            if let Some(parent) = link.parent() {
                directory(parent, 0o711)?;
                self.sweep(parent);
            }
            symlink(&self.own, link).map_err(failed(link))?;
        }
        Ok(())
    }

    /// Removes the links of pods that ended with the node: /run is empty after a boot, and no shim comes back for them.
    /// A living pod's link leads somewhere from before it is made until after it is removed.
    fn sweep(&self, directory: &Path) {
        let Some(base) = self.own.ancestors().nth(2) else { return };
        for link in fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()) {
            if fs::read_link(&link).is_ok_and(|target| target.starts_with(base) && !target.exists())
                && let Err(error) = fs::remove_file(&link)
            {
                tracing::warn!(path = %link.display(), %error, "the link of a pod before the boot stays");
            }
        }
    }

    /// Takes them away. Idempotent; what cannot be removed is logged: the pod's end does not wait for it.
    pub fn remove(&self) {
        if self.own.as_os_str().is_empty() {
            return;
        }
        let warn = |path: &Path, error: std::io::Error| {
            if error.kind() != ErrorKind::NotFound {
                tracing::warn!(path = %path.display(), %error, "a file of the pod stays");
            }
        };
        for link in &self.links {
            // A directory there is not ours.
            if fs::read_link(link).is_ok_and(|target| target == self.own)
                && let Err(error) = fs::remove_file(link)
            {
                warn(link, error);
            }
        }
        if self.shm {
            // Containers are gone; a straggler keeps its memory until it ends.
            umount2(&self.own.join("shm"), MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW).ok();
        }
        if let Err(error) = fs::remove_dir_all(&self.own) {
            warn(&self.own, error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_found_through_containerds_directories_and_leave_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("cryopod");
        let bundle = dir.path().join("run/io.containerd.sandbox.controller.v1.shim/k8s.io/id");
        fs::create_dir_all(&bundle).unwrap();
        let names =
            Names { hostname: "web-0".to_owned(), resolv_conf: Some("x\n".to_owned()), own_shm: false };
        assert_eq!(Files::under(&base, "id", &bundle, &names), None, "without the link there is no root");
        let work = dir.path().join("lib/io.containerd.sandbox.controller.v1.shim/k8s.io/id");
        symlink(&work, bundle.join("work")).unwrap();
        let files = Files::under(&base, "id", &bundle, &names).unwrap();
        let cri = dir.path().join("lib/io.containerd.grpc.v1.cri/sandboxes");
        fs::create_dir_all(&cri).unwrap();
        symlink(base.join("k8s.io/before-the-boot"), cri.join("before-the-boot")).unwrap();
        symlink("/nowhere", cri.join("of-another")).unwrap();
        files.make().unwrap();
        assert!(!cri.join("before-the-boot").is_symlink());
        assert!(cri.join("of-another").is_symlink());
        for root in ["lib", "run"] {
            let seen = dir.path().join(root).join("io.containerd.grpc.v1.cri/sandboxes/id");
            assert!(seen.is_symlink(), "containerd deletes directories when it starts");
            assert_eq!(fs::read_to_string(seen.join("hostname")).unwrap(), "web-0\n");
            assert_eq!(fs::read_to_string(seen.join("resolv.conf")).unwrap(), "x\n");
            assert!(seen.join("hosts").exists());
        }
        files.remove();
        files.remove();
        assert!(!base.join("k8s.io/id").exists());
        assert!(fs::symlink_metadata(&files.links[0]).is_err());
        assert!(fs::symlink_metadata(&files.links[1]).is_err());
    }

    #[test]
    fn a_directory_of_another_is_not_removed() {
        let dir = tempfile::tempdir().unwrap();
        let bundle = dir.path().join("run/x/k8s.io/id");
        fs::create_dir_all(&bundle).unwrap();
        symlink(dir.path().join("lib/x/k8s.io/id"), bundle.join("work")).unwrap();
        let files = Files::under(&dir.path().join("own"), "id", &bundle, &Names::default()).unwrap();
        fs::create_dir_all(&files.links[0]).unwrap();
        assert!(files.make().is_err());
        files.remove();
        assert!(files.links[0].is_dir());
    }

    #[test]
    fn a_sandbox_without_such_a_place_gets_no_files() {
        Files::none().make().unwrap();
        Files::none().remove();
    }
}
