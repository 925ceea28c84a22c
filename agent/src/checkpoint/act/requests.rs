//! What the agent asks of the API server and of its node for a `PodCheckpoint`, and in which order.

use std::time::Duration;

use hyper::Method;
use kube::runtime::controller::Action;
use serde_json::{Value, json};

use super::super::{claim, retry};
use super::reconcile;
use crate::api::{FINALIZER, PodCheckpoint};
use crate::context::{Context, Error};
use crate::node::{NodeError, Progress};
use crate::script::{Call, FakeNode, assert_has, call, event, get, object, patch, play, stored};

const CP: &str = "/apis/cryopod.dev/v1alpha1/namespaces/default/podcheckpoints/cp";
const STATUS: &str = "/apis/cryopod.dev/v1alpha1/namespaces/default/podcheckpoints/cp/status";
const POD: &str = "/api/v1/namespaces/default/pods/web";

/// Asked for and claimed by this node.
fn claimed() -> Value {
    json!({
        "apiVersion": "cryopod.dev/v1alpha1", "kind": "PodCheckpoint",
        "metadata": {
            "name": "cp", "namespace": "default", "uid": "object-uid", "resourceVersion": "7", "generation": 1,
            "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": { "sourcePod": { "name": "web" } },
        "status": { "nodeName": "n1" },
    })
}

fn protected() -> Value {
    let mut object = claimed();
    object["metadata"]["finalizers"] = json!([FINALIZER]);
    object
}

/// The shim may be asked.
fn begun() -> Value {
    let mut object = protected();
    object["status"]["checkpointID"] = json!(stored("").id);
    object["status"]["sourcePodUID"] = json!("pod-uid");
    object["status"]["startTime"] = json!(jiff::Timestamp::now());
    object["status"]["conditions"] = ready("False", "CheckpointInProgress");
    object
}

fn complete() -> Value {
    let mut object = begun();
    object["status"]["completionTime"] = json!("2026-01-01T00:00:09Z");
    object["status"]["conditions"] = ready("True", "CheckpointCompleted");
    object
}

fn deleted(mut object: Value) -> Value {
    object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:01:00Z");
    object
}

fn ready(status: &str, reason: &str) -> Value {
    json!([{ "type": "Ready", "status": status, "reason": reason, "message": "", "lastTransitionTime": "2026-01-01T00:00:01Z" }])
}

fn pod() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": "web", "namespace": "default", "uid": "pod-uid" },
        "spec": { "nodeName": "n1", "containers": [{ "name": "app", "image": "app:1" }], "futureField": 1 },
        "status": { "phase": "Running" },
    })
}

/// One look at the object.
async fn once(node: FakeNode, seen: &Value, script: Vec<Call>) -> (Result<Action, Error>, Vec<String>) {
    let seen = object::<PodCheckpoint>(seen);
    play(node, script, |context| reconcile(seen, context)).await
}

fn at_once() -> Action {
    Action::requeue(Duration::ZERO)
}

/// The patch replaces the object's `Ready` by this.
fn says(answer: &Value, status: &'static str, reason: &'static str, words: &'static str) -> Call {
    call(Method::PATCH, STATUS)
        .with(move |body| {
            let ready = &body["status"]["conditions"][0];
            assert_has(
                ready,
                &json!({ "type": "Ready", "status": status, "reason": reason, "observedGeneration": 1 }),
            );
            assert!(ready["message"].as_str().is_some_and(|it| it.contains(words)), "{ready}");
            assert_eq!(body["status"].get("progress"), Some(&Value::Null), "what is over has no progress");
        })
        .says(answer)
}

#[tokio::test]
async fn the_object_is_protected_before_there_is_data() {
    let finalizers = json!({ "metadata": { "finalizers": [FINALIZER], "resourceVersion": "7" } });
    let script = vec![get(CP, &claimed()), get(POD, &pod()), patch(CP, finalizers, &protected())];
    let (done, log) = once(FakeNode::new(), &claimed(), script).await;
    assert_eq!(done.unwrap(), at_once());
    assert!(log.iter().all(|line| !line.starts_with("node:")), "{log:?}");
}

