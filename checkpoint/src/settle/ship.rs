//! Sends one disk into the store: its base first and once, then what changed since. What interrupts a send – a kill, a
//! power cut, an owner who wants the dataset – costs what was on its way, not what had arrived.

use cryopod_command::Limits;
use cryopod_zfs::{
    Error as ZfsError, Properties, ReceiveRequest, Received, SendRequest, SnapshotName, Stream,
};

use super::{
    Held, SettleError, dataset_lock, lock_name, stopped_or_gone, wait_until_unwanted, while_unwanted,
};
use crate::fault;
use crate::id::CheckpointId;
use crate::lock::Lock;
use crate::manifest::{DiskContent, DiskRecord, MemberRecord};
use crate::progress::Progress;
use crate::store::{Found, ID, KIND, StoreError, ZfsStore, hold_tag};

/// Ships a disk unless it is in the store already; true if it was sent now.
pub(super) fn disk(
    store: &ZfsStore,
    id: &CheckpointId,
    stored: &str,
    record: &MemberRecord,
    disk: &DiskRecord,
    progress: &dyn Progress,
    limits: &Limits,
) -> Result<bool, SettleError> {
    let DiskContent::Zfs { guid, .. } = &disk.content else { return Ok(false) };
    loop {
        limits.check().map_err(StoreError::Stopped)?;
        if store.locks.is_wanted(&lock_name(id)) {
            return Err(SettleError::Deleted { id: id.clone() });
        }
        let find = || store.find(id, stored, record, disk, limits);
        let Some((lock, dataset, found)) = locked(store, find, limits)? else {
            return Err(SettleError::Lost { id: id.clone(), disk: stored.to_owned() });
        };
        let Found::Source(source) = found else { return Ok(false) };
        let own = lock_name(id);
        let (sent, wanted) = while_unwanted(store, &[&dataset, &own], limits, |limits| {
            send(store, id, stored, &source, progress, limits)
        });
        drop(lock);
        match sent {
            Ok(arrived) if arrived == *guid => return Ok(true),
            Ok(_) => return Err(SettleError::WrongGuid { id: id.clone(), disk: stored.to_owned() }),
            // Somebody needs the dataset: wait until it has been moved, then go on from there.
            Err(SettleError::Store(error)) if wanted && stopped_or_gone(&error) => {
                wait_until_unwanted(store, &dataset, limits)?;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Finds the disk and locks the dataset it is on; the lock is of the dataset found, looked at again once it is held.
fn locked(
    store: &ZfsStore,
    find: impl Fn() -> Result<Option<Found>, StoreError>,
    limits: &Limits,
) -> Result<Option<Held>, StoreError> {
    loop {
        let Some(found) = find()? else { return Ok(None) };
        let name = match &found {
            Found::Store(snapshot) | Found::Source(snapshot) => snapshot.dataset(),
        };
        let Some(dataset) = store.zfs.dataset(&name, limits)? else { continue };
        let key = dataset_lock(dataset.guid);
        wait_until_unwanted(store, &key, limits)?;
        let lock: Lock = store.locks.lock(&key, limits)?;
        if find()?.as_ref() == Some(&found) {
            return Ok(Some((lock, key, found)));
        }
    }
}

fn send(
    store: &ZfsStore,
    id: &CheckpointId,
    stored: &str,
    source: &SnapshotName,
    progress: &dyn Progress,
    limits: &Limits,
) -> Result<cryopod_zfs::Guid, SettleError> {
    let zfs = store.zfs.as_ref();
    let tag = hold_tag(id)?;
    let names = std::slice::from_ref(source);
    let hold = match zfs.hold_while(names, &tag, limits) {
        // Left by a settling that was killed; its lock is ours now.
        Err(cryopod_zfs::Error::HoldExists { .. }) => {
            zfs.release(names, &tag, limits)?;
            zfs.hold_while(names, &tag, limits)?
        }
        other => other?,
    };
    let target = store.disk(id, stored)?;
    let mut receive = ReceiveRequest::new(&target);
    receive.set = Properties::new().with(KIND, "disk").with(ID, id.as_str()).with("canmount", "noauto");
    receive.exclude = vec!["mountpoint".to_owned()];
    let origin = zfs.dataset(&source.dataset(), limits)?.and_then(|dataset| dataset.origin);
    let (request, lock) = match origin {
        None => (SendRequest::full(source), None),
        Some(origin) => {
            let (base, lock) = base(store, &origin, progress, limits)?;
            receive.origin = Some(base);
            (SendRequest::incremental(&origin, source), lock)
        }
    };
    fault::step("settle.send")?;
    let received = transfer(store, &request, &receive, progress, limits)?;
    drop(lock);
    drop(hold);
    fault::step("settle.sent")?;
    Ok(received.guid)
}

/// Sends what is not there yet: goes on where an interrupted receive ended, or begins. A rest that does not fit (its
/// source or base went, or the pool lost it) is discarded, and the whole is sent.
fn transfer(
    store: &ZfsStore,
    request: &SendRequest,
    receive: &ReceiveRequest,
    progress: &dyn Progress,
    limits: &Limits,
) -> Result<Received, StoreError> {
    let zfs = store.zfs.as_ref();
    if let Some(there) = zfs.dataset(&receive.target, limits)? {
        if let Some(token) = there.resume_token {
            let rest = SendRequest { stream: Stream::Resume(token), ..request.clone() };
            // What the first part has set is set; a resumed stream takes no origin again.
            let resumed = ReceiveRequest { origin: None, ..receive.clone() };
            match copy(store, &rest, &resumed, progress, limits) {
                Ok(received) => return Ok(received),
                // What arrived by now is kept for the next time.
                Err(error) if error.is_stopped() || is_for_later(&error) => return Err(error.into()),
                Err(error) => {
                    tracing::warn!(dataset = %receive.target, %error, "sending it from the beginning");
                }
            }
        }
        zfs.abort_receive(&receive.target, limits)?;
        store.destroy_if_there(&receive.target, limits)?;
    }
    Ok(copy(store, request, receive, progress, limits)?)
}

/// Whether the same stream may succeed another time. A truncated one is not among them: if it was its token's fault, it
/// would be for ever.
fn is_for_later(error: &ZfsError) -> bool {
    matches!(
        error,
        ZfsError::NoSpace { .. }
            | ZfsError::PoolSuspended { .. }
            | ZfsError::PoolMissing { .. }
            | ZfsError::ReadOnly { .. }
    )
}

fn copy(
    store: &ZfsStore,
    request: &SendRequest,
    receive: &ReceiveRequest,
    progress: &dyn Progress,
    limits: &Limits,
) -> Result<Received, ZfsError> {
    let total = store.zfs.send_size(request, limits)?.0;
    progress.bytes(0, Some(total));
    let received = store.zfs.copy(request, receive, limits)?;
    progress.bytes(total, Some(total));
    Ok(received)
}

/// The base in the store: the origin itself if it is there (a restored pod is captured again), else a copy of it,
/// received once. The lock keeps it from being reaped until it has a clone.
fn base(
    store: &ZfsStore,
    origin: &SnapshotName,
    progress: &dyn Progress,
    limits: &Limits,
) -> Result<(SnapshotName, Option<Lock>), SettleError> {
    let zfs = store.zfs.as_ref();
    if origin.dataset().is_within(store.root()) && origin.dataset().pool() == store.root().pool() {
        return Ok((origin.clone(), None));
    }
    let found = zfs.snapshot(origin, limits)?.ok_or_else(|| lost(origin))?;
    let lock = store.locks.lock(&format!("base-{}", found.guid), limits)?;
    let base = store.base(found.guid)?;
    if let Some(there) = store.snapshot_with(&base, found.guid, limits)? {
        return Ok((there, Some(lock)));
    }
    fault::step("settle.base")?;
    progress.step(&format!("base {origin}"));
    let mut receive = ReceiveRequest::new(&base);
    receive.set = Properties::new().with(KIND, "base").with("canmount", "noauto").with("readonly", "on");
    receive.exclude = vec!["mountpoint".to_owned()];
    let received = transfer(store, &SendRequest::full(origin), &receive, progress, limits)?;
    Ok((received.snapshot, Some(lock)))
}

fn lost(origin: &SnapshotName) -> StoreError {
    let source = std::io::Error::new(std::io::ErrorKind::NotFound, "the origin of the disk is gone");
    StoreError::io("send", std::path::Path::new(origin.as_str()))(source)
}

#[cfg(test)]
mod tests;
