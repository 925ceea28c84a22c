//! What libzfs_core does better than the command: sets in one ioctl, and holds that die with the process.
//!
//! `lzc_exists` is not used: it answers "no" to every error, a missing permission included.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

use nix::errno::Errno;
use nix::libc;

use crate::error::Op;
use crate::sys::{Api, List, LoadError, Outcome};
use crate::{Error, HoldTag, Holders, PoolName, Properties, SnapshotName};

/// libzfs_core, loaded and with /dev/zfs open.
#[derive(Debug)]
pub(crate) struct Library(Api);

/// Holds that the kernel releases when this descriptor closes, by drop or by the end of the process.
#[derive(Debug)]
pub(crate) struct CleanupFd(#[allow(dead_code, reason = "it acts by being closed")] File);

/// What the errno of one snapshot means, as the kernel gave it: ZFS has numbers of its own, which no `Errno` has.
type Meaning = fn(&Op, &str, i32) -> Error;

impl Library {
    pub(crate) fn load() -> Result<Self, LoadError> {
        Api::load().map(Self)
    }

    /// `lzc_snapshot`: all or none.
    pub(crate) fn snapshot(
        &self,
        op: &Op,
        names: &[SnapshotName],
        properties: &Properties,
    ) -> Result<(), Error> {
        let outcome = (|| {
            let mut set = self.0.list()?;
            names.iter().try_for_each(|name| set.add(name.as_str()))?;
            let mut values = self.0.list()?;
            properties.iter().try_for_each(|(key, value)| values.add_text(key, value))?;
            Ok(self.0.snapshot(&set, &values))
        })();
        judge(op, outcome, of_snapshot)
    }

    /// `lzc_destroy_snaps`: names that are gone are skipped by the kernel.
    pub(crate) fn destroy_snapshots(
        &self,
        op: &Op,
        names: &[SnapshotName],
        deferred: bool,
    ) -> Result<(), Error> {
        let outcome = (|| {
            let mut set = self.0.list()?;
            names.iter().try_for_each(|name| set.add(name.as_str()))?;
            Ok(self.0.destroy_snapshots(&set, deferred))
        })();
        judge(op, outcome, of_destroy)
    }

    /// `lzc_hold`: the kernel skips names that are gone and holds the rest, so the rest is released again.
    pub(crate) fn hold(&self, op: &Op, names: &[SnapshotName], tag: &HoldTag) -> Result<(), Error> {
        let outcome = self.holds(names, tag).map(|set| self.0.hold(&set, None));
        let partly = outcome.as_ref().is_ok_and(|outcome| outcome.errno == 0 && !outcome.items.is_empty());
        let held = judge(op, outcome, of_hold).map_err(|error| tagged(error, tag));
        if partly {
            let undone = self.release(names, tag);
            tracing::debug!(%op, ?undone, "holds of a set that was not complete are given back");
        }
        held
    }

    /// The same with holds that end with the value returned.
    pub(crate) fn hold_while(
        &self,
        op: &Op,
        names: &[SnapshotName],
        tag: &HoldTag,
    ) -> Result<CleanupFd, Error> {
        // O_EXCL makes it a descriptor with a list of things to do on close (zfs_onexit.c).
        let open = OpenOptions::new().read(true).write(true).custom_flags(libc::O_EXCL).open("/dev/zfs");
        let device = open.map_err(|source| Error::System { op: op.clone(), source })?;
        let outcome = self.holds(names, tag).map(|set| self.0.hold(&set, Some(device.as_raw_fd())));
        judge(op, outcome, of_hold).map_err(|error| tagged(error, tag))?;
        Ok(CleanupFd(device))
    }

    fn holds(&self, names: &[SnapshotName], tag: &HoldTag) -> io::Result<List<'_>> {
        let mut set = self.0.list()?;
        names.iter().try_for_each(|name| set.add_text(name.as_str(), tag.as_str()))?;
        Ok(set)
    }

    fn release(&self, names: &[SnapshotName], tag: &HoldTag) -> io::Result<Outcome> {
        let mut tags = self.0.list()?;
        tags.add(tag.as_str())?;
        let mut set = self.0.list()?;
        names.iter().try_for_each(|name| set.add_list(name.as_str(), &tags))?;
        Ok(self.0.release(&set))
    }

    /// `lzc_sync`
    pub(crate) fn sync(&self, op: &Op, pool: &PoolName) -> Result<(), Error> {
        let outcome = (|| {
            let mut options = self.0.list()?;
            options.add_bool("force", false)?;
            self.0.sync(pool.as_str(), &options)
        })();
        judge(op, outcome, |op, _, errno| general(op, op.name.clone(), errno))
    }
}

/// An outcome is good when neither the call nor any snapshot has an error.
fn judge(op: &Op, outcome: io::Result<Outcome>, meaning: Meaning) -> Result<(), Error> {
    let outcome = outcome.map_err(|source| Error::System { op: op.clone(), source })?;
    match (outcome.items.first(), outcome.errno) {
        (Some((name, errno)), _) => Err(meaning(op, name, *errno)),
        (None, 0) => Ok(()),
        // Without a name it is about all of them: the first will do to look for the pool.
        (None, errno) => {
            let first =
                op.name.split(" with tag ").next().unwrap_or_default().split('@').next().unwrap_or_default();
            Err(meaning(op, first, errno))
        }
    }
}

fn of_snapshot(op: &Op, name: &str, errno: i32) -> Error {
    match Errno::from_raw(errno) {
        Errno::EEXIST => Error::Exists { op: op.clone(), name: name.to_owned() },
        Errno::EXDEV => Error::CrossesPools { op: op.clone() },
        // It is the dataset that is not there.
        _ => general(op, name.split('@').next().unwrap_or_default().to_owned(), errno),
    }
}

