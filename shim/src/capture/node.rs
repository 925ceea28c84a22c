//! Configuration, store and journal of this node, opened for one operation.

use std::path::PathBuf;

use cryopod_checkpoint::journal::Journal;
use cryopod_checkpoint::recover::{Recovery, recover_journal};
use cryopod_checkpoint::store::{self, Chosen, SharedStore, StoreChoice, StoreConfig};
use cryopod_command::Limits;
use cryopod_runtime::config::{Config, Sources};
use cryopod_runtime::repair::OciRepair;

use super::DoorError;

/// Where every process of cryopod on this node writes what it is about to do.
const JOURNAL: &str = "/var/lib/cryopod/journal";

/// What a capture or restore works with.
pub struct Node {
    /// The configuration that is in force for the pod.
    pub config: Config,
    /// Where checkpoints are kept.
    pub store: SharedStore,
    /// Which store it is, and why that one.
    pub chosen: Chosen,
    /// The journal.
    pub journal: Journal,
}

impl Node {
    /// Opens everything for a pod whose runtime options named `sources`.
    ///
    /// # Errors
    /// See [`DoorError`].
    pub fn open(sources: &Sources, limits: &Limits) -> Result<Self, DoorError> {
        let config = Config::load(sources)?;
        let wanted = config.store.wanted().map_err(DoorError::StoreRoot)?;
        Self::with(config, &wanted, limits).inspect_err(|_| thaw_what_was_left())
    }

    fn with(config: Config, wanted: &StoreConfig, limits: &Limits) -> Result<Self, DoorError> {
        let zfs = match wanted.choice {
            StoreChoice::Dir => None,
            StoreChoice::Auto | StoreChoice::Zfs => match cryopod_zfs::open(limits) {
                Ok(zfs) => Some(zfs),
                // A root that is configured is meant: writing elsewhere would hide the fault.
                Err(error) if wanted.choice == StoreChoice::Zfs || wanted.root.is_some() => {
                    return Err(DoorError::NoZfs(error));
                }
                Err(error) => {
                    tracing::info!(%error, "checkpoints go to the directory store");
                    None
                }
            },
        };
        let (store, chosen) = store::open(wanted, zfs, limits)?;
        tracing::info!(kind = ?chosen.kind, place = chosen.place, why = chosen.why, "store");
        Ok(Self { config, store, chosen, journal: Journal::open(JOURNAL)? })
    }

    /// A store that an earlier operation has opened, by what it called its place.
    ///
    /// # Errors
    /// See [`DoorError`].
    pub fn reopen(root: Option<&str>, dir: PathBuf, limits: &Limits) -> Result<Self, DoorError> {
        let root = root.map(str::parse).transpose().map_err(DoorError::StoreRoot)?;
        let choice = if root.is_some() { StoreChoice::Zfs } else { StoreChoice::Dir };
        let wanted = StoreConfig { choice, root, dir, ..StoreConfig::default() };
        Self::with(Config::default(), &wanted, limits)
    }

    /// Finishes or undoes what a dead process has begun on this node. Failures are logged: they stay journalled and
    /// do not keep others from working.
    pub fn recover(&self, limits: &Limits) {
        match recover_journal(&self.journal, &self.store, &OciRepair, limits) {
            Ok(report) if report.is_clean() => {}
            Ok(report) => tracing::warn!(
                operations = report.operations.join(" "),
                repaired = report.repaired.join(" "),
                failures = report.failures.len(),
                "cleaned up after a process that died"
            ),
            Err(error) => tracing::warn!(%error, "recovery could not look at the journal"),
        }
    }
}

/// Thaws, in the background, what a process that died anywhere on this node has left frozen; the rest of its work waits
/// for the next operation, which opens the store. Where nobody works it costs a look at a directory.
pub fn thaw_leftovers() {
    let is_entry = |entry: std::fs::DirEntry| entry.path().extension().is_some_and(|end| end == "json");
    if std::fs::read_dir(JOURNAL).is_ok_and(|entries| entries.flatten().any(is_entry)) {
        tokio::task::spawn_blocking(thaw_what_was_left);
    }
}

/// Without a store nobody can finish or undo what a dead process has begun, but containers need not stay frozen for that.
fn thaw_what_was_left() {
    let begun =
        Journal::open(JOURNAL).map_err(Into::into).and_then(|journal| Recovery::begin(&journal, &OciRepair));
    match begun.map(Recovery::without_store) {
        Ok(report) if report.is_clean() => {}
        Ok(report) => tracing::warn!(
            repaired = report.repaired.join(" "),
            waiting = report.failures.len(),
            "thawed what a process that died has left; the rest waits for the store"
        ),
        Err(error) => tracing::warn!(%error, "recovery could not look at the journal"),
    }
}
