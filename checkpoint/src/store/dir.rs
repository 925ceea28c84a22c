//! The directory store: for nodes without ZFS. Disks are copied (by shared blocks where the file system can), so a
//! checkpoint is independent of its source as soon as it is committed, and nothing ever shares with it.

mod claim;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use cryopod_command::Limits;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::content::Content;
use super::{Committed, Damage, Deleted, Origin, StoreError};
use crate::digest::Sha256;
use crate::durable;
use crate::fault;
use crate::id::CheckpointId;
use crate::info::{CheckpointInfo, Summary};
use crate::lock::Locks;

pub(super) use claim::try_claim;

/// Longest marker: the summary names up to 256 members.
const MAX_MARKER: u64 = 1 << 20;

/// The file that says that a checkpoint came in a stream.
const IMPORTED: &str = "imported";

/// Checkpoints below a directory.
#[derive(Debug)]
pub struct DirStore {
    dir: PathBuf,
    pub(super) locks: Locks,
}

/// The file `committed`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Marker {
    version: u32,
    manifest: Sha256,
    summary: Summary,
}

impl DirStore {
    pub(super) fn open(dir: PathBuf, locks: Locks) -> Result<Self, StoreError> {
        claim::claim(&dir)?;
        for name in claim::PARTS {
            let path = dir.join(name);
            durable::private_dir(&path).map_err(StoreError::io("create", &path))?;
        }
        Ok(Self { dir, locks })
    }

    /// Bytes that are free where [`Self::open`] would be used; changes nothing.
    pub(super) fn look(dir: &Path) -> Result<u64, StoreError> {
        claim::check(dir)?;
        // It may not be there yet.
        let there = dir.ancestors().find(|path| path.exists()).unwrap_or(dir);
        free(there)
    }

