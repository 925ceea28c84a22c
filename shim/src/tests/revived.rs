//! What becomes of a container whose memory comes back at Start.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::fake::{Shim, shim};
use crate::capture::order::Choices;
use crate::capture::place::Wish;
use crate::container::{Container, New};
use crate::error::TaskError;
use crate::process::state::State;

impl Shim {
    /// A container whose memory comes back at Start.
    async fn to_be_restored(&self, id: &str) -> Arc<Container> {
        let new = New {
            id: id.to_owned(),
            bundle: PathBuf::from(self.bundle(id, "", &serde_json::json!({}))),
            mounts: Vec::new(),
            stdio: Default::default(),
            checkpoint: "/images".to_owned(),
            wish: Some(Wish::Images("/images".into())),

            neighbours: Vec::new(),
        };
        self.pod.create(new, None).await.unwrap();
        self.pod.container(id).unwrap()
    }
}

#[tokio::test]
async fn a_restored_process_runs_after_start() {
    let shim = shim().await;
    let container = shim.to_be_restored("c").await;
    let pid = container.start().await.unwrap();
    assert_eq!(shim.restored("c"), Some(pid));
    container.kill("", libc::SIGKILL, false).await.unwrap();
    container.done("").unwrap().wait_for(Option::is_some).await.unwrap();
}

#[tokio::test]
async fn a_restore_that_fails_after_the_process_was_made_leaves_no_process() {
    let shim = shim().await;
    let container = shim.to_be_restored("c").await;
    // What is noted of the process cannot be written.
    let note = container.bundle.join("cryopod.json");
    std::fs::remove_file(&note).unwrap();
    std::fs::create_dir_all(note.join("in-the-way")).unwrap();
    container.start().await.unwrap_err();
    assert_eq!(shim.restored("c"), None, "the backend was told to remove it");
    assert_eq!(container.init_state(), State::Created);
    tokio::time::timeout(Duration::from_secs(8), container.delete()).await.expect("soon").unwrap();
}

#[tokio::test]
async fn a_checkpoint_of_what_does_not_run_says_so_in_its_own_words() {
    let shim = shim().await;
    let container = shim.to_be_restored("c").await;
    let (images, identity) = (shim.dir.path().join("images"), shim.pod.identity());
    let (watch, cancel) = (shim.pod.watch(), cryopod_command::Cancel::new());
    let error = container.checkpoint(images, Choices::default(), identity, watch, cancel).await.unwrap_err();
    assert!(matches!(error, TaskError::NotCapturable { .. }), "{error}");
    assert!(error.to_string().ends_with("is created; only a running or paused one can be captured"));
}
