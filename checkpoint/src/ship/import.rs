//! Reads a checkpoint from a stream that may be hostile, into a draft that is committed after its last byte.

mod disks;

use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use cryopod_command::Limits;

use super::ShipError;
use super::format::{Data, Reader, Tag};
use crate::audit::{self, Entry};
use crate::capture::draft_lock;
use crate::digest::{Hasher, Sha256};
use crate::durable;
use crate::fault;
use crate::id::CheckpointId;
use crate::journal::{Journal, Operation};
use crate::manifest::{DiskContent, FileRecord, MAX_BYTES, Manifest};
use crate::progress::Progress;
use crate::store::content::Content;
use crate::store::{Store, StoreError};
use crate::tree;

/// Removing a refused draft must happen although the caller's limits have run out.
const CLEANUP: Duration = Duration::from_secs(60);

/// How to import.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ImportOptions {
    /// The sender is one of our own nodes: bases go where later checkpoints of this node share them. Otherwise they stay
    /// within this checkpoint, since a stream can claim any guid.
    pub trusted: bool,
}

/// Reads a stream and commits the checkpoint in it. On any error nothing of it is left.
pub fn import(
    store: &Store,
    journal: &Journal,
    input: &mut dyn Read,
    options: ImportOptions,
    progress: &dyn Progress,
    limits: &Limits,
) -> Result<CheckpointId, ShipError> {
    let mut reader = Reader::new(input, limits)?;
    let manifest = manifest(&mut reader)?;
    let imported = import_it(store, journal, &mut reader, &manifest, options, progress, limits);
    let entry = Entry::new(audit::Operation::Import).checkpoint(&manifest.id).pod(&manifest.pod);
    audit::note(entry.result(&imported));
    imported
}

fn import_it(
    store: &Store,
    journal: &Journal,
    reader: &mut Reader<'_>,
    manifest: &Manifest,
    options: ImportOptions,
    progress: &dyn Progress,
    limits: &Limits,
) -> Result<CheckpointId, ShipError> {
    let id = manifest.id.clone();
    let needs_zfs =
        manifest.stored_disks().any(|(_, _, disk)| matches!(disk.content, DiskContent::Zfs { .. }));
    if needs_zfs && !matches!(store, Store::Zfs(_)) {
        return Err(ShipError::NeedsZfs { id });
    }
    let exists = || StoreError::Exists { id: id.clone(), store: store.place() };
    let _lock = store.locks().try_lock(&draft_lock(&id))?.ok_or_else(exists)?;
    fault::step("import.begin")?;
    let entry = journal.begin(Operation::Import { checkpoint: id.clone() })?;
    let content = match store.begin(&id, &[], limits) {
        Ok(content) => content,
        Err(error) => {
            // One that was there before is not ours to remove.
            if !matches!(error, StoreError::Exists { .. }) {
                store.abort(&id, &[], &Limits::within(CLEANUP))?;
            }
            entry.finish()?;
            return Err(error.into());
        }
    };
    let draft = Draft { store, content, manifest, options, progress, limits };
    let outcome = draft.sections(reader).and_then(|()| {
        fault::step("import.commit")?;
        Ok(store.commit_import(manifest, limits)?)
    });
    if let Err(error) = outcome {
        // If this fails too, the entry stays and recovery removes the draft.
        store.abort(&id, &[], &Limits::within(CLEANUP))?;
        entry.finish()?;
        return Err(error);
    }
    entry.finish()?;
    Ok(id)
}

fn manifest(reader: &mut Reader<'_>) -> Result<Manifest, ShipError> {
    match reader.next()? {
        (Tag::Manifest, name) if name.is_empty() => {}
        _ => return Err(ShipError::Damaged("it does not begin with a manifest")),
    }
    let mut data = reader.data();
    let mut bytes = Vec::new();
    let read = (&mut data).take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes);
    if let Some(failure) = data.failure() {
        return Err(failure);
    }
    read.map_err(|source| ShipError::Io { action: "read", source })?;
    if bytes.len() > MAX_BYTES {
        return Err(ShipError::Damaged("its manifest is too long"));
    }
    data.finish()?;
    Ok(Manifest::parse(&bytes)?)
}

/// What is being filled.
struct Draft<'a> {
    store: &'a Store,
    content: Content,
    manifest: &'a Manifest,
    options: ImportOptions,
    progress: &'a dyn Progress,
    limits: &'a Limits,
}

