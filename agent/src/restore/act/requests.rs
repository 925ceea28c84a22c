//! What the leader asks of the API server for a `PodRestore`, and in which order.

use std::time::Duration;

use hyper::Method;
use kube::runtime::controller::Action;
use serde_json::{Value, json};

use super::super::retry;
use super::reconcile;
use crate::api::{PodRestore, RESTORED_BY, RESTORED_BY_UID};
use crate::context::Error;
use crate::script::{Call, FakeNode, assert_has, call, event, get, object, patch, play};

const RS: &str = "/apis/cryopod.dev/v1alpha1/namespaces/default/podrestores/back";
const STATUS: &str = "/apis/cryopod.dev/v1alpha1/namespaces/default/podrestores/back/status";
const CP: &str = "/apis/cryopod.dev/v1alpha1/namespaces/default/podcheckpoints/cp";
const PODS: &str = "/api/v1/namespaces/default/pods";
const POD: &str = "/api/v1/namespaces/default/pods/web";

fn restore() -> Value {
    json!({
        "apiVersion": "cryopod.dev/v1alpha1", "kind": "PodRestore",
        "metadata": {
            "name": "back", "namespace": "default", "uid": "restore-uid", "resourceVersion": "3", "generation": 1,
            "creationTimestamp": jiff::Timestamp::now(), "annotations": { "cryopod.dev/requested-by": "jane" },
        },
        "spec": { "checkpointName": "cp" },
    })
}

/// Its pod is made and noted.
fn made() -> Value {
    let mut object = restore();
    object["status"] = json!({
        "startTime": jiff::Timestamp::now(), "pods": [{ "name": "web", "uid": "new-uid", "running": false }],
        "conditions": ready("False", "RestoreInProgress"),
    });
    object
}

fn checkpoint() -> Value {
    json!({
        "apiVersion": "cryopod.dev/v1alpha1", "kind": "PodCheckpoint",
        "metadata": { "name": "cp", "namespace": "default", "uid": "cp-uid" },
        "spec": { "sourcePod": { "name": "web" } },
        "status": {
            "nodeName": "n1", "checkpointID": "cp-1", "conditions": ready("True", "CheckpointCompleted"),
            "checkpointedPodTemplate": {
                "metadata": { "name": "web", "labels": { "app": "web" } },
                "spec": { "containers": [{ "name": "app", "image": "app:1" }] },
            },
        },
    })
}

fn ready(status: &str, reason: &str) -> Value {
    json!([{ "type": "Ready", "status": status, "reason": reason, "message": "", "lastTransitionTime": "2026-01-01T00:00:01Z" }])
}

/// A pod that a restore of this UID made.
fn pod(of: &str, status: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": "web", "namespace": "default", "uid": "new-uid", "annotations": { RESTORED_BY_UID: of } },
        "status": status,
    })
}

fn running() -> Value {
    json!({ "phase": "Running", "containerStatuses": [{ "state": { "running": {} } }] })
}

fn none(path: &str) -> Call {
    call(Method::GET, path).fails(404, "NotFound")
}

async fn once(seen: Value, script: Vec<Call>) -> Result<Action, Error> {
    play(FakeNode::new(), script, |context| reconcile(object::<PodRestore>(&seen), context)).await.0
}

fn says(status: &'static str, reason: &'static str) -> Call {
    let ready = json!({ "type": "Ready", "status": status, "reason": reason });
    call(Method::PATCH, STATUS)
        .with(move |body| assert_has(&body["status"]["conditions"][0], &ready))
        .says(&restore())
}

#[tokio::test]
async fn a_pod_is_made_on_the_node_of_the_checkpoint_and_noted_at_once() {
    let make = call(Method::POST, PODS)
        .with(|body| {
            assert_has(&body["metadata"], &json!({
                "name": "web", "namespace": "default", "labels": { "app": "web", RESTORED_BY: "back" },
                "annotations": { "cryopod.dev/requested-by": "jane", "cryopod.dev/restore-from": "cp", RESTORED_BY_UID: "restore-uid" },
            }));
            let terms = "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms/0";
            assert_eq!(body.pointer(terms).unwrap()["matchFields"][0]["values"], json!(["n1"]));
        })
        .says(&pod("restore-uid", &json!({ "phase": "Pending" })));
    let noted = json!({ "status": {
        "pods": [{ "name": "web", "uid": "new-uid", "running": false }], "nodeName": "n1", "checkpointID": "cp-1",
    }});
    let script = vec![
        get(RS, &restore()),
        get(CP, &checkpoint()),
        none(POD),
        make,
        patch(STATUS, noted, &made()).with(|body| assert!(body["status"]["startTime"].is_string(), "{body}")),
        event("PodRestore", "RestoreInProgress"),
    ];
    assert_eq!(once(restore(), script).await.unwrap(), Action::requeue(Duration::ZERO));
}

