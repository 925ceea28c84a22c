//! Which runtime a pod gets by rules, and that it keeps it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use containerd_shim_protos::sandbox_api::CreateSandboxRequest;
use cryopod_runtime::config::Level;
use protobuf::Message;
use protobuf::well_known_types::any::Any;
use serde_json::{Value, json};
use ttrpc::context::with_duration;

use super::fake::{Shim, options, shim};
use crate::bundle::State;
use crate::container::New;
use crate::error::TaskError;
use crate::log;
use crate::pod::Pod;
use crate::proto::cri::{PodSandboxConfig, PodSandboxMetadata};

const ISOLATED: &str =
    "[[routing]]\nannotations.\"example.com/isolation\" = \"strict\"\nbackend = \"youki\"\n[runtime.youki]\n";
const BY_IMAGE: &str = "[[routing]]\npod = \"web-*\"\nimage = \"*/nginx:*\"\nbackend = \"runc\"\n[[routing]]\nlabels.app = \"web\"\nbackend = \"crun\"\n";

impl Shim {
    /// A configuration file for the pod's handler.
    fn configure(&self, text: &str) -> PathBuf {
        let path = self.dir.path().join("handler.toml");
        std::fs::write(&path, text).unwrap();
        path
    }

    /// The sandbox of a pod `web-0`, as the Sandbox API makes it.
    async fn sandbox_of_web(&self, annotations: &[(&str, &str)]) {
        let mut config = PodSandboxConfig::new();
        let name = "web-0".to_owned();
        config.metadata =
            Some(PodSandboxMetadata { name, namespace: "shop".to_owned(), ..Default::default() }).into();
        config.labels.insert("app".to_owned(), "web".to_owned());
        config.annotations =
            annotations.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let type_url = "runtime.v1.PodSandboxConfig".to_owned();
        let value = config.write_to_bytes().unwrap();
        let request = CreateSandboxRequest {
            sandbox_id: "pod".to_owned(),
            bundle_path: self.dir.path().display().to_string(),
            options: Some(Any { type_url, value, ..Default::default() }).into(),
            ..Default::default()
        };
        self.sandbox.create_sandbox(with_duration(Duration::from_secs(10)), &request).await.unwrap();
    }

    /// Makes a container with these annotations in its spec; the runtime that `delete` would call for it.
    async fn runtime_of(
        &self,
        pod: &Arc<Pod>,
        id: &str,
        annotations: Value,
        config: &Path,
    ) -> Result<String, TaskError> {
        let bundle = PathBuf::from(self.bundle(id, "exit 0", &annotations));
        let new = New {
            id: id.to_owned(),
            bundle: bundle.clone(),
            mounts: Vec::new(),
            stdio: Default::default(),
            checkpoint: String::new(),
            wish: None,
            neighbours: Vec::new(),
        };
        pod.create(new, Some(&options(config))).await?;
        Ok(State::read(&bundle).unwrap().unwrap().runtime.unwrap().name)
    }
}

fn image(name: &str) -> Value {
    json!({"io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.image-name": name})
}

#[tokio::test]
async fn a_pod_that_is_routed_by_annotation_keeps_its_runtime_after_a_restart_of_the_shim() {
    let shim = shim().await;
    let config = shim.configure(ISOLATED);
    shim.sandbox_of_web(&[("example.com/isolation", "strict")]).await;
    // kubelet does not put the pod's annotations into the specs of its containers, unless it is told to.
    assert_eq!(shim.runtime_of(&shim.pod, "a", json!({}), &config).await.unwrap(), "youki");
    shim.configure("[[routing]]\nbackend = \"runc\"\n[runtime.youki]\n");
    assert_eq!(shim.runtime_of(&shim.pod, "b", json!({}), &config).await.unwrap(), "youki");
    let restarted = shim.restarted();
    assert_eq!(shim.runtime_of(&restarted, "c", json!({}), &config).await.unwrap(), "youki");
    shim.configure("");
    let error = shim.runtime_of(&shim.restarted(), "d", json!({}), &config).await.unwrap_err();
    assert!(
        error.to_string().contains("handler.toml:1), which has no [runtime.youki] section any more"),
        "{error}"
    );
}