impl Draft<'_> {
    /// Everything after the manifest, in the order that it fixes.
    fn sections(&self, reader: &mut Reader<'_>) -> Result<(), ShipError> {
        for record in &self.manifest.members {
            let Some(memory) = &record.memory else { continue };
            let member = &record.member.name;
            self.progress.step(&format!("memory of {member}"));
            let mut parent: Option<&str> = None;
            for round in &memory.rounds {
                let dir = self.content.round(member, round);
                self.content.create(&dir)?;
                if let Some(parent) = parent {
                    // The one link that CRIU needs; made from checked names, never read from the stream.
                    let link = dir.join("parent");
                    std::os::unix::fs::symlink(format!("../{parent}"), &link)
                        .map_err(StoreError::io("link", &link))?;
                }
                parent = Some(round);
            }
            for file in &memory.files {
                expect(&reader.next()?, Tag::Image, &format!("{member}/{}", file.path))?;
                fault::step("import.section")?;
                self.image(member, file, reader.data())?;
            }
            for round in &memory.rounds {
                let dir = self.content.round(member, round);
                durable::sync_dir(&dir).map_err(StoreError::io("sync", &dir))?;
            }
        }
        for (stored, _, disk) in self.manifest.stored_disks() {
            if let DiskContent::Tree { bytes, entries, sha256, .. } = &disk.content {
                self.progress.step(&format!("disk {stored}"));
                expect(&reader.next()?, Tag::Tree, &stored)?;
                self.tree(&stored, (*bytes, *entries, *sha256), reader.data())?;
            }
        }
        let next = match self.store {
            Store::Zfs(store) => self.disks(store, reader)?,
            Store::Dir(_) => reader.next()?,
        };
        fault::step("import.verify")?;
        expect(&next, Tag::End, "")
    }

    fn image(&self, member: &str, record: &FileRecord, mut data: Data<'_, '_>) -> Result<(), ShipError> {
        let (round, leaf) = record.path.split_once('/').unwrap_or(("", &record.path));
        let path = self.content.round(member, round).join(leaf);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(StoreError::io("create", &path))?;
        let mut hasher = Hasher::default();
        let mut left = record.size;
        let mut buffer = vec![0; 256 << 10];
        while left > 0 {
            let want = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            let read = data.read(buffer.get_mut(..want).unwrap_or_default());
            if let Some(failure) = data.failure() {
                return Err(failure);
            }
            let got = read.map_err(|source| ShipError::Io { action: "read", source })?;
            if got == 0 {
                return Err(ShipError::Damaged("an image is shorter than its manifest says"));
            }
            let bytes = buffer.get(..got).unwrap_or_default();
            hasher.update(bytes);
            file.write_all(bytes).map_err(StoreError::io("write", &path))?;
            left -= got as u64;
        }
        data.finish()?;
        if hasher.finish() != record.sha256 {
            return Err(ShipError::Damaged("an image is not the one of its manifest"));
        }
        file.sync_all().map_err(StoreError::io("sync", &path))?;
        Ok(())
    }

    fn tree(&self, stored: &str, known: (u64, u64, Sha256), mut data: Data<'_, '_>) -> Result<(), ShipError> {
        let (bytes, entries, sha256) = known;
        let root = self.content.disk(stored);
        self.content.create(&root)?;
        let decoded = tree::codec::decode(io::BufReader::new(&mut data), &root, bytes, self.limits);
        if let Some(failure) = data.failure() {
            return Err(failure);
        }
        let decoded = decoded?;
        data.finish()?;
        // What is on disk counts, not what was read: a name that the file system folds or refuses shows here.
        let (found, _) = tree::codec::digest(&root, self.limits)?;
        if (decoded.bytes, decoded.entries, found) != (bytes, entries, sha256) {
            return Err(ShipError::Damaged("a disk is not the one of its manifest"));
        }
        let file = std::fs::File::open(&root).map_err(StoreError::io("open", &root))?;
        nix::unistd::syncfs(&file).map_err(|error| StoreError::io("sync", &root)(error.into()))?;
        Ok(())
    }
}

fn expect(found: &(Tag, String), tag: Tag, name: &str) -> Result<(), ShipError> {
    if found.0 == tag && found.1 == name {
        Ok(())
    } else {
        Err(ShipError::Damaged("a section is out of its order"))
    }
}
