//! What the API server has: definitions, nodes, checkpoints, pods, a schedule; and waiting for what the agent does to them.

use std::time::{Duration, Instant};

use cryopod_agent::api::{self, CheckpointSchedule, FINALIZER, PodCheckpoint, SCHEDULED_BY};
use cryopod_checkpoint::id::CheckpointId;
use futures_util::{StreamExt, stream};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, ServiceAccount};
use k8s_openapi::api::node::v1::RuntimeClass;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::process::{LEADERS, NODE};

pub(crate) const NAMESPACE: &str = "scale";
/// Checkpoints of the agent's node, and of another one.
pub(crate) const OWN: usize = 1000;
pub(crate) const OTHERS: usize = 200;
const ELSEWHERE: &str = "elsewhere";
/// Requests at the same time.
const AT_ONCE: usize = 16;
const PATIENCE: Duration = Duration::from_secs(120);

fn name(number: usize) -> String {
    format!("checkpoint-{number:04}")
}

/// Ids in the store of so many checkpoints of the node.
pub(crate) fn names(count: usize) -> Vec<CheckpointId> {
    (0..count).map(|number| CheckpointId::of_object(NAMESPACE, &name(number))).collect()
}

async fn create<K>(api: &Api<K>, value: Value)
where
    K: kube::Resource + Clone + DeserializeOwned + Serialize + std::fmt::Debug,
{
    let object: K = serde_json::from_value(value).unwrap();
    match api.create(&PostParams::default(), &object).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        Err(error) => panic!("{}: {error}", object.meta().name.clone().unwrap_or_default()),
    }
}

/// Definitions, namespaces, and nodes.
pub(crate) async fn prepare(client: &Client) {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    for crd in api::crds() {
        create(&definitions, serde_json::to_value(&crd).unwrap()).await;
    }
    until("the definitions are served", || async {
        Api::<PodCheckpoint>::all(client.clone()).list(&ListParams::default().limit(1)).await.is_ok()
            && Api::<CheckpointSchedule>::all(client.clone()).list(&ListParams::default()).await.is_ok()
    })
    .await;
    for namespace in [NAMESPACE, LEADERS] {
        create(&Api::<Namespace>::all(client.clone()), json!({ "metadata": { "name": namespace } })).await;
    }
    // Nobody else makes it here, and pods are refused without it.
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), NAMESPACE);
    create(&accounts, json!({ "metadata": { "name": "default" } })).await;
    let classes: Api<RuntimeClass> = Api::all(client.clone());
    create(&classes, json!({ "metadata": { "name": "cryopod" }, "handler": "cryopod" })).await;
    for node in [NODE, ELSEWHERE] {
        create(&Api::<Node>::all(client.clone()), json!({ "metadata": { "name": node } })).await;
    }
}

/// The pod of a checkpoint: some containers with what charts give them.
fn template(number: usize) -> Value {
    let container = |name: &str| {
        let env: Vec<Value> = (0..20)
            .map(|n| json!({ "name": format!("VARIABLE_{n}"), "value": format!("some value of variable number {n}") }))
            .collect();
        json!({ "name": name, "image": "registry.example.com/team/app:1.2.3", "env": env,
            "resources": { "limits": { "memory": "256Mi" } } })
    };
    json!({
        "metadata": { "name": format!("web-{number}"), "labels": { "app": "web" }, "annotations": {} },
        "spec": { "containers": [container("app"), container("sidecar")], "runtimeClassName": "cryopod" },
    })
}

/// 1,000 complete checkpoints of the agent's node, and some of another.
pub(crate) async fn checkpoints(client: &Client) {
    let api: Api<PodCheckpoint> = Api::namespaced(client.clone(), NAMESPACE);
    let one = |number: usize| {
        let api = api.clone();
        async move {
            let name = name(number);
            create(
                &api,
                json!({
                    "apiVersion": "cryopod.dev/v1alpha1", "kind": "PodCheckpoint",
                    "metadata": { "name": name, "finalizers": [FINALIZER] },
                    "spec": { "sourcePod": { "name": format!("web-{number}"), "uid": "u" } },
                }),
            )
            .await;
            let node = if number < OWN { NODE } else { ELSEWHERE };
            let mut status = completed(node);
            status["checkpointID"] = json!(CheckpointId::of_object(NAMESPACE, &name));
            status["checkpointedPodTemplate"] = template(number);
            let patch = Patch::Merge(json!({ "status": status }));
            api.patch_status(&name, &PatchParams::default(), &patch).await.unwrap();
        }
    };
    stream::iter(0..OWN + OTHERS).map(one).buffer_unordered(AT_ONCE).collect::<Vec<_>>().await;
}

