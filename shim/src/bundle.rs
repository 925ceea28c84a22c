//! What the shim reads from, and keeps in, a bundle directory.
//!
//! `config.json` is containerd's; of it only the annotations matter here. `cryopod.json` is ours: written before
//! anything of a container exists, so that `delete` can clean up after a shim that died at any point.
//!
//! ```text
//! <bundle>/config.json    OCI spec (absent for a sandbox made through the Sandbox API)
//! <bundle>/cryopod.json   State, version 1, replaced atomically
//! <bundle>/routing.json   which runtime the pod has, see `routing`
//! <bundle>/log            fifo that containerd reads
//! <bundle>/rootfs         mount point
//! ```

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use cryopod_checkpoint::target::PodIdentity;
use cryopod_runtime::spec::annotation;
use serde::{Deserialize, Serialize};

use crate::exits::start_time;

/// A config.json is some 10 KiB; large clusters' device and mount lists reach hundreds. The bound keeps a hostile
/// bundle from filling the shim's memory.
pub const MAX_CONFIG_BYTES: u64 = 16 * 1024 * 1024;

/// Our state file holds a dozen short strings.
pub const MAX_STATE_BYTES: u64 = 1024 * 1024;

const STATE_FILE: &str = "cryopod.json";
const STATE_VERSION: u32 = 1;

/// A file of the bundle cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// Reading failed.
    #[error("read {path}: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Writing failed.
    #[error("write {path}: {source}", path = path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// It is no JSON, or not the JSON that belongs there.
    #[error("{path} is not understood: {source}", path = path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Line, column and reason.
        source: serde_json::Error,
    },
    /// Larger than any sensible file of its kind.
    #[error("{path} is larger than {limit} bytes", path = path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The bound.
        limit: u64,
    },
    /// Written by a newer shim.
    #[error("{path} has version {found}, this shim knows {STATE_VERSION}", path = path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
}

/// Any client may group tasks with this annotation; CRI's `sandbox-id` does the same for pods.
const GROUP: &str = "io.containerd.runc.v2.group";

/// The parts of a spec that the shim itself needs; everything else is skipped while reading, since a whole spec
/// is some hundred KiB as a tree of values.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Brief {
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
    #[serde(default)]
    linux: Option<Linux>,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Linux {
    #[serde(default)]
    namespaces: Option<Vec<Namespace>>,
}

#[derive(Debug, Clone, Deserialize)]
struct Namespace {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    path: Option<String>,
}

impl Brief {
    /// Reads `config.json`; a bundle without one has nothing to say.
    ///
    /// # Errors
    /// When the file is there but cannot be read or understood.
    pub fn read(bundle: &Path) -> Result<Self, BundleError> {
        let path = bundle.join("config.json");
        match read_bounded(&path, MAX_CONFIG_BYTES) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|source| BundleError::Parse { path, source }),
            Err(BundleError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Ok(Self::default())
            }
            Err(error) => Err(error),
        }
    }

    /// The value of one annotation, if set and not empty.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// All annotations.
    pub fn annotations(&self) -> BTreeMap<String, String> {
        self.annotations.clone().unwrap_or_default()
    }

    /// The id whose shim serves this container: the group, the sandbox, or the container itself.
    pub fn group<'a>(&'a self, id: &'a str) -> &'a str {
        self.annotation(GROUP).or_else(|| self.annotation(annotation::SANDBOX_ID)).unwrap_or(id)
    }

    /// Whether this is the pod's sandbox (pause) container.
    pub fn is_sandbox(&self) -> bool {
        self.annotation(annotation::CONTAINER_TYPE) == Some("sandbox")
    }

    /// Name in the pod spec; `id` outside of Kubernetes.
    pub fn name<'a>(&'a self, id: &'a str) -> &'a str {
        match self.is_sandbox() {
            true => "pause",
            false => self.annotation(annotation::CONTAINER_NAME).unwrap_or(id),
        }
    }

    /// The pod that the annotations name.
    pub fn pod(&self, id: &str) -> PodIdentity {
        let text = |key: &str, other: &str| self.annotation(key).unwrap_or(other).to_owned();
        PodIdentity {
            id: text(annotation::SANDBOX_ID, id),
            name: text(annotation::SANDBOX_NAME, id),
            namespace: text(annotation::SANDBOX_NAMESPACE, ""),
            uid: text(annotation::SANDBOX_UID, ""),
        }
    }

    /// Whether root in it is somebody else on the host.
    pub fn has_user_namespace(&self) -> bool {
        self.linux.iter().filter_map(|linux| linux.namespaces.as_ref()).flatten().any(|ns| ns.kind == "user")
    }

    /// Whether its processes see, and outlive, others: then the kernel does not kill them with init.
    pub fn shares_pid_namespace(&self) -> bool {
        let namespaces =
            self.linux.as_ref().and_then(|linux| linux.namespaces.as_deref()).unwrap_or_default();
        let own =
            namespaces.iter().any(|ns| ns.kind == "pid" && ns.path.as_deref().unwrap_or_default().is_empty());
        !own
    }
}