#[tokio::test]
async fn a_shim_that_is_restarted_before_the_first_container_still_knows_the_pod() {
    let shim = shim().await;
    let config = shim.configure(ISOLATED);
    shim.sandbox_of_web(&[("example.com/isolation", "strict")]).await;
    assert_eq!(shim.runtime_of(&shim.restarted(), "a", json!({}), &config).await.unwrap(), "youki");
}

#[tokio::test]
async fn a_pod_that_no_rule_matches_has_the_default_and_keeps_that_too() {
    let shim = shim().await;
    let config = shim.configure(ISOLATED);
    shim.sandbox_of_web(&[("example.com/isolation", "lax")]).await;
    assert_eq!(shim.runtime_of(&shim.pod, "a", json!({}), &config).await.unwrap(), "crun");
    shim.configure("[[routing]]\nbackend = \"runc\"\n");
    assert_eq!(shim.runtime_of(&shim.restarted(), "b", json!({}), &config).await.unwrap(), "crun");
}

#[tokio::test]
async fn the_image_of_the_first_container_decides_for_all() {
    for (first, second, expected, other) in
        [("nginx", "redis", "runc", "crun"), ("redis", "nginx", "crun", "runc")]
    {
        let shim = shim().await;
        let logs = tempfile::tempdir().unwrap();
        std::fs::write(logs.path().join("log"), "").unwrap();
        let _default = tracing::subscriber::set_default(log::subscriber(logs.path(), &[], Level::Info));
        let config = shim.configure(BY_IMAGE);
        shim.sandbox_of_web(&[]).await;
        for (id, name) in [("a", first), ("b", second)] {
            let image = image(&format!("docker.io/library/{name}:1"));
            assert_eq!(shim.runtime_of(&shim.pod, id, image, &config).await.unwrap(), expected, "{name}");
        }
        let text = std::fs::read_to_string(logs.path().join("log")).unwrap();
        let line = text.lines().find(|line| line.contains("keeps its runtime")).unwrap_or_default();
        for word in
            ["id=b", &format!("{second}:1"), &format!("runtime={expected}"), &format!("other={other}")]
        {
            assert!(line.contains(word), "{word} in {text}");
        }
    }
}

#[tokio::test]
async fn a_pause_container_decides_without_image_and_labels() {
    let shim = shim().await;
    let config = shim.configure(&format!("[runtime]\ndefault = \"youki\"\n[runtime.youki]\n{BY_IMAGE}"));
    let pause = json!({
        "io.kubernetes.cri.container-type": "sandbox",
        "io.kubernetes.cri.sandbox-name": "web-0",
        "io.kubernetes.cri.image-name": "registry.k8s.io/nginx:1",
    });
    assert_eq!(shim.runtime_of(&shim.pod, "pod", pause, &config).await.unwrap(), "youki");
    let nginx = image("docker.io/library/nginx:1");
    assert_eq!(shim.runtime_of(&shim.pod, "a", nginx, &config).await.unwrap(), "youki");
}

#[tokio::test]
async fn options_that_choose_the_runtime_neither_ask_nor_decide() {
    let shim = shim().await;
    let (chosen, routed) = (shim.dir.path().join("chosen.toml"), shim.configure(ISOLATED));
    std::fs::write(&chosen, "[runtime]\ndefault = \"slow\"\n[runtime.slow]\n").unwrap();
    shim.sandbox_of_web(&[("example.com/isolation", "strict")]).await;
    assert_eq!(shim.runtime_of(&shim.pod, "a", json!({}), &chosen).await.unwrap(), "slow");
    assert_eq!(shim.runtime_of(&shim.pod, "b", json!({}), &routed).await.unwrap(), "youki");
    assert_eq!(shim.runtime_of(&shim.pod, "c", json!({}), &chosen).await.unwrap(), "slow");
}

#[tokio::test]
async fn a_broken_rule_fails_the_container_with_its_place() {
    let shim = shim().await;
    let config = shim.configure("[[routing]]\npod = \"web-[\"\nbackend = \"runc\"\n");
    let error = shim.runtime_of(&shim.pod, "a", json!({}), &config).await.unwrap_err();
    assert!(error.to_string().contains("handler.toml:2:7: 'web-[' is not a pattern"), "{error}");
}
