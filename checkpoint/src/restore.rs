//! Puts a checkpoint's disks where a new container will find them. Nothing is executed here, and neither the
//! checkpoint nor its source is ever written to (never `zfs rollback` of anything mounted: openzfs#10931).
//!
//! ```text
//! checkpoint disk        live root: ZFS, same pool   ZFS, other pool     overlay              directory
//! ZFS snapshot           clone under D's own name    send into D         clone, mount instead clone, mount instead
//! overlay layer          laid over D's files         laid over D         becomes the upper    copy + layer, bind instead
//! whole tree             D emptied and filled        as before           copy, bind instead   copy, bind instead
//! ```
//!
//! Under D's own name, because containerd accounts and destroys by name. The fresh dataset waits aside until the clone
//! stands; the journal tells recovery whether to undo or to finish. Volumes are copied into the new pod's volumes.

mod dataset;
mod files;
mod request;
mod roots;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;

use cryopod_command::Limits;

use crate::audit::{self, Entry, Operation};
use crate::compat;
use crate::fault;
use crate::journal::Journal;
use crate::manifest::{CapturedMode, DiskContent, DiskRecord, Manifest, MemberRecord};
use crate::progress::Silent;
use crate::settle;
use crate::store::content::Content;
use crate::store::{Found, Store, StoreError, ZfsStore};
use crate::target::DiskRole;
use crate::tree;

pub(crate) use dataset::undo_or_finish;
pub use request::{LiveRootfs, LiveVolume, PlaceError, PlaceRequest, Placed, Replacement, RootfsPlacement};
pub(crate) use roots::{boot, reap};
pub use roots::{container_key, forget};

/// Places the disks of one member and says where its memory is.
pub fn place(
    store: &Store,
    journal: &Journal,
    request: &PlaceRequest<'_>,
    limits: &Limits,
) -> Result<Placed, PlaceError> {
    let placed = place_it(store, journal, request, limits);
    let to = BTreeMap::from([
        ("container".to_owned(), request.container.to_owned()),
        ("member".to_owned(), request.member.to_owned()),
    ]);
    let entry = Entry::new(Operation::Restore).checkpoint(request.checkpoint).labels(&to);
    audit::note(entry.asked_by(request.requested_by).result(&placed));
    placed
}

fn place_it(
    store: &Store,
    journal: &Journal,
    request: &PlaceRequest<'_>,
    limits: &Limits,
) -> Result<Placed, PlaceError> {
    let id = request.checkpoint;
    let reading = store.reading(id, limits)?;
    let committed = store.committed(id, limits)?.ok_or_else(|| store.not_found(id))?;
    let (manifest, content) = store.open_as(id, &committed, limits)?;
    let record = member(&manifest, request)?;
    if let Some(facts) = request.facts {
        compat::check(&manifest, facts, request.backend).map_err(|differences| PlaceError::Incompatible {
            id: request.checkpoint.clone(),
            differences: differences.iter().map(ToString::to_string).collect(),
        })?;
    }
    // From the store alone: a clone of a snapshot on the source would keep its owner from destroying it.
    if !committed.settled {
        settle::settle(store, id, &Silent, limits)?;
    }
    let images = images(store, &manifest, record, &content, limits)?;
    let mut notes = Vec::new();
    let volumes = volumes(store, &manifest, record, &content, request, &mut notes, limits)?;
    let rootfs = rootfs(store, journal, &manifest, record, &content, request, limits)?;
    if manifest.mode == CapturedMode::Disk {
        let why = manifest.memory_refused.as_ref().map_or_else(
            || "the checkpoint was made without memory".to_owned(),
            |refusal| format!("the checkpoint has no memory: {}", refusal.text),
        );
        notes.push(format!("{why}; the container starts afresh on its old disk"));
    }
    Ok(Placed { images, record: record.clone(), rootfs, volumes, notes, reading })
}

fn member<'a>(manifest: &'a Manifest, request: &PlaceRequest<'_>) -> Result<&'a MemberRecord, PlaceError> {
    manifest.member(request.member).ok_or_else(|| PlaceError::Member {
        id: request.checkpoint.clone(),
        member: request.member.to_owned(),
        known: manifest.members.iter().map(|record| record.member.name.clone()).collect(),
    })
}

/// The image directory of the member's dump, with its files checked: by hash in a directory store; ZFS checks its
/// own blocks when they are read, so there the sizes do.
fn images(
    store: &Store,
    manifest: &Manifest,
    record: &MemberRecord,
    content: &Content,
    limits: &Limits,
) -> Result<Option<PathBuf>, PlaceError> {
    let Some(memory) = &record.memory else { return Ok(None) };
    content.check_images(manifest, &record.member.name, memory, matches!(store, Store::Dir(_)), limits)?;
    Ok(memory.rounds.last().map(|round| content.round(&record.member.name, round)))
}

