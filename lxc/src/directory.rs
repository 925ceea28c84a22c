//! A container's directory while the container is made, and what is left of one whose maker died in between.
//!
//! ```text
//! <lxcpath>/<name>/   0700
//!     making.json    who makes it, and its cgroup; gone when it is made
//!     config         for the LXC tools
//!     start, result  fifos, until it is started
//!     state.json     what is known of it (see state)
//! ```

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde::{Deserialize, Serialize};

use crate::config::{self, Place};
use crate::hooks::Hooks;
use crate::making::{Error, HIERARCHY, Request, end, host};
use crate::resources::{self, Setting};
use crate::state::{self, Container, Record, began, boot};

const CONFIG: &str = "config";
const MAKING: &str = "making.json";

/// Who makes it.
#[derive(Debug, Serialize, Deserialize)]
struct Maker {
    pid: u32,
    began: u64,
    boot: String,
    /// Below the root of the hierarchy.
    cgroup: PathBuf,
}

impl Maker {
    fn lives(&self) -> bool {
        boot().is_ok_and(|now| now == self.boot) && began(self.pid) == Some(self.began)
    }
}

/// Removes what a maker that died has left, or a container of before the last boot, of which nothing but its directory can
/// be there. Answers whether the name is free.
///
/// # Errors
/// When the directory cannot be removed.
pub fn clear(path: &Path, id: &str) -> Result<bool, Error> {
    let dir = path.join(id);
    if !dir.exists() {
        return Ok(true);
    }
    let maker = fs::read(dir.join(MAKING)).ok().and_then(|text| serde_json::from_slice::<Maker>(&text).ok());
    let stale = match Container::find(path, id) {
        Ok(container) => boot().is_ok_and(|now| now != container.record.boot),
        Err(state::Error::Missing(_)) => maker.as_ref().is_some_and(|maker| !maker.lives()),
        Err(_) => false,
    };
    if !stale {
        return Ok(false);
    }
    if let Some(maker) = maker {
        end(&maker.cgroup);
    }
    host("remove", dir.display(), fs::remove_dir_all(&dir))?;
    Ok(true)
}

/// Does it for all names below `path`, also for what a maker left before the name was given; answers whose was removed.
///
/// # Errors
/// When `path` cannot be read, or something there not be removed.
pub fn clear_all(path: &Path) -> Result<Vec<String>, Error> {
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        result => host("read", path.display(), result)?,
    };
    let mut cleared = Vec::new();
    for name in entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
        // Containers of others have neither file of ours.
        let ours = [MAKING, state::FILE].iter().any(|file| path.join(&name).join(file).exists());
        if ours && clear(path, &name)? {
            cleared.push(name);
        }
    }
    cleared.sort();
    Ok(cleared)
}

/// The container's directory; removed unless it is kept.
pub(crate) struct Directory {
    pub(crate) path: PathBuf,
    kept: bool,
}

impl Directory {
    pub(crate) fn make(request: &Request<'_>) -> Result<Self, Error> {
        let path = request.path.join(request.id);
        // Under another name until it says who makes it: one that does not say would be nobody's for ever.
        let draft = request.path.join(format!(".{}.{}", request.id, std::process::id()));
        fs::remove_dir_all(&draft).ok();
        host("make", draft.display(), fs::DirBuilder::new().mode(0o700).create(&draft))?;
        let made = Self { path: draft, kept: false };
        let own = std::process::id();
        let maker = Maker {
            pid: own,
            began: began(own).unwrap_or_default(),
            boot: host("read", "the id of this boot", boot())?,
            cgroup: request.cgroup.to_owned(),
        };
        let text = host("write", MAKING, serde_json::to_vec(&maker).map_err(io::Error::from))?;
        host("write", made.path.join(MAKING).display(), fs::write(made.path.join(MAKING), text))?;
        made.named(path, request)
    }

