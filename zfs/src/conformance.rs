//! What every implementation of `Zfs` must do, as named cases that run against any of them.
//!
//! The fake is only worth as much as its likeness: a unit test runs these cases against it, and
//! `examples/conformance.rs` runs the same ones against a real pool. Each case works in a dataset of its own
//! below the root that it is given and leaves nothing behind.

mod datasets;
mod holds;
mod limits;
mod mounts;
mod names;
mod snapshots;
mod streams;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::{CreateRequest, Dataset, DatasetName, Error, Limits, Properties, Snapshot, SnapshotName, Zfs};

/// Generous, because a real pool may be emulated: a case that takes longer is stuck.
const CASE_LIMIT: Duration = Duration::from_secs(120);

/// One thing that must hold.
#[derive(Clone, Copy)]
pub struct Case {
    /// What must hold, as a sentence with underscores.
    pub name: &'static str,
    /// Tries it below a dataset.
    pub run: fn(&Bench<'_>) -> Result<(), Failure>,
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// Why a case failed.
#[derive(Debug)]
pub struct Failure(pub String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self(format!("unexpected {}: {error}", error.kind()))
    }
}

impl From<crate::NameError> for Failure {
    fn from(error: crate::NameError) -> Self {
        Self(error.to_string())
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self(format!("unexpected I/O error: {error}"))
    }
}

impl From<nix::errno::Errno> for Failure {
    fn from(errno: nix::errno::Errno) -> Self {
        Self(format!("unexpected error: {errno}"))
    }
}

/// Fails the case with a message unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err(crate::conformance::Failure(format!($($message)+)));
        }
    };
}
pub(crate) use ensure;

/// Fails the case unless the call fails with that kind of error.
pub(crate) fn refused<T: fmt::Debug>(result: Result<T, Error>, kind: &str) -> Result<Error, Failure> {
    match result {
        Ok(value) => Err(Failure(format!("expected {kind}, but it was done: {value:?}"))),
        Err(error) if error.kind() == kind => Ok(error),
        Err(error) => Err(Failure(format!("expected {kind}, got {}: {error}", error.kind()))),
    }
}

/// Where a case works: an implementation and a dataset of the case's own.
pub struct Bench<'a> {
    /// What is tried.
    pub zfs: &'a dyn Zfs,
    /// A mounted file system that only this case uses.
    pub root: DatasetName,
    /// A directory outside of ZFS that only this case uses.
    pub scratch: PathBuf,
    /// The limits of every call that does not try the limits themselves.
    pub limits: Limits,
}

impl fmt::Debug for Bench<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bench({})", self.root)
    }
}

impl Bench<'_> {
    fn name(&self, leaf: &str) -> Result<DatasetName, Failure> {
        Ok(self.root.child(leaf)?)
    }

    /// Creates a mounted file system below the root.
    fn filesystem(&self, leaf: &str) -> Result<DatasetName, Failure> {
        self.filesystem_with(leaf, Properties::new())
    }

    fn filesystem_with(&self, leaf: &str, properties: Properties) -> Result<DatasetName, Failure> {
        let name = self.name(leaf)?;
        self.zfs.create(&CreateRequest::filesystem(&name, properties), &self.limits)?;
        Ok(name)
    }

    fn get(&self, name: &DatasetName) -> Result<Dataset, Failure> {
        self.zfs.dataset(name, &self.limits)?.ok_or_else(|| Failure(format!("{name} does not exist")))
    }

    fn get_snapshot(&self, name: &SnapshotName) -> Result<Snapshot, Failure> {
        self.zfs.snapshot(name, &self.limits)?.ok_or_else(|| Failure(format!("{name} does not exist")))
    }

    fn snapshot(&self, dataset: &DatasetName, leaf: &str) -> Result<SnapshotName, Failure> {
        let name = dataset.snapshot(leaf)?;
        self.zfs.snapshot_set(std::slice::from_ref(&name), &Properties::new(), &self.limits)?;
        Ok(name)
    }

    /// The directory in which the files of a mounted dataset are.
    fn dir(&self, dataset: &DatasetName) -> Result<PathBuf, Failure> {
        let found = self.get(dataset)?;
        let path = found.mountpoint.as_ref().and_then(|mountpoint| mountpoint.path());
        path.map(PathBuf::from).ok_or_else(|| Failure(format!("{dataset} has no path")))
    }

    fn write(&self, dataset: &DatasetName, file: &str, text: &str) -> Result<(), Failure> {
        Ok(std::fs::write(self.dir(dataset)?.join(file), text)?)
    }

    /// Writes a file that no compression makes smaller.
    fn write_noise(&self, dataset: &DatasetName, file: &str, bytes: usize) -> Result<(), Failure> {
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        })
        .flatten()
        .take(bytes)
        .collect();
        Ok(std::fs::write(self.dir(dataset)?.join(file), noise)?)
    }

    fn read(&self, dataset: &DatasetName, file: &str) -> Result<String, Failure> {
        let path = self.dir(dataset)?.join(file);
        std::fs::read_to_string(&path).map_err(|error| Failure(format!("{}: {error}", path.display())))
    }

    /// Whether a file is there; the dataset must be mounted.
    fn has(&self, dataset: &DatasetName, file: &str) -> Result<bool, Failure> {
        Ok(self.dir(dataset)?.join(file).exists())
    }

    fn exists(&self, name: &DatasetName) -> Result<bool, Failure> {
        Ok(self.zfs.dataset(name, &self.limits)?.is_some())
    }

    fn snapshot_exists(&self, name: &SnapshotName) -> Result<bool, Failure> {
        Ok(self.zfs.snapshot(name, &self.limits)?.is_some())
    }

    /// An existing empty directory outside of ZFS.
    fn place(&self, leaf: &str) -> Result<PathBuf, Failure> {
        let path = self.scratch.join(leaf);
        std::fs::create_dir_all(&path)?;
        Ok(path)
    }
}

