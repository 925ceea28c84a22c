//! Which store is asked for, and where it is.

use std::path::PathBuf;

use cryopod_zfs::DatasetName;
use serde::{Deserialize, Serialize};

/// Which store a node uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StoreKind {
    /// A ZFS subtree.
    Zfs,
    /// A directory.
    Dir,
}

/// What the configuration asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StoreChoice {
    /// ZFS where a pool is found, else a directory.
    #[default]
    Auto,
    /// ZFS or an error.
    Zfs,
    /// The directory, even where there is ZFS.
    Dir,
}

/// Where the store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreConfig {
    /// Which one.
    pub choice: StoreChoice,
    /// Root dataset; None: `<pool>/cryopod`, the pool being found out.
    pub root: Option<DatasetName>,
    /// Directory store, and mount base of the ZFS store: /var/lib/cryopod/store.
    pub dir: PathBuf,
    /// Locks between processes: /run/cryopod/locks.
    pub locks: PathBuf,
    /// A path on the pool that containerd's snapshotter uses, if it is there; decides between several pools.
    pub snapshotter: Option<PathBuf>,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            choice: StoreChoice::Auto,
            root: None,
            dir: "/var/lib/cryopod/store".into(),
            locks: "/run/cryopod/locks".into(),
            snapshotter: Some("/var/lib/containerd/io.containerd.snapshotter.v1.zfs".into()),
        }
    }
}
