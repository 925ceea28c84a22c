//! What of a restored pod was brought back already, so that nothing is brought back over what the pod did since.
//!
//! A restored pod brings a container back once: the first start that succeeds leaves a mark, and a later start of the
//! same container is a fresh one on a fresh root, unless the pod says `restore-policy: always`. A volume is filled once
//! for all containers of the pod: from then on it is theirs. Both outlive the shim, since after a reboot kubelet makes
//! a new sandbox for the same pod.
//!
//! ```text
//! /var/lib/cryopod/restored/<pod uid>/<container name>   the checkpoint id, as text
//! /var/lib/cryopod/restored/<pod uid>/.<name>.new        the same, while the container is being started
//! /var/lib/cryopod/restored/<pod uid>/.volumes           JSON: path on the host → containers placed with it
//! ```
//! No container has a name with a dot in front, and one path holds at most some hundred names.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::bootstrap::is_safe_id;
use crate::bundle::{self, Brief, BundleError, MAX_STATE_BYTES};

/// Where restored containers are remembered.
const MARKS: &str = "/var/lib/cryopod/restored";
const VOLUMES: &str = ".volumes";

/// A directory for each pod that kubelet knows, by its uid, from before the pod's first container until it is gone.
const PODS: &str = "/var/lib/kubelet/pods";

/// Older marks are removed when one is written, if the pod is known to be gone: a pod may live for years, and without
/// its marks the next restart of a container would take it back to the checkpoint.
const AGE: Duration = Duration::from_secs(90 * 24 * 3600);

/// Who was placed with a volume since it was filled.
type Volumes = BTreeMap<PathBuf, BTreeSet<String>>;

/// The marks of this node, as the shim of one pod sees them.
#[derive(Debug)]
pub struct Marks {
    root: PathBuf,
    pods: PathBuf,
    // Of this pod; `None` until they were read. Held while a container is placed: two that are placed at once would
    // both fill the volume that they share.
    volumes: Mutex<Option<Volumes>>,
}

impl Default for Marks {
    fn default() -> Self {
        Self::at(MARKS, PODS)
    }
}

impl Marks {
    /// Marks below a directory, and where kubelet has its pods.
    pub fn at(root: impl Into<PathBuf>, pods: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), pods: pods.into(), volumes: Mutex::new(None) }
    }

    fn pod(&self, brief: &Brief, id: &str) -> Option<PathBuf> {
        let uid = brief.pod(id).uid;
        is_safe_id(&uid).then(|| self.root.join(uid))
    }

    fn mark(&self, brief: &Brief, id: &str) -> Option<PathBuf> {
        let name = brief.name(id);
        self.pod(brief, id).filter(|_| is_safe_id(name)).map(|pod| pod.join(name))
    }

    /// Whether this container of this pod was brought back and started.
    pub fn is_started(&self, brief: &Brief, id: &str) -> bool {
        self.mark(brief, id).is_some_and(|path| path.exists())
    }

    /// Makes ready to remember that this container of this pod was started from a checkpoint, before it is: a start that
    /// could not be remembered would be repeated over what the container does afterwards. None outside of pods.
    ///
    /// # Errors
    /// When it could not be remembered.
    pub fn announce(&self, brief: &Brief, id: &str, from: &str) -> Result<Option<Announced>, BundleError> {
        let Some(path) = self.mark(brief, id) else { return Ok(None) };
        let fresh = path.with_file_name(format!(".{}.new", brief.name(id)));
        write_durably(&fresh, from).map_err(|source| BundleError::Write { path: fresh.clone(), source })?;
        self.forget_old(AGE);
        Ok(Some(Announced { fresh, path }))
    }

    fn forget_old(&self, than: Duration) {
        for old in fs::read_dir(&self.root).into_iter().flatten().flatten() {
            let age =
                old.metadata().and_then(|meta| meta.modified()).ok().and_then(|time| time.elapsed().ok());
            // Where kubelet has its pods elsewhere, or there is no kubelet, nothing tells that a pod is gone.
            let gone = || self.pods.is_dir() && !self.pods.join(old.file_name()).exists();
            if age.is_some_and(|age| age > than) && gone() {
                fs::remove_dir_all(old.path()).ok();
            }
        }
    }

    /// Begins to place a container of the pod; another one waits until this is over. Blocks.
    ///
    /// # Errors
    /// When what is remembered of the pod's volumes cannot be read.
    pub fn placing(&self, brief: &Brief, id: &str) -> Result<Placing<'_>, BundleError> {
        // Replaced as a whole, so a panic leaves the old value.
        let mut volumes = self.volumes.lock().unwrap_or_else(PoisonError::into_inner);
        let file = self.pod(brief, id).map(|pod| pod.join(VOLUMES));
        if volumes.is_none() {
            *volumes = Some(file.as_deref().map_or(Ok(Volumes::new()), read)?);
        }
        Ok(Placing { volumes, file, name: brief.name(id).to_owned() })
    }
}

