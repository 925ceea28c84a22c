//! What is known of each container without asking the runtime: a process start costs more than the whole call.
//!
//! Containers made by this process are remembered; for others (the `cryopod` command, a shim after a restart) the
//! runtime's own state file is read: `<root>/<id>/status` of crun, `<root>/<id>/state.json` of runc and cryopod-lxc.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

use crate::cgroup::{self, Cgroup};
use crate::error::Error;
use crate::process::Process;

/// The largest state file that is read; runc keeps the whole configuration in it.
const MAX_STATE: u64 = 8 << 20;

/// Init and cgroup of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) init: Process,
    pub(super) cgroup: Cgroup,
}

/// By container id.
#[derive(Debug, Default)]
pub(super) struct Registry(Mutex<BTreeMap<String, Known>>);

impl Registry {
    pub(super) fn insert(&self, id: &str, known: Known) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned(), known);
    }

    pub(super) fn remove(&self, id: &str) -> Option<Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(id)
    }

    /// From memory, else from the runtime's state below `root`.
    pub(super) fn find(&self, id: &str, root: &Path) -> Result<Known, Error> {
        if let Some(known) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(id) {
            return Ok(known.clone());
        }
        let known = from_state(id, &root.join(id))?;
        self.insert(id, known.clone());
        Ok(known)
    }
}

fn from_state(id: &str, dir: &Path) -> Result<Known, Error> {
    for (file, read) in [("status", of_crun as fn(&Value) -> Option<Known>), ("state.json", of_state)] {
        let path = dir.join(file);
        let size = match std::fs::metadata(&path) {
            Ok(meta) => meta.len(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(Error::file("look at", &path)(error)),
        };
        let malformed = |reason: String| Error::State { path: path.clone(), reason };
        if size > MAX_STATE {
            return Err(malformed(format!("{size} bytes are too many")));
        }
        let bytes = std::fs::read(&path).map_err(Error::file("read", &path))?;
        let value: Value = serde_json::from_slice(&bytes).map_err(|error| malformed(error.to_string()))?;
        return read(&value).ok_or_else(|| malformed("process or cgroup is missing".into()));
    }
    Err(Error::NoContainer { container: id.to_owned() })
}

fn of_crun(state: &Value) -> Option<Known> {
    let path = state.get("cgroup-path")?.as_str().filter(|path| !path.is_empty())?;
    let scope = state.get("scope").and_then(Value::as_str).unwrap_or_default();
    // With systemd, older versions keep the slice apart from the scope.
    let cgroup = match scope {
        "" => Cgroup::below_root(path),
        scope if path.contains(scope) => Cgroup::below_root(path),
        scope => Cgroup::below_root(&format!("{path}/{scope}")),
    };
    Some(Known { init: process(state, "pid", "process-start-time")?, cgroup })
}

fn of_state(state: &Value) -> Option<Known> {
    of_runc(state).or_else(|| of_lxc(state))
}

/// `Record` of the room `lxc`.
fn of_lxc(state: &Value) -> Option<Known> {
    let cgroup = Cgroup::at(state.get("cgroup")?.as_str()?);
    Some(Known { init: process(state, "pid", "began")?, cgroup })
}

fn of_runc(state: &Value) -> Option<Known> {
    let paths = state.get("cgroup_paths")?.as_object()?;
    let path = paths.get("").or_else(|| paths.values().next())?.as_str()?;
    let cgroup = if path.starts_with(cgroup::ROOT) { Cgroup::at(path) } else { Cgroup::below_root(path) };
    Some(Known { init: process(state, "init_process_pid", "init_process_start")?, cgroup })
}

fn process(state: &Value, pid: &str, start: &str) -> Option<Process> {
    let pid = u32::try_from(state.get(pid)?.as_u64()?).ok().filter(|pid| *pid > 0)?;
    Some(Process { pid, start_time: state.get(start)?.as_u64()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use cryopod_checkpoint::kind::Kind;

    fn root(file: &str, text: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("temporary directory");
        std::fs::create_dir(root.path().join("c1")).expect("state directory");
        std::fs::write(root.path().join("c1").join(file), text).expect("state");
        root
    }

    #[test]
    fn crun_state_is_read() {
        let root = root(
            "status",
            r#"{"pid": 41, "process-start-time": 99, "cgroup-path": "/pods/c1", "scope": "", "rootfs": "/r"}"#,
        );
        let known = Registry::default().find("c1", root.path()).expect("known");
        assert_eq!(known.init, Process { pid: 41, start_time: 99 });
        assert_eq!(known.cgroup.relative(), "/pods/c1");
    }

    #[test]
    fn runc_state_is_read() {
        let root = root(
            "state.json",
            r#"{"id":"c1","init_process_pid":42,"init_process_start":7,"cgroup_paths":{"":"/sys/fs/cgroup/pods/c1"},"config":{}}"#,
        );
        let known = Registry::default().find("c1", root.path()).expect("known");
        assert_eq!((known.init.pid, known.cgroup.relative().as_str()), (42, "/pods/c1"));
    }

    #[test]
    fn lxc_state_is_read() {
        let root = root("state.json", r#"{"id":"c1","pid":43,"began":8,"cgroup":"/sys/fs/cgroup/pods/c1"}"#);
        let known = Registry::default().find("c1", root.path()).expect("known");
        assert_eq!(known.init, Process { pid: 43, start_time: 8 });
        assert_eq!(known.cgroup.relative(), "/pods/c1");
    }

    #[test]
    fn what_the_runtime_does_not_know_is_not_found_and_what_is_broken_is_not_absent() {
        let root = root("status", "{");
        let registry = Registry::default();
        assert_eq!(registry.find("c2", root.path()).expect_err("absent").kind(), Kind::NotFound);
        assert_eq!(registry.find("c1", root.path()).expect_err("broken").kind(), Kind::Internal);
    }
}
