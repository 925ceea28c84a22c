use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::*;
use crate::api::checkpoint::{DeletionPolicy, PodCheckpointSpec, PodCheckpointStatus, SourcePod};

const NOW: i64 = 1_800_000_000;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

fn object(age: i64, node: Option<&str>, reason: &'static str) -> PodCheckpoint {
    let spec = PodCheckpointSpec {
        source_pod: SourcePod { name: "web".into(), uid: None },
        timeout_seconds: Some(60),
        mode: None,
        containers: Vec::new(),
        deletion_policy: DeletionPolicy::Delete,
        ttl: None,
    };
    let mut object = PodCheckpoint::new("cp", spec);
    object.metadata.namespace = Some("default".into());
    object.metadata.creation_timestamp = Some(Time(at(NOW - age)));
    object.metadata.finalizers = Some(vec![FINALIZER.into()]);
    let mut status =
        PodCheckpointStatus { node_name: node.map(str::to_owned), ..PodCheckpointStatus::default() };
    if !reason.is_empty() {
        condition::set_ready(&mut status.conditions, &Verdict::no(reason, ""), None, at(NOW));
    }
    object.status = Some(status);
    object
}

fn pod(node: Option<&str>) -> Option<Source> {
    let node = node.map(str::to_owned);
    Some(Source { uid: "u".into(), node, phase: "Running".into() })
}

fn next(object: &PodCheckpoint, pod: Option<Source>, has_node: bool) -> Step {
    plan(&Seen { object, pod, has_node, now: at(NOW) })
}

fn said(step: Step) -> Verdict {
    match step {
        Step::Say(verdict) => verdict,
        other => panic!("{other:?} says nothing"),
    }
}

#[test]
fn nobody_is_judged_in_the_first_seconds() {
    assert_eq!(next(&object(5, None, ""), None, true), Step::Wait(LOOK_AGAIN));
}

#[test]
fn a_pod_that_does_not_exist_is_a_failure() {
    let verdict = said(next(&object(11, None, ""), None, true));
    assert_eq!(verdict.reason, SOURCE_POD_NOT_FOUND);
    assert!(verdict.message.contains("no pod web in namespace default"), "{}", verdict.message);
}

#[test]
fn an_agent_that_does_not_answer_is_named_and_then_it_fails() {
    let waits = said(next(&object(11, None, ""), pod(Some("n3")), true));
    assert_eq!(waits.reason, NODE_UNAVAILABLE);
    assert!(waits.message.contains("n3"), "{}", waits.message);
    let again = object(12, None, NODE_UNAVAILABLE);
    assert_eq!(next(&again, pod(Some("n3")), true), Step::Wait(LOOK_AGAIN), "said once");
    assert_eq!(said(next(&object(61, None, NODE_UNAVAILABLE), pod(Some("n3")), true)).reason, FAILED);
    assert_eq!(said(next(&object(11, None, ""), pod(None), true)).reason, PENDING);
    assert_eq!(said(next(&object(61, None, PENDING), pod(None), true)).reason, FAILED);
}

#[test]
fn what_is_over_or_in_good_hands_is_left_alone() {
    for reason in [FAILED, SOURCE_POD_NOT_FOUND, SOURCE_POD_REPLACED] {
        assert_eq!(next(&object(99, None, reason), None, true), Step::Wait(RARELY), "{reason}");
    }
    assert_eq!(next(&object(99, Some("n1"), ""), None, true), Step::Wait(RARELY));
}

#[test]
fn a_node_that_left_the_cluster_is_said_and_keeps_nobody_from_deleting() {
    assert_eq!(said(next(&object(99, Some("n1"), COMPLETED), None, false)).reason, NODE_UNAVAILABLE);
    assert_eq!(said(next(&object(99, Some("n1"), ""), None, false)).reason, FAILED);
    let mut going = object(99, Some("n1"), COMPLETED);
    going.metadata.deletion_timestamp = Some(Time(at(NOW)));
    assert_eq!(next(&going, None, true), Step::Wait(RARELY), "its agent does it");
    assert_eq!(next(&going, None, false), Step::LetGo);
    going.metadata.finalizers = None;
    assert_eq!(next(&going, None, false), Step::Wait(RARELY));
}