fn completed(node: &str) -> Value {
    json!({
        "nodeName": node, "completionTime": "2026-01-01T00:00:09Z", "size": "24Mi", "freezeDuration": "118ms",
        "conditions": [{
            "type": "Ready", "status": "True", "reason": "CheckpointCompleted", "lastTransitionTime": "2026-01-01T00:00:09Z",
            "message": format!("in the store of node {node}, 24Mi, the pod stood still for 118ms"),
        }],
    })
}

/// The next agent leads at once.
pub(crate) async fn forget_leader(client: &Client) {
    let leases: Api<Lease> = Api::namespaced(client.clone(), LEADERS);
    leases.delete("cryopod-agent-leader", &DeleteParams::default()).await.ok();
}

/// Pods that run on the other node, as far as their objects say.
pub(crate) async fn pods(client: &Client, count: usize) {
    let api: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let one = |number: usize| {
        let api = api.clone();
        async move {
            let mut pod = template(number);
            pod["spec"]["nodeName"] = json!(ELSEWHERE);
            create(&api, pod).await;
            let patch = Patch::Merge(json!({ "status": { "phase": "Running" } }));
            api.patch_status(&format!("web-{number}"), &PatchParams::default(), &patch).await.unwrap();
        }
    };
    stream::iter(0..count).map(one).buffer_unordered(AT_ONCE).collect::<Vec<_>>().await;
}

/// A schedule that waits for a trigger by hand; whether the agent has taken it.
pub(crate) async fn schedule(client: &Client, at_a_time: usize) -> bool {
    let api: Api<CheckpointSchedule> = Api::namespaced(client.clone(), NAMESPACE);
    let schedule = json!({
        "apiVersion": "cryopod.dev/v1alpha1", "kind": "CheckpointSchedule", "metadata": { "name": "night" },
        "spec": { "schedule": "0 3 1 1 *", "maxConcurrent": at_a_time, "selector": { "matchLabels": { "app": "web" } } },
    });
    create(&api, schedule).await;
    until("the schedule has a status", || async {
        api.get("night").await.is_ok_and(|it| it.status.is_some_and(|status| !status.conditions.is_empty()))
    })
    .await
}

/// Waits for so many checkpoints of the schedule; those that are not complete.
pub(crate) async fn made(client: &Client, count: usize) -> Vec<String> {
    let api: Api<PodCheckpoint> = Api::namespaced(client.clone(), NAMESPACE);
    let began = Instant::now();
    loop {
        let listed = api.list(&ListParams::default().labels(SCHEDULED_BY)).await.unwrap().items;
        if listed.len() >= count {
            assert_eq!(listed.len(), count, "no more than may be taken at a time");
            let is_open =
                |it: &&PodCheckpoint| it.status.as_ref().is_none_or(|it| it.completion_time.is_none());
            return listed.iter().filter(is_open).map(ResourceExt::name_any).collect();
        }
        assert!(began.elapsed() < PATIENCE, "{} of {count} are made", listed.len());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Whether the status comes to say that so many pods wait.
pub(crate) async fn waiting(client: &Client, count: usize) -> bool {
    let api: Api<CheckpointSchedule> = Api::namespaced(client.clone(), NAMESPACE);
    until("the pods that wait are in the status", || async {
        let status = api.get("night").await.unwrap().status.unwrap_or_default();
        status.runs.iter().map(|run| run.waiting.len()).sum::<usize>() == count
    })
    .await
}

/// They were taken, all at once.
pub(crate) async fn complete(client: &Client, names: &[String]) {
    let api: Api<PodCheckpoint> = Api::namespaced(client.clone(), NAMESPACE);
    let patch = Patch::Merge(json!({ "status": completed(ELSEWHERE) }));
    for name in names {
        api.patch_status(name, &PatchParams::default(), &patch).await.unwrap();
    }
}

/// Waits; false when it does not come about.
async fn until<F: Future<Output = bool>>(what: &str, is: impl Fn() -> F) -> bool {
    let began = Instant::now();
    while !is().await {
        if began.elapsed() > PATIENCE {
            eprintln!("{what}: not after {PATIENCE:?}");
            return false;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    true
}
