//! The configuration of a node: `/etc/cryopod/config.toml`, then `/etc/cryopod/conf.d/*.toml` in name order, later
//! files winning key by key; of `[[routing]]` all rules count, in the order of the files. Every default works with no file
//! at all. containerd's runtime options (`config_path`, `config_body`) replace, respectively overlay, the files for one
//! pod. Options that set `runtime.default` choose the runtime themselves: then only rules of their own count.
//!
//! An unknown key or a wrong value is an error that names file, line and column; a misspelt key names the one that
//! was meant. `cryopod config check` and `dump` show the result of [`Config::load`].

mod files;
mod pattern;
mod rule;
mod units;
mod unknown;

use std::collections::BTreeMap;
use std::path::PathBuf;

use cryopod_checkpoint::capture::{DEFAULT_COPY_LIMIT, DEFAULT_PRE_DUMP_MIN_RSS};
use cryopod_checkpoint::store::{StoreChoice, StoreConfig};
use cryopod_checkpoint::target::TcpPolicy;
use cryopod_zfs::NameError;
use files::{MAX_FILE, Parsed, merge, parse, texts};
use serde::{Deserialize, Serialize};

pub use files::Sources;
pub use pattern::{Pattern, PatternError};
pub use rule::{Place, Rule};
pub use units::{Bytes, Seconds, UnitError};

/// Name of the runtime whose containers are LXC containers.
pub const LXC: &str = "lxc";

/// Where the configuration lives unless a caller says otherwise.
pub const DIRECTORY: &str = "/etc/cryopod";

/// Why there is no usable configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file exists and cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// Larger than any configuration.
    #[error("{} has {size} bytes; a configuration has at most {MAX_FILE}", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
    },
    /// Not TOML, or a value of the wrong kind.
    #[error("{place}: {message}")]
    Malformed {
        /// File, line and column.
        place: String,
        /// What is wrong.
        message: String,
    },
    /// A key nobody reads.
    #[error("{place}: unknown key '{key}'{}", meant(nearest.as_deref()))]
    UnknownKey {
        /// File, line and column.
        place: String,
        /// The key as a dotted path.
        key: String,
        /// The key that was probably meant.
        nearest: Option<String>,
    },
    /// `runtime.default` or a rule names a runtime that is not configured and not built in.
    #[error("{key} is '{name}', which has no [runtime.{name}] section; configured: {configured}")]
    NoSuchRuntime {
        /// `runtime.default`, or file, line and column of the rule's `backend`.
        key: String,
        /// The name given.
        name: String,
        /// The names there are.
        configured: String,
    },
}

fn meant(nearest: Option<&str>) -> String {
    nearest.map(|key| format!(", did you mean '{key}'?")).unwrap_or_default()
}

/// The effective configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// OCI runtimes.
    pub runtime: RuntimeSection,
    /// Which of them which pod gets; the first rule that matches decides.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub routing: Vec<Rule>,
    /// Whether the runtime options choose the runtime themselves, by `runtime.default` and without rules of their own:
    /// then pods are not routed.
    #[serde(skip)]
    pub fixed: bool,
    /// Where checkpoints are kept.
    pub store: StoreSection,
    /// How checkpoints are taken.
    pub checkpoint: CheckpointSection,
    /// What happens to writable volumes that have no annotation.
    pub volumes: VolumeSection,
    /// Logging.
    pub log: LogSection,
    /// CRIU.
    pub criu: CriuSection,
}

/// `[runtime]`: the default, and one `[runtime.NAME]` each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RuntimeSection {
    /// Runtime of containers that ask for none.
    pub default: String,
    /// Settings by name; crun, runc and lxc are always there.
    #[serde(flatten)]
    pub named: BTreeMap<String, RuntimeConfig>,
}

/// `[runtime.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RuntimeConfig {
    /// Program, by path or by name in PATH; the section's name if not set, and `cryopod-lxc` for lxc.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// State directory; `/run/cryopod/oci/<containerd namespace>` if not set, and for lxc `/var/lib/lxc`, where the LXC
    /// tools look.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<PathBuf>,
    /// Global arguments before the verb.
    pub extra_args: Vec<String>,
    /// Containers get their cgroup from systemd instead of cgroupfs.
    pub systemd_cgroup: bool,
}

/// `[store]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct StoreSection {
    /// Which store.
    pub kind: StoreKind,
    /// ZFS store.
    pub zfs: ZfsStore,
    /// Directory store.
    pub dir: DirStore,
}

/// Which store is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StoreKind {
    /// ZFS where a pool is, else the directory.
    #[default]
    Auto,
    /// ZFS or an error.
    Zfs,
    /// The directory.
    Dir,
}

/// `[store.zfs]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ZfsStore {
    /// Dataset that holds everything of cryopod; `<pool>/cryopod` if not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<String>,
}

/// `[store.dir]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DirStore {
    /// Directory of the store, and mount base of the ZFS store.
    pub path: PathBuf,
}

/// What is captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckpointMode {
    /// Full if possible, else disk.
    #[default]
    Auto,
    /// Memory and disk.
    Full,
    /// Disk only.
    Disk,
}

/// `[checkpoint]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CheckpointSection {
    /// Mode of checkpoints that ask for none.
    pub mode: CheckpointMode,
    /// Established TCP connections.
    pub tcp: TcpPolicy,
    /// Largest deleted but open file that goes into the memory image.
    pub ghost_limit: Bytes,
    /// Resident memory from which pre-dump rounds shorten the freeze.
    pub pre_dump_min_rss: Bytes,
    /// Most bytes that are copied while a pod is frozen, for volumes that are not on ZFS.
    pub volume_copy_limit: Bytes,
    /// Longest capture or restore.
    pub timeout: Seconds,
    /// How long a restored container stays frozen until the other containers of its checkpoint are back too.
    pub together_timeout: Seconds,
}

