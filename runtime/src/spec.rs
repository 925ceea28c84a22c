//! The OCI `config.json` of a bundle, read tolerantly: what this project does not know is passed through unchanged.
//!
//! The file comes from containerd or a person and goes to the runtime as it is; here only the parts are read that a
//! capture, a restore or an event needs. Its size is bounded, because it is also read back from checkpoints.

use std::io;
use std::path::{Path, PathBuf};

use cryopod_checkpoint::target::PodIdentity;
use serde_json::Value;

use crate::cgroup::Cgroup;

/// The largest `config.json` that is read; CRI's are below 100 KiB, device lists and seccomp profiles make more.
pub const MAX_SIZE: u64 = 4 << 20;

/// Annotations of containerd's CRI plugin (containerd `internal/cri/annotations`).
pub mod annotation {
    /// `sandbox` or `container`.
    pub const CONTAINER_TYPE: &str = "io.kubernetes.cri.container-type";
    /// Sandbox id.
    pub const SANDBOX_ID: &str = "io.kubernetes.cri.sandbox-id";
    /// Pod name.
    pub const SANDBOX_NAME: &str = "io.kubernetes.cri.sandbox-name";
    /// Pod namespace.
    pub const SANDBOX_NAMESPACE: &str = "io.kubernetes.cri.sandbox-namespace";
    /// Pod UID.
    pub const SANDBOX_UID: &str = "io.kubernetes.cri.sandbox-uid";
    /// Container name in the pod.
    pub const CONTAINER_NAME: &str = "io.kubernetes.cri.container-name";
    /// Image reference.
    pub const IMAGE_NAME: &str = "io.kubernetes.cri.image-name";
    /// Checkpoint to start from.
    pub const RESTORE_FROM: &str = "cryopod.dev/restore-from";
    /// Who asked the cluster for the restore; for the audit log.
    pub const REQUESTED_BY: &str = "cryopod.dev/requested-by";
    /// `once` or `always`.
    pub const RESTORE_POLICY: &str = "cryopod.dev/restore-policy";
    /// `refuse`, `overwrite` or `keep`.
    pub const RESTORE_VOLUMES: &str = "cryopod.dev/restore-volumes";
    /// `capture`, `skip` or `refuse`.
    pub const VOLUMES: &str = "cryopod.dev/volumes";
    /// `auto`, `full` or `disk`.
    pub const CHECKPOINT_MODE: &str = "cryopod.dev/checkpoint-mode";
}

/// Why a spec cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Larger than any spec.
    #[error("{} has {size} bytes; a config.json has at most {MAX_SIZE}", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        size: u64,
    },
    /// Not JSON.
    #[error("{} is not JSON: {source}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What the parser said, with line and column.
        source: serde_json::Error,
    },
    /// JSON, but no OCI spec.
    #[error("{} is no OCI spec: {reason}", path.display())]
    NotASpec {
        /// The file.
        path: PathBuf,
        /// What is missing or wrong.
        reason: &'static str,
    },
}

/// What CRI says a container is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContainerType {
    /// The pod's pause container.
    Sandbox,
    /// A container of a pod.
    Container,
    /// Not made by CRI.
    Standalone,
}

/// One entry of `mounts`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Path inside the container.
    pub destination: PathBuf,
    /// File system type; empty for most binds.
    pub kind: String,
    /// Source on the host for binds.
    pub source: PathBuf,
    /// Mount options.
    pub options: Vec<String>,
}

impl Mount {
    /// Whether it binds something of the host.
    pub fn is_bind(&self) -> bool {
        self.kind == "bind" || self.options.iter().any(|option| option == "bind" || option == "rbind")
    }

    /// Whether the container cannot write through it.
    pub fn is_read_only(&self) -> bool {
        self.options.iter().rev().find(|o| *o == "ro" || *o == "rw").is_some_and(|option| option == "ro")
    }
}

/// A `config.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec(Value);