#[tokio::test]
async fn id_time_pod_and_template_are_noted_before_the_shim_is_asked() {
    let noted = json!({ "status": { "checkpointID": stored("").id, "sourcePodUID": "pod-uid" } });
    let begin = patch(STATUS, noted, &begun()).with(|body| {
        let status = &body["status"];
        assert_eq!(status["checkpointID"], json!(stored("").id));
        assert_eq!(
            (&status["sourcePodUID"], &status["conditions"][0]["reason"]),
            (&json!("pod-uid"), &json!("CheckpointInProgress"))
        );
        assert!(status["startTime"].is_string());
        let spec = &status["checkpointedPodTemplate"]["spec"];
        assert_eq!((&spec["futureField"], spec.get("nodeName")), (&json!(1), None), "kept, and not kept");
    });
    let script = vec![
        get(CP, &protected()),
        get(POD, &pod()),
        get(POD, &pod()),
        begin,
        event("PodCheckpoint", "CheckpointStarted"),
        event("Pod", "CheckpointStarted"),
    ];
    let (done, log) = once(FakeNode::new(), &protected(), script).await;
    assert_eq!(done.unwrap(), at_once());
    assert!(log.iter().all(|line| !line.starts_with("node:")), "{log:?}");
}

#[tokio::test]
async fn a_capture_ends_with_a_status_that_says_what_there_is_and_events_at_object_and_pod() {
    let done = says(&complete(), "True", "CheckpointCompleted", "118ms").with(|body| {
        let status = json!({
            "nodeName": "n1", "mode": "Full", "freezeDuration": "118ms", "size": "2.0Mi", "progress": null,
            "checkpointedContainers": [{ "name": "app", "image": "app:1", "memory": true }],
        });
        assert_has(&body["status"], &status);
        assert_has(
            &body["status"]["conditions"][0],
            &json!({ "status": "True", "reason": "CheckpointCompleted" }),
        );
    });
    let script = vec![
        get(CP, &begun()),
        get(POD, &pod()),
        done,
        event("PodCheckpoint", "CheckpointSucceeded"),
        event("Pod", "CheckpointSucceeded"),
    ];
    let (done, log) = once(FakeNode::new(), &begun(), script).await;
    assert_eq!(done.unwrap(), at_once());
    assert_eq!(log[2], format!("node: capture {}", stored("").id));
}

#[tokio::test]
async fn a_refusal_is_said_for_good_with_its_own_words() {
    let refused =
        || NodeError::Capture { reason: "io-uring".into(), message: "process 7 uses io_uring".into() };
    let script = vec![
        get(CP, &begun()),
        get(POD, &pod()),
        says(&begun(), "False", "CheckpointFailed", "process 7 uses io_uring"),
        event("PodCheckpoint", "CheckpointFailed"),
        event("Pod", "CheckpointFailed"),
    ];
    let (done, _) = once(FakeNode::capturing(move |_, _| Err(refused())), &begun(), script).await;
    assert_eq!(done.unwrap(), Action::await_change());
}

#[tokio::test]
async fn a_shim_that_is_busy_is_asked_again_and_nothing_is_said() {
    let busy = || NodeError::Busy { pod: "default/web".into() };
    let script = vec![get(CP, &begun()), get(POD, &pod())];
    let (done, _) = once(FakeNode::capturing(move |_, _| Err(busy())), &begun(), script).await;
    assert_eq!(done.unwrap(), Action::requeue(Duration::from_secs(1)));
}

#[tokio::test]
async fn what_a_killed_agent_had_captured_is_completed_and_not_captured_again() {
    let script = vec![
        get(CP, &begun()),
        get(POD, &pod()),
        says(&complete(), "True", "CheckpointCompleted", ""),
        event("PodCheckpoint", "CheckpointSucceeded"),
        event("Pod", "CheckpointSucceeded"),
    ];
    let (done, log) = once(FakeNode::new().has(stored("object-uid")), &begun(), script).await;
    assert_eq!(done.unwrap(), at_once());
    assert!(!log.iter().any(|line| line.contains("capture")), "{log:?}");
}