/// What happens to a writable volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VolumePolicy {
    /// It becomes part of the checkpoint.
    Capture,
    /// It is left out.
    Skip,
    /// The checkpoint is refused, with the volume named.
    Refuse,
}

/// `[volumes]`: policies where no annotation decides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VolumeSection {
    /// emptyDir volumes and /dev/shm of the pod.
    pub empty_dir: VolumePolicy,
    /// All other writable volumes.
    pub other: VolumePolicy,
}

/// `[log]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogSection {
    /// How much the shim of a pod logs; `debug` in containerd's configuration is stronger, and `cryopod` has an option.
    pub level: Level,
}

/// How much is logged, the least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// Errors only.
    Error,
    /// And warnings.
    Warn,
    /// And what happens.
    #[default]
    Info,
    /// And how.
    Debug,
    /// Everything.
    Trace,
}

impl Level {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace];

    /// As it stands in a configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// `[criu]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CriuSection {
    /// Program, by path or by name in PATH.
    pub path: PathBuf,
}

impl Default for RuntimeSection {
    fn default() -> Self {
        Self { default: "crun".into(), named: BTreeMap::new() }
    }
}

impl StoreSection {
    /// What the store is to be opened with.
    ///
    /// # Errors
    /// When the root is no name of a dataset.
    pub fn wanted(&self) -> Result<StoreConfig, NameError> {
        let choice = match self.kind {
            StoreKind::Auto => StoreChoice::Auto,
            StoreKind::Zfs => StoreChoice::Zfs,
            StoreKind::Dir => StoreChoice::Dir,
        };
        let root = self.zfs.root.as_deref().map(str::parse).transpose()?;
        Ok(StoreConfig { choice, root, dir: self.dir.path.clone(), ..StoreConfig::default() })
    }
}

impl Default for DirStore {
    fn default() -> Self {
        Self { path: "/var/lib/cryopod/store".into() }
    }
}

impl Default for CheckpointSection {
    fn default() -> Self {
        Self {
            mode: CheckpointMode::Auto,
            tcp: TcpPolicy::Keep,
            ghost_limit: Bytes(256 << 20),
            pre_dump_min_rss: Bytes(DEFAULT_PRE_DUMP_MIN_RSS),
            volume_copy_limit: Bytes(DEFAULT_COPY_LIMIT),
            timeout: Seconds(300),
            together_timeout: Seconds(60),
        }
    }
}

impl Default for VolumeSection {
    fn default() -> Self {
        Self { empty_dir: VolumePolicy::Capture, other: VolumePolicy::Refuse }
    }
}

impl Default for LogSection {
    fn default() -> Self {
        Self { level: Level::Info }
    }
}

impl Default for CriuSection {
    fn default() -> Self {
        Self { path: "criu".into() }
    }
}

impl Config {
    /// Reads, checks and merges everything that `sources` names.
    pub fn load(sources: &Sources) -> Result<Self, ConfigError> {
        let (mut merged, mut rules, mut chosen) = (toml::Table::new(), Vec::new(), false);
        for text in texts(sources)? {
            let Parsed { table, rules: more } = parse(&text.name, &text.text)?;
            let chooses = table.get("runtime").is_some_and(|runtime| runtime.get("default").is_some());
            if text.is_option && chooses {
                rules.clear();
                chosen = true;
            }
            rules.extend(more);
            merge(&mut merged, table);
        }
        let mut config = Self::from_table(merged)?;
        for (rule, backend) in rules {
            config.has_runtime(&rule.backend, || format!("{backend}: backend"))?;
            config.routing.push(rule);
        }
        config.fixed = chosen && config.routing.is_empty();
        Ok(config)
    }

    fn from_table(table: toml::Table) -> Result<Self, ConfigError> {
        let mut config: Self = table.try_into().map_err(|e| ConfigError::Malformed {
            place: "configuration".into(),
            message: e.message().to_owned(),
        })?;
        for builtin in ["crun", "runc", LXC] {
            config.runtime.named.entry(builtin.to_owned()).or_default();
        }
        config.has_runtime(&config.runtime.default, || "runtime.default".into())?;
        Ok(config)
    }

    fn has_runtime(&self, name: &str, key: impl FnOnce() -> String) -> Result<(), ConfigError> {
        if self.runtime.named.contains_key(name) {
            return Ok(());
        }
        Err(ConfigError::NoSuchRuntime { key: key(), name: name.to_owned(), configured: self.runtimes() })
    }

    /// The names of all runtimes, for messages.
    pub fn runtimes(&self) -> String {
        self.runtime.named.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
    }

    /// The effective configuration as TOML that reads back as the same; a comment says where each rule comes from.
    pub fn dump(&self) -> Result<String, toml::ser::Error> {
        let mut text = toml::to_string_pretty(&Self { routing: Vec::new(), ..self.clone() })?;
        for rule in &self.routing {
            text.push_str(&rule.dump()?);
        }
        Ok(text)
    }

    /// Settings of a runtime by its name.
    pub fn runtime(&self, name: &str) -> Option<&RuntimeConfig> {
        self.runtime.named.get(name)
    }
}

#[cfg(test)]
#[path = "config/tests.rs"]
mod tests;