fn of_destroy(op: &Op, name: &str, errno: i32) -> Error {
    match Errno::from_raw(errno) {
        Errno::EEXIST => Error::HasDependents { op: op.clone(), dependents: Vec::new() },
        _ => general(op, name.to_owned(), errno),
    }
}

fn of_hold(op: &Op, name: &str, errno: i32) -> Error {
    match Errno::from_raw(errno) {
        Errno::EEXIST => Error::Exists { op: op.clone(), name: name.to_owned() },
        _ => general(op, name.to_owned(), errno),
    }
}

/// "Exists" of a hold is about its tag.
fn tagged(error: Error, tag: &HoldTag) -> Error {
    match error {
        Error::Exists { op, .. } => Error::HoldExists { op, tag: tag.clone() },
        other => other,
    }
}

fn general(op: &Op, name: String, errno: i32) -> Error {
    let op = op.clone();
    match Errno::from_raw(errno) {
        Errno::ENOENT => Error::NotFound { op, name },
        Errno::EBUSY => Error::Busy { op, holders: Box::new(Holders::default()) },
        Errno::ENOSPC => Error::NoSpace { op, quota: false },
        Errno::EDQUOT => Error::NoSpace { op, quota: true },
        Errno::EPERM | Errno::EACCES => Error::Permission { op },
        Errno::EROFS => Error::ReadOnly { op },
        // EIO is what a call gets that was under way when the devices went.
        Errno::EAGAIN | Errno::ESHUTDOWN | Errno::EIO => Error::PoolSuspended { op },
        Errno::ENOTSUP => Error::Unsupported { op, said: "the pool or the module is too old".to_owned() },
        Errno::UnknownErrno => of_zfs(op, &name, errno),
        errno => Error::Unknown { op, said: format!("{name}: {}", errno.desc()) },
    }
}

/// The numbers that ZFS adds to errno (`zfs_errno_t`, include/sys/fs/zfs.h).
fn of_zfs(op: Op, name: &str, number: i32) -> Error {
    let said = |what: &str| format!("{name}: {what} (ZFS error {number})");
    match number {
        1029..=1032 => {
            Error::Unsupported { op, said: said("the module and libzfs_core are of different versions") }
        }
        1034 | 1035 => Error::IvsetMismatch { op, said: said("the IV set guid is missing or another one") },
        1037 => {
            Error::Unsupported { op, said: said("the stream has a feature that the module does not know") }
        }
        1040 => Error::StreamTruncated { op, token: None },
        1044 => Error::InvalidProperty { op, said: said("the module refuses a property") },
        1045 | 1048 => Error::Unsupported { op, said: said("the pool's devices or keys do not allow it") },
        1047 => Error::ResumeExists { op },
        _ => Error::Unknown { op, said: said("an error that only ZFS has") },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(errno: i32, items: &[(&str, i32)]) -> io::Result<Outcome> {
        Ok(Outcome { errno, items: items.iter().map(|(name, errno)| ((*name).to_owned(), *errno)).collect() })
    }

    #[test]
    fn an_errno_means_what_it_means_for_that_call() {
        let op = Op::new("snapshot", "tank/a@s tank/b@s");
        let cases = [
            (outcome(0, &[]), None),
            (outcome(libc::EEXIST, &[("tank/b@s", libc::EEXIST)]), Some("exists")),
            (outcome(libc::ENOENT, &[("tank/a@s", libc::ENOENT)]), Some("not-found")),
            (outcome(libc::ENOENT, &[]), Some("not-found")),
            (outcome(libc::EAGAIN, &[]), Some("pool-suspended")),
            (outcome(libc::EDQUOT, &[]), Some("no-space")),
            (outcome(libc::EIO, &[]), Some("pool-suspended")),
            (outcome(libc::EIO, &[("tank/a@s", libc::EIO)]), Some("pool-suspended")),
            (outcome(1030, &[]), Some("unsupported")),
            (outcome(1035, &[("tank/a@s", 1035)]), Some("ivset-mismatch")),
            (outcome(1047, &[]), Some("resume-exists")),
            (outcome(1038, &[]), Some("unknown")),
        ];
        for (outcome, kind) in cases {
            let shown = format!("{outcome:?}");
            assert_eq!(judge(&op, outcome, of_snapshot).err().map(|error| error.kind()), kind, "{shown}");
        }
        let held = outcome(0, &[("tank/a@s", libc::ENOENT)]);
        assert_eq!(judge(&op, held, of_hold).unwrap_err().kind(), "not-found");
        let cloned = outcome(libc::EEXIST, &[("tank/a@s", libc::EEXIST)]);
        assert_eq!(judge(&op, cloned, of_destroy).unwrap_err().kind(), "has-dependents");
    }

    #[test]
    fn a_number_that_only_zfs_has_is_told() {
        let error = judge(&Op::new("snapshot", "tank/a@s"), outcome(1038, &[]), of_snapshot).unwrap_err();
        assert!(error.to_string().contains("ZFS error 1038"), "{error}");
    }

    #[test]
    fn a_missing_dataset_is_named_and_not_its_snapshot() {
        let op = Op::new("snapshot", "tank/a@s");
        let error = judge(&op, outcome(libc::ENOENT, &[]), of_snapshot).unwrap_err();
        assert_eq!(error.to_string(), "cannot snapshot tank/a@s: tank/a does not exist");
    }
}
