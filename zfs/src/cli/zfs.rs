//! The trait, as the commands have it.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Cli, Tool, from_command, joined, run, set_options, text, unparsable};
use crate::classify::says;
use crate::error::Op;
use crate::{
    BookmarkName, Bytes, CreateRequest, Dataset, DatasetName, Entry, Error, Filter, Hold, HoldTag, Limits,
    MountHolder, MountOptions, Name, NewKind, Pool, PoolName, PoolStatus, Properties, ReceiveRequest,
    Received, Rename, SendRequest, Snapshot, SnapshotName, TemporaryHold, Version, Zfs, blocking, checks,
    mounts, parse,
};

/// Names that fit well below the kernel's bound for arguments.
const NAMES_PER_CALL: usize = 400;
/// For giving back a temporary hold, which happens in a destructor.
const RELEASE_LIMIT: Duration = Duration::from_secs(30);

impl Zfs for Cli {
    fn backend(&self) -> &'static str {
        if self.library.is_some() { "lzc" } else { "cli" }
    }

    fn version(&self, limits: &Limits) -> Result<Version, Error> {
        let op = Op::new("ask the version of", "zfs");
        let output = self.zfs(&op, ["version"], limits)?;
        parse::version(&String::from_utf8_lossy(&output.stdout)).map_err(|error| unparsable(&op, &error))
    }

    fn list(&self, filter: &Filter, limits: &Limits) -> Result<Vec<Entry>, Error> {
        let op = Op::new("list", joined(&filter.roots));
        checks::filter(&op, filter)?;
        self.entries(&op, filter, limits)
    }

    fn dataset(&self, name: &DatasetName, limits: &Limits) -> Result<Option<Dataset>, Error> {
        Ok(self.one(&Op::new("get", name), limits)?.and_then(Entry::into_dataset))
    }

    fn snapshot(&self, name: &SnapshotName, limits: &Limits) -> Result<Option<Snapshot>, Error> {
        Ok(self.one(&Op::new("get", name), limits)?.and_then(Entry::into_snapshot))
    }

    fn mounts(&self, name: &DatasetName, limits: &Limits) -> Result<Vec<MountHolder>, Error> {
        let op = Op::new("look for mounts of", name);
        limits.check().map_err(|stop| blocking::stopped(&op, stop, Duration::ZERO, false))?;
        let found = mounts::of_dataset(name.as_str(), limits);
        // Half an answer is none.
        limits.check().map_err(|stop| blocking::stopped(&op, stop, Duration::ZERO, false))?;
        Ok(found)
    }

    fn create(&self, create: &CreateRequest, limits: &Limits) -> Result<(), Error> {
        let op = Op::new("create", &create.name);
        checks::properties(&op, &create.properties)?;
        let mut args = vec![text("create")];
        if create.parents {
            args.push(text("-p"));
        }
        if let NewKind::Volume { size, sparse } = create.kind {
            args.extend(sparse.then(|| text("-s")));
            args.extend([text("-V"), text(&size.0)]);
        }
        args.extend(set_options(&create.properties));
        args.push(text(&create.name));
        self.zfs(&op, args, limits)?;
        Ok(())
    }

    fn destroy(&self, name: &DatasetName, recursive: bool, limits: &Limits) -> Result<(), Error> {
        let op = Op::new("destroy", name);
        checks::destroy(&op, name)?;
        let args = [Some("destroy"), recursive.then_some("-r"), Some(name.as_str())];
        let destroyed = self.zfs(&op, args.into_iter().flatten(), limits);
        destroyed.map(|_| ()).map_err(|error| self.explain(error, name, recursive, limits))
    }

    fn clone_snapshot(
        &self,
        snapshot: &SnapshotName,
        target: &DatasetName,
        properties: &Properties,
        limits: &Limits,
    ) -> Result<(), Error> {
        let op = Op::new("clone", format_args!("{snapshot} to {target}"));
        checks::clone(&op, snapshot, target)?;
        checks::properties(&op, properties)?;
        let mut args = vec![text("clone")];
        args.extend(set_options(properties));
        args.extend([text(snapshot), text(target)]);
        self.zfs(&op, args, limits)?;
        Ok(())
    }

    fn promote(&self, name: &DatasetName, limits: &Limits) -> Result<(), Error> {
        let promoted = self.zfs(&Op::new("promote", name), [text("promote"), text(name)], limits);
        promoted.map(|_| ()).map_err(|error| self.explain(error, name, false, limits))
    }

    fn rename(
        &self,
        from: &DatasetName,
        to: &DatasetName,
        how: Rename,
        limits: &Limits,
    ) -> Result<(), Error> {
        let op = Op::new("rename", format_args!("{from} to {to}"));
        checks::rename(&op, from, to)?;
        if how.parents && how.keep_mounts {
            // The tool takes -p and -u in turn only.
            if let Some(parent) = to.parent() {
                self.create(&CreateRequest::filesystem(&parent, Properties::new()).with_parents(), limits)?;
            }
        }
        let option = match (how.keep_mounts, how.parents) {
            (true, _) => Some("-u"),
            (false, true) => Some("-p"),
            (false, false) => None,
        };
        let args = [Some("rename"), option, Some(from.as_str()), Some(to.as_str())];
        let renamed = self.zfs(&op, args.into_iter().flatten(), limits);
        renamed.map(|_| ()).map_err(|error| self.explain(error, from, true, limits))
    }

    fn rollback(&self, snapshot: &SnapshotName, limits: &Limits) -> Result<(), Error> {
        let op = Op::new("rollback", snapshot);
        let mounted = self.mounts(&snapshot.dataset(), limits)?;
        if !mounted.is_empty() {
            return Err(Error::Mounted { op, mounts: mounted });
        }
        let done = self.zfs(&op, [text("rollback"), text(snapshot)], limits);
        done.map(|_| ()).map_err(|error| self.explain(error, &snapshot.dataset(), false, limits))
    }

    fn set(&self, name: &Name, properties: &Properties, limits: &Limits) -> Result<(), Error> {
        let op = Op::new("set properties of", name);
        checks::properties(&op, properties)?;
        if properties.is_empty() {
            return Ok(());
        }
        let pairs = properties.iter().map(|(key, value)| text(&format!("{key}={value}")));
        let args = std::iter::once(text("set")).chain(pairs).chain([text(name)]);
        let set = self.zfs(&op, args, limits);
        set.map(|_| ()).map_err(|error| self.explain_name(error, name, limits))
    }

    fn inherit(&self, name: &Name, key: &str, limits: &Limits) -> Result<(), Error> {
        let op = Op::new("inherit a property of", name);
        checks::key(&op, key)?;
        let inherited = self.zfs(&op, ["inherit", key, name.as_str()], limits);
        inherited.map(|_| ()).map_err(|error| self.explain_name(error, name, limits))
    }

    fn snapshot_set(
        &self,
        snapshots: &[SnapshotName],
        properties: &Properties,
        limits: &Limits,
    ) -> Result<(), Error> {
        let op = Op::new("snapshot", joined(snapshots));
        checks::snapshot_set(&op, snapshots)?;
        checks::user_properties(&op, properties)?;
        if snapshots.is_empty() {
            return Ok(());
        }
        if let Some(library) = &self.library {
            let (library, snapshots, properties) = (library.clone(), snapshots.to_vec(), properties.clone());
            let inner = op.clone();
            let taken =
                blocking::on_thread(&op, limits, move || library.snapshot(&inner, &snapshots, &properties))?;
            return taken.map_err(|error| self.refine(error, limits));
        }
        let mut args = vec![text("snapshot")];
        args.extend(set_options(properties));
        args.extend(snapshots.iter().map(text));
        self.zfs(&op, args, limits)?;
        Ok(())
    }

    fn destroy_snapshots(
        &self,
        snapshots: &[SnapshotName],
        deferred: bool,
        limits: &Limits,
    ) -> Result<(), Error> {
        let op = Op::new("destroy", joined(snapshots));
        checks::one_pool(&op, snapshots)?;
        let Some(first) = snapshots.first() else { return Ok(()) };
        if let Some(library) = &self.library {
            let (library, names, inner) = (library.clone(), snapshots.to_vec(), op.clone());
            let call = move || library.destroy_snapshots(&inner, &names, deferred);
            let destroyed =
                blocking::on_thread(&op, limits, call)?.map_err(|error| self.refine(error, limits));
            return match destroyed {
                Err(Error::NotFound { .. }) => Ok(()),
                other => other.map_err(|error| self.explain_snapshots(error, snapshots, limits)),
            };
        }
        // Some may be gone with their dataset, which is fine; a pool that is not there is not.
        self.need_pool(&op, &first.dataset().pool(), limits)?;
        let mut sorted = snapshots.to_vec();
        sorted.sort();
        for group in
            sorted.chunk_by(|a, b| a.dataset() == b.dataset()).flat_map(|group| group.chunks(NAMES_PER_CALL))
        {
            let leaves: Vec<&str> = group.iter().map(SnapshotName::leaf).collect();
            let Some(dataset) = group.first().map(SnapshotName::dataset) else { continue };
            let list = format!("{dataset}@{}", leaves.join(","));
            let args = [Some("destroy"), deferred.then_some("-d"), Some(list.as_str())];
            match self.zfs(&op, args.into_iter().flatten(), limits) {
                Ok(_) | Err(Error::NotFound { .. }) => {}
                Err(error) => return Err(self.explain_snapshots(error, group, limits)),
            }
        }
        Ok(())
    }

    fn rename_snapshot(
        &self,
        snapshot: &SnapshotName,
        to: &str,
        limits: &Limits,
    ) -> Result<SnapshotName, Error> {
        let target = snapshot.dataset().snapshot(to)?;
        let op = Op::new("rename", format_args!("{snapshot} to {target}"));
        let renamed = self.zfs(&op, [text("rename"), text(snapshot), text(&target)], limits);
        let set = std::slice::from_ref(snapshot);
        renamed.map(|_| target).map_err(|error| self.explain_snapshots(error, set, limits))
    }

    fn bookmark(
        &self,
        snapshot: &SnapshotName,
        bookmark: &BookmarkName,
        limits: &Limits,
    ) -> Result<(), Error> {
        let op = Op::new("bookmark", format_args!("{snapshot} as {bookmark}"));
        checks::bookmark(&op, snapshot, bookmark)?;
        self.zfs(&op, [text("bookmark"), text(snapshot), text(bookmark)], limits)?;
        Ok(())
    }

    fn destroy_bookmark(&self, bookmark: &BookmarkName, limits: &Limits) -> Result<(), Error> {
        self.zfs(&Op::new("destroy", bookmark), [text("destroy"), text(bookmark)], limits)?;
        Ok(())
    }

    fn hold(&self, snapshots: &[SnapshotName], tag: &HoldTag, limits: &Limits) -> Result<(), Error> {
        let op = holding("hold", snapshots, tag);
        checks::one_pool(&op, snapshots)?;
        if let Some(library) = &self.library {
            let (library, names, tag, inner) = (library.clone(), snapshots.to_vec(), tag.clone(), op.clone());
            let held = blocking::on_thread(&op, limits, move || library.hold(&inner, &names, &tag))?;
            return held.map_err(|error| self.refine(error, limits));
        }
        // The tool holds one after the other, so what was held is given back when one cannot be.
        for (index, snapshot) in snapshots.iter().enumerate() {
            if let Err(error) = self.zfs(&op, [text("hold"), text(tag), text(snapshot)], limits) {
                let held = snapshots.get(..index).unwrap_or_default();
                if let Err(also) = self.release(held, tag, &Limits::within(RELEASE_LIMIT)) {
                    tracing::warn!(%op, error = %also, "a hold of a set that could not be held stays");
                }
                return Err(error);
            }
        }
        Ok(())
    }

    fn release(&self, snapshots: &[SnapshotName], tag: &HoldTag, limits: &Limits) -> Result<(), Error> {
        let op = holding("release", snapshots, tag);
        checks::one_pool(&op, snapshots)?;
        if snapshots.is_empty() {
            return Ok(());
        }
        let args = [text("release"), text(tag)].into_iter().chain(snapshots.iter().map(text));
        self.zfs(&op, args, limits)?;
        Ok(())
    }

    fn holds(&self, snapshot: &SnapshotName, limits: &Limits) -> Result<Vec<Hold>, Error> {
        let op = Op::new("list holds of", snapshot);
        let output = self.zfs(&op, [text("holds"), text("-H"), text(snapshot)], limits)?;
        parse::holds(&String::from_utf8_lossy(&output.stdout)).map_err(|error| unparsable(&op, &error))
    }

    fn hold_while(
        &self,
        snapshots: &[SnapshotName],
        tag: &HoldTag,
        limits: &Limits,
    ) -> Result<TemporaryHold, Error> {
        let op = holding("hold", snapshots, tag);
        checks::one_pool(&op, snapshots)?;
        if let Some(library) = &self.library {
            let (library, names, tag, inner) = (library.clone(), snapshots.to_vec(), tag.clone(), op.clone());
            let held = blocking::on_thread(&op, limits, move || library.hold_while(&inner, &names, &tag))?;
            return held.map(TemporaryHold::new).map_err(|error| self.refine(error, limits));
        }
        self.hold(snapshots, tag, limits)?;
        Ok(TemporaryHold::new(Guard { cli: self.clone(), snapshots: snapshots.to_vec(), tag: tag.clone() }))
    }

    fn mount(&self, name: &DatasetName, limits: &Limits) -> Result<(), Error> {
        let op = Op::new("mount", name);
        match self.command(Tool::Zfs).arg("mount").arg(name).run(limits) {
            Ok(_) => Ok(()),
            Err(error) if says(&error, "already mounted") => Ok(()),
            Err(error) => {
                let error = self.refine(from_command(&op, error), limits);
                Err(self.explain(error, name, false, limits))
            }
        }
    }

    fn unmount(&self, name: &DatasetName, limits: &Limits) -> Result<(), Error> {
        let op = Op::new("unmount", name);
        match self.command(Tool::Zfs).arg("unmount").arg(name).run(limits) {
            Ok(_) => Ok(()),
            Err(error) if says(&error, "not currently mounted") => Ok(()),
            Err(error) => {
                let error = self.refine(from_command(&op, error), limits);
                Err(self.explain(error, name, false, limits))
            }
        }
    }

    fn mount_at(
        &self,
        name: &DatasetName,
        path: &Path,
        options: MountOptions,
        limits: &Limits,
    ) -> Result<(), Error> {
        let op = Op::new("mount", format_args!("{name} at {}", path.display()));
        let system = |source| Error::System { op: op.clone(), source };
        let (dataset, place) = (name.clone(), PathBuf::from(path));
        let call = move || {
            // Looked at first, because mount(2) has one error for a missing path and a missing dataset. Here, because
            // the path may lie on a pool that hangs.
            if !std::fs::metadata(&place)?.is_dir() {
                return Err(std::io::ErrorKind::NotADirectory.into());
            }
            Ok(mounts::mount_legacy(dataset.as_str(), &place, options))
        };
        let mounted = blocking::on_thread(&op, limits, call)?;
        let Err(source) = mounted.map_err(system)? else { return Ok(()) };
        let error = match source.kind() {
            std::io::ErrorKind::NotFound => Error::NotFound { op: op.clone(), name: name.to_string() },
            std::io::ErrorKind::ResourceBusy => Error::Busy { op: op.clone(), holders: Box::default() },
            std::io::ErrorKind::PermissionDenied => Error::Permission { op: op.clone() },
            _ => Error::System { op: op.clone(), source },
        };
        Err(self.explain(self.refine(error, limits), name, false, limits))
    }

    fn unmount_at(&self, path: &Path, detach: bool, limits: &Limits) -> Result<(), Error> {
        let op = Op::new("unmount", path.display());
        let place = PathBuf::from(path);
        match blocking::on_thread(&op, limits, move || mounts::unmount(&place, detach))? {
            Ok(was_mounted) => {
                tracing::debug!(%op, was_mounted, "unmount");
                Ok(())
            }
            Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => {
                Err(self.busy_mount(&op, path, limits))
            }
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                Err(Error::Permission { op })
            }
            Err(source) => Err(Error::System { op, source }),
        }
    }

    fn send_size(&self, send: &SendRequest, limits: &Limits) -> Result<Bytes, Error> {
        self.estimate(&Op::new("estimate", send.subject()), send, limits)
    }

    fn send(&self, send: &SendRequest, to: OwnedFd, limits: &Limits) -> Result<(), Error> {
        self.send_to(&Op::new("send", send.subject()), send, to, limits)
    }

    fn receive(&self, receive: &ReceiveRequest, from: OwnedFd, limits: &Limits) -> Result<Received, Error> {
        self.receive_from(&Op::new("receive", &receive.target), receive, from, limits)
    }

    fn abort_receive(&self, target: &DatasetName, limits: &Limits) -> Result<(), Error> {
        let op = Op::new("abort the receive into", target);
        match self.command(Tool::Zfs).args(["receive", "-A"]).arg(target).run(limits) {
            Ok(_) => Ok(()),
            Err(error) if says(&error, "does not have any resumable receive state") => Ok(()),
            Err(error) => match self.refine(from_command(&op, error), limits) {
                Error::NotFound { .. } => Ok(()),
                error => Err(self.explain(error, target, false, limits)),
            },
        }
    }

    fn copy(&self, send: &SendRequest, receive: &ReceiveRequest, limits: &Limits) -> Result<Received, Error> {
        let op = Op::new("copy", format_args!("{} to {}", send.subject(), receive.target));
        self.send_and_receive(&op, send, receive, limits)
    }

    fn pools(&self, limits: &Limits) -> Result<Vec<Pool>, Error> {
        let op = Op::new("list", "pools");
        let command = self.command(Tool::Zpool).args(["list", "-Hp", "-o", parse::COLUMNS]);
        let output = run(&op, command, limits)?;
        parse::pool_list(&String::from_utf8_lossy(&output.stdout)).map_err(|error| unparsable(&op, &error))
    }

    fn pool_status(&self, pool: &PoolName, limits: &Limits) -> Result<PoolStatus, Error> {
        let op = Op::new("look at pool", pool);
        let options: &[&str] = if self.version.has_json() { &["-j", "-p"] } else { &[] };
        let output = run(&op, self.command(Tool::Zpool).arg("status").args(options).arg(pool), limits)?;
        let parsed = if self.version.has_json() {
            parse::pool_status_json(&output.stdout)
        } else {
            parse::pool_status_text(&String::from_utf8_lossy(&output.stdout))
        };
        parsed.map_err(|error| unparsable(&op, &error))
    }

    fn pool_sync(&self, pool: &PoolName, limits: &Limits) -> Result<(), Error> {
        let op = Op::new("sync pool", pool);
        if let Some(library) = &self.library {
            let (library, name, inner) = (library.clone(), pool.clone(), op.clone());
            let synced = blocking::on_thread(&op, limits, move || library.sync(&inner, &name))?;
            return match synced {
                Err(Error::NotFound { .. }) => Err(Error::PoolMissing { op: Op::new(op.verb, pool) }),
                other => other,
            };
        }
        run(&op, self.command(Tool::Zpool).arg("sync").arg(pool), limits).map(|_| ()).map_err(|error| {
            match error {
                Error::PoolMissing { op: inner } => {
                    Error::PoolMissing { op: Op { name: pool.to_string(), ..inner } }
                }
                other => other,
            }
        })
    }
}

/// "hold SNAPSHOTS with tag TAG": `classify` takes the tag from there.
fn holding(verb: &'static str, snapshots: &[SnapshotName], tag: &HoldTag) -> Op {
    Op::new(verb, format_args!("{} with tag {tag}", joined(snapshots)))
}

/// The temporary hold of a machine without the library.
struct Guard {
    cli: Cli,
    snapshots: Vec<SnapshotName>,
    tag: HoldTag,
}

impl Drop for Guard {
    fn drop(&mut self) {
        match self.cli.release(&self.snapshots, &self.tag, &Limits::within(RELEASE_LIMIT)) {
            Ok(()) | Err(Error::HoldMissing { .. } | Error::NotFound { .. }) => {}
            Err(error) => tracing::warn!(%error, "a temporary hold stays"),
        }
    }
}