impl Spec {
    /// Reads `config.json` of a bundle.
    pub fn of_bundle(bundle: &Path) -> Result<Self, SpecError> {
        Self::read(&bundle.join("config.json"))
    }

    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, SpecError> {
        let failed = |source| SpecError::Read { path: path.to_owned(), source };
        let size = std::fs::metadata(path).map_err(failed)?.len();
        if size > MAX_SIZE {
            return Err(SpecError::TooLarge { path: path.to_owned(), size });
        }
        let bytes = std::fs::read(path).map_err(failed)?;
        let value = serde_json::from_slice(&bytes)
            .map_err(|source| SpecError::Malformed { path: path.to_owned(), source })?;
        let spec = Self(value);
        spec.check().map_err(|reason| SpecError::NotASpec { path: path.to_owned(), reason })?;
        Ok(spec)
    }

    /// Takes a spec that was read before, e.g. from a manifest.
    pub fn from_value(value: Value) -> Self {
        Self(value)
    }

    fn check(&self) -> Result<(), &'static str> {
        if !self.0.is_object() {
            return Err("it is not an object");
        }
        if self.at("/ociVersion").is_none() {
            return Err("ociVersion is missing");
        }
        if self.text("/root/path").is_empty() {
            return Err("root.path is missing");
        }
        Ok(())
    }

    /// The JSON, unchanged.
    pub fn value(&self) -> &Value {
        &self.0
    }

    /// The JSON, unchanged.
    pub fn into_value(self) -> Value {
        self.0
    }

    fn at(&self, pointer: &str) -> Option<&Value> {
        self.0.pointer(pointer)
    }

    fn text(&self, pointer: &str) -> &str {
        self.at(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    /// An annotation, if set and not empty.
    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.at("/annotations")?.get(name)?.as_str().filter(|value| !value.is_empty())
    }

    /// What CRI says it is.
    pub fn container_type(&self) -> ContainerType {
        match self.annotation(annotation::CONTAINER_TYPE) {
            Some("sandbox") => ContainerType::Sandbox,
            Some("container") => ContainerType::Container,
            _ => ContainerType::Standalone,
        }
    }

    /// Container name in its pod; `id` where CRI gave none.
    pub fn name<'a>(&'a self, id: &'a str) -> &'a str {
        match self.container_type() {
            ContainerType::Sandbox => "pause",
            _ => self.annotation(annotation::CONTAINER_NAME).unwrap_or(id),
        }
    }

    /// Image reference; empty where there is none.
    pub fn image(&self) -> &str {
        self.annotation(annotation::IMAGE_NAME).unwrap_or_default()
    }

    /// The pod it belongs to; a standalone container is its own.
    pub fn pod(&self, id: &str) -> PodIdentity {
        let or = |name: &str, default: &str| self.annotation(name).unwrap_or(default).to_owned();
        let id = or(annotation::SANDBOX_ID, id);
        PodIdentity {
            name: or(annotation::SANDBOX_NAME, &id),
            namespace: or(annotation::SANDBOX_NAMESPACE, ""),
            uid: or(annotation::SANDBOX_UID, ""),
            id,
        }
    }

    /// Whether its init has a terminal.
    pub fn terminal(&self) -> bool {
        self.at("/process/terminal").and_then(Value::as_bool).unwrap_or(false)
    }

    /// Host name that was asked for; empty where the pod's is used.
    pub fn hostname(&self) -> &str {
        self.text("/hostname")
    }

    /// Root file system on the host.
    pub fn rootfs(&self, bundle: &Path) -> PathBuf {
        bundle.join(self.text("/root/path"))
    }

    /// Whether the root is mounted read-only.
    pub fn rootfs_read_only(&self) -> bool {
        self.at("/root/readonly").and_then(Value::as_bool).unwrap_or(false)
    }

    /// Path of a namespace that is joined (`network`, `pid`, `ipc`, `uts`, …); `None` when it gets its own or none.
    pub fn namespace_path(&self, kind: &str) -> Option<&Path> {
        let namespace = self.namespaces().find(|ns| ns.get("type").and_then(Value::as_str) == Some(kind))?;
        namespace.get("path").and_then(Value::as_str).filter(|path| !path.is_empty()).map(Path::new)
    }

    /// Whether the container has that kind of namespace, its own or a joined one.
    pub fn has_namespace(&self, kind: &str) -> bool {
        self.namespaces().any(|ns| ns.get("type").and_then(Value::as_str) == Some(kind))
    }

    fn namespaces(&self) -> impl Iterator<Item = &Value> {
        self.at("/linux/namespaces").and_then(Value::as_array).into_iter().flatten()
    }

    /// `mounts` in their order.
    pub fn mounts(&self) -> Vec<Mount> {
        let text =
            |mount: &Value, key: &str| mount.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let mounts = self.at("/mounts").and_then(Value::as_array).into_iter().flatten();
        mounts
            .map(|mount| Mount {
                destination: text(mount, "destination").into(),
                kind: text(mount, "type"),
                source: text(mount, "source").into(),
                options: mount
                    .get("options")
                    .and_then(Value::as_array)
                    .into_iter()
                    .flatten()
                    .filter_map(|option| option.as_str().map(str::to_owned))
                    .collect(),
            })
            .collect()
    }

    /// Paths of device nodes of the host that were given to it.
    pub fn devices(&self) -> Vec<PathBuf> {
        let devices = self.at("/linux/devices").and_then(Value::as_array).into_iter().flatten();
        devices.filter_map(|device| device.get("path").and_then(Value::as_str).map(PathBuf::from)).collect()
    }

    /// Whether `cgroupsPath` is in systemd's form (`slice:prefix:name`), as kubelet's systemd driver makes containerd
    /// write it; the runtime must then be told to use systemd.
    pub fn wants_systemd_cgroup(&self) -> bool {
        self.text("/linux/cgroupsPath").split_once(':').is_some_and(|(slice, _)| slice.ends_with(".slice"))
    }

    /// The cgroup that `cgroupsPath` asks for. Prefer [`Cgroup::of_process`] where a process is.
    pub fn cgroup(&self, id: &str, systemd: bool) -> Cgroup {
        let path = self.text("/linux/cgroupsPath");
        Cgroup::below_root(&if systemd { systemd_path(path, id) } else { cgroupfs_path(path, id) })
    }
}