#[tokio::test]
async fn clones_have_generated_names_and_are_made_one_by_one() {
    let mut clones = restore();
    clones["spec"]["count"] = json!(3);
    let first = pod("restore-uid", &running());
    let script = vec![
        get(RS, &clones),
        get(CP, &checkpoint()),
        get(&format!("{PODS}/back-0"), &first),
        none(&format!("{PODS}/back-1")),
        none(&format!("{PODS}/back-2")),
        call(Method::POST, PODS)
            .with(|body| assert_eq!(body["metadata"]["name"], json!("back-1")))
            .says(&pod("restore-uid", &json!({}))),
        says("False", "RestoreInProgress"),
        event("PodRestore", "RestoreInProgress"),
    ];
    assert!(once(clones, script).await.is_ok());
}

#[tokio::test]
async fn a_pod_that_a_killed_leader_made_is_adopted() {
    let exists = call(Method::POST, PODS).fails(409, "AlreadyExists");
    let script = vec![get(RS, &restore()), get(CP, &checkpoint()), none(POD), exists];
    assert_eq!(
        once(restore(), script).await.unwrap(),
        Action::requeue(Duration::ZERO),
        "nothing is said yet"
    );
    let adopted = json!({ "status": { "pods": [{ "name": "web", "uid": "new-uid", "running": true }], "readyPods": 1 } });
    let script = vec![
        get(RS, &restore()),
        get(CP, &checkpoint()),
        get(POD, &pod("restore-uid", &running())),
        patch(STATUS, adopted, &made()).with(|body| assert!(body["status"]["completionTime"].is_string())),
        event("PodRestore", "RestoreSucceeded"),
    ];
    assert_eq!(once(restore(), script).await.unwrap(), Action::await_change());
}

#[tokio::test]
async fn a_pod_of_somebody_else_is_left_alone_and_named() {
    let script = vec![
        get(RS, &restore()),
        get(CP, &checkpoint()),
        get(POD, &pod("another", &running())),
        says("False", "PodExists"),
        event("PodRestore", "PodExists").with(|body| assert_eq!(body["type"], json!("Warning"))),
    ];
    assert!(once(restore(), script).await.is_ok());
}

#[tokio::test]
async fn a_pod_that_kubernetes_refuses_is_said_and_tried_again() {
    let script = vec![
        get(RS, &restore()),
        get(CP, &checkpoint()),
        none(POD),
        call(Method::POST, PODS).fails(403, "Forbidden"),
        says("False", "PodRefused").with(|body| {
            let ready = &body["status"]["conditions"][0];
            assert_eq!(ready["message"], json!("Kubernetes refuses pod web: said Forbidden"));
        }),
        event("PodRestore", "PodRefused"),
    ];
    assert_eq!(once(restore(), script).await.unwrap(), Action::requeue(Duration::from_secs(10)));
}

#[tokio::test]
async fn a_failing_api_server_is_nobodys_refusal() {
    for code in [(500, "InternalError"), (429, "TooManyRequests")] {
        let script = vec![
            get(RS, &restore()),
            get(CP, &checkpoint()),
            none(POD),
            call(Method::POST, PODS).fails(code.0, code.1),
        ];
        let failed = once(restore(), script).await.unwrap_err();
        let again = play(FakeNode::new(), Vec::new(), |context| async move {
            retry(object(&restore()), &failed, context)
        });
        assert_eq!(again.await.0, Action::requeue(Duration::from_secs(5)));
    }
}

#[tokio::test]
async fn without_a_whole_checkpoint_no_pod_is_made() {
    let script = vec![
        get(RS, &restore()),
        none(CP),
        says("False", "CheckpointNotReady"),
        event("PodRestore", "CheckpointNotReady"),
    ];
    assert!(once(restore(), script).await.is_ok());
    let mut failed = checkpoint();
    failed["status"]["conditions"] = ready("False", "CheckpointFailed");
    let script = vec![
        get(RS, &restore()),
        get(CP, &failed),
        none(POD),
        says("False", "RestoreFailed"),
        event("PodRestore", "RestoreFailed"),
    ];
    assert_eq!(once(restore(), script).await.unwrap(), Action::await_change());
}

#[tokio::test]
async fn a_pod_that_was_made_and_deleted_is_not_made_again() {
    let script = vec![
        get(RS, &made()),
        get(CP, &checkpoint()),
        none(POD),
        says("False", "RestoreInProgress").with(|body| {
            assert_eq!(body["status"]["pods"][0]["message"], json!("it was deleted before it ran"));
        }),
    ];
    assert!(once(made(), script).await.is_ok());
}

#[tokio::test]
async fn what_is_over_or_gone_costs_no_request_beyond_the_look() {
    let mut over = made();
    over["status"]["conditions"] = ready("True", "RestoreSucceeded");
    assert_eq!(once(over, Vec::new()).await.unwrap(), Action::await_change());
    assert_eq!(once(restore(), vec![none(RS)]).await.unwrap(), Action::await_change());
}
