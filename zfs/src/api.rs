//! The one way to ZFS: an object-safe trait, implemented by the real tool (`Cli`) and by the `Fake`.
//!
//! Every call blocks until it is done, its deadline passes or it is cancelled. After the latter two nothing
//! is known about the effect (the kernel may have begun): ask again before relying on it.

use std::any::Any;
use std::fmt;
use std::os::fd::OwnedFd;
use std::path::Path;

use crate::{
    BookmarkName, Bytes, CreateRequest, Dataset, DatasetName, Entry, Error, Filter, Hold, HoldTag, Limits,
    MountHolder, MountOptions, Name, Pool, PoolName, PoolStatus, Properties, ReceiveRequest, Received,
    Rename, SendRequest, Snapshot, SnapshotName, Version,
};

/// OpenZFS, as much of it as cryopod uses.
pub trait Zfs: fmt::Debug + Send + Sync {
    /// Which implementation this is: "cli", "lzc" (the tool and libzfs_core) or "fake".
    fn backend(&self) -> &'static str;

    /// The versions of tool and module.
    fn version(&self, limits: &Limits) -> Result<Version, Error>;

    // Looking.

    /// What exists at and below the roots, in the order of `createtxg`. A missing root is `NotFound`.
    fn list(&self, filter: &Filter, limits: &Limits) -> Result<Vec<Entry>, Error>;

    /// One dataset with all its properties; None only when it is known to be absent from an imported pool.
    fn dataset(&self, name: &DatasetName, limits: &Limits) -> Result<Option<Dataset>, Error>;

    /// One snapshot with all its properties; None as in `dataset`.
    fn snapshot(&self, name: &SnapshotName, limits: &Limits) -> Result<Option<Snapshot>, Error>;

    /// Where a dataset is mounted, in every mount namespace that can be looked into.
    fn mounts(&self, name: &DatasetName, limits: &Limits) -> Result<Vec<MountHolder>, Error>;

    // Datasets.

    /// Makes a file system or volume. A file system is mounted unless its properties say otherwise.
    fn create(&self, create: &CreateRequest, limits: &Limits) -> Result<(), Error>;

    /// Destroys a dataset, with everything below it when `recursive`; never a pool's root, never clones
    /// outside of it. Mounted file systems are unmounted if nothing uses them, else the error is `Busy`.
    fn destroy(&self, name: &DatasetName, recursive: bool, limits: &Limits) -> Result<(), Error>;

    /// Makes a file system from a snapshot of the same pool; mounted unless its properties say otherwise.
    fn clone_snapshot(
        &self,
        snapshot: &SnapshotName,
        target: &DatasetName,
        properties: &Properties,
        limits: &Limits,
    ) -> Result<(), Error>;

    /// Lets a clone and its origin change roles: the snapshots up to the origin move to the clone.
    fn promote(&self, name: &DatasetName, limits: &Limits) -> Result<(), Error>;

    /// Renames a dataset within its pool, with everything below it.
    fn rename(&self, from: &DatasetName, to: &DatasetName, how: Rename, limits: &Limits)
    -> Result<(), Error>;

    /// Takes an unmounted dataset back to its latest snapshot. `Mounted` when it is mounted anywhere,
    /// `NotLatest` when something newer exists.
    fn rollback(&self, snapshot: &SnapshotName, limits: &Limits) -> Result<(), Error>;

    /// Sets properties, all in one call.
    fn set(&self, name: &Name, properties: &Properties, limits: &Limits) -> Result<(), Error>;

    /// Removes what was set here, so that the value from above or the default holds again.
    fn inherit(&self, name: &Name, key: &str, limits: &Limits) -> Result<(), Error>;

    // Snapshots and bookmarks.

    /// Takes all these snapshots in one transaction, with these user properties, or none of them.
    /// All must be in one pool, and at most one of each dataset.
    fn snapshot_set(
        &self,
        snapshots: &[SnapshotName],
        properties: &Properties,
        limits: &Limits,
    ) -> Result<(), Error>;

    /// Destroys snapshots; those that are already gone are no error. With `deferred`, one that is held or
    /// cloned is marked and goes with its last hold or clone; else it is `Busy` or `HasDependents`.
    fn destroy_snapshots(
        &self,
        snapshots: &[SnapshotName],
        deferred: bool,
        limits: &Limits,
    ) -> Result<(), Error>;

