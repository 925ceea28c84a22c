//! What the leader asks of the API server about checkpoints that no agent takes care of.

use hyper::Method;
use kube::runtime::controller::Action;
use serde_json::{Value, json};

use std::sync::Arc;

use super::{LOOK_AGAIN, Leader, Nodes, RARELY, reconcile};
use crate::api::{FINALIZER, PodCheckpoint};
use crate::context::Error;
use crate::script::{Call, FakeNode, call, event, get, object, patch, play};

const CP: &str = "/apis/cryopod.dev/v1alpha1/namespaces/default/podcheckpoints/cp";
const STATUS: &str = "/apis/cryopod.dev/v1alpha1/namespaces/default/podcheckpoints/cp/status";
const POD: &str = "/api/v1/namespaces/default/pods/web";
const NODE: &str = "/api/v1/nodes/n9";

fn unclaimed() -> Value {
    json!({
        "apiVersion": "cryopod.dev/v1alpha1", "kind": "PodCheckpoint",
        "metadata": {
            "name": "cp", "namespace": "default", "uid": "object-uid", "resourceVersion": "7",
            "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": { "sourcePod": { "name": "web" } },
    })
}

/// On a node, and being deleted.
fn leaving() -> Value {
    let mut object = unclaimed();
    object["metadata"]["deletionTimestamp"] = json!("2026-01-02T00:00:00Z");
    object["metadata"]["finalizers"] = json!(["somebody.else/s", FINALIZER]);
    object["status"] = json!({ "nodeName": "n9" });
    object
}

async fn once(seen: Value, script: Vec<Call>) -> Result<Action, Error> {
    let look = |context| {
        let leader = Arc::new(Leader { context, nodes: Nodes::default() });
        reconcile(object::<PodCheckpoint>(&seen), leader)
    };
    play(FakeNode::new(), script, look).await.0
}

fn nodes(names: &[&str]) -> Call {
    let items: Vec<Value> = names.iter().map(|name| json!({ "metadata": { "name": name } })).collect();
    let list = json!({
        "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadataList", "metadata": {}, "items": items,
    });
    get("/api/v1/nodes?limit=500", &list)
}

#[tokio::test]
async fn a_verdict_is_about_the_version_that_was_judged() {
    let judged = json!({ "metadata": { "resourceVersion": "7" } });
    let script = vec![
        call(Method::GET, POD).fails(404, "NotFound"),
        patch(STATUS, judged, &unclaimed()).with(|body| {
            assert_eq!(body["status"]["conditions"][0]["reason"], json!("SourcePodNotFound"), "{body}");
        }),
        event("PodCheckpoint", "SourcePodNotFound"),
    ];
    assert_eq!(once(unclaimed(), script).await.unwrap(), Action::requeue(LOOK_AGAIN));
}

#[tokio::test]
async fn an_agent_that_claimed_it_meanwhile_wins() {
    let script = vec![
        call(Method::GET, POD).fails(404, "NotFound"),
        call(Method::PATCH, STATUS).fails(409, "Conflict"),
    ];
    assert!(once(unclaimed(), script).await.unwrap_err().is_conflict(), "and there is no event");
}

#[tokio::test]
async fn a_failing_api_server_is_not_a_missing_pod() {
    let script = vec![call(Method::GET, POD).fails(500, "InternalError")];
    assert!(once(unclaimed(), script).await.is_err());
    let broken = |path| call(Method::GET, path).fails(500, "InternalError");
    assert!(once(leaving(), vec![broken("/api/v1/nodes")]).await.is_err());
    assert!(once(leaving(), vec![nodes(&[]), broken(NODE)]).await.is_err());
}

#[tokio::test]
async fn only_when_the_node_is_gone_is_its_checkpoint_let_go_and_only_by_our_own_finalizer() {
    let node = json!({ "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": { "name": "n9" } });
    assert_eq!(once(leaving(), vec![nodes(&["n8", "n9"])]).await.unwrap(), Action::requeue(RARELY));
    let newer = vec![nodes(&["n8"]), get(NODE, &node)];
    assert_eq!(once(leaving(), newer).await.unwrap(), Action::requeue(RARELY), "it came after the list");
    let open = json!({ "metadata": { "finalizers": ["somebody.else/s"], "resourceVersion": "7" } });
    let script = vec![
        nodes(&["n8"]),
        call(Method::GET, NODE).fails(404, "NotFound"),
        event("PodCheckpoint", "CheckpointDataLeft"),
        patch(CP, open, &leaving()),
    ];
    assert_eq!(once(leaving(), script).await.unwrap(), Action::await_change());
}

#[tokio::test]
async fn a_thousand_checkpoints_of_nodes_that_are_there_cost_one_list() {
    let seen: Vec<Value> = (0..1000)
        .map(|number| {
            let mut object = unclaimed();
            object["status"] = json!({ "nodeName": format!("n{}", number % 50) });
            object
        })
        .collect();
    let names: Vec<String> = (0..50).map(|number| format!("n{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    play(FakeNode::new(), vec![nodes(&names)], |context| async move {
        let leader = Arc::new(Leader { context, nodes: Nodes::default() });
        for object in &seen {
            let looked = reconcile(crate::script::object(object), Arc::clone(&leader)).await;
            assert_eq!(looked.unwrap(), Action::requeue(RARELY));
        }
    })
    .await;
}
