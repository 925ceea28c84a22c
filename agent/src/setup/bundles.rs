//! Which of our handlers are in use on this node: containerd keeps a folder for each pod and container, its bundle, and in it
//! the shim's path. It is there from before the shim starts until after it is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Handlers and the ids of their bundles below `run` (`run/PLUGIN/NAMESPACE/ID/shim-binary-path`).
pub(super) fn in_use(run: &Path) -> BTreeMap<String, BTreeSet<String>> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for namespace in folders(run).iter().flat_map(|plugin| folders(plugin)) {
        for bundle in folders(&namespace) {
            let shim = fs::read_to_string(bundle.join("shim-binary-path")).unwrap_or_default();
            if let (Some(handler), Some(id)) = (handler(&shim), bundle.file_name()) {
                found.entry(handler.to_owned()).or_default().insert(id.to_string_lossy().into_owned());
            }
        }
    }
    found
}

/// The handler whose shim that is, if it is one of ours.
fn handler(shim: &str) -> Option<&str> {
    let name = shim.trim().rsplit('/').next()?;
    let handler = name.strip_prefix("containerd-shim-")?.strip_suffix("-v2")?;
    (handler == "cryopod" || handler.starts_with("cryopod-")).then_some(handler)
}

/// Folders in a folder; none in one that is not there.
fn folders(dir: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bundles_of_our_shims_are_found_in_every_plugin_and_namespace() {
        let dir = tempfile::tempdir().unwrap();
        for (path, shim) in [
            ("io.containerd.runtime.v2.task/k8s.io/a", "/usr/bin/containerd-shim-cryopod-v2"),
            (
                "io.containerd.sandbox.controller.v1.shim/k8s.io/b",
                "/usr/local/bin/containerd-shim-cryopod-lxc-v2\n",
            ),
            ("io.containerd.runtime.v2.task/default/c", "/usr/bin/containerd-shim-cryopod-v2"),
            ("io.containerd.runtime.v2.task/k8s.io/d", "/usr/bin/containerd-shim-runc-v2"),
            ("io.containerd.runtime.v2.task/k8s.io/e", "/usr/bin/containerd-shim-cryopodx-v2"),
        ] {
            let bundle = dir.path().join(path);
            fs::create_dir_all(&bundle).unwrap();
            fs::write(bundle.join("shim-binary-path"), shim).unwrap();
        }
        let ids = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        let expected = [("cryopod".to_owned(), ids(&["a", "c"])), ("cryopod-lxc".to_owned(), ids(&["b"]))];
        assert_eq!(in_use(dir.path()), BTreeMap::from(expected));
        assert!(in_use(&dir.path().join("nothing")).is_empty());
    }
}
