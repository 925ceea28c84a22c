//! The trait, as the fake has it: names the call, checks the request, asks the model.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Instant;

use nix::fcntl::OFlag;
use nix::unistd::pipe2;

use super::stream::{self, Broken};
use super::{Fake, inject};
use crate::error::Op;
use crate::{
    BookmarkName, Bytes, CreateRequest, Dataset, DatasetName, Entry, Error, Filter, Health, Hold, HoldTag,
    Limits, MountHolder, MountOptions, Mountpoint, Name, Pool, PoolName, PoolStatus, Properties,
    ReceiveRequest, Received, Rename, SendRequest, Snapshot, SnapshotName, TemporaryHold, Version, Wanted,
    Zfs, checks,
};

fn names(snapshots: &[SnapshotName]) -> String {
    let names: Vec<&str> = snapshots.iter().map(SnapshotName::as_str).collect();
    names.join(" ")
}

impl Zfs for Fake {
    fn backend(&self) -> &'static str {
        "fake"
    }

    fn version(&self, limits: &Limits) -> Result<Version, Error> {
        self.call(Op::new("version", "zfs"), limits, |_, _| {
            Ok(Version {
                userland: "zfs-fake".to_owned(),
                kernel: "zfs-kmod-fake".to_owned(),
                number: (2, 3),
            })
        })
    }

    fn list(&self, filter: &Filter, limits: &Limits) -> Result<Vec<Entry>, Error> {
        let names: Vec<&str> = filter.roots.iter().map(DatasetName::as_str).collect();
        self.call(Op::new("list", names.join(" ")), limits, |state, op| {
            checks::filter(op, filter)?;
            state.list(op, filter)
        })
    }

    fn dataset(&self, name: &DatasetName, limits: &Limits) -> Result<Option<Dataset>, Error> {
        self.call(Op::new("get", name), limits, |state, op| match state.node(op, name) {
            Ok(node) => Ok(Some(state.dataset_view(name, node, &Wanted::All))),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        })
    }

    fn snapshot(&self, name: &SnapshotName, limits: &Limits) -> Result<Option<Snapshot>, Error> {
        self.call(Op::new("get", name), limits, |state, op| match state.snap(op, name) {
            Ok(snap) => Ok(state.snapshot_view(&name.dataset(), snap, &Wanted::All)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        })
    }

    fn mounts(&self, name: &DatasetName, limits: &Limits) -> Result<Vec<MountHolder>, Error> {
        self.call(Op::new("look for mounts of", name), limits, |state, _| Ok(state.all_mounts(name)))
    }

    fn create(&self, create: &CreateRequest, limits: &Limits) -> Result<(), Error> {
        self.call(Op::new("create", &create.name), limits, |state, op| state.create(op, create))
    }

    fn destroy(&self, name: &DatasetName, recursive: bool, limits: &Limits) -> Result<(), Error> {
        self.call(Op::new("destroy", name), limits, |state, op| {
            checks::destroy(op, name)?;
            state.destroy(op, name, recursive)
        })
    }

    fn clone_snapshot(
        &self,
        snapshot: &SnapshotName,
        target: &DatasetName,
        properties: &Properties,
        limits: &Limits,
    ) -> Result<(), Error> {
        self.call(Op::new("clone", format_args!("{snapshot} to {target}")), limits, |state, op| {
            checks::clone(op, snapshot, target)?;
            state.clone_snapshot(op, snapshot, target, properties)
        })
    }

    fn promote(&self, name: &DatasetName, limits: &Limits) -> Result<(), Error> {
        self.call(Op::new("promote", name), limits, |state, op| state.promote(op, name))
    }

    fn rename(
        &self,
        from: &DatasetName,
        to: &DatasetName,
        how: Rename,
        limits: &Limits,
    ) -> Result<(), Error> {
        self.call(Op::new("rename", format_args!("{from} to {to}")), limits, |state, op| {
            checks::rename(op, from, to)?;
            state.rename(op, from, to, how)
        })
    }

    fn rollback(&self, snapshot: &SnapshotName, limits: &Limits) -> Result<(), Error> {
        self.call(Op::new("rollback", snapshot), limits, |state, op| state.rollback(op, snapshot))
    }

    fn set(&self, name: &Name, properties: &Properties, limits: &Limits) -> Result<(), Error> {
        self.call(Op::new("set properties of", name), limits, |state, op| state.set(op, name, properties))
    }

    fn inherit(&self, name: &Name, key: &str, limits: &Limits) -> Result<(), Error> {
        self.call(Op::new("inherit a property of", name), limits, |state, op| {
            checks::key(op, key)?;
            state.inherit(op, name, key)
        })
    }

    fn snapshot_set(
        &self,
        snapshots: &[SnapshotName],
        properties: &Properties,
        limits: &Limits,
    ) -> Result<(), Error> {
        self.call(Op::new("snapshot", names(snapshots)), limits, |state, op| {
            checks::snapshot_set(op, snapshots)?;
            checks::user_properties(op, properties)?;
            state.snapshot_set(op, snapshots, properties)
        })
    }

    fn destroy_snapshots(
        &self,
        snapshots: &[SnapshotName],
        deferred: bool,
        limits: &Limits,
    ) -> Result<(), Error> {
        self.call(Op::new("destroy", names(snapshots)), limits, |state, op| {
            checks::one_pool(op, snapshots)?;
            state.destroy_snapshots(op, snapshots, deferred)
        })
    }

    fn rename_snapshot(
        &self,
        snapshot: &SnapshotName,
        to: &str,
        limits: &Limits,
    ) -> Result<SnapshotName, Error> {
        let target = snapshot.dataset().snapshot(to)?;
        self.call(Op::new("rename", format_args!("{snapshot} to {target}")), limits, |state, op| {
            state.rename_snapshot(op, snapshot, &target)
        })?;
        Ok(target)
    }

    fn bookmark(
        &self,
        snapshot: &SnapshotName,
        bookmark: &BookmarkName,
        limits: &Limits,
    ) -> Result<(), Error> {
        self.call(Op::new("bookmark", format_args!("{snapshot} as {bookmark}")), limits, |state, op| {
            checks::bookmark(op, snapshot, bookmark)?;
            state.bookmark(op, snapshot, bookmark)
        })
    }

    fn destroy_bookmark(&self, bookmark: &BookmarkName, limits: &Limits) -> Result<(), Error> {
        self.call(Op::new("destroy", bookmark), limits, |state, op| state.destroy_bookmark(op, bookmark))
    }

    fn hold(&self, snapshots: &[SnapshotName], tag: &HoldTag, limits: &Limits) -> Result<(), Error> {
        self.call(Op::new("hold", names(snapshots)), limits, |state, op| {
            checks::one_pool(op, snapshots)?;
            state.hold(op, snapshots, tag)
        })
    }

    fn release(&self, snapshots: &[SnapshotName], tag: &HoldTag, limits: &Limits) -> Result<(), Error> {
        self.call(Op::new("release", names(snapshots)), limits, |state, op| {
            checks::one_pool(op, snapshots)?;
            state.release(op, snapshots, tag)
        })
    }

    fn holds(&self, snapshot: &SnapshotName, limits: &Limits) -> Result<Vec<Hold>, Error> {
        self.call(Op::new("list holds of", snapshot), limits, |state, op| state.holds(op, snapshot))
    }

    fn hold_while(
        &self,
        snapshots: &[SnapshotName],
        tag: &HoldTag,
        limits: &Limits,
    ) -> Result<TemporaryHold, Error> {
        self.hold(snapshots, tag, limits)?;
        Ok(TemporaryHold::new(Guard { fake: self.clone(), snapshots: snapshots.to_vec(), tag: tag.clone() }))
    }

    fn mount(&self, name: &DatasetName, limits: &Limits) -> Result<(), Error> {
        self.call(Op::new("mount", name), limits, |state, op| {
            let node = state.node(op, name)?;
            if node.mounts.iter().any(|mount| !mount.explicit) {
                return Ok(());
            }
            match state.mountpoint(name) {
                Mountpoint::Path(path) => state.mount_on(op, name, &path, false, false),
                Mountpoint::Legacy | Mountpoint::None => {
                    let said = "its mountpoint is legacy or none".to_owned();
                    Err(Error::Unsupported { op: op.clone(), said })
                }
            }
        })
    }

    fn unmount(&self, name: &DatasetName, limits: &Limits) -> Result<(), Error> {
        self.call(Op::new("unmount", name), limits, |state, op| {
            let node = state.node(op, name)?;
            let by_mount = node.mounts.iter().find(|mount| !mount.explicit).map(|mount| mount.path.clone());
            by_mount.map_or(Ok(()), |path| state.unmount_from(op, name, &path, false))
        })
    }

    fn mount_at(
        &self,
        name: &DatasetName,
        path: &Path,
        options: MountOptions,
        limits: &Limits,
    ) -> Result<(), Error> {
        self.call(Op::new("mount", name), limits, |state, op| {
            let node = state.node(op, name)?;
            let other = node.mounts.iter().any(|mount| mount.read_only != options.read_only);
            if other {
                // As Linux has it: one super block is either read-only or not.
                let holders = crate::Holders { mounts: state.all_mounts(name), ..Default::default() };
                return Err(Error::Busy { op: op.clone(), holders: Box::new(holders) });
            }
            state.mount_on(op, name, path, options.read_only, true)
        })
    }

    fn unmount_at(&self, path: &Path, detach: bool, limits: &Limits) -> Result<(), Error> {
        self.call(Op::new("unmount", path.display()), limits, |state, op| {
            let mut all = state.datasets.iter();
            let at = all.find(|(_, node)| node.mounts.iter().any(|mount| mount.path == path));
            match at.map(|(name, _)| name.clone()) {
                Some(name) => state.unmount_from(op, &name, path, detach),
                None => Ok(()),
            }
        })
    }

    fn send_size(&self, send: &SendRequest, limits: &Limits) -> Result<Bytes, Error> {
        self.call(Op::new("estimate", send.subject()), limits, |state, op| {
            state.outgoing(op, send).map(|outgoing| Bytes(outgoing.bytes.len() as u64))
        })
    }

    fn send(&self, send: &SendRequest, to: OwnedFd, limits: &Limits) -> Result<(), Error> {
        let started = Instant::now();
        self.call_unlocked(Op::new("send", send.subject()), limits, |op| {
            let outgoing = {
                let mut state = self.lock();
                let outgoing = state.outgoing(op, send)?;
                state.sending.push(outgoing.snapshot);
                outgoing
            };
            let written = stream::write(&to, &outgoing.bytes, limits);
            let mut state = self.lock();
            if let Some(index) = state.sending.iter().position(|id| *id == outgoing.snapshot) {
                state.sending.swap_remove(index);
            }
            written.map_err(|broken| match broken {
                Broken::Stop(stop) => inject::stopped(op.clone(), stop, started.elapsed()),
                Broken::Io(errno) => Error::System { op: op.clone(), source: errno.into() },
            })
        })
    }

    fn receive(&self, receive: &ReceiveRequest, from: OwnedFd, limits: &Limits) -> Result<Received, Error> {
        let started = Instant::now();
        self.call_unlocked(Op::new("receive", &receive.target), limits, |op| {
            let mut bytes = Vec::new();
            let read = stream::read(&from, &mut bytes, limits);
            // What was read before an end by force counts as a stream that ended early.
            let received = self.lock().incoming(op, receive, &bytes);
            match read {
                Ok(()) => received,
                Err(Broken::Stop(stop)) => Err(inject::stopped(op.clone(), stop, started.elapsed())),
                Err(Broken::Io(errno)) => Err(Error::System { op: op.clone(), source: errno.into() }),
            }
        })
    }

    fn abort_receive(&self, target: &DatasetName, limits: &Limits) -> Result<(), Error> {
        self.call(Op::new("abort the receive into", target), limits, |state, op| {
            state.abort_receive(op, target)
        })
    }

    fn copy(&self, send: &SendRequest, receive: &ReceiveRequest, limits: &Limits) -> Result<Received, Error> {
        let op = Op::new("copy", format_args!("{} to {}", send.subject(), receive.target));
        let (read, write) = pipe2(OFlag::O_CLOEXEC)
            .map_err(|errno| Error::System { op: op.clone(), source: errno.into() })?;
        std::thread::scope(|scope| {
            let sender = scope.spawn(|| self.send(send, write, limits));
            let received = self.receive(receive, read, limits);
            match sender.join() {
                // A send that failed leaves a receive that was cut; one that was cut off has no news.
                Ok(Err(error)) if !matches!(error, Error::System { .. }) => Err(error),
                _ => received,
            }
        })
    }

    fn pools(&self, limits: &Limits) -> Result<Vec<Pool>, Error> {
        self.call(Op::new("list pools of", "this node"), limits, |state, _| {
            let imported = state.pools.iter().filter(|(_, pool)| pool.imported);
            Ok(imported
                .map(|(name, pool)| {
                    let used = state.space(&name.root()).0;
                    Pool {
                        name: name.clone(),
                        guid: pool.guid,
                        size: Bytes(pool.size),
                        allocated: Bytes(used),
                        free: Bytes(pool.size.saturating_sub(used)),
                        health: if pool.suspended { Health::Suspended } else { Health::Online },
                        read_only: pool.read_only,
                    }
                })
                .collect())
        })
    }

    fn pool_status(&self, pool: &PoolName, limits: &Limits) -> Result<PoolStatus, Error> {
        self.call(Op::new("look at pool", pool), limits, |state, op| match state.pools.get(pool) {
            Some(found) if found.imported => Ok(PoolStatus {
                name: pool.clone(),
                health: if found.suspended { Health::Suspended } else { Health::Online },
                status: String::new(),
                action: String::new(),
                data_errors: 0,
            }),
            _ => Err(Error::PoolMissing { op: Op::new(op.verb, pool) }),
        })
    }

    fn pool_sync(&self, pool: &PoolName, limits: &Limits) -> Result<(), Error> {
        self.call(Op::new("sync pool", pool), limits, |state, op| state.ready(op, &pool.root(), false))
    }
}

struct Guard {
    fake: Fake,
    snapshots: Vec<SnapshotName>,
    tag: HoldTag,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let op = Op::new("release", names(&self.snapshots));
        if let Err(error) = self.fake.lock().release(&op, &self.snapshots, &self.tag) {
            tracing::debug!(%error, "temporary hold");
        }
    }
}