/// Relative paths are below the runtime's own default, which is the root for crun and runc.
fn cgroupfs_path(path: &str, id: &str) -> String {
    if path.is_empty() { format!("/{id}") } else { format!("/{}", path.trim_start_matches('/')) }
}

/// `slice:prefix:name` → `/a.slice/a-b.slice/prefix-name.scope`; each dash of a slice's name opens a parent slice.
fn systemd_path(path: &str, id: &str) -> String {
    let mut parts = path.split(':');
    let slice = parts.next().filter(|slice| !slice.is_empty()).unwrap_or("system.slice");
    let prefix = parts.next().unwrap_or_default();
    let name = parts.next().filter(|name| !name.is_empty()).unwrap_or(id);
    let mut expanded = String::new();
    if let Some(stem) = slice.strip_suffix(".slice").filter(|stem| *stem != "-") {
        let mut so_far = String::new();
        for word in stem.split('-') {
            if !so_far.is_empty() {
                so_far.push('-');
            }
            so_far.push_str(word);
            expanded.push_str(&format!("/{so_far}.slice"));
        }
    }
    let unit = match (name.ends_with(".slice"), prefix) {
        (true, _) => name.to_owned(),
        (false, "") => format!("{name}.scope"),
        (false, prefix) => format!("{prefix}-{name}.scope"),
    };
    format!("{expanded}/{unit}")
}

#[cfg(test)]
#[path = "spec/tests.rs"]
mod tests;
