//! Settling: makes a committed checkpoint independent of its source, and keeps it when the source goes first.
//!
//! ```text
//! source dataset D (containerd's)                    store
//! origin base@img ──full, once──────────────────────▶ bases/<guid>@img
//! D@cryopod-<id> ──incremental from base────────────▶ checkpoints/<id>/<member>-<disk>@cryopod-<id>
//! then D@cryopod-<id> is destroyed, since containerd's plain `zfs destroy D` fails while it exists
//! ```
//!
//! [`settle`] is idempotent and runs in a process of its own (`cryopod settle <id>`), so that it outlives the pod.
//! [`adopt`] is called when the pod is deleted: it asks the sender to stop (lock::Locks), moves the dataset into the
//! store and leaves an empty one under the old name; settling then goes on from there. A dataset's lock is named
//! after its guid, so it stays the same through renames.

mod adopt;
mod ship;
#[cfg(test)]
mod tests;

use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use cryopod_command::{Cancel, Limits};
use cryopod_zfs::{Error as ZfsError, SnapshotName};

use crate::fault::{self, Injected};
use crate::id::CheckpointId;
use crate::journal::JournalError;
use crate::kind::Kind;
use crate::lock::{Lock, LockError};
use crate::manifest::{DiskContent, Manifest};
use crate::progress::Progress;
use crate::store::{Deleted, Found, Store, StoreError, ZfsStore, zfs_kind};

pub(crate) use adopt::{ADOPTED, finish_adopt, let_go, reap_adopted};
pub use adopt::{Adopted, adopt};

/// How often a sender looks whether somebody wants its dataset: well below the 10 s that Delete has.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Settling or adopting failed; the checkpoint stays as it is and settling can be tried again.
#[derive(Debug, thiserror::Error)]
pub enum SettleError {
    /// The store could not.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The contents of a disk are neither in the store nor anywhere else.
    #[error(
        "disk {disk} of checkpoint {id} is lost: its snapshot is neither in the store nor on its source; delete the \
         checkpoint"
    )]
    Lost {
        /// Checkpoint.
        id: CheckpointId,
        /// Stored name of the disk.
        disk: String,
    },
    /// What arrived is not what was sent.
    #[error("disk {disk} of checkpoint {id} arrived with another identity than it was sent with")]
    WrongGuid {
        /// Checkpoint.
        id: CheckpointId,
        /// Stored name of the disk.
        disk: String,
    },
    /// The checkpoint is being deleted.
    #[error("checkpoint {id} is being deleted")]
    Deleted {
        /// Checkpoint.
        id: CheckpointId,
    },
    /// The journal could not be written.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

impl SettleError {
    /// How a caller should react.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Store(error) => error.kind(),
            Self::Lost { .. } | Self::WrongGuid { .. } => Kind::DataLoss,
            Self::Deleted { .. } => Kind::NotFound,
            Self::Journal(error) => error.kind(),
        }
    }
}

macro_rules! by_store {
    ($($source:ty),*) => {$(
        impl From<$source> for SettleError {
            fn from(error: $source) -> Self {
                Self::Store(StoreError::from(error))
            }
        }
    )*};
}
by_store!(cryopod_zfs::Error, cryopod_zfs::NameError, LockError, Injected);

/// What settling did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Settled {
    /// Disks that were sent now; 0 when there was nothing left to do.
    pub disks: usize,
}

/// Brings every disk of a committed checkpoint into the store and frees its sources. Waits for another process that
/// does the same.
pub fn settle(
    store: &Store,
    id: &CheckpointId,
    progress: &dyn Progress,
    limits: &Limits,
) -> Result<Settled, SettleError> {
    let Store::Zfs(zfs) = store else { return Ok(Settled::default()) };
    let committed = store.committed(id, limits)?.ok_or_else(|| store.not_found(id))?;
    if committed.settled {
        return Ok(Settled::default());
    }
    let _lock = zfs.locks.lock(&lock_name(id), limits)?;
    let (manifest, _) = store.open_as(id, &committed, limits)?;
    let mut settled = Settled::default();
    for (stored, record, disk) in manifest.stored_disks() {
        if !matches!(disk.content, DiskContent::Zfs { .. }) {
            continue;
        }
        progress.step(&format!("settle {stored}"));
        settled.disks += usize::from(ship::disk(zfs, id, &stored, record, disk, progress, limits)?);
    }
    fault::step("settle.release")?;
    // Only now are the sources free: until here a crash finds either both or the source alone.
    let sources = sources(zfs, &manifest, limits)?;
    if let Some((_, error)) = sources.unreachable.into_iter().next() {
        // It may be imported again with the snapshot.
        return Err(error.into());
    }
    for snapshot in sources.there {
        release(zfs, &snapshot, limits)?;
    }
    zfs.set_settled(id, limits)?;
    fault::step("settle.settled")?;
    Ok(settled)
}

/// What a settling process does after its own checkpoint: settles those whose process was killed or lost its power, and
/// tidies up. Those that another process works on are left to it; failures are logged, since somebody comes again.
pub fn rest(store: &Store, progress: &dyn Progress, limits: &Limits) -> Result<(), StoreError> {
    if let Store::Zfs(zfs) = store {
        for info in zfs.list(limits)?.into_iter().filter(|info| !info.settled) {
            if zfs.locks.try_lock(&lock_name(&info.id))?.is_none() {
                continue;
            }
            if let Err(error) = settle(store, &info.id, progress, limits) {
                tracing::warn!(checkpoint = info.id.as_str(), %error, "not settled yet");
            }
        }
    }
    tidy(store, limits).map(drop)
}

