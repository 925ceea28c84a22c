//! Where everything that is built once and used often lives: outside of the checkout, shared by all checkouts.
//!
//! `$CRYOPOD_CACHE`, else `$XDG_CACHE_HOME/cryopod`, else `~/.cache/cryopod`.

use std::env;
use std::path::{Path, PathBuf};

/// The cache folder and the fixed places in it.
#[derive(Debug, Clone)]
pub(crate) struct Cache {
    root: PathBuf,
}

/// The environment names no place for the cache.
#[derive(Debug, thiserror::Error)]
#[error("no place for the cache: set CRYOPOD_CACHE or HOME")]
pub(crate) struct NoPlace;

impl Cache {
    /// The cache that the environment points at.
    pub(crate) fn from_env() -> Result<Self, NoPlace> {
        let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let root = set("CRYOPOD_CACHE")
            .or_else(|| set("XDG_CACHE_HOME").map(|dir| dir.join("cryopod")))
            .or_else(|| set("HOME").map(|dir| dir.join(".cache/cryopod")))
            .ok_or(NoPlace)?;
        Ok(Self { root })
    }

    /// One at another place.
    #[cfg(test)]
    pub(crate) fn at(root: &Path) -> Self {
        Self { root: root.to_path_buf() }
    }

    /// The folder itself.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Where node `name` keeps its disks, its state file and its console log.
    pub(crate) fn node(&self, name: &str) -> PathBuf {
        self.nodes().join(name)
    }

    /// The folder of all nodes.
    pub(crate) fn nodes(&self) -> PathBuf {
        self.root.join("nodes")
    }

    /// The private key that opens every node of this cache.
    pub(crate) fn ssh_key(&self) -> PathBuf {
        self.root.join("ssh/id_ed25519")
    }

    /// The folder for unix sockets of the nodes, in the temporary folder: a socket's path may have 107 bytes only,
    /// which a cache deep in a home folder would exceed.
    pub(crate) fn sockets(&self) -> PathBuf {
        env::temp_dir().join(format!("cryopod-{:08x}", self.fingerprint()))
    }

    /// A number that differs between caches, for names and ports that must not collide.
    pub(crate) fn fingerprint(&self) -> u32 {
        // FNV-1a: stable between builds, which the standard hasher does not promise.
        self.root
            .as_os_str()
            .as_encoded_bytes()
            .iter()
            .fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
    }
}
