//! The standalone containers of this node: one directory each below `<root>/containers`.
//!
//! A name is taken by making its directory, so two `create` of one name cannot both succeed. Changes of a state are
//! made under a lock on the container alone; no verb ever holds two.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use super::leftovers;
use super::state::State;
use crate::error::Error;

/// Longest container id (runc and containerd accept about as much).
const MAX_ID: usize = 128;

/// All standalone containers.
#[derive(Debug, Clone)]
pub(crate) struct Registry {
    dir: PathBuf,
}

/// The directory of one container.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    id: String,
    dir: PathBuf,
}

impl Registry {
    /// The containers below that run-time directory.
    pub(crate) fn below(root: &Path) -> Self {
        Self { dir: root.join("containers") }
    }

    /// Takes a name. The directory it makes is empty.
    pub(crate) fn claim(&self, id: &str) -> Result<Entry, Error> {
        check_id(id)?;
        let failed = |path: &Path, source| Error::Write { what: "directory", path: path.into(), source };
        private().recursive(true).create(&self.dir).map_err(|source| failed(&self.dir, source))?;
        let dir = self.dir.join(id);
        match private().create(&dir) {
            Ok(()) => Ok(Entry { id: id.to_owned(), dir }),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(Error::ContainerExists { id: id.to_owned() })
            }
            Err(source) => Err(failed(&dir, source)),
        }
    }

    /// A container that exists.
    pub(crate) fn open(&self, id: &str) -> Result<Entry, Error> {
        self.find(id)?.ok_or_else(|| Error::NoContainer { id: id.to_owned() })
    }

    /// A container, if it exists.
    pub(crate) fn find(&self, id: &str) -> Result<Option<Entry>, Error> {
        check_id(id)?;
        let dir = self.dir.join(id);
        match std::fs::symlink_metadata(&dir) {
            Ok(_) => Ok(Some(Entry { id: id.to_owned(), dir })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::Read { what: "directory", path: dir, source }),
        }
    }

    /// All of them, by name.
    pub(crate) fn all(&self) -> Result<Vec<Entry>, Error> {
        let failed = |source| Error::Read { what: "directory", path: self.dir.clone(), source };
        let listing = match std::fs::read_dir(&self.dir) {
            Ok(listing) => listing,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut entries = Vec::new();
        for found in listing {
            let found = found.map_err(failed)?;
            if let Ok(id) = found.file_name().into_string()
                && check_id(&id).is_ok()
            {
                entries.push(Entry { dir: found.path(), id });
            }
        }
        entries.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(entries)
    }
}

impl Entry {
    /// Its name.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Its directory.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its state; one without is just being created or deleted.
    pub(crate) fn state(&self) -> Result<State, Error> {
        State::load(&self.dir)?.ok_or_else(|| Error::NoContainer { id: self.id.clone() })
    }

    /// Writes the first state.
    pub(crate) fn begin(&self, state: &State) -> Result<(), Error> {
        let _lock = self.lock()?;
        state.save(&self.dir)
    }

    /// Changes the state under the lock and returns the new one.
    pub(crate) fn update(&self, change: impl FnOnce(&mut State)) -> Result<State, Error> {
        let _lock = self.lock()?;
        let mut state = self.state()?;
        change(&mut state);
        state.save(&self.dir)?;
        Ok(state)
    }

    /// Removes the directory and everything in it; absent is success.
    pub(crate) fn remove(&self) -> Result<(), Error> {
        let failed = |source| Error::Write { what: "directory", path: self.dir.clone(), source };
        // Under another name first, which is nobody's: its monitor may be writing down the exit at this moment, and a new
        // file in a directory that is being emptied keeps it.
        let gone = self.dir.with_file_name(leftovers::name(leftovers::GONE, &self.id));
        match std::fs::rename(&self.dir, &gone) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            renamed => renamed.map_err(failed)?,
        }
        std::fs::remove_dir_all(&gone).map_err(|source| {
            // It is still there for `list`, and for another try.
            std::fs::rename(&gone, &self.dir).ok();
            failed(source)
        })
    }

    fn lock(&self) -> Result<Flock<File>, Error> {
        let path = self.dir.join("lock");
        let failed = |source| Error::Write { what: "lock", path: path.clone(), source };
        let file = File::create(&path).map_err(|source| match source.kind() {
            // Deleted meanwhile: say so, and not that a file is missing.
            io::ErrorKind::NotFound => Error::NoContainer { id: self.id.clone() },
            _ => failed(source),
        })?;
        Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| failed(errno.into()))
    }
}