#[tokio::test]
async fn progress_is_told_and_a_deletion_meanwhile_ends_the_capture() {
    let until_cancelled = |progress: &mut dyn FnMut(Progress), cancel: &cryopod_command::Cancel| {
        progress(Progress { step: "dump".into(), done: 3, total: 9 });
        while !cancel.is_cancelled() {
            std::thread::sleep(Duration::from_millis(5));
        }
        Err(NodeError::Cancelled)
    };
    let told = json!({ "status": { "progress": { "step": "dump", "doneBytes": 3, "totalBytes": 9 } } });
    let script = vec![
        get(CP, &begun()),
        get(POD, &pod()),
        patch(STATUS, told, &begun()),
        // The API server is away for a moment: that is nobody's wish.
        call(Method::GET, CP).fails(500, "InternalError"),
        get(CP, &deleted(begun())),
    ];
    let (done, _) = once(FakeNode::capturing(until_cancelled), &begun(), script).await;
    assert_eq!(done.unwrap(), at_once());
}

#[tokio::test]
async fn a_conflict_is_tried_again_at_once_with_what_was_read_then() {
    let script = vec![get(CP, &claimed()), get(POD, &pod()), call(Method::PATCH, CP).fails(409, "Conflict")];
    let (failed, _) = once(FakeNode::new(), &claimed(), script).await;
    assert_eq!(retried(&failed.unwrap_err()).await, Action::requeue(Duration::from_millis(100)));
    let mut newer = claimed();
    newer["metadata"]["resourceVersion"] = json!("8");
    newer["metadata"]["finalizers"] = json!(["somebody.else/s"]);
    let both =
        json!({ "metadata": { "finalizers": ["somebody.else/s", FINALIZER], "resourceVersion": "8" } });
    let script = vec![get(CP, &newer), get(POD, &pod()), patch(CP, both, &protected())];
    assert_eq!(once(FakeNode::new(), &claimed(), script).await.0.unwrap(), at_once());
}

/// What the controller does about a failed step.
async fn retried(error: &Error) -> Action {
    play(FakeNode::new(), Vec::new(), |context: std::sync::Arc<Context>| async move {
        retry(object(&claimed()), error, context)
    })
    .await
    .0
}

#[tokio::test]
async fn a_failing_api_server_changes_nothing_and_is_asked_again_later() {
    for broken in [CP, POD] {
        let mut script = vec![get(CP, &begun()), get(POD, &pod())];
        script.truncate(usize::from(broken == POD));
        script.push(call(Method::GET, broken).fails(500, "InternalError"));
        let (failed, log) = once(FakeNode::new(), &begun(), script).await;
        let failed = failed.unwrap_err();
        assert_eq!(retried(&failed).await, Action::requeue(Duration::from_secs(5)), "{failed}");
        assert!(!log.iter().any(|line| line.starts_with("node:")), "{log:?}");
    }
    // The capture is there; only its status could not be written. The next look finds it in the store.
    let script =
        vec![get(CP, &begun()), get(POD, &pod()), call(Method::PATCH, STATUS).fails(500, "InternalError")];
    assert!(once(FakeNode::new(), &begun(), script).await.0.is_err());
}

#[tokio::test]
async fn an_object_that_is_gone_is_nothing_to_do() {
    let (done, _) = once(FakeNode::new(), &begun(), vec![call(Method::GET, CP).fails(404, "NotFound")]).await;
    assert_eq!(done.unwrap(), Action::await_change());
    let script =
        vec![get(CP, &begun()), get(POD, &pod()), call(Method::PATCH, STATUS).fails(404, "NotFound")];
    let (done, _) = once(FakeNode::new(), &begun(), script).await;
    assert_eq!(done.unwrap(), Action::await_change(), "and no event about it");
}

