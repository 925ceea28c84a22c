//! What the leader asks of the API server for a `CheckpointSchedule`, and in which order.

use std::time::Duration;

use hyper::Method;
use kube::runtime::controller::Action as Next;
use serde_json::{Value, json};

use super::super::retry;
use super::reconcile;
use crate::api::{CORDONED, CheckpointSchedule, EVICTABLE, SCHEDULED_BY};
use crate::context::Error;
use crate::script::{Call, FakeNode, assert_has, call, get, object, patch, play};

const SCHEDULE: &str = "/apis/cryopod.dev/v1alpha1/namespaces/default/checkpointschedules/night";
const STATUS: &str = "/apis/cryopod.dev/v1alpha1/namespaces/default/checkpointschedules/night/status";
const CHECKPOINTS: &str = "/apis/cryopod.dev/v1alpha1/namespaces/default/podcheckpoints";
const BUDGET: &str = "/apis/policy/v1/namespaces/default/poddisruptionbudgets/cryopod-night";

/// Somebody asks for a run, of two pods at a time.
fn schedule() -> Value {
    json!({
        "apiVersion": "cryopod.dev/v1alpha1", "kind": "CheckpointSchedule",
        "metadata": {
            "name": "night", "namespace": "default", "uid": "schedule-uid", "resourceVersion": "5", "generation": 1,
            "creationTimestamp": jiff::Timestamp::now(),
        },
        "spec": {
            "schedule": "0 3 1 1 *", "runNow": "x", "maxConcurrent": 2, "selector": { "matchLabels": { "app": "web" } },
        },
    })
}

fn pod(name: &str) -> Value {
    json!({
        "metadata": { "name": name, "namespace": "default", "uid": format!("{name}-uid") },
        "spec": { "runtimeClassName": "cryopod", "nodeName": "n1", "containers": [] },
        "status": { "phase": "Running" },
    })
}

fn list(kind: &str, items: &[Value]) -> Value {
    json!({ "kind": format!("{kind}List"), "apiVersion": "v1", "metadata": {}, "items": items })
}

/// The looks that every reconciliation begins with.
fn looks(seen: &Value, pods: &[Value], checkpoints: &[Value]) -> Vec<Call> {
    let classes = [json!({ "metadata": { "name": "cryopod" }, "handler": "cryopod" })];
    vec![
        get(SCHEDULE, seen),
        get("/apis/node.k8s.io/v1/runtimeclasses", &list("RuntimeClass", &classes)),
        get("/api/v1/namespaces/default/pods?limit=500&labelSelector=app%3Dweb", &list("Pod", pods)),
        get(
            &format!("{CHECKPOINTS}?labelSelector=cryopod.dev%2Fschedule%3Dnight"),
            &list("PodCheckpoint", checkpoints),
        ),
        get("/apis/cryopod.dev/v1alpha1/namespaces/default/podrestores", &list("PodRestore", &[])),
    ]
}

fn no_budget() -> Call {
    call(Method::GET, BUDGET).fails(404, "NotFound")
}

async fn once(seen: Value, script: Vec<Call>) -> Result<Next, Error> {
    play(FakeNode::new(), script, |context| reconcile(object::<CheckpointSchedule>(&seen), context)).await.0
}

fn makes(pod: &'static str) -> Call {
    call(Method::POST, CHECKPOINTS).with(move |body| {
        let expected = json!({
            "metadata": { "labels": { SCHEDULED_BY: "night" } },
            "spec": { "sourcePod": { "name": pod, "uid": format!("{pod}-uid") } },
        });
        assert_has(body, &expected);
        let name = body["metadata"]["name"].as_str().unwrap();
        assert!(name.starts_with(&format!("night-{pod}-now-")), "{name}");
    })
}

/// Which pods of the run still wait.
fn waits(pods: Value) -> Call {
    call(Method::PATCH, STATUS)
        .with(move |body| {
            assert_eq!(body["metadata"]["resourceVersion"], json!("5"), "whoever wrote meanwhile wins");
            let waiting = body["status"]["runs"].get(0).map_or(json!([]), |run| run["waiting"].clone());
            assert_eq!(waiting, pods, "{body}");
        })
        .says(&schedule())
}

#[tokio::test]
async fn a_run_makes_as_many_as_may_be_taken_at_a_time_and_only_then_says_so() {
    let mut script = looks(&schedule(), &[pod("web-0"), pod("web-1"), pod("web-2")], &[]);
    script.extend([no_budget(), makes("web-0"), makes("web-1"), waits(json!(["web-2"]))]);
    assert!(once(schedule(), script).await.is_ok());
}

#[tokio::test]
async fn one_that_a_killed_leader_made_is_as_good_as_made() {
    let mut script = looks(&schedule(), &[pod("web-0"), pod("web-1")], &[]);
    let there = makes("web-0").fails(409, "AlreadyExists");
    script.extend([no_budget(), there, makes("web-1"), waits(json!([]))]);
    assert!(once(schedule(), script).await.is_ok());
}

#[tokio::test]
async fn a_failure_in_the_middle_leaves_the_run_to_be_begun_again() {
    let mut script = looks(&schedule(), &[pod("web-0"), pod("web-1")], &[]);
    script.extend([no_budget(), makes("web-0"), makes("web-1").fails(500, "InternalError")]);
    let failed = once(schedule(), script).await.unwrap_err();
    let again =
        play(
            FakeNode::new(),
            Vec::new(),
            |context| async move { retry(object(&schedule()), &failed, context) },
        );
    assert_eq!(again.await.0, Next::requeue(Duration::from_secs(5)), "and no status was written");
}