/// Frees what nothing needs any more: adopted datasets whose checkpoints are settled or deleted, what was deleted and
/// is no longer shared, bases without checkpoints. Called when something that shared or needed them has gone. Returns
/// how many pieces of deleted checkpoints and bases went.
pub fn tidy(store: &Store, limits: &Limits) -> Result<u64, StoreError> {
    if let Store::Zfs(zfs) = store {
        reap_adopted(zfs, limits)?;
    }
    store.reap(limits)
}

pub(crate) fn lock_name(id: &CheckpointId) -> String {
    format!("settle-{id}")
}

/// Snapshots on the datasets they were taken of.
#[derive(Debug, Default)]
struct Sources {
    /// Those that still exist.
    there: Vec<SnapshotName>,
    /// Those whose pool is not imported, under the names they were taken with, each with what was said of it.
    unreachable: Vec<(SnapshotName, ZfsError)>,
}

/// Those of an unsettled checkpoint, which this node has captured.
fn sources(store: &ZfsStore, manifest: &Manifest, limits: &Limits) -> Result<Sources, StoreError> {
    let mut sources = Sources::default();
    for (_, record, disk) in manifest.stored_disks() {
        let DiskContent::Zfs { snapshot, guid, .. } = &disk.content else { continue };
        let source =
            record.member.disks.iter().find(|known| known.name == disk.name).map(|known| &known.source);
        let Some(crate::target::DiskSource::Zfs { dataset, .. }) = source else { continue };
        match store.find_source(dataset, snapshot, *guid, limits) {
            Err(StoreError::Zfs(error @ ZfsError::PoolMissing { .. })) => {
                sources.unreachable.push((dataset.snapshot(snapshot)?, error));
            }
            found => sources.there.extend(found?),
        }
    }
    Ok(sources)
}

/// Destroys a source snapshot that is no longer needed, and an adopted dataset with its last one.
fn release(store: &ZfsStore, snapshot: &SnapshotName, limits: &Limits) -> Result<(), StoreError> {
    store.drop_source(snapshot, limits)?;
    adopt::drop_if_done(store, &snapshot.dataset(), limits)
}

/// Deletes a committed checkpoint, stopping a settling that may be going on. A pool that is not imported does not keep
/// it, since that may have been destroyed: the snapshots there are given up, and returned for whoever imports it again.
pub(crate) fn stop_and_remove(
    store: &ZfsStore,
    id: &CheckpointId,
    limits: &Limits,
) -> Result<Deleted, StoreError> {
    let _wish = store.locks.want(&lock_name(id))?;
    let _lock = store.locks.lock(&lock_name(id), limits)?;
    let mut found = Sources::default();
    // A settled one has none, whatever its manifest says: it may have been imported, and name what is not its own.
    if let Some(committed) = store.committed(id, limits)?.filter(|committed| !committed.settled) {
        // A damaged manifest must not keep a checkpoint from being deleted.
        match store.open_content(id, limits).and_then(|content| content.read_manifest(id, committed.manifest))
        {
            Ok(manifest) => found = sources(store, &manifest, limits)?,
            Err(error) => tracing::warn!(checkpoint = %id, %error, "deleting without its manifest"),
        }
    }
    let deleted = store.remove(id, &found.there, limits)?;
    for snapshot in &found.there {
        adopt::drop_if_done(store, &snapshot.dataset(), limits)?;
    }
    for (snapshot, error) in &found.unreachable {
        tracing::warn!(checkpoint = %id, %snapshot, %error, "a source is given up");
    }
    Ok(deleted.giving_up(found.unreachable.into_iter().map(|(snapshot, _)| snapshot).collect()))
}

/// Runs `work` with limits that also end when one of `names` is wanted by somebody else.
fn while_unwanted<T>(
    store: &ZfsStore,
    names: &[&str],
    limits: &Limits,
    work: impl FnOnce(&Limits) -> T,
) -> (T, bool) {
    let cancel = Cancel::new();
    let inner = Limits { deadline: limits.deadline, cancel: Some(cancel.clone()) };
    // Nothing is ever sent: the watcher ends when its sender goes, also while a panic unwinds.
    let (working, done) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let watcher = scope.spawn(move || {
            loop {
                let stopped = limits.cancel.as_ref().is_some_and(Cancel::is_cancelled);
                let wanted = names.iter().any(|name| store.locks.is_wanted(name));
                if stopped || wanted {
                    cancel.cancel();
                    return wanted;
                }
                if done.recv_timeout(LOOK_EVERY) != Err(RecvTimeoutError::Timeout) {
                    return false;
                }
            }
        });
        let result = work(&inner);
        drop(working);
        (result, watcher.join().unwrap_or(false))
    })
}

/// The lock of a dataset, by what it is and not by its name.
fn dataset_lock(guid: cryopod_zfs::Guid) -> String {
    format!("dataset-{guid}")
}

fn wait_until_unwanted(store: &ZfsStore, name: &str, limits: &Limits) -> Result<(), StoreError> {
    while store.locks.is_wanted(name) {
        limits.check().map_err(StoreError::Stopped)?;
        thread::sleep(LOOK_EVERY);
    }
    Ok(())
}

fn stopped_or_gone(error: &StoreError) -> bool {
    match error {
        StoreError::Zfs(error) => error.is_stopped() || matches!(zfs_kind(error), Kind::NotFound),
        _ => false,
    }
}

/// A disk that was found, with the lock of its dataset and the name of that lock.
type Held = (Lock, String, Found);
