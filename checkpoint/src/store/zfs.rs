//! The ZFS store: a subtree of one pool, marked by user properties (`cryopod:*`), identified by guids.
//!
//! State changes are single `zfs set` calls, so a checkpoint is either a draft, committed or trash after any crash.
//! Disks of a committed checkpoint may still be snapshots on datasets of containerd ("unsettled"); they are found by
//! name and guid there, or below `adopted` when their owner has deleted them meanwhile.

mod claim;
mod find;
mod list;
mod planned;
mod remove;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cryopod_command::Limits;
use cryopod_zfs::{
    CreateRequest, Dataset, DatasetName, Entry, Error as ZfsError, Filter, Guid, HoldTag, MountOptions, Name,
    Properties, Wanted, Zfs,
};

pub(crate) use find::Found;
use list::state;

use super::content::Content;
use super::{Committed, Damage, Origin, StoreError};
use crate::digest::Sha256;
use crate::durable;
use crate::id::CheckpointId;
use crate::info::Summary;
use crate::journal::PlannedSnapshot;
use crate::lock::Locks;

/// Our snapshots are called `cryopod-<checkpoint>`, wherever they are.
pub(crate) const SNAPSHOT_PREFIX: &str = "cryopod-";
/// Id of the checkpoint that something belongs to.
pub(crate) const ID: &str = "cryopod:id";
/// The boot in which a container's root was made; no container outlives it.
pub(crate) const BOOT: &str = "cryopod:boot";
/// `capturing`, `committed` or `trash`.
const STATE: &str = "cryopod:state";
/// What a dataset is: root, base, checkpoint, disk, memory, adopted, clone, layer, template.
pub const KIND: &str = "cryopod:kind";
/// `yes` once every disk is in the store.
const SETTLED: &str = "cryopod:settled";
/// `yes` when it came in a stream.
const IMPORTED: &str = "cryopod:imported";
/// `yes` while a person keeps it.
const HELD: &str = "cryopod:held";
/// The summary as JSON.
const SUMMARY: &str = "cryopod:summary";
/// Hash of the manifest.
const MANIFEST: &str = "cryopod:manifest";
/// Values of user properties have at most 8191 bytes.
const MAX_VALUE: usize = 8000;

/// Checkpoints below a dataset.
#[derive(Debug)]
pub struct ZfsStore {
    pub(crate) zfs: Arc<dyn Zfs>,
    root: DatasetName,
    dir: PathBuf,
    pub(crate) locks: Locks,
}

/// In which state a checkpoint dataset is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Capturing,
    Committed,
    Trash,
}

impl ZfsStore {
    /// Uses `root`, creating it and what belongs below it; refused when it is somebody else's.
    pub(super) fn open(
        zfs: Arc<dyn Zfs>,
        root: DatasetName,
        dir: PathBuf,
        locks: Locks,
        limits: &Limits,
    ) -> Result<Self, StoreError> {
        let store = Self { zfs, root, dir, locks };
        store.claim(limits)?;
        super::dir::try_claim(&store.dir)?;
        Ok(store)
    }

    /// The subtree.
    pub fn root(&self) -> &DatasetName {
        &self.root
    }

