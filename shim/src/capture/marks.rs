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
//! /var/lib/cryopod/restored/<pod uid>/.volumes           JSON: path on the host → Filled
//! ```
//! No container has a name with a dot in front, and one path holds at most some hundred names.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cryopod_checkpoint::restore::LiveVolume;
use serde::{Deserialize, Serialize};

use super::stamp::{self, Stamp};
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

/// The volumes that were filled, by their path for the container that they were filled for.
type Volumes = BTreeMap<PathBuf, Filled>;

/// A volume that was filled.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Filled {
    /// Who was placed with it since.
    containers: BTreeSet<String>,
    /// What it looked like then, if others than the pod may use it.
    stamp: Option<Stamp>,
}

/// The entry of a volume: under its path, or under that which another container has for the same directory (a volume
/// that is mounted by `subPath` has one for each).
fn find<'a>(volumes: &'a Volumes, volume: &Path) -> Option<(&'a PathBuf, &'a Filled)> {
    volumes.get_key_value(volume).or_else(|| volumes.iter().find(|(known, _)| is_same(known, volume)))
}

fn is_same(one: &Path, other: &Path) -> bool {
    let id = |path: &Path| fs::metadata(path).map(|meta| (meta.dev(), meta.ino())).ok();
    one == other || id(one).is_some_and(|one| Some(one) == id(other))
}

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
    /// one that lives has them mounted (`in_use`), or they are what was filled for a container that could not be
    /// started. What is the pod's own is filled again for such a one: CRIU may have worked on it.
    pub fn kept(&self, mine: &[LiveVolume], in_use: &BTreeSet<PathBuf>) -> Vec<PathBuf> {
        let stays = |volume: &&LiveVolume| {
            let path = volume.source.as_path();
            let known = self.volumes.as_ref().and_then(|volumes| find(volumes, path));
            known.is_some_and(|(_, filled)| {
                let others = filled.containers.iter().any(|user| *user != self.name);
                let untouched = || filled.stamp.is_some() && filled.stamp == stamp::of(path).ok();
                others || in_use.iter().any(|used| is_same(used, path)) || !volume.replace && untouched()
            })
        };
        mine.iter().filter(stays).map(|volume| volume.source.clone()).collect()
    }

    /// Remembers volumes that were filled for the container, whatever becomes of it.
    ///
    /// # Errors
    /// When that cannot be written; the next container would fill them again, or be refused what is no longer empty.
    pub fn filled(&mut self, filled: &[LiveVolume]) -> Result<(), BundleError> {
        let mut volumes = self.volumes.clone().unwrap_or_default();
        for volume in filled {
            let stamp = (!volume.replace).then(|| stamp::of(&volume.source).ok()).flatten();
            volumes.insert(volume.source.clone(), Filled { stamp, ..Filled::default() });
        }
        self.note(volumes)
    }

    /// Remembers that the container was placed with these volumes, filled for it or not.
    ///
    /// # Errors
    /// When that cannot be written; the next container would fill them again under this one.
    pub fn placed(mut self, mine: &[LiveVolume]) -> Result<(), BundleError> {
        let mut volumes = self.volumes.clone().unwrap_or_default();
        for volume in mine {
            let known = find(&volumes, &volume.source).map(|(known, _)| known.clone());
            if let Some(filled) = known.and_then(|known| volumes.get_mut(&known)) {
                filled.containers.insert(self.name.clone());
            }
        }
        self.note(volumes)
    }

    fn note(&mut self, volumes: Volumes) -> Result<(), BundleError> {
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
    fn own(path: &str) -> LiveVolume {
        LiveVolume { destination: "/data".into(), source: path.into(), replace: true }
    }

    #[test]
    fn what_others_may_use_is_kept_for_a_second_try_only_as_it_was_filled() {
        let (dir, claim) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let marks = Marks::at(dir.path(), "/nonexistent");
        fs::write(claim.path().join("data"), "1").unwrap();
        let mine = [LiveVolume { replace: false, ..own(claim.path().to_str().unwrap()) }];
        let kept =
            |marks: &Marks| marks.placing(&container("a"), "id").unwrap().kept(&mine, &BTreeSet::new()).len();
        assert_eq!(kept(&marks), 0, "nobody filled it");
        marks.placing(&container("a"), "id").unwrap().filled(&mine).unwrap();
        assert_eq!((kept(&marks), kept(&Marks::at(dir.path(), "/nonexistent"))), (1, 1));
        std::thread::sleep(Duration::from_millis(20));
        fs::write(claim.path().join("data"), "2").unwrap();
        assert_eq!(
            kept(&marks),
            0,
            "somebody has written to it; whether it may be replaced is not for us to say"
        );
    }

    #[test]
    fn one_directory_under_two_paths_is_one_volume() {
        let dir = tempfile::tempdir().unwrap();
        let marks = Marks::at(dir.path().join("restored"), "/nonexistent");
        let (real, other) = (dir.path().join("volume"), dir.path().join("subpath"));
        fs::create_dir(&real).unwrap();
        // kubelet makes a bind mount; what counts is that both lead to the same inode.
        std::os::unix::fs::symlink(&real, &other).unwrap();
        let live = |path: &Path| [own(path.to_str().unwrap())];
        let mut first = marks.placing(&container("a"), "id").unwrap();
        first.filled(&live(&real)).unwrap();
        first.placed(&live(&real)).unwrap();
        let second = marks.placing(&container("b"), "id").unwrap();
        assert_eq!(second.kept(&live(&other), &BTreeSet::new()).len(), 1);
        second.placed(&live(&other)).unwrap();
        let again = marks.placing(&container("a"), "id").unwrap();
        assert_eq!(again.kept(&live(&real), &BTreeSet::new()), [real], "b may have written to it");
    }

    fn place(marks: &Marks, name: &str, in_use: &[&str]) -> bool {
        let mine = [own("/v")];
        let in_use = in_use.iter().map(PathBuf::from).collect();
        let mut placing = marks.placing(&container(name), "id").unwrap();
        let kept = placing.kept(&mine, &in_use);
        if kept.is_empty() {
            placing.filled(&mine).unwrap();
        }
        placing.placed(&mine).unwrap();
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
        let mine = [own("/v")];
        let mut first = marks.placing(&Brief::default(), "c1").unwrap();
        first.filled(&mine).unwrap();
        first.placed(&mine).unwrap();
        let kept = marks.placing(&Brief::default(), "c2").unwrap().kept(&mine, &BTreeSet::new());
        assert_eq!(kept, [mine[0].source.clone()]);
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
