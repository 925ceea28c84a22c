//! Who keeps a dataset busy: looked up when the tool says that it is, and never longer than a moment.

use std::path::Path;
use std::time::Duration;

use super::Cli;
use crate::error::Op;
use crate::{
    DatasetName, Entry, Error, Filter, Holders, Kinds, Limits, Name, SnapshotName, Zfs, mounts, streams,
};

/// The caller waits for an error that is known already.
const LOOK_AT_MOST: Duration = Duration::from_secs(10);
/// Holds are asked for one snapshot at a time.
const MOST_HELD: usize = 8;

impl Cli {
    /// Fills in the holders of a "busy" error about a dataset and, if `below`, about what is below it.
    pub(super) fn explain(&self, error: Error, dataset: &DatasetName, below: bool, limits: &Limits) -> Error {
        match error {
            Error::Busy { op, .. } => {
                let holders = Box::new(self.holders(dataset, below, &limits.at_most(LOOK_AT_MOST)));
                Error::Busy { op, holders }
            }
            other => other,
        }
    }

    /// The same for snapshots; clones that were not named are looked up, too.
    pub(super) fn explain_snapshots(
        &self,
        error: Error,
        snapshots: &[SnapshotName],
        limits: &Limits,
    ) -> Error {
        let limits = limits.at_most(LOOK_AT_MOST);
        match error {
            Error::Busy { op, .. } => {
                let mut holders = Holders::default();
                for snapshot in snapshots.iter().take(MOST_HELD) {
                    holders.holds.extend(self.holds(snapshot, &limits).unwrap_or_default());
                    holders.mounts.extend(mounts::of_dataset(snapshot.as_str(), &limits));
                }
                holders.streams = streams::of_snapshots(snapshots, &limits);
                Error::Busy { op, holders: Box::new(holders) }
            }
            Error::HasDependents { op, dependents } if dependents.is_empty() => {
                let found =
                    snapshots.iter().filter_map(|snapshot| self.snapshot(snapshot, &limits).ok().flatten());
                let dependents =
                    found.flat_map(|found| found.clones).map(|clone| clone.to_string()).collect();
                Error::HasDependents { op, dependents }
            }
            other => other,
        }
    }

    /// The same for whatever has properties.
    pub(super) fn explain_name(&self, error: Error, name: &Name, limits: &Limits) -> Error {
        match name {
            Name::Snapshot(snapshot) => self.explain_snapshots(error, std::slice::from_ref(snapshot), limits),
            Name::Dataset(_) | Name::Bookmark(_) => self.explain(error, &name.dataset(), false, limits),
        }
    }

    /// The error for a mount point that could not be unmounted.
    pub(super) fn busy_mount(&self, op: &Op, path: &Path, limits: &Limits) -> Error {
        let limits = limits.at_most(LOOK_AT_MOST);
        let holders = Holders { mounts: mounts::users_of(path, &limits), ..Holders::default() };
        Error::Busy { op: op.clone(), holders: Box::new(holders) }
    }

    fn holders(&self, dataset: &DatasetName, below: bool, limits: &Limits) -> Holders {
        let mut holders =
            Holders { streams: streams::of_dataset(dataset, below, limits), ..Holders::default() };
        let kinds = Kinds { volumes: true, filesystems: true, ..Kinds::SNAPSHOTS };
        let depth = if below { None } else { Some(1) };
        // What cannot be looked up is left out: the error that it would explain is more important.
        let entries =
            self.list(&Filter { depth, ..Filter::below(dataset, kinds) }, limits).unwrap_or_default();
        for entry in entries {
            match entry {
                Entry::Dataset(found) if below || found.name == *dataset => {
                    let mounted = mounts::of_dataset(found.name.as_str(), limits);
                    for mount in &mounted {
                        holders.mounts.extend(mounts::users_of(Path::new(&mount.mount_point), limits));
                    }
                    holders.mounts.extend(mounted);
                    holders.receiving |= found.resume_token.is_some();
                }
                Entry::Snapshot(found) => {
                    if found.userrefs > 0 && holders.holds.len() < MOST_HELD {
                        holders.holds.extend(self.holds(&found.name, limits).unwrap_or_default());
                    }
                    holders.clones.extend(found.clones);
                }
                Entry::Dataset(_) | Entry::Bookmark(_) => {}
            }
        }
        holders
    }
}
