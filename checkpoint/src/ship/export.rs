//! Writes a checkpoint as a stream.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::thread;

use cryopod_command::{Cancel, Limits};
use cryopod_zfs::{SendRequest, SnapshotName};

use super::ShipError;
use super::format::{MAX_CHUNK, Section, Tag, Writer};
use crate::audit::{self, Entry, Operation};
use crate::id::CheckpointId;
use crate::manifest::{DiskContent, DiskRecord, MemberRecord};
use crate::progress::Progress;
use crate::settle;
use crate::store::{Damage, Found, Store, StoreError, ZfsStore};
use crate::tree;

/// How to export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExportOptions {
    /// Include the images' root file systems that the disks are incremental from; without them the receiver must have
    /// them already.
    pub bases: bool,
}

impl Default for ExportOptions {
    fn default() -> Self {
        Self { bases: true }
    }
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exported {
    /// Length of the stream.
    pub bytes: u64,
}

/// Writes checkpoint `id` to `out`, settling it first; fails where the store has something else than the manifest says.
pub fn export(
    store: &Store,
    id: &CheckpointId,
    out: &mut dyn Write,
    options: ExportOptions,
    progress: &dyn Progress,
    limits: &Limits,
) -> Result<Exported, ShipError> {
    let exported = export_it(store, id, out, options, progress, limits);
    audit::note(Entry::new(Operation::Export).checkpoint(id).result(&exported));
    exported
}

fn export_it(
    store: &Store,
    id: &CheckpointId,
    out: &mut dyn Write,
    options: ExportOptions,
    progress: &dyn Progress,
    limits: &Limits,
) -> Result<Exported, ShipError> {
    let _reading = store.reading(id, limits)?;
    settle::settle(store, id, progress, limits)?;
    let (manifest, content) = store.open(id, limits)?;
    let bytes = manifest.to_bytes()?;
    let mut writer = Writer::new(out)?;
    writer.section(Tag::Manifest, "", |section| write_all(section, &bytes))?;
    for record in &manifest.members {
        let Some(memory) = &record.memory else { continue };
        let name = &record.member.name;
        progress.step(&format!("memory of {name}"));
        for file in &memory.files {
            let (round, leaf) = file.path.split_once('/').unwrap_or(("", &file.path));
            let path = content.round(name, round).join(leaf);
            let source = File::open(&path).map_err(StoreError::io("open", &path))?;
            writer.section(Tag::Image, &format!("{name}/{}", file.path), |section| {
                copy(source, section, limits)?;
                // Sent on, damage would be refused by the reader, and found here only when it is too late.
                let damage = Damage::Changed(format!("{name}/{}", file.path));
                compare(id, section.hash() == file.sha256, damage)
            })?;
            progress.bytes(writer.bytes, None);
        }
    }
    for (stored, _, disk) in manifest.stored_disks() {
        if let DiskContent::Tree { sha256, .. } = &disk.content {
            progress.step(&format!("disk {stored}"));
            writer.section(Tag::Tree, &stored, |section| -> Result<(), ShipError> {
                tree::codec::encode(&content.disk(&stored), &mut *section, limits)?;
                compare(id, section.hash() == *sha256, Damage::Tree(stored.clone()))
            })?;
        }
    }
    if let Store::Zfs(zfs) = store {
        let mut sent = BTreeSet::new();
        for (stored, record, disk) in manifest.stored_disks() {
            if let DiskContent::Zfs { .. } = &disk.content {
                progress.step(&format!("disk {stored}"));
                let disk = Disk { store: zfs, id, stored: &stored, record, disk };
                disk.export(&mut writer, options, &mut sent, limits)?;
                progress.bytes(writer.bytes, None);
            }
        }
    }
    Ok(Exported { bytes: writer.finish()? })
}

/// One ZFS disk on its way out.
struct Disk<'a> {
    store: &'a ZfsStore,
    id: &'a CheckpointId,
    stored: &'a str,
    record: &'a MemberRecord,
    disk: &'a DiskRecord,
}

impl Disk<'_> {
    fn export(
        &self,
        writer: &mut Writer<'_>,
        options: ExportOptions,
        sent: &mut BTreeSet<u64>,
        limits: &Limits,
    ) -> Result<(), ShipError> {
        let zfs = self.store.zfs.as_ref();
        let found = self.store.find(self.id, self.stored, self.record, self.disk, limits)?;
        let Some(Found::Store(snapshot)) = found else {
            let damage = Damage::Missing(self.stored.to_owned());
            return Err(StoreError::Damaged { id: self.id.clone(), damage }.into());
        };
        let origin = zfs.dataset(&snapshot.dataset(), limits)?.and_then(|dataset| dataset.origin);
        let request = match &origin {
            None => SendRequest::full(&snapshot),
            Some(origin) => SendRequest::incremental(origin, &snapshot),
        };
        let mut base = String::new();
        if let Some(origin) = &origin {
            let guid = self.guid(origin, limits)?;
            base = guid.to_string();
            if options.bases && sent.insert(guid) {
                writer.section(Tag::Base, &base, |section| {
                    send(self.store, &SendRequest::full(origin), section, limits)
                })?;
            }
        }
        // The name says what it is incremental from, so that a reader can refuse before it reads on.
        writer.section(Tag::Disk, &format!("{}@{base}", self.stored), |section| {
            send(self.store, &request, section, limits)
        })
    }

    fn guid(&self, snapshot: &SnapshotName, limits: &Limits) -> Result<u64, ShipError> {
        match self.store.zfs.snapshot(snapshot, limits)? {
            Some(found) => Ok(found.guid.0),
            None => {
                let damage = Damage::Missing(snapshot.to_string());
                Err(StoreError::Damaged { id: self.id.clone(), damage }.into())
            }
        }
    }
}

/// `zfs send` into a section. The sender runs in a thread of its own, since the section is fed from its pipe.
fn send(
    store: &ZfsStore,
    request: &SendRequest,
    section: &mut Section<'_, '_>,
    limits: &Limits,
) -> Result<(), ShipError> {
    let (from, to) = io::pipe().map_err(|source| ShipError::Io { action: "read", source })?;
    let cancel = Cancel::new();
    let inner = Limits { deadline: limits.deadline, cancel: Some(cancel.clone()) };
    thread::scope(|scope| {
        let sender = scope.spawn(move || store.zfs.send(request, OwnedFd::from(to), &inner));
        let copied = copy(from, section, limits);
        if copied.is_err() {
            cancel.cancel();
        }
        let sent = sender.join().unwrap_or(Ok(()));
        // What the reader of the stream did comes first: a broken pipe breaks the sender too.
        copied?;
        Ok(sent?)
    })
}

fn compare(id: &CheckpointId, same: bool, damage: Damage) -> Result<(), ShipError> {
    if same { Ok(()) } else { Err(StoreError::Damaged { id: id.clone(), damage }.into()) }
}

fn copy(mut from: impl Read, to: &mut Section<'_, '_>, limits: &Limits) -> Result<(), ShipError> {
    let mut buffer = vec![0; MAX_CHUNK];
    loop {
        limits.check().map_err(ShipError::Stopped)?;
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => write_all(to, buffer.get(..count).unwrap_or_default())?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => return Err(ShipError::Io { action: "read", source }),
        }
    }
}

fn write_all(section: &mut Section<'_, '_>, bytes: &[u8]) -> Result<(), ShipError> {
    section.write_all(bytes).map_err(|source| ShipError::Io { action: "write", source })
}
