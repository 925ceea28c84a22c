//! A layer of the cache: made once, whole or not there.

use std::fs;
use std::path::{Path, PathBuf};

use super::Error;
use super::error::at;
use crate::cache::Cache;
use crate::lock::Lock;
use crate::process;
use crate::progress::Step;

/// A finished layer.
#[derive(Debug, Clone)]
pub(super) struct Layer {
    pub(super) key: String,
    pub(super) dir: PathBuf,
}

/// The layer `kind/key`; `make` fills the empty folder that it is given if the layer is not in the cache.
pub(super) fn ensure(
    cache: &Cache,
    kind: &str,
    key: &str,
    make: impl FnOnce(&Path) -> Result<(), Error>,
) -> Result<Layer, Error> {
    let parent = cache.root().join(kind);
    let dir = parent.join(key);
    let layer = Layer { key: key.to_owned(), dir: dir.clone() };
    if dir.is_dir() {
        return Ok(layer);
    }
    let _lock = Lock::take(&parent.join(format!(".{key}.lock")), &format!("building {kind} {key}"))?;
    if dir.is_dir() {
        return Ok(layer);
    }
    let half = parent.join(format!(".{key}.half"));
    remove(&half)?;
    fs::create_dir_all(&half).map_err(at(&half))?;
    make(&half)?;
    fs::rename(&half, &dir).map_err(at(&dir))?;
    Ok(layer)
}

/// Removes a tree that may be half-made or not there. Refuses while something is mounted in it: a build that was
/// killed may have left the host's /dev there.
fn remove(tree: &Path) -> Result<(), Error> {
    super::modules::unmount_all(tree)?;
    match fs::remove_dir_all(tree) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(at(tree)(error)),
        _ => Ok(()),
    }
}

/// Copies a tree with owners, modes and links; shares blocks where the file system can.
pub(super) fn copy_tree(from: &Path, to: &Path, step: &Step, log: &Path) -> Result<(), Error> {
    let mut command = std::process::Command::new("cp");
    command.args(["-a", "--reflink=auto", "-T"]).arg(from).arg(to);
    Ok(process::logged(command, step, "copying the tree", log)?)
}
