//! What becomes of restored containers: limits before their start, restarts later.

use std::path::Path;
use std::time::Duration;

use containerd_shim_protos::shim::shim as api;
use protobuf::well_known_types::any::Any;
use serde_json::{Value, json};
use ttrpc::context::with_duration;

use super::fake::{Shim, shim};

/// A container of a pod, as CRI describes it; `extra` goes into its annotations.
fn of_pod(name: &str, extra: &Value) -> Value {
    let mut annotations = json!({
        "io.kubernetes.cri.container-type": "container",
        "io.kubernetes.cri.container-name": name,
        "io.kubernetes.cri.sandbox-uid": "uid-1",
    });
    let (all, extra) = (annotations.as_object_mut().unwrap(), extra.as_object().unwrap());
    all.extend(extra.clone());
    annotations
}

impl Shim {
    async fn create_in_pod(&self, id: &str, annotations: &Value) -> ttrpc::Result<u32> {
        let bundle = self.bundle(id, "sleep 60", annotations);
        let request = api::CreateTaskRequest { id: id.to_owned(), bundle, ..Default::default() };
        let made = self.task.create(with_duration(Duration::from_secs(10)), &request).await;
        made.map(|response| response.pid)
    }

    async fn start_in_pod(&self, id: &str) {
        let request = api::StartRequest { id: id.to_owned(), ..Default::default() };
        self.task.start(with_duration(Duration::from_secs(10)), &request).await.unwrap();
    }
}

#[tokio::test]
async fn a_container_whose_disk_alone_was_put_in_place_restarts_afresh() {
    let shim = shim().await;
    shim.create_in_pod("first", &of_pod("app", &json!({}))).await.unwrap();
    shim.pod.container("first").unwrap().placed_for_test("web-1");
    let marks = &shim.pod.shared().marks;
    let brief = shim.pod.container("first").unwrap().brief.clone();
    assert!(!marks.is_started(&brief, "first"), "a container that was never started may be placed again");
    shim.start_in_pod("first").await;
    assert!(marks.is_started(&brief, "first"));
    // There is no such checkpoint: whoever looked for it would fail.
    let from = json!({"cryopod.dev/restore-from": "web-1"});
    shim.create_in_pod("second", &of_pod("app", &from)).await.unwrap();
}

#[tokio::test]
async fn a_start_that_could_not_be_remembered_does_not_happen() {
    let shim = shim().await;
    shim.create_in_pod("first", &of_pod("app", &json!({}))).await.unwrap();
    shim.pod.container("first").unwrap().placed_for_test("web-1");
    // In the place of the pod's directory.
    let blocked = shim.dir.path().join("restored/uid-1");
    std::fs::create_dir_all(blocked.parent().unwrap()).unwrap();
    std::fs::write(&blocked, "").unwrap();
    let request = api::StartRequest { id: "first".to_owned(), ..Default::default() };
    let start = || async { shim.task.start(with_duration(Duration::from_secs(10)), &request).await };
    let error = start().await.unwrap_err();
    assert!(error.to_string().contains("restored/uid-1"), "{error}");
    std::fs::remove_file(&blocked).unwrap();
    start().await.unwrap();
    let brief = shim.pod.container("first").unwrap().brief.clone();
    assert!(shim.pod.shared().marks.is_started(&brief, "first"));
}

#[tokio::test]
async fn a_container_that_was_not_restored_leaves_no_mark() {
    let shim = shim().await;
    shim.create_in_pod("first", &of_pod("app", &json!({}))).await.unwrap();
    shim.start_in_pod("first").await;
    let brief = shim.pod.container("first").unwrap().brief.clone();
    assert!(!shim.pod.shared().marks.is_started(&brief, "first"));
}

#[tokio::test]
async fn limits_of_a_container_that_waits_to_be_restored_are_those_it_comes_back_with() {
    let shim = shim().await;
    let bundle = shim.bundle("c", "sleep 60", &json!({}));
    let create = api::CreateTaskRequest {
        id: "c".to_owned(),
        bundle: bundle.clone(),
        checkpoint: "/nonexistent/images".to_owned(),
        ..Default::default()
    };
    let soon = with_duration(Duration::from_secs(10));
    assert_eq!(shim.task.create(soon.clone(), &create).await.unwrap().pid, 0);
    let mut resources = Any::new();
    resources.value = json!({"memory": {"limit": 73_400_320}}).to_string().into_bytes();
    let update = api::UpdateTaskRequest {
        id: "c".to_owned(),
        resources: Some(resources).into(),
        ..Default::default()
    };
    shim.task.update(soon.clone(), &update).await.unwrap();
    let config = std::fs::read(Path::new(&bundle).join("config.json")).unwrap();
    let config: Value = serde_json::from_slice(&config).unwrap();
    assert_eq!(config["linux"]["resources"]["memory"]["limit"], 73_400_320);
    assert_eq!(config["process"]["args"][0], "sleep 60");

    shim.create_in_pod("fresh", &json!({})).await.unwrap();
    shim.task.update(soon, &api::UpdateTaskRequest { id: "fresh".to_owned(), ..update }).await.unwrap();
    let config = std::fs::read_to_string(shim.dir.path().join("fresh/config.json")).unwrap();
    assert!(!config.contains("73400320"), "its runtime knows it and was told");
}
