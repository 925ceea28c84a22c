//! A layer of the cache: made once, whole or not there.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::Error;
use super::error::at;
use crate::cache::Cache;
use crate::lock::Lock;
use crate::process;
use crate::progress::{Step, say};

/// How many layers of a kind stay in the cache: this checkout's and another's.
const KEPT: usize = 2;
const RECENT: Duration = Duration::from_secs(60 * 60);

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
        used(&dir);
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

/// Notes that a layer was used, for [`forget`].
fn used(dir: &Path) {
    // Without the note it only is forgotten, and built again, earlier.
    fs::File::open(dir).and_then(|dir| dir.set_modified(SystemTime::now())).ok();
}

/// Removes layers of `kind` whose name begins with `prefix`: all but the two that were used last, those that were used
/// within the last hour (somebody else's build may be about to need one) and those in `needed`.
pub(super) fn forget(cache: &Cache, kind: &str, prefix: &str, needed: &[String]) -> Result<(), Error> {
    let parent = cache.root().join(kind);
    let mut layers: Vec<(SystemTime, String)> = fs::read_dir(&parent)
        .map_err(at(&parent))?
        .flatten()
        .filter(|entry| entry.path().is_dir())
        .filter_map(|entry| {
            let used = entry.metadata().and_then(|meta| meta.modified()).ok()?;
            Some((used, entry.file_name().to_string_lossy().into_owned()))
        })
        .filter(|(_, name)| name.strip_prefix(prefix).is_some_and(is_key))
        .collect();
    layers.sort();
    layers.reverse();
    for (used, name) in layers.into_iter().skip(KEPT) {
        if needed.contains(&name) || used.elapsed().is_ok_and(|age| age < RECENT) {
            continue;
        }
        say(&format!("removing {kind}/{name} from the cache: not used lately"));
        remove(&parent.join(&name))?;
        fs::remove_file(parent.join(format!(".{name}.lock"))).ok();
    }
    Ok(())
}

/// Whether the rest of a name is a recipe's key, so that `containerd-` does not mean `containerd-2.2-` too.
fn is_key(text: &str) -> bool {
    text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_that_nobody_used_lately_are_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path());
        let name = |n: u64| format!("tool-{n:016x}");
        for n in 1..=5_u64 {
            let layer = dir.path().join("tools").join(name(n));
            fs::create_dir_all(&layer).unwrap();
            let age = Duration::from_secs(if n == 3 { 60 } else { 3600 * (10 + n) });
            fs::File::open(&layer).unwrap().set_modified(SystemTime::now() - age).unwrap();
        }
        fs::create_dir(dir.path().join("tools/tool-2.2-0000000000000001")).unwrap();
        forget(&cache, "tools", "tool-", &[name(5)]).unwrap();
        let left = |n| dir.path().join("tools").join(name(n)).exists();
        // 3 and 1 were used last, 5 is needed.
        assert_eq!([left(1), left(2), left(3), left(4), left(5)], [true, false, true, false, true]);
        assert!(dir.path().join("tools/tool-2.2-0000000000000001").exists());
    }
}
