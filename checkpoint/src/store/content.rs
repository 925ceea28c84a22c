//! The content directory of a checkpoint: images, copied disks and the manifest, the same in both stores.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use cryopod_command::Limits;

use super::{Damage, StoreError, Verified};
use crate::digest::{self, Sha256};
use crate::durable;
use crate::id::CheckpointId;
use crate::manifest::{self, DiskContent, FileRecord, Manifest, MemoryRecord};
use crate::progress::{Progress, Silent};
use crate::tree;

/// CRIU's link from an image directory to the previous round.
const PARENT: &str = "parent";

/// The content directory of one checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Content {
    dir: PathBuf,
}

impl Content {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Makes the directories of a new checkpoint; that they exist is an error.
    pub(crate) fn prepare(&self) -> Result<(), StoreError> {
        for name in ["images", "disks"] {
            let path = self.dir.join(name);
            fs::DirBuilder::new().mode(0o700).create(&path).map_err(StoreError::io("create", &path))?;
        }
        Ok(())
    }

    /// Whether the directory is that of a checkpoint and not an empty mount point.
    pub(crate) fn is_there(&self) -> bool {
        self.dir.join("images").exists()
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn manifest(&self) -> PathBuf {
        self.dir.join(manifest::FILE_NAME)
    }

    /// Image directory of one round of a member.
    pub(crate) fn round(&self, member: &str, round: &str) -> PathBuf {
        self.dir.join("images").join(member).join(round)
    }

    /// The tree of a copied disk, by its stored name.
    pub(crate) fn disk(&self, stored: &str) -> PathBuf {
        self.dir.join("disks").join(stored)
    }

    /// Makes a directory below `images` or `disks`. Never those themselves: when the memory dataset is gone, nothing may
    /// be written to what lies under its mount point.
    pub(crate) fn create(&self, path: &Path) -> Result<(), StoreError> {
        let tops = ["images", "disks"].map(|top| self.dir.join(top));
        let missing: Vec<&Path> =
            path.ancestors().take_while(|at| !tops.iter().any(|top| top == at)).collect();
        for dir in missing.into_iter().rev() {
            match fs::DirBuilder::new().mode(0o700).create(dir) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                other => other.map_err(StoreError::io("create", dir))?,
            }
        }
        Ok(())
    }

    /// Hashes the images of a member and makes them durable.
    pub(crate) fn record(
        &self,
        member: &str,
        rounds: &[String],
        progress: &dyn Progress,
        limits: &Limits,
    ) -> Result<Vec<FileRecord>, StoreError> {
        let mut records = Vec::new();
        let mut done = 0;
        for round in rounds {
            let dir = self.round(member, round);
            for (name, path) in files(&dir)? {
                let file = File::open(&path).map_err(StoreError::io("open", &path))?;
                let (sha256, size) = digest::of_reader(&file, limits).map_err(StoreError::hash(&path))?;
                file.sync_all().map_err(StoreError::io("sync", &path))?;
                records.push(FileRecord { path: format!("{round}/{name}"), size, sha256 });
                done += size;
                progress.bytes(done, None);
            }
            durable::sync_dir(&dir).map_err(StoreError::io("sync", &dir))?;
            durable::sync_parent(&dir).map_err(StoreError::io("sync", &dir))?;
        }
        let images = self.dir.join("images");
        durable::sync_dir(&images).map_err(StoreError::io("sync", &images))?;
        Ok(records)
    }

    /// Writes the manifest, last of all, and returns its hash for the marker.
    pub(crate) fn write_manifest(&self, manifest: &Manifest) -> Result<Sha256, StoreError> {
        let bytes =
            manifest.to_bytes().map_err(|source| StoreError::Manifest { id: manifest.id.clone(), source })?;
        let path = self.manifest();
        durable::write(&path, &bytes).map_err(StoreError::io("write", &path))?;
        Ok(digest::of(&bytes))
    }

