//! The swap: while containerd reads a container's dataset for its own checkpoint diff, a clone stands under its name.
//!
//! containerd mounts the dataset read-only for the diff, which ZFS refuses while the container has it mounted
//! (experiments.md E7). A dataset with legacy mountpoint can be renamed under a running container; so the real one
//! moves aside, a clone of the captured snapshot takes its name, and containerd's diff reads that, outside of the
//! freeze. [`Swap::back`] on Resume or Delete; a crash is undone by recovery.

use cryopod_command::Limits;
use cryopod_zfs::{Dataset, DatasetName, Name, Properties, Rename};

use crate::id::CheckpointId;
use crate::journal::{Journal, JournalError, Open, Operation};
use crate::kind::Kind;
use crate::stand_in;
use crate::store::{ID, KIND, SNAPSHOT_PREFIX, Store, StoreError, ZfsStore};

const KEEP_MOUNTS: Rename = Rename { keep_mounts: true, parents: false };

/// A swap failed; the dataset has its name.
#[derive(Debug, thiserror::Error)]
pub enum SwapError {
    /// The store could not.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The journal could not.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// There is nothing to make the clone of.
    #[error("dataset {dataset} has no snapshot of checkpoint {id}")]
    NoSnapshot {
        /// The dataset.
        dataset: DatasetName,
        /// The checkpoint.
        id: CheckpointId,
    },
}

impl SwapError {
    /// How a caller should react.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Store(error) => error.kind(),
            Self::Journal(error) => error.kind(),
            Self::NoSnapshot { .. } => Kind::NotFound,
        }
    }
}

impl From<cryopod_zfs::Error> for SwapError {
    fn from(error: cryopod_zfs::Error) -> Self {
        Self::Store(error.into())
    }
}

/// A clone that stands in for a dataset. Dropping it leaves swapping back to recovery.
#[derive(Debug)]
pub struct Swap {
    entry: Open,
}

impl Swap {
    /// Puts a clone of the snapshot that `checkpoint` took under the dataset's name. None with a directory store, where
    /// nothing has to be swapped.
    pub fn out(
        store: &Store,
        journal: &Journal,
        dataset: &DatasetName,
        checkpoint: &CheckpointId,
        limits: &Limits,
    ) -> Result<Option<Self>, SwapError> {
        let Store::Zfs(store) = store else { return Ok(None) };
        let missing = || SwapError::NoSnapshot { dataset: dataset.clone(), id: checkpoint.clone() };
        let zfs = store.zfs.as_ref();
        let real = zfs.dataset(dataset, limits)?.ok_or_else(missing)?;
        let leaf = format!("{SNAPSHOT_PREFIX}{checkpoint}");
        let snapshot = dataset.snapshot(&leaf).map_err(StoreError::from)?;
        zfs.snapshot(&snapshot, limits)?.ok_or_else(missing)?;
        let aside = store.aside(dataset, real.guid)?;
        let entry = journal.begin(Operation::Swap {
            dataset: dataset.clone(),
            guid: real.guid,
            aside: aside.clone(),
            snapshot: leaf.clone(),
        })?;
        let done = (|| -> Result<(), SwapError> {
            zfs.set(&Name::from(dataset), &Properties::new().with(KIND, "swapped"), limits)?;
            zfs.rename(dataset, &aside, KEEP_MOUNTS, limits)?;
            let properties = Properties::new()
                .with("mountpoint", "legacy")
                .with(KIND, "clone")
                .with(ID, checkpoint.as_str());
            let snapshot = aside.snapshot(&leaf).map_err(StoreError::from)?;
            Ok(zfs.clone_snapshot(&snapshot, dataset, &properties, limits)?)
        })();
        if let Err(error) = done {
            undo(store, entry.operation(), &Limits::within(std::time::Duration::from_secs(30)))?;
            entry.finish()?;
            return Err(error);
        }
        Ok(Some(Self { entry }))
    }

    /// Gives the dataset its name back; containerd must have unmounted the clone. On error it can be tried again by
    /// recovery.
    pub fn back(self, store: &Store, limits: &Limits) -> Result<(), SwapError> {
        if let Store::Zfs(store) = store {
            undo(store, self.entry.operation(), limits)?;
        }
        Ok(self.entry.finish()?)
    }
}

/// Idempotent.
pub(crate) fn undo(store: &ZfsStore, operation: &Operation, limits: &Limits) -> Result<(), StoreError> {
    let Operation::Swap { dataset, guid, aside, snapshot } = operation else { return Ok(()) };
    let zfs = store.zfs.as_ref();
    if zfs.dataset(aside, limits)?.is_some_and(|found| found.guid == *guid) {
        let origin = aside.snapshot(snapshot)?;
        let id = snapshot.strip_prefix(SNAPSHOT_PREFIX).unwrap_or_default();
        let ours = |found: &Dataset| found.origin.as_ref() == Some(&origin);
        stand_in::destroy(store, dataset, id, aside, ours, limits)?;
        zfs.rename(aside, dataset, KEEP_MOUNTS, limits)?;
    }
    if let Some(real) = zfs.dataset(dataset, limits)?
        && real.guid == *guid
        && real.properties.own(KIND).is_some()
    {
        zfs.inherit(&Name::from(dataset), KIND, limits)?;
    }
    Ok(())
}