/// How the runtime of a container is called, so that `delete` calls the same one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuntimeNote {
    /// Name in the configuration, e.g. `crun`.
    pub name: String,
    /// Program.
    pub program: PathBuf,
    /// `--root`.
    pub root: PathBuf,
    /// Global arguments.
    pub extra_args: Vec<String>,
    /// cgroups by systemd.
    pub systemd_cgroup: bool,
}

/// What is needed to remove a container, or a sandbox, without its shim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Format of this file.
    pub version: u32,
    /// Container or sandbox id.
    pub id: String,
    /// containerd namespace.
    pub namespace: String,
    /// Id whose shim serves it.
    pub group: String,
    /// PID of that shim.
    pub shim_pid: u32,
    /// Start time of that shim, see `pid_started`.
    pub shim_started: u64,
    /// How its runtime is called; `None` for a sandbox made through the Sandbox API.
    pub runtime: Option<RuntimeNote>,
    /// PID of init, 0 while there is none.
    pub pid: u32,
    /// Start time of that PID in clock ticks since boot (field 22 of /proc/PID/stat), so that a reused PID is not
    /// taken for it.
    pub pid_started: u64,
    /// Whether we mounted `rootfs`.
    pub mounted: bool,
    /// ZFS dataset that is its root; empty where it is none.
    pub dataset: String,
    /// Whether snapshots of ours may be on that dataset, or it may be a clone of ours.
    pub captured: bool,
    /// Whether the store made a root for it.
    pub placed: bool,
    /// Configuration file that the runtime options named, to find the store again.
    pub config_file: Option<PathBuf>,
    /// Configuration text of the runtime options.
    pub config_body: Option<String>,
}

impl State {
    /// A state without process and mounts.
    pub fn new(id: &str, namespace: &str, group: &str) -> Self {
        Self {
            version: STATE_VERSION,
            id: id.to_owned(),
            namespace: namespace.to_owned(),
            group: group.to_owned(),
            shim_pid: std::process::id(),
            shim_started: start_time(std::process::id()).unwrap_or(0),
            runtime: None,
            pid: 0,
            pid_started: 0,
            mounted: false,
            dataset: String::new(),
            captured: false,
            placed: false,
            config_file: None,
            config_body: None,
        }
    }