/// A start that is about to be remembered; dropped, it is not.
#[derive(Debug)]
pub struct Announced {
    fresh: PathBuf,
    path: PathBuf,
}

impl Announced {
    /// The container runs. All that can take space or be refused was done before.
    pub fn remember(self) {
        let renamed = fs::rename(&self.fresh, &self.path).and_then(|()| sync_parents(&self.path));
        if let Err(error) = renamed {
            let path = self.path.display();
            tracing::error!(%path, %error, "a restart of this container may restore it again");
        }
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        // Gone where it was remembered.
        fs::remove_file(&self.fresh).ok();
    }
}

/// A container that is being placed.
#[derive(Debug)]
pub struct Placing<'a> {
    volumes: MutexGuard<'a, Option<Volumes>>,
    file: Option<PathBuf>,
    name: String,
}

impl Placing<'_> {
    /// Those of the container's volumes that are to stay as they are: another container was placed with them, or
    /// one that lives has them mounted (`in_use`). A container that could not be started gets its own filled again:
    /// CRIU may have worked on them.
    pub fn kept(&self, mine: &[PathBuf], in_use: &BTreeSet<PathBuf>) -> Vec<PathBuf> {
        let others = |users: &BTreeSet<String>| users.iter().any(|user| *user != self.name);
        let filled = |volume: &PathBuf| self.volumes.as_ref()?.get(volume);
        let stays =
            |volume: &&PathBuf| filled(volume).is_some_and(|users| others(users) || in_use.contains(*volume));
        mine.iter().filter(stays).cloned().collect()
    }

    /// Whether the volume was filled for a container of this pod.
    pub fn was_filled(&self, volume: &Path) -> bool {
        self.volumes.as_ref().is_some_and(|volumes| volumes.contains_key(volume))
    }

    /// Remembers that the container was placed: with volumes that it found, and with those that were filled for it.
    ///
    /// # Errors
    /// When that cannot be written; the next container would fill them again under this one.
    pub fn placed(mut self, mine: &[PathBuf], filled: &[PathBuf]) -> Result<(), BundleError> {
        let mut volumes = self.volumes.clone().unwrap_or_default();
        for volume in filled {
            volumes.entry(volume.clone()).or_default();
        }
        for volume in mine {
            if let Some(users) = volumes.get_mut(volume) {
                users.insert(self.name.clone());
            }
        }
        if let Some(file) = &self.file
            && self.volumes.as_ref() != Some(&volumes)
        {
            write(file, &volumes)?;
        }
        *self.volumes = Some(volumes);
        Ok(())
    }
}

/// A power cut after the start must not take the mark back.
fn write_durably(path: &Path, text: &str) -> io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)?;
    let mut file = fs::File::create(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    sync_parents(path)
}

/// The names: its own, and that of its directory.
fn sync_parents(path: &Path) -> io::Result<()> {
    path.ancestors().skip(1).take(2).try_for_each(|dir| fs::File::open(dir)?.sync_all())
}

fn write(file: &Path, volumes: &Volumes) -> Result<(), BundleError> {
    let made = file.parent().map_or(Ok(()), fs::create_dir_all);
    made.map_err(|source| BundleError::Write { path: file.to_owned(), source })?;
    bundle::write_atomically(file, volumes)
}