fn rootfs(
    store: &Store,
    journal: &Journal,
    manifest: &Manifest,
    record: &MemberRecord,
    content: &Content,
    request: &PlaceRequest<'_>,
    limits: &Limits,
) -> Result<RootfsPlacement, PlaceError> {
    let root = record.member.disks.iter().find(|disk| disk.role == DiskRole::Rootfs);
    let Some(disk) = root.and_then(|root| record.disk(&root.name)) else {
        return Ok(RootfsPlacement::InPlace);
    };
    let Some((holder, disk)) = manifest.resolve(record, disk) else { return Ok(RootfsPlacement::InPlace) };
    let stored = crate::manifest::stored_name(&holder.member.name, &disk.name);
    match &disk.content {
        DiskContent::Zfs { base, .. } => {
            let Store::Zfs(zfs) = store else { return Err(lost(request, &stored).into()) };
            let snapshot = in_store(zfs, request, &stored, holder, disk, limits)?;
            match &request.rootfs {
                LiveRootfs::Zfs { dataset } => {
                    dataset::in_place(zfs, journal, request, dataset, &snapshot, *base, limits)?;
                    Ok(RootfsPlacement::InPlace)
                }
                LiveRootfs::Overlay { .. } | LiveRootfs::Tree { .. } => {
                    dataset::beside(zfs, request, &snapshot, limits).map(RootfsPlacement::MountInstead)
                }
            }
        }
        DiskContent::Tree { layer, .. } => {
            files::rootfs(store, request, &content.disk(&stored), *layer, limits)
        }
        DiskContent::Shared { .. } => Ok(RootfsPlacement::InPlace),
    }
}

/// Fills the volumes of the new pod; returns those that were filled.
fn volumes(
    store: &Store,
    manifest: &Manifest,
    record: &MemberRecord,
    content: &Content,
    request: &PlaceRequest<'_>,
    notes: &mut Vec<String>,
    limits: &Limits,
) -> Result<Vec<PathBuf>, PlaceError> {
    // All of them, before the first is emptied.
    for live in request.volumes.iter().filter(|live| !request.filled.contains(&live.source)) {
        let captured = record.member.disks.iter().find_map(|disk| match &disk.role {
            DiskRole::Volume { destination, name } if *destination == live.destination => Some(name),
            _ => None,
        });
        let Some(name) = captured else { continue };
        tree::refuse_mounts(&live.source)?;
        if !live.replace && !files::is_empty(&live.source)? {
            return Err(PlaceError::Occupied { name: name.clone(), path: live.source.clone() });
        }
    }
    let mut filled = Vec::new();
    for disk in &record.member.disks {
        let DiskRole::Volume { destination, name } = &disk.role else { continue };
        let Some(live) = request.volumes.iter().find(|live| live.destination == *destination) else {
            notes.push(format!(
                "volume {name} is not mounted at {} in the new container, or must not be written to: its contents stay in \
                 the checkpoint",
                destination.display()
            ));
            continue;
        };
        // Another container of this pod brought it back already and may be writing to it.
        if request.filled.contains(&live.source) || filled.contains(&live.source) {
            continue;
        }
        let resolved = record.disk(&disk.name).and_then(|disk| manifest.resolve(record, disk));
        let Some((holder, held)) = resolved else { continue };
        let stored = crate::manifest::stored_name(&holder.member.name, &held.name);
        fault::step("place.volumes")?;
        match (&held.content, store) {
            (DiskContent::Tree { .. }, _) => {
                files::fill_volume(name, &content.disk(&stored), live, limits)?;
            }
            (DiskContent::Zfs { .. }, Store::Zfs(zfs)) => {
                let snapshot = in_store(zfs, request, &stored, holder, held, limits)?;
                let view = crate::scratch::Scratch::of_snapshot(zfs, &snapshot, limits)?;
                files::fill_volume(name, view.path(), live, limits)?;
            }
            (DiskContent::Zfs { .. }, Store::Dir(_)) => return Err(lost(request, &stored).into()),
            (DiskContent::Shared { .. }, _) => {}
        }
        (request.on_filled)(live);
        filled.push(live.source.clone());
    }
    Ok(filled)
}

fn in_store(
    store: &ZfsStore,
    request: &PlaceRequest<'_>,
    stored: &str,
    record: &MemberRecord,
    disk: &DiskRecord,
    limits: &Limits,
) -> Result<cryopod_zfs::SnapshotName, PlaceError> {
    match store.find(request.checkpoint, stored, record, disk, limits)? {
        Some(Found::Store(snapshot)) => Ok(snapshot),
        Some(Found::Source(_)) | None => Err(lost(request, stored).into()),
    }
}

fn lost(request: &PlaceRequest<'_>, disk: &str) -> StoreError {
    StoreError::Damaged {
        id: request.checkpoint.clone(),
        damage: crate::store::Damage::Missing(disk.to_owned()),
    }
}