/// All cases.
pub fn cases() -> Vec<Case> {
    [
        datasets::CASES,
        names::CASES,
        snapshots::CASES,
        holds::CASES,
        mounts::CASES,
        streams::CASES,
        limits::CASES,
    ]
    .concat()
}

/// The cases in which a table is read where newer tools give JSON.
const READING: &[&str] = &[
    "absent_is_none_but_a_missing_pool_is_an_error",
    "a_listing_of_a_missing_root_is_not_found",
    "a_listing_is_in_the_order_of_creation",
    "a_listing_keeps_to_depth_and_kinds",
    "inherited_marks_are_told_from_own_ones",
    "odd_property_values_survive",
    "names_with_spaces_and_dashes_work",
    "holds_are_listed_and_counted",
    "versions_are_told",
    "the_pool_is_listed_and_well",
    "a_missing_pool_is_told",
];

/// The cases that a backend, by its name, does not share with the `zfs` command that gives JSON: libzfs_core takes
/// snapshots, holds them and syncs pools itself, and `tables` reads otherwise.
pub fn cases_of_its_own(backend: &str) -> Vec<Case> {
    match backend {
        "lzc" => [snapshots::CASES, holds::CASES, limits::CASES].concat(),
        "tables" => cases().into_iter().filter(|case| READING.contains(&case.name)).collect(),
        _ => cases(),
    }
}

/// Runs one case in a dataset of its own below `root` and cleans up after it.
pub fn run(case: &Case, zfs: &dyn Zfs, root: &DatasetName) -> Result<(), Failure> {
    let limits = Limits::within(CASE_LIMIT);
    let own = root.child(case.name)?;
    let scratch =
        std::env::temp_dir().join(format!("cryopod-conformance-{}-{}", std::process::id(), case.name));
    std::fs::create_dir_all(&scratch)?;
    zfs.create(&CreateRequest::filesystem(&own, Properties::new()), &limits)?;
    let bench = Bench { zfs, root: own.clone(), scratch: scratch.clone(), limits };
    let outcome = (case.run)(&bench);
    let cleaned = clean(zfs, &own, &scratch);
    match (outcome, cleaned) {
        (Err(failure), Err(also)) => Err(Failure(format!("{failure}; and cleaning up: {also}"))),
        (outcome, cleaned) => outcome.and(cleaned),
    }
}

fn clean(zfs: &dyn Zfs, own: &DatasetName, scratch: &std::path::Path) -> Result<(), Failure> {
    let limits = Limits::within(CASE_LIMIT);
    // A case that failed half-way may leave mounts in the scratch directory and holds on snapshots.
    for entry in std::fs::read_dir(scratch)? {
        zfs.unmount_at(&entry?.path(), true, &limits)?;
    }
    let snapshots = zfs.list(&crate::Filter::below(own, crate::Kinds::SNAPSHOTS), &limits)?;
    for snapshot in snapshots.into_iter().filter_map(crate::Entry::into_snapshot).filter(|s| s.userrefs > 0) {
        for hold in zfs.holds(&snapshot.name, &limits)? {
            zfs.release(&[hold.snapshot], &hold.tag, &limits)?;
        }
    }
    let mut result = zfs.destroy(own, true, &limits);
    // A file system whose last user has just gone may be busy for a moment longer.
    for _ in 0..20 {
        if !result.as_ref().is_err_and(Error::is_busy) {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
        result = zfs.destroy(own, true, &limits);
    }
    result?;
    Ok(std::fs::remove_dir_all(scratch)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Fake;

    #[test]
    fn the_fake_does_what_a_real_pool_does() {
        let fake = Fake::new(&["tank"]).unwrap();
        let root: DatasetName = "tank".parse().unwrap();
        let failures: Vec<String> = cases()
            .iter()
            .filter_map(|case| {
                run(case, &fake, &root).err().map(|failure| format!("{}: {failure}", case.name))
            })
            .collect();
        assert!(failures.is_empty(), "\n{}", failures.join("\n"));
    }

    #[test]
    fn case_names_are_unique_and_fit_into_dataset_names() {
        let names: std::collections::BTreeSet<_> = cases().iter().map(|case| case.name).collect();
        assert_eq!(names.len(), cases().len());
        assert!(names.iter().all(|name| name.len() < 100));
    }

    #[test]
    fn the_cases_that_read_are_all_there() {
        assert_eq!(cases_of_its_own("tables").len(), READING.len());
        assert_eq!(cases_of_its_own("cli").len(), cases().len());
    }
}