    /// Where it is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn checkpoint(&self, id: &CheckpointId) -> PathBuf {
        self.dir.join("checkpoints").join(id.as_str())
    }

    pub(crate) fn container(&self, container: &str) -> PathBuf {
        self.dir.join("containers").join(container)
    }

    pub(super) fn content(&self, id: &CheckpointId) -> Content {
        Content::new(self.checkpoint(id).join("memory"))
    }

    pub(super) fn available(&self) -> Result<u64, StoreError> {
        free(&self.dir)
    }

    pub(super) fn begin(&self, id: &CheckpointId) -> Result<Content, StoreError> {
        let path = self.checkpoint(id);
        if let Err(error) = fs::create_dir(&path) {
            if error.kind() == io::ErrorKind::AlreadyExists {
                return Err(StoreError::Exists { id: id.clone(), store: self.dir.display().to_string() });
            }
            return Err(StoreError::io("create", &path)(error));
        }
        claim::mark(&path)?;
        durable::sync_parent(&path).map_err(StoreError::io("sync", &path))?;
        let content = self.content(id);
        durable::private_dir(content.dir()).map_err(StoreError::io("create", content.dir()))?;
        content.prepare()?;
        Ok(content)
    }

    pub(super) fn commit(
        &self,
        id: &CheckpointId,
        summary: &Summary,
        manifest: Sha256,
        origin: Origin,
    ) -> Result<(), StoreError> {
        let path = self.checkpoint(id);
        if origin == Origin::Imported {
            // A file of its own, like `held`: the marker's version stays readable to programs before it.
            let file = path.join(IMPORTED);
            durable::write(&file, b"").map_err(StoreError::io("write", &file))?;
        }
        let content = path.join("memory");
        durable::sync_dir(&content).map_err(StoreError::io("sync", &content))?;
        let marker = Marker { version: 1, manifest, summary: summary.clone() };
        let bytes = serde_json::to_vec(&marker).map_err(StoreError::Marker)?;
        let file = path.join("committed");
        durable::write(&file, &bytes).map_err(StoreError::io("write", &file))
    }

    /// The marker of a committed checkpoint; None for a draft or where there is nothing.
    fn marker(&self, id: &CheckpointId) -> Result<Option<Marker>, StoreError> {
        let path = self.checkpoint(id).join("committed");
        let damaged = || StoreError::Damaged { id: id.clone(), damage: Damage::Marker };
        match fs::metadata(&path) {
            Ok(metadata) if metadata.len() > MAX_MARKER => return Err(damaged()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StoreError::io("examine", &path)(error)),
            Ok(_) => {}
        }
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(StoreError::io("read", &path))?,
        };
        match serde_json::from_slice::<Marker>(&bytes) {
            Ok(marker) if marker.version == 1 => Ok(Some(marker)),
            _ => Err(damaged()),
        }
    }

    pub(super) fn committed(&self, id: &CheckpointId) -> Result<Option<Committed>, StoreError> {
        Ok(self.marker(id)?.map(|marker| Committed { manifest: marker.manifest, settled: true }))
    }

    /// Every id below `checkpoints`; names that are none of ours are left alone.
    fn ids(&self) -> Result<Vec<CheckpointId>, StoreError> {
        let path = self.dir.join("checkpoints");
        let mut ids = Vec::new();
        for item in fs::read_dir(&path).map_err(StoreError::io("list", &path))? {
            let item = item.map_err(StoreError::io("list", &path))?;
            if let Some(id) = item.file_name().to_str().and_then(|name| name.parse().ok()) {
                ids.push(id);
            }
        }
        ids.sort();
        Ok(ids)
    }

    pub(super) fn drafts(&self) -> Result<Vec<CheckpointId>, StoreError> {
        let mut drafts = Vec::new();
        for id in self.ids()? {
            if matches!(self.marker(&id), Ok(None)) && claim::is_draft(&self.checkpoint(&id))? {
                drafts.push(id);
            }
        }
        Ok(drafts)
    }

    /// What is below `checkpoints` and `trash` and does not say that it is ours.
    pub(super) fn strangers(&self) -> Result<Vec<String>, StoreError> {
        let mut strangers = Vec::new();
        for (part, ours) in [("checkpoints", claim::is_known as claim::Proof), ("trash", claim::is_trash)] {
            let part = self.dir.join(part);
            for path in claim::entries(&part)? {
                let id = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
                if !ours(&path)? && !id.is_some_and(|id| self.is_mounted(&id)) {
                    strangers.push(path.display().to_string());
                }
            }
        }
        strangers.sort();
        Ok(strangers)
    }

    /// Removes a draft; what has the name of one and does not say so stays.
    pub(super) fn abort(&self, id: &CheckpointId) -> Result<(), StoreError> {
        let path = self.checkpoint(id);
        if claim::is_draft(&path)? {
            return self.remove(id).map(drop);
        }
        if path.exists() {
            tracing::warn!(path = %path.display(), "it has no mark of cryopod and is left alone");
        }
        Ok(())
    }

    /// Whether a ZFS store of the same directory has its memory dataset mounted there: it is marked in ZFS.
    fn is_mounted(&self, id: &CheckpointId) -> bool {
        use std::os::unix::fs::MetadataExt;
        let device = |path: &Path| fs::symlink_metadata(path).map(|meta| meta.dev()).ok();
        let path = self.checkpoint(id);
        device(&path.join("memory")).is_some_and(|memory| Some(memory) != device(&path))
    }

    pub(super) fn info(&self, id: &CheckpointId) -> Result<Option<CheckpointInfo>, StoreError> {
        let Some(Marker { summary, .. }) = self.marker(id)? else { return Ok(None) };
        Ok(Some(CheckpointInfo {
            id: id.clone(),
            created: summary.created,
            mode: summary.mode,
            pod: summary.pod,
            members: summary.members,
            settled: true,
            imported: self.checkpoint(id).join(IMPORTED).exists(),
            held: self.checkpoint(id).join("held").exists(),
            memory_bytes: summary.memory_bytes,
            disk_bytes: summary.disk_bytes,
            sharers: Vec::new(),
        }))
    }

    pub(super) fn list(&self) -> Result<Vec<CheckpointInfo>, StoreError> {
        let mut list = Vec::new();
        for id in self.ids()? {
            match self.info(&id) {
                Ok(info) => list.extend(info),
                // One damaged checkpoint must not hide the others.
                Err(error) => tracing::error!(checkpoint = %id, %error, "left out of the list"),
            }
        }
        Ok(list)
    }

    pub(super) fn set_held(&self, id: &CheckpointId, held: bool) -> Result<(), StoreError> {
        let path = self.checkpoint(id).join("held");
        if held {
            durable::write(&path, b"").map_err(StoreError::io("write", &path))
        } else {
            durable::remove(&path).map_err(StoreError::io("remove", &path))
        }
    }

    /// Removes a draft or a deleted checkpoint: one rename makes it disappear, the rest may be interrupted.
    pub(super) fn remove(&self, id: &CheckpointId) -> Result<Deleted, StoreError> {
        let path = self.checkpoint(id);
        fault::step("delete.mark")?;
        let trash = self.dir.join("trash").join(format!("{id}.{}", Timestamp::now().as_nanosecond()));
        fault::step("delete.move")?;
        match fs::rename(&path, &trash) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Deleted::Gone),
            other => other.map_err(StoreError::io("move away", &path))?,
        }
        durable::sync_parent(&path).map_err(StoreError::io("sync", &path))?;
        fault::step("delete.destroy")?;
        claim::remove(&trash)?;
        Ok(Deleted::Gone)
    }

    /// Finishes interrupted removals.
    pub(super) fn reap(&self, limits: &Limits) -> Result<u64, StoreError> {
        let mut reaped = 0;
        for path in claim::entries(&self.dir.join("trash"))? {
            limits.check().map_err(StoreError::Stopped)?;
            if claim::is_trash(&path)? {
                claim::remove(&path)?;
                reaped += 1;
            }
        }
        Ok(reaped)
    }
}

fn free(path: &Path) -> Result<u64, StoreError> {
    let stat =
        nix::sys::statvfs::statvfs(path).map_err(|error| StoreError::io("examine", path)(error.into()))?;
    Ok(stat.blocks_available() as u64 * stat.fragment_size() as u64)
}