    /// Reads the manifest of checkpoint `id`, which must be the one that was committed.
    pub(crate) fn read_manifest(&self, id: &CheckpointId, committed: Sha256) -> Result<Manifest, StoreError> {
        let path = self.manifest();
        let damaged = |damage| StoreError::Damaged { id: id.clone(), damage };
        let length = match fs::metadata(&path) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(damaged(Damage::Missing(manifest::FILE_NAME.to_owned())));
            }
            Err(source) => return Err(StoreError::io("examine", &path)(source)),
        };
        if length > manifest::MAX_BYTES as u64 {
            return Err(damaged(Damage::Manifest));
        }
        let bytes = fs::read(&path).map_err(StoreError::io("read", &path))?;
        if digest::of(&bytes) != committed {
            return Err(damaged(Damage::Manifest));
        }
        let manifest =
            Manifest::parse(&bytes).map_err(|source| StoreError::Manifest { id: id.clone(), source })?;
        if manifest.id == *id { Ok(manifest) } else { Err(damaged(Damage::Manifest)) }
    }

    /// Reads and compares every image and every copied disk.
    pub(crate) fn verify(
        &self,
        manifest: &Manifest,
        progress: &dyn Progress,
        limits: &Limits,
    ) -> Result<Verified, StoreError> {
        let mut verified = Verified::default();
        for record in &manifest.members {
            if let Some(memory) = &record.memory {
                let name = &record.member.name;
                progress.step(&format!("images of {name}"));
                let (files, bytes) = self.images(manifest, name, memory, true, progress, limits)?;
                verified.files += files;
                verified.bytes += bytes;
            }
        }
        for (stored, _, disk) in manifest.stored_disks() {
            if let DiskContent::Tree { sha256, .. } = &disk.content {
                progress.step(&format!("disk {stored}"));
                let (found, copied) = tree::codec::digest(&self.disk(&stored), limits)?;
                if found != *sha256 {
                    let damage = Damage::Tree(stored);
                    return Err(StoreError::Damaged { id: manifest.id.clone(), damage });
                }
                verified.disks += 1;
                verified.bytes += copied.bytes;
            }
        }
        Ok(verified)
    }

    /// Compares the images of one member with the manifest: names and sizes, and hashes where asked for.
    pub(crate) fn check_images(
        &self,
        manifest: &Manifest,
        member: &str,
        memory: &MemoryRecord,
        hashes: bool,
        limits: &Limits,
    ) -> Result<(), StoreError> {
        self.images(manifest, member, memory, hashes, &Silent, limits).map(drop)
    }

    fn images(
        &self,
        manifest: &Manifest,
        member: &str,
        memory: &MemoryRecord,
        hashes: bool,
        progress: &dyn Progress,
        limits: &Limits,
    ) -> Result<(u64, u64), StoreError> {
        let damaged = |damage| StoreError::Damaged { id: manifest.id.clone(), damage };
        let mut known: BTreeMap<&str, &FileRecord> =
            memory.files.iter().map(|file| (file.path.as_str(), file)).collect();
        let total = memory.files.iter().fold(0, |sum: u64, file| sum.saturating_add(file.size));
        let (mut count, mut done) = (0, 0);
        let mut previous: Option<&str> = None;
        for round in &memory.rounds {
            parent(&self.round(member, round), previous)
                .map_err(|damage| damaged(damage(format!("{member}/{round}/{PARENT}"))))?;
            previous = Some(round);
            for (name, path) in files(&self.round(member, round))? {
                let relative = format!("{round}/{name}");
                let Some(record) = known.remove(relative.as_str()) else {
                    return Err(damaged(Damage::Stray(format!("{member}/{relative}"))));
                };
                let file = File::open(&path).map_err(StoreError::io("open", &path))?;
                let length = file.metadata().map_err(StoreError::io("examine", &path))?.len();
                let same = length == record.size
                    && (!hashes
                        || digest::of_reader(file, limits).map_err(StoreError::hash(&path))?.0
                            == record.sha256);
                if !same {
                    return Err(damaged(Damage::Changed(format!("{member}/{relative}"))));
                }
                count += 1;
                done += length;
                progress.bytes(done, Some(total));
            }
        }
        match known.keys().next() {
            Some(missing) => Err(damaged(Damage::Missing(format!("{member}/{missing}")))),
            None => Ok((count, done)),
        }
    }
}

/// Checks CRIU's link from a round to the one before it: what was not written again is read there.
fn parent(dir: &Path, previous: Option<&str>) -> Result<(), fn(String) -> Damage> {
    match (fs::read_link(dir.join(PARENT)), previous) {
        (Ok(link), Some(previous)) if link == Path::new("..").join(previous) => Ok(()),
        (Ok(_), Some(_)) => Err(Damage::Changed),
        (Ok(_), None) => Err(Damage::Stray),
        (Err(_), Some(_)) => Err(Damage::Missing),
        (Err(_), None) => Ok(()),
    }
}

/// Regular files of an image directory, sorted; CRIU's `parent` link is left out, anything else is an error.
fn files(dir: &Path) -> Result<Vec<(String, PathBuf)>, StoreError> {
    let mut found = Vec::new();
    for item in fs::read_dir(dir).map_err(StoreError::io("list", dir))? {
        let item = item.map_err(StoreError::io("list", dir))?;
        let kind = item.file_type().map_err(StoreError::io("examine", &item.path()))?;
        let name = item.file_name().to_string_lossy().into_owned();
        if kind.is_file() {
            found.push((name, item.path()));
        } else if !(kind.is_symlink() && name == PARENT) {
            let source = io::Error::other("an image directory holds regular files only");
            return Err(StoreError::io("accept", &item.path())(source));
        }
    }
    found.sort();
    Ok(found)
}