fn private() -> DirBuilder {
    let mut builder = DirBuilder::new();
    builder.mode(0o700);
    builder
}

/// An id becomes a directory and a cgroup: no slash, no `..`, nothing hidden.
fn check_id(id: &str) -> Result<(), Error> {
    let fine = |c: char| c.is_ascii_alphanumeric() || "_+-.".contains(c);
    let begins = id.starts_with(|c: char| c.is_ascii_alphanumeric());
    if begins && id.len() <= MAX_ID && id.chars().all(fine) {
        Ok(())
    } else {
        let shown = id.chars().take(MAX_ID).flat_map(char::escape_debug).collect();
        Err(Error::BadContainerId { id: shown })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_taken_once() {
        let root = tempfile::tempdir().unwrap();
        let registry = Registry::below(root.path());
        let first = registry.claim("web").unwrap();
        assert!(matches!(registry.claim("web"), Err(Error::ContainerExists { .. })));
        first.remove().unwrap();
        first.remove().unwrap();
        registry.claim("web").unwrap();
    }

    #[test]
    fn a_name_is_never_a_path() {
        for bad in ["", ".", "..", "../x", "a/b", ".hidden", "-x", "a\nb", "a b", &"x".repeat(129)] {
            assert!(check_id(bad).is_err(), "{bad:?} was accepted");
        }
        for good in ["web", "a.b_c+d-e", "0", &"x".repeat(128)] {
            assert!(check_id(good).is_ok(), "{good:?} was refused");
        }
    }

    #[test]
    fn changes_made_one_after_the_other_add_up() {
        let root = tempfile::tempdir().unwrap();
        let entry = Registry::below(root.path()).claim("web").unwrap();
        entry.begin(&State::new("web", "/b".into(), "/b/r".into(), "crun".into(), false)).unwrap();
        entry.update(|state| state.started = true).unwrap();
        let state = entry.update(|state| state.restored_from = Some("ck".into())).unwrap();
        assert!(state.started && state.restored_from.is_some());
        assert_eq!(entry.state().unwrap(), state);
    }

    #[test]
    fn no_directory_means_no_containers() {
        let root = tempfile::tempdir().unwrap();
        assert!(Registry::below(root.path()).all().unwrap().is_empty());
        assert!(matches!(Registry::below(root.path()).open("web"), Err(Error::NoContainer { .. })));
    }

    #[test]
    fn a_container_goes_although_its_monitor_is_still_writing() {
        let root = tempfile::tempdir().unwrap();
        let registry = Registry::below(root.path());
        for round in 0..20 {
            let entry = registry.claim("web").unwrap();
            let dir = entry.dir().to_owned();
            let done = std::sync::atomic::AtomicBool::new(false);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    for nth in 0.. {
                        if done.load(std::sync::atomic::Ordering::Relaxed) {
                            break;
                        }
                        std::fs::write(dir.join(format!("{nth}")), "").ok();
                    }
                });
                std::thread::sleep(std::time::Duration::from_millis(2));
                let removed = entry.remove();
                done.store(true, std::sync::atomic::Ordering::Relaxed);
                removed.unwrap_or_else(|error| panic!("round {round}: {error}"));
            });
            assert!(registry.find("web").unwrap().is_none());
        }
        assert_eq!(std::fs::read_dir(root.path().join("containers")).unwrap().count(), 0);
    }
}
