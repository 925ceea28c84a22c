//! What `doctor` knows of the node, as plain values: gathered by `gather`, judged by `checks`, so that every decision
//! can be tested without a node.

use std::path::PathBuf;

/// Everything that is judged. A part that could not be found out carries the reason.
#[derive(Debug, Clone, Default)]
pub(crate) struct Facts {
    /// Whether we are root; much of the rest is unknown otherwise.
    pub(crate) root: bool,
    /// Kernel release.
    pub(crate) kernel: String,
    /// Whether /sys/fs/cgroup is the unified hierarchy, and which controllers it has.
    pub(crate) cgroup: Option<Vec<String>>,
    /// Why the configuration cannot be read.
    pub(crate) config_error: Option<String>,
    /// Runtime of containers that ask for none.
    pub(crate) default_runtime: String,
    /// Every configured runtime.
    pub(crate) runtimes: Vec<Runtime>,
    /// CRIU.
    pub(crate) criu: Criu,
    /// ZFS.
    pub(crate) zfs: Zfs,
    /// The store that would be used.
    pub(crate) store: Option<Result<Store, String>>,
    /// containerd.
    pub(crate) containerd: Containerd,
    /// CNI plugins.
    pub(crate) cni: Cni,
    /// Operations in the journal whose process has gone.
    pub(crate) unfinished: Option<Result<Vec<String>, String>>,
    /// Things of dead shims and dead containers.
    pub(crate) leftovers: Vec<String>,
}

/// An OCI runtime.
#[derive(Debug, Clone)]
pub(crate) struct Runtime {
    /// Name in the configuration.
    pub(crate) name: String,
    /// First line of `--version`, or why there is none.
    pub(crate) version: Result<String, String>,
    /// Whether it can dump memory.
    pub(crate) checkpoint: bool,
}

/// CRIU.
#[derive(Debug, Clone, Default)]
pub(crate) struct Criu {
    /// Version, or why there is none.
    pub(crate) version: Option<Result<String, String>>,
    /// `criu check`, which needs root.
    pub(crate) check: Option<Result<(), String>>,
}

/// ZFS.
#[derive(Debug, Clone, Default)]
pub(crate) struct Zfs {
    /// Version of the kernel module, if it is loaded.
    pub(crate) module: Option<String>,
    /// Version of the tools, or why there is none.
    pub(crate) tools: Option<Result<String, String>>,
    /// Imported pools with their health.
    pub(crate) pools: Vec<(String, String)>,
}

/// The store.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    /// `zfs` or `dir`.
    pub(crate) kind: String,
    /// Why this one.
    pub(crate) why: String,
    /// Dataset or directory.
    pub(crate) place: String,
    /// Bytes that are free there.
    pub(crate) free: Option<u64>,
}

/// containerd.
#[derive(Debug, Clone, Default)]
pub(crate) struct Containerd {
    /// First line of `--version`, or why there is none.
    pub(crate) version: Option<Result<String, String>>,
    /// What its configuration says of us, or why it cannot be read.
    pub(crate) config: Option<Result<ContainerdConfig, String>>,
    /// Where our shim is found.
    pub(crate) shim: Option<PathBuf>,
}

/// The part of containerd's configuration that concerns us.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ContainerdConfig {
    /// Handlers of runtime type `io.containerd.cryopod.v2`.
    pub(crate) handlers: Vec<Handler>,
    /// Snapshotter of handlers that name none.
    pub(crate) snapshotter: String,
    /// `enable_criu`, where containerd has it.
    pub(crate) enable_criu: Option<bool>,
}

/// A runtime handler of CRI.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Handler {
    /// Name, as a RuntimeClass uses it.
    pub(crate) name: String,
    /// Its own snapshotter.
    pub(crate) snapshotter: Option<String>,
    /// Whether `cryopod.dev/*` annotations of a pod reach the shim.
    pub(crate) annotations: bool,
}

/// CNI.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cni {
    /// Plugins found in the usual directory.
    pub(crate) plugins: usize,
    /// Network configurations found.
    pub(crate) networks: usize,
}
