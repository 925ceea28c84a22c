//! Reads as much of a bundle as the command itself needs; the runtime reads the rest.
//!
//! OCI runtime specification, bundle.md: a directory with `config.json` and the root file system it names.

use std::io::Read;
use std::path::{Path, PathBuf};

use cryopod_runtime::oci::OciBackend;
use serde_json::Value;

use crate::error::Error;

/// More than any config.json has.
const MAX_SPEC: u64 = 16 << 20;

/// A bundle that a container can be made from.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Bundle {
    /// The directory, absolute.
    pub(crate) dir: PathBuf,
    /// The root file system, absolute.
    pub(crate) rootfs: PathBuf,
    /// Whether its process wants a terminal.
    pub(crate) terminal: bool,
    /// `process` of config.json, which `exec` starts from.
    pub(crate) process: Value,
}

impl Bundle {
    /// Reads and checks the bundle in `dir`.
    pub(crate) fn open(dir: &Path) -> Result<Self, Error> {
        let dir = dir.canonicalize().map_err(|source| Error::NoBundle { path: dir.to_owned(), source })?;
        let bad = |reason: String| Error::Bundle { path: dir.clone(), reason };
        let spec = read_spec(&dir.join("config.json")).map_err(&bad)?;
        let root = spec.get("root").and_then(|root| root.get("path")).and_then(Value::as_str);
        let root = root.ok_or_else(|| bad("config.json lacks root.path".into()))?;
        let process = process(&spec).map_err(&bad)?;
        let args = process.get("args").and_then(Value::as_array);
        if args.is_none_or(Vec::is_empty) {
            return Err(bad("config.json lacks process.args, the command to run".into()));
        }
        let rootfs = dir.join(root);
        if !rootfs.is_dir() {
            return Err(bad(format!("its root file system {} is no directory", rootfs.display())));
        }
        let terminal = process.get("terminal").and_then(Value::as_bool).unwrap_or(false);
        Ok(Self { rootfs, terminal, process, dir })
    }
}

/// A cgroup of the container's own, named in full, since runc takes a missing path for one beside its own cgroup and CRIU
/// for one below the root.
pub(crate) fn cgroup_path(backend: &OciBackend, id: &str) -> String {
    if backend.options().systemd_cgroup {
        format!("system.slice:cryopod:{id}")
    } else {
        format!("/cryopod-{id}")
    }
}

/// `process` of the bundle in `dir`, which somebody else has made a container from.
pub(crate) fn process_of(dir: &Path) -> Result<Value, Error> {
    let read = read_spec(&dir.join("config.json")).and_then(|spec| process(&spec));
    read.map_err(|reason| Error::Bundle { path: dir.to_owned(), reason })
}

fn process(spec: &Value) -> Result<Value, String> {
    let process = spec.get("process").filter(|process| process.is_object());
    process.cloned().ok_or_else(|| "config.json lacks process".to_owned())
}

fn read_spec(path: &Path) -> Result<Value, String> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(|error| format!("config.json: {error}"))?;
    file.take(MAX_SPEC + 1).read_to_end(&mut bytes).map_err(|error| format!("config.json: {error}"))?;
    if bytes.len() as u64 > MAX_SPEC {
        return Err(format!("config.json has more than {MAX_SPEC} bytes"));
    }
    // The types of the specification find what is of the wrong kind; unknown fields are allowed by it.
    serde_json::from_slice::<oci_spec::runtime::Spec>(&bytes)
        .map_err(|error| format!("config.json: {error}"))?;
    serde_json::from_slice(&bytes).map_err(|error| format!("config.json: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle(spec: &str) -> (tempfile::TempDir, Result<Bundle, Error>) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("rootfs")).unwrap();
        std::fs::write(dir.path().join("config.json"), spec).unwrap();
        let opened = Bundle::open(dir.path());
        (dir, opened)
    }

    const PROCESS: &str = r#""process":{"user":{"uid":0,"gid":0},"cwd":"/","args":["sh"],"terminal":true}"#;

    #[test]
    fn a_bundle_says_where_its_root_is_and_whether_it_wants_a_terminal() {
        let spec = format!(r#"{{"ociVersion":"1.2.0",{PROCESS},"root":{{"path":"rootfs"}},"x-unknown":1}}"#);
        let (dir, opened) = bundle(&spec);
        let opened = opened.unwrap();
        assert!(opened.terminal);
        assert_eq!(opened.rootfs, dir.path().canonicalize().unwrap().join("rootfs"));
    }

    #[test]
    fn what_is_missing_is_named() {
        let cases = [
            ("{", "config.json: EOF"),
            (r#"{"ociVersion":"1.2.0"}"#, "root.path"),
            (r#"{"ociVersion":"1.2.0","root":{"path":"rootfs"}}"#, "lacks process"),
            (r#"{"ociVersion":"1.2.0","root":{"path":7}}"#, "expected path string"),
        ];
        for (spec, named) in cases {
            let message = bundle(spec).1.unwrap_err().to_string();
            assert!(message.contains(named), "{message} does not name {named}");
        }
        let spec = format!(r#"{{"ociVersion":"1.2.0",{PROCESS},"root":{{"path":"nowhere"}}}}"#);
        assert!(bundle(&spec).1.unwrap_err().to_string().contains("nowhere is no directory"));
    }
}