    /// Reads the state of a bundle; `None` when the shim died before writing one.
    ///
    /// # Errors
    /// When it is there and unusable.
    pub fn read(bundle: &Path) -> Result<Option<Self>, BundleError> {
        let path = bundle.join(STATE_FILE);
        let bytes = match read_bounded(&path, MAX_STATE_BYTES) {
            Ok(bytes) => bytes,
            Err(BundleError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let state: Self = serde_json::from_slice(&bytes)
            .map_err(|source| BundleError::Parse { path: path.clone(), source })?;
        if state.version != STATE_VERSION {
            return Err(BundleError::Version { path, found: state.version });
        }
        Ok(Some(state))
    }

    /// Replaces the state of a bundle. The bundle lies on a tmpfs (/run) and dies with the boot, hence no fsync.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, bundle: &Path) -> Result<(), BundleError> {
        write_atomically(&bundle.join(STATE_FILE), self)
    }
}

/// Writes `value` as JSON beside `path` and renames it into place, mode 0600.
///
/// # Errors
/// When the file cannot be written.
pub fn write_atomically(path: &Path, value: &impl Serialize) -> Result<(), BundleError> {
    let bytes =
        serde_json::to_vec(value).map_err(|source| BundleError::Parse { path: path.to_owned(), source })?;
    let fresh = path.with_extension("json.new");
    let wrote = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
        .open(&fresh)
        .and_then(|mut file| file.write_all(&bytes))
        .and_then(|()| std::fs::rename(&fresh, path));
    wrote.map_err(|source| BundleError::Write { path: path.to_owned(), source })
}

pub fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>, BundleError> {
    let failed = |source| BundleError::Read { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > limit {
        return Err(BundleError::TooLarge { path: path.to_owned(), limit });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle(config: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.json"), config).unwrap();
        dir
    }

    #[test]
    fn the_group_annotation_wins_over_the_sandbox_and_both_over_the_id() {
        let both = bundle(
            r#"{"ociVersion":"1.2.0","process":{"args":["x"]},"annotations":
               {"io.kubernetes.cri.sandbox-id":"pod","io.containerd.runc.v2.group":"group"}}"#,
        );
        assert_eq!(Brief::read(both.path()).unwrap().group("c"), "group");
        let pod = bundle(r#"{"annotations":{"io.kubernetes.cri.sandbox-id":"pod"}}"#);
        assert_eq!(Brief::read(pod.path()).unwrap().group("c"), "pod");
        let none = bundle(r#"{"annotations":null}"#);
        assert_eq!(Brief::read(none.path()).unwrap().group("c"), "c");
    }

    #[test]
    fn a_sandbox_bundle_without_spec_has_no_annotations() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Brief::read(dir.path()).unwrap().group("c"), "c");
    }

    #[test]
    fn only_an_own_pid_namespace_dies_with_its_init() {
        let brief = |text: &str| Brief::read(bundle(text).path()).unwrap();
        assert!(!brief(r#"{"linux":{"namespaces":[{"type":"pid"},{"type":"ipc"}]}}"#).shares_pid_namespace());
        assert!(
            brief(r#"{"linux":{"namespaces":[{"type":"pid","path":"/proc/1/ns/pid"}]}}"#)
                .shares_pid_namespace()
        );
        assert!(brief(r#"{"linux":{"namespaces":[{"type":"net"}]}}"#).shares_pid_namespace());
        assert!(brief("{}").shares_pid_namespace());
    }

    #[test]
    fn a_malformed_spec_names_the_file() {
        let dir = bundle("{\"annotations\": 7}");
        let error = Brief::read(dir.path()).unwrap_err().to_string();
        assert!(error.contains("config.json is not understood"), "{error}");
    }

    #[test]
    fn state_survives_the_way_through_the_file() {
        let dir = tempfile::tempdir().unwrap();
        assert!(State::read(dir.path()).unwrap().is_none());
        let state = State { pid: 7, mounted: true, ..State::new("c", "k8s.io", "pod") };
        state.write(dir.path()).unwrap();
        assert_eq!(State::read(dir.path()).unwrap(), Some(state));
    }

    #[test]
    fn a_state_of_another_version_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        State { version: 9, ..State::new("c", "n", "c") }.write(dir.path()).unwrap();
        assert!(matches!(State::read(dir.path()), Err(BundleError::Version { found: 9, .. })));
    }
}
