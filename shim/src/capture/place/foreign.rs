//! A pod gets no checkpoint of another namespace, whatever name or id it gives.

use std::fs;
use std::path::Path;

use cryopod_checkpoint::digest;
use cryopod_checkpoint::journal::Journal;
use cryopod_checkpoint::kind::Kind;
use cryopod_checkpoint::store::{self, StoreChoice, StoreConfig};
use cryopod_runtime::config::Config;

use super::*;
use crate::rpc::Failure;

fn limits() -> Limits {
    Limits::within(Duration::from_secs(30))
}

/// A node with one committed checkpoint, of a pod in this namespace.
fn node_with(dir: &Path, namespace: &str) -> (Node, CheckpointId) {
    let config = StoreConfig {
        choice: StoreChoice::Dir,
        root: None,
        dir: dir.join("store"),
        locks: dir.join("locks"),
        snapshotter: None,
    };
    let (store, chosen) = store::open(&config, None, &limits()).unwrap();
    let sample = include_str!("../../../../checkpoint/src/manifest/v1.json");
    let mut manifest: Manifest = serde_json::from_str(sample).unwrap();
    namespace.clone_into(&mut manifest.pod.namespace);
    for record in &mut manifest.members {
        let of_pod = serde_json::json!({ "io.kubernetes.cri.container-type": "container" });
        record.member.spec = serde_json::json!({ "ociVersion": "1.2.0", "annotations": of_pod });
    }
    let bytes = manifest.to_bytes().unwrap();
    let path = dir.join("store/checkpoints").join(manifest.id.as_str());
    fs::create_dir_all(path.join("memory")).unwrap();
    fs::write(path.join("memory/manifest.json"), &bytes).unwrap();
    let marker =
        serde_json::json!({ "version": 1, "manifest": digest::of(&bytes), "summary": manifest.summary() });
    fs::write(path.join("committed"), marker.to_string()).unwrap();
    let journal = Journal::open(dir.join("journal")).unwrap();
    (Node { config: Config::default(), store, chosen, journal }, manifest.id)
}

/// A container `setup`, which the checkpoint does not have, of a pod in this namespace: it starts afresh if it may.
fn asked_from(namespace: &str, of: &str) -> Result<Prepared, DoorError> {
    let dir = tempfile::tempdir().unwrap();
    let (node, id) = node_with(dir.path(), of);
    let annotations = serde_json::json!({
        "io.kubernetes.cri.container-type": "container",
        "io.kubernetes.cri.container-name": "setup",
        "io.kubernetes.cri.sandbox-namespace": namespace,
        "io.kubernetes.cri.sandbox-uid": "u2",
    });
    let bundle = dir.path().join("bundle");
    fs::create_dir(&bundle).unwrap();
    let spec = serde_json::json!({ "ociVersion": "1.2.0", "root": { "path": "rootfs" }, "annotations": annotations });
    fs::write(bundle.join("config.json"), spec.to_string()).unwrap();
    let brief = Brief::read(&bundle).unwrap();
    let newcomer = Newcomer {
        id: "c1",
        namespace: "k8s.io",
        bundle: &bundle,
        brief: &brief,
        given: &[],
        backend: "oci",
        neighbours: &[],
    };
    let marks = Marks::at(dir.path().join("marks"), dir.path().join("pods"));
    place(&node, &marks, &id.as_str().parse().unwrap(), &newcomer, &limits())
}

#[test]
fn a_checkpoint_of_another_namespace_is_refused_and_both_are_named() {
    let error = asked_from("shop", "bank").unwrap_err();
    assert_eq!(error.kind(), Kind::PermissionDenied, "{error}");
    let DoorError::Foreign { theirs, ours, .. } = &error else { panic!("{error}") };
    assert_eq!((theirs.as_str(), ours.as_str()), ("bank", "shop"));
}

#[test]
fn one_of_the_same_namespace_or_of_none_is_not() {
    for (pod, of) in [("bank", "bank"), ("bank", ""), ("", "bank")] {
        let placed = asked_from(pod, of);
        assert!(placed.is_ok(), "{pod:?} of {of:?}: {}", placed.unwrap_err());
    }
}