fn read(file: &Path) -> Result<Volumes, BundleError> {
    match bundle::read_bounded(file, MAX_STATE_BYTES) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map_err(|source| BundleError::Parse { path: file.to_owned(), source }),
        Err(BundleError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Ok(Volumes::new())
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(name: &str) -> Brief {
        let dir = tempfile::tempdir().unwrap();
        let config = serde_json::json!({"annotations": {
            "io.kubernetes.cri.container-type": "container",
            "io.kubernetes.cri.container-name": name,
            "io.kubernetes.cri.sandbox-uid": "uid-1",
        }});
        fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
        Brief::read(dir.path()).unwrap()
    }

    /// Places `name`, whose only volume is /v; whether the volume stayed as it was.
    fn place(marks: &Marks, name: &str, in_use: &[&str]) -> bool {
        let mine = [PathBuf::from("/v")];
        let in_use = in_use.iter().map(PathBuf::from).collect();
        let placing = marks.placing(&container(name), "id").unwrap();
        let kept = placing.kept(&mine, &in_use);
        let filled = if kept.is_empty() { mine.to_vec() } else { Vec::new() };
        placing.placed(&mine, &filled).unwrap();
        !kept.is_empty()
    }

    #[test]
    fn a_container_that_was_started_is_remembered_by_pod_and_name() {
        let dir = tempfile::tempdir().unwrap();
        let marks = Marks::at(dir.path().join("restored"), "/nonexistent");
        assert!(!marks.is_started(&container("app"), "id-1"));
        marks.announce(&container("app"), "id-1", "web-1").unwrap().unwrap().remember();
        assert!(marks.is_started(&container("app"), "id-2"), "kubelet's next attempt has another id");
        assert!(!marks.is_started(&container("other"), "id-3"));
    }

    #[test]
    fn a_start_that_failed_is_not_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let marks = Marks::at(dir.path(), "/nonexistent");
        let announced = marks.announce(&container("app"), "id-1", "web-1").unwrap();
        assert!(!marks.is_started(&container("app"), "id-1"));
        drop(announced);
        assert!(!marks.is_started(&container("app"), "id-1"));
        assert_eq!(fs::read_dir(dir.path().join("uid-1")).unwrap().count(), 0);
    }

    #[test]
    fn a_volume_is_filled_once_for_all_containers_of_the_pod_whatever_becomes_of_the_shim() {
        let dir = tempfile::tempdir().unwrap();
        let marks = Marks::at(dir.path(), "/nonexistent");
        assert!(!place(&marks, "b", &[]), "the first one fills it");
        assert!(place(&marks, "a", &[]), "b may have written to it");
        assert!(place(&marks, "b", &[]), "and now a may have");
        assert!(place(&Marks::at(dir.path(), "/nonexistent"), "a", &[]), "another shim knows it too");
    }

    #[test]
    fn a_container_that_did_not_start_gets_its_volume_again_unless_somebody_uses_it() {
        let dir = tempfile::tempdir().unwrap();
        let marks = Marks::at(dir.path(), "/nonexistent");
        assert!(!place(&marks, "a", &["/v"]), "what an init container left is not what memory knows");
        assert!(!place(&marks, "a", &["/other"]));
        assert!(place(&marks, "a", &["/v"]));
    }

    #[test]
    fn a_pod_without_uid_is_remembered_by_its_shim_alone() {
        let dir = tempfile::tempdir().unwrap();
        let marks = Marks::at(dir.path().join("restored"), "/nonexistent");
        let mine = [PathBuf::from("/v")];
        marks.placing(&Brief::default(), "c1").unwrap().placed(&mine, &mine).unwrap();
        let kept = marks.placing(&Brief::default(), "c2").unwrap().kept(&mine, &BTreeSet::new());
        assert_eq!(kept, mine);
        assert!(!dir.path().join("restored").exists());
    }

    #[test]
    fn old_marks_go_when_kubelet_no_longer_knows_the_pod() {
        let (dir, kubelet) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let marks = Marks::at(dir.path(), kubelet.path().join("pods"));
        marks.announce(&container("a"), "id", "web-1").unwrap().unwrap().remember();
        marks.forget_old(Duration::ZERO);
        assert!(marks.is_started(&container("a"), "id"), "nobody knows whether the pod is gone");
        fs::create_dir_all(kubelet.path().join("pods/uid-1")).unwrap();
        marks.forget_old(Duration::ZERO);
        assert!(marks.is_started(&container("a"), "id"), "the pod lives, however long");
        fs::remove_dir(kubelet.path().join("pods/uid-1")).unwrap();
        marks.forget_old(Duration::ZERO);
        assert!(!marks.is_started(&container("a"), "id"));
    }

    #[test]
    fn a_broken_note_of_volumes_is_an_error_that_names_it() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("uid-1")).unwrap();
        fs::write(dir.path().join("uid-1/.volumes"), "{").unwrap();
        let error =
            Marks::at(dir.path(), "/nonexistent").placing(&container("a"), "id").unwrap_err().to_string();
        assert!(error.contains("uid-1/.volumes"), "{error}");
    }
}
