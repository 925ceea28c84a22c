//! The ZFS disks of a stream that may be hostile: each after its base, received into the draft.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::thread;

use cryopod_command::{Cancel, Limits};
use cryopod_zfs::{DatasetName, Guid, Properties, ReceiveRequest, SnapshotName};

use super::{CLEANUP, Draft};
use crate::fault;
use crate::lock::Lock;
use crate::manifest::DiskContent;
use crate::ship::ShipError;
use crate::ship::format::{Data, Reader, Tag};
use crate::store::{ID, KIND, ZfsStore};

impl Draft<'_> {
    /// The ZFS disks, each after its base; returns the head of the section after them.
    pub(super) fn disks(
        &self,
        store: &ZfsStore,
        reader: &mut Reader<'_>,
    ) -> Result<(Tag, String), ShipError> {
        let id = &self.manifest.id;
        // Snapshots that disks may be clones of, by guid.
        let mut bases: BTreeMap<u64, SnapshotName> = BTreeMap::new();
        // Held until every disk is a clone of its base, so that no base is reaped before.
        let mut locks = Vec::new();
        let mut next = reader.next()?;
        for (stored, _, disk) in self.manifest.stored_disks() {
            let DiskContent::Zfs { guid, snapshot, .. } = &disk.content else { continue };
            self.progress.step(&format!("disk {stored}"));
            if next.0 == Tag::Base {
                let base = Guid(next.1.parse().map_err(|_| ShipError::Damaged("a base without guid"))?);
                if bases.contains_key(&base.0) {
                    return Err(ShipError::Damaged("a base comes twice"));
                }
                bases.insert(base.0, self.base(store, base, reader.data(), &mut locks)?);
                next = reader.next()?;
            }
            let (tag, name) = next;
            let base = name.strip_prefix(&format!("{stored}@")).filter(|_| tag == Tag::Disk);
            let base = base.ok_or(ShipError::Damaged("a section is out of its order"))?;
            let origin = match base {
                "" => None,
                guid => {
                    let guid = guid.parse().map_err(|_| ShipError::Damaged("a base without guid"))?;
                    Some(self.origin(store, Guid(guid), &bases, &mut locks)?)
                }
            };
            let target = store.disk(id, &stored)?;
            let properties = Properties::new().with(KIND, "disk").with(ID, id.as_str());
            fault::step("import.section")?;
            let arrived = self.receive(store, &target, &properties, origin, reader.data())?;
            if arrived.1 != *guid || arrived.0.leaf() != snapshot {
                return Err(ShipError::WrongGuid { disk: stored });
            }
            next = reader.next()?;
        }
        Ok(next)
    }

    /// A base that this node has already is not taken from the stream.
    fn base(
        &self,
        store: &ZfsStore,
        guid: Guid,
        data: Data<'_, '_>,
        locks: &mut Vec<Lock>,
    ) -> Result<SnapshotName, ShipError> {
        let shared = store.base(guid)?;
        locks.push(store.locks.lock(&format!("base-{guid}"), self.limits)?);
        if let Some(found) = store.snapshot_with(&shared, guid, self.limits)? {
            data.skip()?;
            return Ok(found);
        }
        let target = if self.options.trusted {
            // Half a base, which a settling of this node left to be gone on with; its lock is ours.
            store.destroy_if_there(&shared, self.limits)?;
            shared
        } else {
            // No stored disk has this name: those have a hyphen.
            store.disk(&self.manifest.id, &format!("base.{guid}"))?
        };
        let properties = Properties::new().with(KIND, "base").with("readonly", "on");
        let received = self.receive(store, &target, &properties, None, data);
        if self.options.trusted && !matches!(&received, Ok((_, arrived)) if *arrived == guid) {
            // It is not below the draft, so it does not go with it.
            store.destroy_if_there(&target, &Limits::within(CLEANUP))?;
        }
        match received? {
            (snapshot, arrived) if arrived == guid => Ok(snapshot),
            _ => Err(ShipError::WrongGuid { disk: format!("base {guid}") }),
        }
    }

    fn origin(
        &self,
        store: &ZfsStore,
        guid: Guid,
        bases: &BTreeMap<u64, SnapshotName>,
        locks: &mut Vec<Lock>,
    ) -> Result<SnapshotName, ShipError> {
        if let Some(base) = bases.get(&guid.0) {
            return Ok(base.clone());
        }
        let shared = store.base(guid)?;
        let name = format!("base-{guid}");
        if let Some(lock) = store.locks.try_lock(&name)? {
            locks.push(lock);
        }
        store.snapshot_with(&shared, guid, self.limits)?.ok_or(ShipError::BaseMissing { guid: guid.0 })
    }

    /// `zfs receive` from a section, which is fed through a pipe by a thread of its own.
    fn receive(
        &self,
        store: &ZfsStore,
        target: &DatasetName,
        properties: &Properties,
        origin: Option<SnapshotName>,
        mut data: Data<'_, '_>,
    ) -> Result<(SnapshotName, Guid), ShipError> {
        let mut request = ReceiveRequest::new(target);
        request.resumable = false;
        request.set = properties.clone().with("canmount", "noauto");
        request.exclude = vec!["mountpoint".to_owned()];
        request.origin = origin;
        let (from, mut to) = io::pipe().map_err(|source| ShipError::Io { action: "read", source })?;
        let cancel = Cancel::new();
        let inner = Limits { deadline: self.limits.deadline, cancel: Some(cancel.clone()) };
        let (received, fed) = thread::scope(|scope| {
            let zfs = &store.zfs;
            let receiver = scope.spawn(move || zfs.receive(&request, OwnedFd::from(from), &inner));
            let fed = io::copy(&mut data, &mut to);
            if fed.is_err() {
                // The receiver must not take half a stream for a whole one.
                cancel.cancel();
            }
            drop(to);
            (receiver.join(), fed)
        });
        if let Some(failure) = data.failure() {
            return Err(failure);
        }
        let received = match received {
            Ok(received) => received?,
            Err(_) => return Err(ShipError::Damaged("the receiver panicked")),
        };
        fed.map_err(|source| ShipError::Io { action: "write", source })?;
        data.finish()?;
        Ok((received.snapshot, received.guid))
    }
}