    fn named(mut self, path: PathBuf, request: &Request<'_>) -> Result<Self, Error> {
        let flags = rustix::fs::RenameFlags::NOREPLACE;
        let rename = || rustix::fs::renameat_with(CWD, &self.path, CWD, &path, flags);
        let renamed = match rename() {
            Err(rustix::io::Errno::EXIST) if clear(request.path, request.id)? => rename(),
            result => result,
        };
        match renamed {
            Err(rustix::io::Errno::EXIST) => Err(Error::Exists(request.id.to_owned())),
            result => {
                host("make", path.display(), result.map_err(io::Error::from))?;
                self.path = path;
                Ok(self)
            }
        }
    }

    /// It is made.
    pub(crate) fn keep(&mut self) -> Result<(), Error> {
        let making = self.path.join(MAKING);
        host("remove", making.display(), fs::remove_file(&making))?;
        self.kept = true;
        Ok(())
    }

    /// Writes the configuration; answers the limits.
    pub(crate) fn configure(&self, request: &Request<'_>) -> Result<Vec<Setting>, Error> {
        let root = request.root()?;
        let place = Place { root: &root, cgroup: request.cgroup };
        let limits = request.spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
        let settings = limits.map(resources::settings).transpose()?.unwrap_or_default();
        let text = config::text(request.spec, &place, &settings)?;
        let path = self.path.join(CONFIG);
        host("write", path.display(), fs::write(&path, text))?;
        Ok(settings)
    }

    /// Writes what is known of the container.
    pub(crate) fn record(&self, request: &Request<'_>, pid: u32) -> Result<Container, Error> {
        let began = began(pid).ok_or_else(|| Error::Ended { how: "it is gone".to_owned() })?;
        let record = Record {
            id: request.id.to_owned(),
            pid,
            began,
            boot: host("read", "the id of this boot", boot())?,
            bundle: request.bundle.to_owned(),
            cgroup: Path::new(HIERARCHY).join(request.cgroup),
            oci_version: request.spec.version().clone(),
            annotations: request
                .spec
                .annotations()
                .iter()
                .flatten()
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect(),
            clone_flags: config::clone_flags(request.spec),
            hooks: Hooks::of(request),
        };
        let container = Container { dir: self.path.clone(), record };
        container.write()?;
        Ok(container)
    }

    /// A fifo that is open for both ways, so that it never ends.
    pub(crate) fn fifo(&self, name: &str) -> Result<File, Error> {
        let path = self.path.join(name);
        let made = mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).map_err(io::Error::from);
        host("make", path.display(), made)?;
        host("open", path.display(), File::options().read(true).write(true).open(&path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if !self.kept {
            fs::remove_dir_all(&self.path).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory that says that this maker makes it.
    fn half_made(path: &Path, name: &str, maker: &Maker) {
        let dir = path.join(name);
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join(MAKING), serde_json::to_vec(maker).unwrap()).unwrap();
    }

    fn maker(pid: u32, began: u64) -> Maker {
        Maker { pid, began, boot: boot().unwrap(), cgroup: "cryopod/no-such-container".into() }
    }

    #[test]
    fn what_a_dead_maker_left_is_removed_and_what_a_living_one_makes_is_not() {
        let root = tempfile::tempdir().unwrap();
        let own = std::process::id();
        half_made(root.path(), "living", &maker(own, began(own).unwrap()));
        half_made(root.path(), "dead", &maker(own, began(own).unwrap() + 1));
        half_made(
            root.path(),
            ".draft.77",
            &Maker { boot: "an earlier one".into(), ..maker(own, began(own).unwrap()) },
        );
        fs::create_dir(root.path().join("somebodys")).unwrap();
        assert!(!clear(root.path(), "living").unwrap() && !clear(root.path(), "somebodys").unwrap());
        assert!(clear(root.path(), "nobodys").unwrap());
        assert_eq!(clear_all(root.path()).unwrap(), [".draft.77", "dead"]);
        assert!(root.path().join("living").exists() && root.path().join("somebodys").exists());
        assert!(clear_all(&root.path().join("nothing")).unwrap().is_empty());
    }
}