    /// Gives a snapshot another name after the `@`.
    fn rename_snapshot(
        &self,
        snapshot: &SnapshotName,
        to: &str,
        limits: &Limits,
    ) -> Result<SnapshotName, Error>;

    /// Makes a bookmark of a snapshot of the same dataset.
    fn bookmark(
        &self,
        snapshot: &SnapshotName,
        bookmark: &BookmarkName,
        limits: &Limits,
    ) -> Result<(), Error>;

    /// Destroys a bookmark; its absence is `NotFound`.
    fn destroy_bookmark(&self, bookmark: &BookmarkName, limits: &Limits) -> Result<(), Error>;

    // Holds.

    /// Puts the same hold on all these snapshots of one pool, or on none.
    fn hold(&self, snapshots: &[SnapshotName], tag: &HoldTag, limits: &Limits) -> Result<(), Error>;

    /// Takes the hold from all these snapshots; one marked as deferred goes with its last hold.
    fn release(&self, snapshots: &[SnapshotName], tag: &HoldTag, limits: &Limits) -> Result<(), Error>;

    /// The holds on a snapshot.
    fn holds(&self, snapshot: &SnapshotName, limits: &Limits) -> Result<Vec<Hold>, Error>;

    /// Holds snapshots for as long as the value returned lives. With libzfs_core the kernel releases them
    /// when this process dies; without it they outlive a crash and `recover()` must release them.
    fn hold_while(
        &self,
        snapshots: &[SnapshotName],
        tag: &HoldTag,
        limits: &Limits,
    ) -> Result<TemporaryHold, Error>;

    // Mounts.

    /// Mounts a file system at its mountpoint; already mounted is no error.
    fn mount(&self, name: &DatasetName, limits: &Limits) -> Result<(), Error>;

    /// Unmounts what `mount` mounted in this mount namespace; not mounted is no error.
    fn unmount(&self, name: &DatasetName, limits: &Limits) -> Result<(), Error>;

    /// Mounts a file system whose mountpoint is `legacy` at `path`, an existing directory, by mount(2).
    fn mount_at(
        &self,
        name: &DatasetName,
        path: &Path,
        options: MountOptions,
        limits: &Limits,
    ) -> Result<(), Error>;

    /// Unmounts what is mounted at `path`; nothing there is no error. With `detach` it goes from the tree at
    /// once and is released by its last user.
    fn unmount_at(&self, path: &Path, detach: bool, limits: &Limits) -> Result<(), Error>;

    // Streams.

    /// How many bytes `send` would write, roughly.
    fn send_size(&self, send: &SendRequest, limits: &Limits) -> Result<Bytes, Error>;

    /// Writes a stream to `to` and closes it.
    fn send(&self, send: &SendRequest, to: OwnedFd, limits: &Limits) -> Result<(), Error>;

    /// Reads a stream from `from` to its end and says what arrived.
    fn receive(&self, receive: &ReceiveRequest, from: OwnedFd, limits: &Limits) -> Result<Received, Error>;

    /// Drops what an interrupted receive left in `target`; nothing to drop is no error.
    fn abort_receive(&self, target: &DatasetName, limits: &Limits) -> Result<(), Error>;

    /// `send | receive` within this machine. The error is that of the side that failed first.
    fn copy(&self, send: &SendRequest, receive: &ReceiveRequest, limits: &Limits) -> Result<Received, Error>;

    // Pools.

    /// The imported pools.
    fn pools(&self, limits: &Limits) -> Result<Vec<Pool>, Error>;

    /// How a pool is, in detail.
    fn pool_status(&self, pool: &PoolName, limits: &Limits) -> Result<PoolStatus, Error>;

    /// Writes everything that is dirty in the pool to disk.
    fn pool_sync(&self, pool: &PoolName, limits: &Limits) -> Result<(), Error>;
}

/// Holds that are released when this is dropped.
pub struct TemporaryHold(#[allow(dead_code, reason = "it acts by being dropped")] Box<dyn Any + Send + Sync>);

impl TemporaryHold {
    pub(crate) fn new(guard: impl Any + Send + Sync) -> Self {
        Self(Box::new(guard))
    }
}

impl fmt::Debug for TemporaryHold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TemporaryHold")
    }
}
