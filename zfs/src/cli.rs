//! The real thing: the `zfs` and `zpool` commands, and libzfs_core where it is there.
//!
//! One child process per call, killed with its group at the limits. With the library, snapshot sets, holds and
//! pool syncs are single ioctls instead: atomic, and without the start of a process in the freeze window.
//! docs/adr/0001-zfs-access.md says why it is done this way.

mod busy;
mod looking;
#[cfg(test)]
mod tests;
mod transfer;
mod zfs;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cryopod_command::{Command, Error as CommandError, Output, Stderr, Stdout};

use crate::error::Op;
use crate::library::Library;
use crate::{DatasetName, Error, Limits, PoolName, Version, classify::classify, parse};

/// A listing of 50,000 snapshots with their properties has about 60 MiB as JSON.
const MOST_OUTPUT: usize = 512 << 20;
/// `zfs destroy` names everything that depends on a dataset, and the reason stands before it.
const MOST_STDERR: usize = 1 << 20;
/// Where the tools are on systems whose PATH for services lacks them.
const USUAL_PLACES: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/local/sbin", "/usr/bin"];

/// ZFS by its commands, with libzfs_core where it could be loaded.
#[derive(Debug, Clone)]
pub struct Cli {
    zfs: PathBuf,
    zpool: PathBuf,
    version: Version,
    library: Option<Arc<Library>>,
}

/// The two tools.
#[derive(Debug, Clone, Copy)]
enum Tool {
    Zfs,
    Zpool,
}

impl Cli {
    /// With the tools at these paths; asks for the version.
    pub(crate) fn new(zfs: PathBuf, zpool: PathBuf, limits: &Limits) -> Result<Self, Error> {
        let op = Op::new("ask the version of", zfs.display());
        let output = run(&op, Command::new(&zfs).arg("version"), limits)?;
        let text = String::from_utf8_lossy(&output.stdout);
        let version = parse::version(&text).map_err(|error| unparsable(&op, &error))?;
        Ok(Self { zfs, zpool, version, library: None })
    }

    /// What the tool said of itself when it was found.
    pub(crate) fn tool_version(&self) -> &Version {
        &self.version
    }

    /// The same, reading tables where it would read JSON: as with tools before 2.3, for tests of that way.
    #[must_use]
    pub fn reading_tables(mut self) -> Self {
        self.version.number = self.version.number.min((2, 2));
        self
    }

    /// The same with the library for what it does better.
    pub(crate) fn with_library(self, library: Library) -> Self {
        Self { library: Some(Arc::new(library)), ..self }
    }

    fn command(&self, tool: Tool) -> Command {
        let program = match tool {
            Tool::Zfs => &self.zfs,
            Tool::Zpool => &self.zpool,
        };
        Command::new(program)
            .stdout(Stdout::Capture { limit: MOST_OUTPUT })
            .stderr(Stderr::Tail { limit: MOST_STDERR })
    }

    /// Runs `zfs ARGS`; an error is classified, and "absent" is told from "the pool is not there".
    fn zfs<A: Into<OsString>>(
        &self,
        op: &Op,
        args: impl IntoIterator<Item = A>,
        limits: &Limits,
    ) -> Result<Output, Error> {
        let args = args.into_iter().map(Into::into);
        run(op, self.command(Tool::Zfs).args(args), limits).map_err(|error| self.refine(error, limits))
    }

    /// Adds to an error what only further calls can tell.
    fn refine(&self, error: Error, limits: &Limits) -> Error {
        match error {
            Error::NotFound { op, name } => match self.pool_is_missing(&name, limits) {
                Ok(true) => Error::PoolMissing { op: Op { name, ..op } },
                Ok(false) => Error::NotFound { op, name },
                // Not knowing whether the pool is there is not knowing whether the dataset is absent.
                Err(error) => error,
            },
            other => other,
        }
    }

    fn pool_is_missing(&self, name: &str, limits: &Limits) -> Result<bool, Error> {
        let op = Op::new("look for the pool of", name);
        let list = self.command(Tool::Zpool).args(["list", "-H", "-o", "name"]);
        let output = run(&op, list, limits)?;
        let text = String::from_utf8_lossy(&output.stdout);
        Ok(!text.lines().any(|pool| pool == op.pool()))
    }

    /// Fails when the pool of `name` is not imported.
    fn need_pool(&self, op: &Op, pool: &PoolName, limits: &Limits) -> Result<(), Error> {
        if self.pool_is_missing(pool.as_str(), limits)? {
            return Err(Error::PoolMissing { op: Op::new(op.verb, pool) });
        }
        Ok(())
    }
}

/// Runs a tool; what it says on failure is classified.
fn run(op: &Op, command: Command, limits: &Limits) -> Result<Output, Error> {
    command.run(limits).map_err(|error| from_command(op, error))
}

fn from_command(op: &Op, error: CommandError) -> Error {
    match error {
        CommandError::Failed { status, stderr, .. } if stderr.trim().is_empty() => {
            Error::Unknown { op: op.clone(), said: format!("the tool ended with {status} and said nothing") }
        }
        CommandError::Failed { argv, stderr, .. } => classify(op, argv.words(), &stderr),
        CommandError::Deadline { after, lingering, .. } => {
            Error::Deadline { op: op.clone(), after, lingering }
        }
        CommandError::Cancelled { .. } => Error::Cancelled { op: op.clone() },
        other => Error::Tool { op: op.clone(), source: Box::new(other) },
    }
}

fn unparsable(op: &Op, error: &parse::ParseError) -> Error {
    Error::Unparsable { op: op.clone(), why: error.to_string() }
}

/// The tool of that name in PATH or in one of the usual places.
pub(crate) fn find_tool(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).collect::<Vec<_>>();
    let usual = USUAL_PLACES.iter().map(|place| Path::new(place).to_owned());
    places.into_iter().chain(usual).map(|place| place.join(name)).find(|path| path.is_file())
}

fn text<T: ToString + ?Sized>(name: &T) -> OsString {
    OsString::from(name.to_string())
}

/// `-o key=value` for every property.
fn set_options(properties: &crate::Properties) -> Vec<OsString> {
    properties.iter().flat_map(|(key, value)| [text("-o"), text(&format!("{key}={value}"))]).collect()
}

fn joined<T: AsRef<str>>(names: impl IntoIterator<Item = T>) -> String {
    let names: Vec<T> = names.into_iter().collect();
    names.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(" ")
}

impl AsRef<str> for DatasetName {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl AsRef<str> for crate::SnapshotName {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}
