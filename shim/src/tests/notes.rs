use std::path::Path;
use std::time::Duration;

use containerd_shim_protos::shim::shim as api;
use containerd_shim_protos::types::mount::Mount;
use ttrpc::context::with_duration;

use super::fake::shim;
use crate::bundle::State;

#[tokio::test]
async fn what_a_killed_shim_may_leave_is_noted_before_it_is_made() {
    let shim = shim().await;
    let bundle = shim.bundle("c", "exit 0", &serde_json::json!({}));
    let request = api::CreateTaskRequest { id: "c".to_owned(), bundle: bundle.clone(), ..Default::default() };
    shim.task.create(with_duration(Duration::from_secs(10)), &request).await.unwrap();
    let container = shim.pod.container("c").unwrap();
    let noted = || State::read(Path::new(&bundle)).unwrap().unwrap();
    assert!(!noted().placed && !noted().captured);
    container.note_placing().unwrap();
    assert!(noted().placed, "a root in the store goes with the bundle, whenever the shim is killed");
    assert!(!noted().captured, "its own root is none of ZFS");
    container.note_capture().unwrap();
    assert!(noted().captured);
}

#[tokio::test]
async fn a_root_on_zfs_that_is_restored_is_looked_at_before_containerd_destroys_it() {
    let shim = shim().await;
    let bundle = shim.bundle("c", "exit 0", &serde_json::json!({}));
    let root = Mount { type_: "zfs".to_owned(), source: "tank/none/7".to_owned(), ..Default::default() };
    let request = api::CreateTaskRequest {
        id: "c".to_owned(),
        bundle: bundle.clone(),
        rootfs: vec![root],
        ..Default::default()
    };
    // There is no such dataset, so Create fails after it has noted what it was about to do.
    shim.task.create(with_duration(Duration::from_secs(10)), &request).await.unwrap_err();
    let state = State::read(Path::new(&bundle)).unwrap().unwrap();
    assert_eq!(state.dataset, "tank/none/7");
    assert!(state.mounted && !state.captured, "a fresh container has nothing of ours");
}
