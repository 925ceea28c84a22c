//! How the command and the agent find running shims: one small file per shim in `/run/cryopod/shims`.
//!
//! ```text
//! /run/cryopod/shims/<sandbox id>@<containerd namespace>.json   Shim, version 1, written by the shim, removed when it ends
//! ```
//! A shim that was killed leaves its file, and `delete` removes it; [`list`] skips files whose socket nobody serves.

use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::args::Args;
use cryopod_checkpoint::target::PodIdentity;

use crate::bundle::{Brief, write_atomically};
use crate::socket;

/// Where the files are.
pub const DIR: &str = "/run/cryopod/shims";

const VERSION: u32 = 1;

/// A running shim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shim {
    /// Format of the file.
    pub version: u32,
    /// Its PID.
    pub pid: u32,
    /// Its socket.
    pub socket: PathBuf,
    /// containerd namespace.
    pub namespace: String,
    /// Bundle of the sandbox.
    pub bundle: PathBuf,
    /// The pod.
    pub pod: Pod,
}

/// Names of a pod; Kubernetes' names are empty outside of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pod {
    /// Sandbox id, or the container id where there is no sandbox.
    pub id: String,
    /// Pod name.
    pub name: String,
    /// Kubernetes namespace.
    pub namespace: String,
    /// Pod UID.
    pub uid: String,
}

/// The file of this shim; removed when dropped.
#[derive(Debug)]
pub(crate) struct Entry(PathBuf);

impl Entry {
    /// Writes the file. A shim that cannot is still useful to containerd, so a failure is only logged.
    pub(crate) fn write(args: &Args, bundle: &Path) -> Option<Self> {
        let identity = Brief::read(bundle).unwrap_or_default().pod(&args.id);
        let shim = Shim {
            version: VERSION,
            pid: std::process::id(),
            socket: socket::path_of(&args.socket)?.to_owned(),
            namespace: args.namespace.clone(),
            bundle: bundle.to_owned(),
            pod: Pod {
                id: identity.id,
                name: identity.name,
                namespace: identity.namespace,
                uid: identity.uid,
            },
        };
        let path = file(Path::new(DIR), &args.id, &args.namespace);
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(DIR);
        if let Err(error) = made
            .map_err(|e| e.to_string())
            .and_then(|()| write_atomically(&path, &shim).map_err(|e| e.to_string()))
        {
            tracing::warn!(path = %path.display(), error, "the cryopod command will not find this pod");
            return None;
        }
        Some(Self(path))
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).ok();
    }
}

fn file(dir: &Path, group: &str, namespace: &str) -> PathBuf {
    dir.join(format!("{group}@{namespace}.json"))
}

/// Writes the names of a pod into its shim's file, where the shim was started before it knew them: without a pause container
/// they come with the sandbox and are in no bundle.
pub(crate) fn identify(dir: &Path, group: &str, namespace: &str, identity: &PodIdentity) {
    let path = file(dir, group, namespace);
    let read = std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice::<Shim>(&bytes).ok());
    let Some(mut shim) = read else { return };
    let pod = Pod {
        id: identity.id.clone(),
        name: identity.name.clone(),
        namespace: identity.namespace.clone(),
        uid: identity.uid.clone(),
    };
    if shim.pod != pod {
        shim.pod = pod;
        if let Err(error) = write_atomically(&path, &shim) {
            tracing::warn!(path = %path.display(), %error, "this pod is found by its id only");
        }
    }
}

/// Removes the file of a shim that was killed, and the socket that it names, unless a shim answers there.
pub(crate) fn forget_dead(dir: &Path, group: &str, namespace: &str) {
    let path = file(dir, group, namespace);
    let Some(shim) = std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice::<Shim>(&bytes).ok())
    else {
        return;
    };
    socket::forget_dead(&shim.socket);
    if !shim.socket.exists() {
        std::fs::remove_file(&path).ok();
    }
}

/// All shims that answer, in the order of their ids.
///
/// # Errors
/// When the directory is there but cannot be read.
pub fn list() -> io::Result<Vec<Shim>> {
    list_in(Path::new(DIR))
}

fn list_in(dir: &Path) -> io::Result<Vec<Shim>> {
    let mut shims = files(dir)?;
    shims.retain(|shim| UnixStream::connect(&shim.socket).is_ok());
    Ok(shims)
}

/// What the files of a directory name, in the order of the pods' ids, shims that were killed included. Connects to
/// nobody.
///
/// # Errors
/// When the directory is there but cannot be read.
pub fn files(dir: &Path) -> io::Result<Vec<Shim>> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut shims: Vec<Shim> = entries
        .flatten()
        .filter(|entry| entry.path().extension().is_some_and(|extension| extension == "json"))
        .filter_map(|entry| serde_json::from_slice(&std::fs::read(entry.path()).ok()?).ok())
        .filter(|shim: &Shim| shim.version == VERSION)
        .collect();
    shims.sort_by(|a, b| a.pod.id.cmp(&b.pod.id));
    Ok(shims)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shim(dir: &Path, id: &str) -> Shim {
        let pod = Pod { id: id.to_owned(), ..Pod::default() };
        Shim {
            version: VERSION,
            pid: 1,
            socket: dir.join(id),
            namespace: "k8s.io".to_owned(),
            bundle: "/b".into(),
            pod,
        }
    }

    #[test]
    fn only_shims_that_answer_are_listed() {
        let dir = tempfile::tempdir().unwrap();
        for id in ["b", "a", "dead"] {
            write_atomically(&dir.path().join(format!("{id}.json")), &shim(dir.path(), id)).unwrap();
        }
        std::fs::write(dir.path().join("x.json"), "garbage").unwrap();
        let _alive =
            ["a", "b"].map(|id| std::os::unix::net::UnixListener::bind(dir.path().join(id)).unwrap());
        let ids: Vec<String> = list_in(dir.path()).unwrap().into_iter().map(|shim| shim.pod.id).collect();
        assert_eq!(ids, ["a", "b"]);
    }

    #[test]
    fn a_pod_is_found_by_the_names_that_it_learns_later() {
        let dir = tempfile::tempdir().unwrap();
        let path = file(dir.path(), "a", "k8s.io");
        write_atomically(&path, &shim(dir.path(), "a")).unwrap();
        let identity =
            PodIdentity { id: "a".into(), name: "web".into(), namespace: "default".into(), uid: "u".into() };
        identify(dir.path(), "a", "k8s.io", &identity);
        let found = files(dir.path()).unwrap();
        assert_eq!((found[0].pod.name.as_str(), found[0].pod.uid.as_str()), ("web", "u"));
        identify(dir.path(), "other", "k8s.io", &identity);
        assert_eq!(files(dir.path()).unwrap().len(), 1, "no file is made");
    }

    #[test]
    fn without_a_directory_there_are_no_shims() {
        assert_eq!(list_in(Path::new("/nonexistent")).unwrap(), []);
    }
}