#[tokio::test]
async fn the_data_goes_before_the_object_may() {
    let seen = deleted(complete());
    let node = FakeNode::new().has(stored("object-uid"));
    let open = json!({ "metadata": { "finalizers": [], "resourceVersion": "7" } });
    let script = vec![get(CP, &seen), get(CP, &seen), patch(CP, open, &seen)];
    let ((first, second), log) = play(node, script, |context| async move {
        let first = reconcile(object(&deleted(complete())), context.clone()).await;
        (first, reconcile(object(&deleted(complete())), context).await)
    })
    .await;
    assert_eq!((first.unwrap(), second.unwrap()), (at_once(), at_once()));
    let id = stored("").id;
    assert_eq!(
        log,
        [format!("GET {CP}"), format!("node: delete {id}"), format!("GET {CP}"), format!("PATCH {CP}")]
    );
}

#[tokio::test]
async fn data_that_cannot_be_deleted_keeps_the_object_and_says_why() {
    let seen = deleted(complete());
    let node =
        FakeNode::new().has(stored("object-uid")).fails_to_delete(NodeError::Store("dataset is busy".into()));
    let why = event("PodCheckpoint", "CheckpointDeletionFailed").with(|body| {
        assert!(body["note"].as_str().is_some_and(|note| note.contains("dataset is busy")), "{body}");
    });
    let (failed, _) = once(node, &seen, vec![get(CP, &seen), why]).await;
    assert_eq!(retried(&failed.unwrap_err()).await, Action::requeue(Duration::from_secs(5)));
}

#[tokio::test]
async fn a_complete_one_costs_no_request_and_its_loss_is_said() {
    let (done, log) = once(FakeNode::new().has(stored("object-uid")), &complete(), Vec::new()).await;
    assert!(done.is_ok() && log.is_empty(), "{log:?}");
    let script = vec![
        says(&complete(), "False", "CheckpointDataMissing", "is not in the store of node n1"),
        event("PodCheckpoint", "CheckpointDataMissing"),
        event("Pod", "CheckpointDataMissing"),
    ];
    assert!(once(FakeNode::new(), &complete(), script).await.0.is_ok());
}

#[tokio::test]
async fn when_its_time_is_over_exactly_this_object_is_deleted() {
    let mut seen = complete();
    seen["spec"]["ttl"] = json!("1s");
    let only = json!({ "preconditions": { "uid": "object-uid" } });
    let delete =
        call(Method::DELETE, CP).with(move |body| assert_has(body, &only)).says(&deleted(seen.clone()));
    let (done, _) = once(FakeNode::new().has(stored("object-uid")), &seen, vec![delete]).await;
    assert_eq!(done.unwrap(), Action::await_change());
}

mod claiming {
    use super::*;

    fn free() -> Value {
        let mut object = claimed();
        object.as_object_mut().unwrap().remove("status");
        object
    }

    async fn look(script: Vec<Call>) -> Result<Action, Error> {
        play(FakeNode::new(), script, |context| claim::reconcile(object(&free()), context)).await.0
    }

    #[tokio::test]
    async fn the_agent_of_the_pods_node_takes_the_version_that_it_saw() {
        let taken = json!({ "metadata": { "resourceVersion": "7" }, "status": { "nodeName": "n1" } });
        let script = vec![get(POD, &pod()), patch(STATUS, taken, &claimed())];
        assert_eq!(look(script).await.unwrap(), Action::await_change());
    }

    #[tokio::test]
    async fn who_was_slower_writes_nothing() {
        let script = vec![get(POD, &pod()), call(Method::PATCH, STATUS).fails(409, "Conflict")];
        assert!(look(script).await.unwrap_err().is_conflict());
    }

    #[tokio::test]
    async fn pods_of_others_are_left_to_them() {
        let mut theirs = pod();
        theirs["spec"]["nodeName"] = json!("n2");
        let later = Action::requeue(Duration::from_secs(5));
        assert_eq!(look(vec![get(POD, &theirs)]).await.unwrap(), later);
        assert_eq!(look(vec![call(Method::GET, POD).fails(404, "NotFound")]).await.unwrap(), later);
    }
}