    /// Mount base.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn checkpoint(&self, id: &CheckpointId) -> Result<DatasetName, StoreError> {
        Ok(self.root.child(&format!("checkpoints/{id}"))?)
    }

    /// A settled disk.
    pub(crate) fn disk(&self, id: &CheckpointId, stored: &str) -> Result<DatasetName, StoreError> {
        Ok(self.checkpoint(id)?.child(stored)?)
    }

    /// The image root with that snapshot.
    pub(crate) fn base(&self, guid: Guid) -> Result<DatasetName, StoreError> {
        Ok(self.root.child(&format!("bases/{guid}"))?)
    }

    /// The root that we made for a container.
    pub(crate) fn container(&self, container: &str) -> Result<DatasetName, StoreError> {
        Ok(self.root.child(&format!("containers/{container}"))?)
    }

    fn memory(&self, id: &CheckpointId) -> Result<DatasetName, StoreError> {
        self.disk(id, "memory")
    }

    pub(super) fn content(&self, id: &CheckpointId) -> Content {
        Content::new(self.dir.join("checkpoints").join(id.as_str()).join("memory"))
    }

    pub(crate) fn children(
        &self,
        root: &DatasetName,
        wanted: Wanted,
        limits: &Limits,
    ) -> Result<Vec<Dataset>, StoreError> {
        let filter = Filter::children_of(root).wanting(wanted);
        let entries = self.zfs.list(&filter, limits)?;
        Ok(entries.into_iter().filter_map(Entry::into_dataset).filter(|found| found.name != *root).collect())
    }

    pub(super) fn available(&self, limits: &Limits) -> Result<u64, StoreError> {
        let root = self.zfs.dataset(&self.root, limits)?;
        Ok(root.map_or(0, |root| root.available.0))
    }

    /// Makes a draft; `planned` are the snapshots that the capture will take, so that recovery finds them without the
    /// journal.
    pub(super) fn begin(
        &self,
        id: &CheckpointId,
        planned: &[PlannedSnapshot],
        limits: &Limits,
    ) -> Result<Content, StoreError> {
        let exists = || StoreError::Exists { id: id.clone(), store: self.root.to_string() };
        let content = self.content(id);
        if content.is_there() {
            return Err(exists());
        }
        // Marked from the first: recovery removes nothing that does not say what it is.
        let mark = Properties::new()
            .with(ID, id.as_str())
            .with(KIND, "checkpoint")
            .with(STATE, "capturing")
            .with("canmount", "off");
        match self.zfs.create(&CreateRequest::filesystem(&self.checkpoint(id)?, mark), limits) {
            Err(ZfsError::Exists { .. }) => return Err(exists()),
            other => other?,
        }
        let mut properties =
            Properties::new().with(ID, id.as_str()).with(KIND, "memory").with("mountpoint", "legacy");
        planned::note(planned, &mut properties);
        self.zfs.create(&CreateRequest::filesystem(&self.memory(id)?, properties), limits)?;
        self.mount(id, limits)?;
        content.prepare()?;
        Ok(content)
    }

    /// By mount(2): mounted when needed and not by `zfs mount -a` at boot, which would be one mount per checkpoint.
    fn mount(&self, id: &CheckpointId, limits: &Limits) -> Result<(), StoreError> {
        let content = self.content(id);
        durable::private_dir(content.dir()).map_err(StoreError::io("create", content.dir()))?;
        let options = MountOptions { nosuid: true, nodev: true, noexec: true, ..MountOptions::default() };
        Ok(self.zfs.mount_at(&self.memory(id)?, content.dir(), options, limits)?)
    }

    /// Makes the checkpoint visible and read-only, in one transaction.
    pub(super) fn commit(
        &self,
        id: &CheckpointId,
        summary: &Summary,
        manifest: Sha256,
        origin: Origin,
        limits: &Limits,
    ) -> Result<(), StoreError> {
        let mut summary = summary.clone();
        let mut json = serde_json::to_string(&summary).map_err(StoreError::Marker)?;
        // A list may do without the names of some members, a property may not do without its bound.
        while json.len() > MAX_VALUE && summary.members.pop().is_some() {
            json = serde_json::to_string(&summary).map_err(StoreError::Marker)?;
        }
        let mut properties = Properties::new()
            .with(ID, id.as_str())
            .with(KIND, "checkpoint")
            .with("canmount", "off")
            .with(STATE, "committed")
            .with(SUMMARY, json)
            .with(MANIFEST, manifest.to_string())
            .with(SETTLED, if origin == Origin::Unsettled { "no" } else { "yes" })
            .with("readonly", "on");
        if origin == Origin::Imported {
            properties.set(IMPORTED, "yes");
        }
        self.set(id, &properties, limits)
    }

    fn set(&self, id: &CheckpointId, properties: &Properties, limits: &Limits) -> Result<(), StoreError> {
        Ok(self.zfs.set(&Name::from(&self.checkpoint(id)?), properties, limits)?)
    }

    pub(crate) fn set_settled(&self, id: &CheckpointId, limits: &Limits) -> Result<(), StoreError> {
        self.set(id, &Properties::new().with(SETTLED, "yes"), limits)
    }

    pub(super) fn set_held(&self, id: &CheckpointId, held: bool, limits: &Limits) -> Result<(), StoreError> {
        if held {
            return self.set(id, &Properties::new().with(HELD, "yes"), limits);
        }
        Ok(self.zfs.inherit(&Name::from(&self.checkpoint(id)?), HELD, limits)?)
    }

    fn dataset(&self, id: &CheckpointId, limits: &Limits) -> Result<Option<Dataset>, StoreError> {
        Ok(self.zfs.dataset(&self.checkpoint(id)?, limits)?)
    }

    /// The marker, if the checkpoint is committed.
    pub(crate) fn committed(
        &self,
        id: &CheckpointId,
        limits: &Limits,
    ) -> Result<Option<Committed>, StoreError> {
        let Some(dataset) = self.dataset(id, limits)? else { return Ok(None) };
        if state(&dataset) != Some(State::Committed) {
            return Ok(None);
        }
        let own = |key| dataset.properties.own(key);
        let manifest = own(MANIFEST).and_then(|text| Sha256::try_from(text.to_owned()).ok());
        match manifest {
            Some(manifest) => Ok(Some(Committed { manifest, settled: own(SETTLED) == Some("yes") })),
            None => Err(StoreError::Damaged { id: id.clone(), damage: Damage::Marker }),
        }
    }

    /// The content directory of a committed checkpoint, mounted.
    pub(crate) fn open_content(&self, id: &CheckpointId, limits: &Limits) -> Result<Content, StoreError> {
        let content = self.content(id);
        if !content.is_there() {
            self.mount(id, limits)?;
        }
        Ok(content)
    }

    /// A free name below `part` of the subtree.
    pub(crate) fn fresh_name(&self, part: &str, leaf: &str) -> Result<DatasetName, StoreError> {
        let now = jiff::Timestamp::now().as_nanosecond();
        Ok(self.root.child(&format!("{part}/{leaf}.{now}"))?)
    }
}

/// The hold on a source snapshot while it is sent.
pub(crate) fn hold_tag(id: &CheckpointId) -> Result<HoldTag, StoreError> {
    Ok(format!("cryopod-settle-{id}").parse()?)
}
