//! Notes about all containers of a pod in the bundle of the pod: `members/ID.json`.
//!
//! When a shim dies, containerd calls `delete` for the pod alone, not for its containers, and may have removed their
//! bundles by then. So each container's note stands a second time where that call finds it. A note is written before
//! what it is about is made, and removed after Delete.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::bundle::{self, BundleError, MAX_STATE_BYTES, State};

/// Folder in the bundle of the pod.
const MEMBERS: &str = "members";

/// A container of the pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// Its own bundle, which may be gone.
    pub bundle: PathBuf,
    /// What its bundle says.
    pub state: State,
}

/// Notes a container in the bundle `home` of its pod. The pod itself and pods without a bundle are left out.
///
/// # Errors
/// When the note cannot be written.
pub fn note(home: &Path, bundle: &Path, state: &State) -> Result<(), BundleError> {
    // A group of `ctr` may outlive the task that it is named after; then there is no bundle and no `delete` for it.
    if home.as_os_str().is_empty() || state.id == state.group || !home.is_dir() {
        return Ok(());
    }
    let dir = home.join(MEMBERS);
    match std::fs::create_dir(&dir) {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
            return Err(BundleError::Write { path: dir, source });
        }
        _ => {}
    }
    let member = Member { bundle: bundle.to_owned(), state: state.clone() };
    bundle::write_atomically(&path(home, &state.id), &member)
}

/// Removes the note of a container that is gone.
pub fn forget(home: &Path, id: &str) {
    if !home.as_os_str().is_empty() {
        std::fs::remove_file(path(home, id)).ok();
    }
}

/// All containers that are noted; what cannot be read is a warning, since the others have to go nonetheless.
pub fn all(home: &Path, warn: &mut dyn FnMut(String)) -> Vec<Member> {
    let Ok(entries) = std::fs::read_dir(home.join(MEMBERS)) else { return Vec::new() };
    let mut members = Vec::new();
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let read = bundle::read_bounded(&path, MAX_STATE_BYTES).and_then(|bytes| {
            serde_json::from_slice(&bytes).map_err(|source| BundleError::Parse { path: path.clone(), source })
        });
        match read {
            Ok(member) => members.push(member),
            Err(error) => warn(error.to_string()),
        }
    }
    members
}

fn path(home: &Path, id: &str) -> PathBuf {
    home.join(MEMBERS).join(format!("{id}.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_known_to_its_pod_until_it_is_gone() {
        let home = tempfile::tempdir().unwrap();
        let mut panic = |warning| panic!("{warning}");
        assert!(all(home.path(), &mut panic).is_empty());
        for id in ["a", "b"] {
            let mut state = State::new(id, "n", "pod");
            note(home.path(), Path::new("/run/x"), &state).unwrap();
            state.pid = 7;
            note(home.path(), Path::new("/run/x"), &state).unwrap();
        }
        note(home.path(), home.path(), &State::new("pod", "n", "pod")).unwrap();
        forget(home.path(), "a");
        let left = all(home.path(), &mut panic);
        assert_eq!(left.iter().map(|m| (m.state.id.as_str(), m.state.pid)).collect::<Vec<_>>(), [("b", 7)]);
    }

    #[test]
    fn a_broken_note_hides_no_other() {
        let home = tempfile::tempdir().unwrap();
        note(home.path(), Path::new("/run/x"), &State::new("a", "n", "pod")).unwrap();
        std::fs::write(home.path().join("members/b.json"), "{").unwrap();
        let mut warnings = Vec::new();
        assert_eq!(all(home.path(), &mut |warning| warnings.push(warning)).len(), 1);
        assert_eq!(warnings.len(), 1);
    }
}