#[tokio::test]
async fn a_status_that_somebody_else_wrote_meanwhile_is_read_again() {
    let mut script = looks(&schedule(), &[], &[]);
    script.extend([no_budget(), waits(json!([])).fails(409, "Conflict")]);
    let failed = once(schedule(), script).await.unwrap_err();
    let again =
        play(
            FakeNode::new(),
            Vec::new(),
            |context| async move { retry(object(&schedule()), &failed, context) },
        );
    assert_eq!(again.await.0, Next::requeue(Duration::from_millis(100)));
}

#[tokio::test]
async fn pods_come_in_pages() {
    let mut script = looks(&schedule(), &[], &[]);
    let mut first = list("Pod", &[pod("web-0")]);
    first["metadata"]["continue"] = json!("more");
    script[2] = get("/api/v1/namespaces/default/pods?limit=500&labelSelector=app%3Dweb", &first);
    let second = "/api/v1/namespaces/default/pods?limit=500&continue=more&labelSelector=app%3Dweb";
    script.insert(3, get(second, &list("Pod", &[pod("web-1")])));
    script.extend([no_budget(), makes("web-0"), makes("web-1"), waits(json!([]))]);
    assert!(once(schedule(), script).await.is_ok());
}

fn checkpoint(name: &str, completed: &str) -> Value {
    json!({
        "apiVersion": "cryopod.dev/v1alpha1", "kind": "PodCheckpoint",
        "metadata": { "name": name, "namespace": "default", "labels": { SCHEDULED_BY: "night" } },
        "spec": { "sourcePod": { "name": "web-0", "uid": "web-0-uid" } },
        "status": { "completionTime": completed, "conditions": [{
            "type": "Ready", "status": "True", "reason": "CheckpointCompleted", "message": "", "lastTransitionTime": completed,
        }] },
    })
}

#[tokio::test]
async fn what_retention_does_not_keep_is_deleted_even_if_somebody_was_quicker() {
    let mut seen = schedule();
    seen["spec"]["runNow"] = Value::Null;
    seen["spec"]["retention"] = json!({ "keepLast": 1 });
    let kept = [
        checkpoint("a", "2026-01-01T00:00:00Z"),
        checkpoint("b", "2026-01-02T00:00:00Z"),
        checkpoint("c", "2026-01-03T00:00:00Z"),
    ];
    let mut script = looks(&seen, &[pod("web-0")], &kept);
    script.extend([
        no_budget(),
        call(Method::DELETE, &format!("{CHECKPOINTS}/a")).says(&kept[0]),
        call(Method::DELETE, &format!("{CHECKPOINTS}/b")).fails(404, "NotFound"),
        waits(json!([])),
    ]);
    assert!(once(seen, script).await.is_ok());
}

#[tokio::test]
async fn a_cordon_is_noted_and_its_pods_are_captured_behind_a_budget() {
    let mut seen = schedule();
    seen["spec"]["runNow"] = Value::Null;
    seen["spec"]["triggers"] = json!(["NodeDrain"]);
    let node = json!({ "metadata": { "name": "n1" }, "spec": { "unschedulable": true } });
    let mut script = looks(&seen, &[pod("web-0")], &[]);
    script.extend([
        get("/api/v1/nodes", &list("Node", std::slice::from_ref(&node))),
        call(Method::PATCH, "/api/v1/nodes/n1")
            .with(|body| assert!(body["metadata"]["annotations"][CORDONED].is_string(), "{body}"))
            .says(&node),
        no_budget(),
        call(Method::PATCH, &format!("{BUDGET}?force=true&fieldManager=cryopod-agent")).with(|body| {
            assert_has(&body["metadata"]["ownerReferences"][0], &json!({ "uid": "schedule-uid" }));
            let label = &body["spec"]["selector"]["matchExpressions"][0];
            assert_has(label, &json!({ "key": EVICTABLE, "operator": "DoesNotExist" }));
        }),
        call(Method::POST, CHECKPOINTS)
            .with(|body| assert!(body["metadata"]["annotations"]["cryopod.dev/drain"].is_string(), "{body}")),
        waits(json!([])),
    ]);
    assert_eq!(once(seen, script).await.unwrap(), Next::requeue(Duration::from_secs(2)), "somebody waits");
}

#[tokio::test]
async fn a_selector_that_is_none_is_said_and_nothing_else_is_asked() {
    let mut seen = schedule();
    seen["spec"]["selector"] = json!({ "matchExpressions": [{ "key": "a", "operator": "Almost" }] });
    let said = json!({ "status": "False", "reason": "InvalidSchedule" });
    let script = vec![
        get(SCHEDULE, &seen),
        patch(STATUS, json!({}), &seen).with(move |body| assert_has(&body["status"]["conditions"][0], &said)),
    ];
    assert_eq!(once(seen, script).await.unwrap(), Next::await_change());
}

#[tokio::test]
async fn one_that_is_gone_or_going_is_nothing_to_do() {
    let script = vec![call(Method::GET, SCHEDULE).fails(404, "NotFound")];
    assert_eq!(once(schedule(), script).await.unwrap(), Next::await_change());
    let mut going = schedule();
    going["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    assert_eq!(once(going.clone(), vec![get(SCHEDULE, &going)]).await.unwrap(), Next::await_change());
}
