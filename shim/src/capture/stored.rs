//! A committed checkpoint of a pod, and where it is: the store of the pod's handler, which may be another than that of
//! whoever asked.

use std::path::{Path, PathBuf};

use cryopod_checkpoint::capture::Captured;
use cryopod_checkpoint::store::{Chosen, Store, StoreKind};
use cryopod_command::Limits;

use super::{Node, settling};
use crate::control::api;

/// A checkpoint that others can see.
#[derive(Debug)]
pub struct Stored {
    /// The checkpoint.
    pub captured: Captured,
    /// Which store has it, and why that one.
    pub store: Chosen,
    /// Directory of the store's contents.
    pub dir: PathBuf,
    /// Configuration file that the handler names.
    pub config: Option<PathBuf>,
    /// Whether it is independent of its source.
    pub settled: bool,
}

/// Says where a committed checkpoint is, and begins to settle it.
pub fn settle(node: Node, captured: Captured, config: Option<PathBuf>, limits: &Limits) -> Stored {
    // Not being able to tell is no failure of the capture: settling something settled does nothing.
    let settled = node.store.info(&captured.id, limits).is_ok_and(|info| info.settled);
    settling::begin(&node.store, &captured.id);
    let dir = dir(&node.store).to_owned();
    Stored { captured, store: node.chosen, dir, config, settled }
}

fn dir(store: &Store) -> &Path {
    match store {
        Store::Zfs(store) => store.dir(),
        Store::Dir(store) => store.dir(),
    }
}

impl Stored {
    /// The store as Control tells it.
    pub fn told(&self) -> api::Store {
        told(&self.store, &self.dir, self.config.as_deref())
    }
}

fn told(chosen: &Chosen, dir: &Path, config: Option<&Path>) -> api::Store {
    let mut store = api::Store::new();
    store.kind = match chosen.kind {
        StoreKind::Zfs => "zfs",
        StoreKind::Dir => "dir",
    }
    .to_owned();
    store.place.clone_from(&chosen.place);
    store.why.clone_from(&chosen.why);
    store.dir = dir.display().to_string();
    store.config = config.map(|path| path.display().to_string()).unwrap_or_default();
    store
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_store_is_told_with_all_that_is_needed_to_open_it() {
        let chosen = |kind, place: &str| Chosen { kind, place: place.into(), why: "asked for".into() };
        let zfs = told(&chosen(StoreKind::Zfs, "tank/cryopod"), Path::new("/var/lib/store"), None);
        assert_eq!((zfs.kind.as_str(), zfs.place.as_str()), ("zfs", "tank/cryopod"));
        assert_eq!((zfs.dir.as_str(), zfs.config.as_str()), ("/var/lib/store", ""));
        let config = Some(Path::new("/etc/cryopod/dir.toml"));
        let dir = told(&chosen(StoreKind::Dir, "/srv"), Path::new("/srv"), config);
        assert_eq!((dir.kind.as_str(), dir.why.as_str()), ("dir", "asked for"));
        assert_eq!(dir.config, "/etc/cryopod/dir.toml");
    }
}
