//! A committed checkpoint of a pod, and where it is: the store of the pod's handler, which may be another than that of
//! whoever asked.

use std::path::{Path, PathBuf};

use cryopod_checkpoint::capture::Captured;
use cryopod_checkpoint::store::{Chosen, Store, StoreKind};
use cryopod_command::Limits;

use super::{Node, settling};
use crate::control::api;

/// A checkpoint that others can see.
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
    if !settled {
        settling::begin(&node.store, &captured.id);
    }
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
        let mut store = api::Store::new();
        store.kind = match self.store.kind {
            StoreKind::Zfs => "zfs",
            StoreKind::Dir => "dir",
        }
        .to_owned();
        store.place.clone_from(&self.store.place);
        store.why.clone_from(&self.store.why);
        store.dir = self.dir.display().to_string();
        store.config = self.config.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
        store
    }
}
