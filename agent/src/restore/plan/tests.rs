use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::api::checkpoint::{
    COMPLETED, DeletionPolicy, IN_PROGRESS as CAPTURING, PodCheckpointSpec, PodCheckpointStatus, SourcePod,
};
use crate::api::restore::{PodRestoreSpec, PodRestoreStatus};

const NOW: i64 = 1_800_000_000;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

fn checkpoint(reason: &'static str) -> PodCheckpoint {
    let spec = PodCheckpointSpec {
        source_pod: SourcePod { name: "web".into(), uid: None },
        timeout_seconds: None,
        mode: None,
        containers: Vec::new(),
        deletion_policy: DeletionPolicy::Delete,
        ttl: None,
    };
    let mut object = PodCheckpoint::new("cp", spec);
    let mut status = PodCheckpointStatus {
        node_name: Some("n1".into()),
        checkpointed_pod_template: Some(json!({ "metadata": { "name": "web" }, "spec": {} })),
        ..PodCheckpointStatus::default()
    };
    let status_word = if reason == COMPLETED { "True" } else { "False" };
    let verdict = Verdict { status: status_word, reason, message: "told".into() };
    condition::set_ready(&mut status.conditions, &verdict, None, at(NOW));
    object.status = Some(status);
    object
}

fn restore(count: i32, age: i64) -> PodRestore {
    let spec = PodRestoreSpec {
        checkpoint_name: "cp".into(),
        count,
        pod_name: None,
        patches: Vec::new(),
        timeout_seconds: Some(60),
    };
    let mut object = PodRestore::new("back", spec);
    object.metadata.namespace = Some("default".into());
    object.metadata.creation_timestamp = Some(Time(at(NOW - age)));
    object
}

fn noted(mut object: PodRestore, names: &[&str]) -> PodRestore {
    let pods = names.iter().map(|name| RestoredPod {
        name: (*name).into(),
        uid: Some("u".into()),
        ..RestoredPod::default()
    });
    object.status = Some(PodRestoreStatus { pods: pods.collect(), ..PodRestoreStatus::default() });
    object
}

fn ours(running: bool) -> Found {
    Found { uid: "u".into(), is_ours: true, running, ended: false, message: None }
}

fn next(object: &PodRestore, checkpoint: Option<&PodCheckpoint>, pods: &[(&str, Found)]) -> Step {
    let pods = pods.iter().map(|(name, found)| ((*name).to_owned(), found.clone())).collect();
    plan(&Seen { object, checkpoint, pods, now: at(NOW) })
}

fn reason(step: Step) -> &'static str {
    match step {
        Step::Say(verdict, ..) => verdict.reason,
        other => panic!("{other:?} says nothing"),
    }
}

#[test]
fn one_pod_continues_under_the_name_of_the_captured_one() {
    let ready = checkpoint(COMPLETED);
    assert_eq!(next(&restore(1, 1), Some(&ready), &[]), Step::Make("web".into()));
    let object = noted(restore(1, 1), &["web"]);
    assert_eq!(reason(next(&object, Some(&ready), &[("web", ours(false))])), IN_PROGRESS);
    assert_eq!(reason(next(&object, Some(&ready), &[("web", ours(true))])), SUCCEEDED);
}

#[test]
fn clones_are_named_after_the_restore_and_made_one_after_the_other() {
    let ready = checkpoint(COMPLETED);
    assert_eq!(next(&restore(2, 1), Some(&ready), &[]), Step::Make("back-0".into()));
    let object = noted(restore(2, 1), &["back-0"]);
    assert_eq!(next(&object, Some(&ready), &[("back-0", ours(true))]), Step::Make("back-1".into()));
    let both = [("back-0", ours(true)), ("back-1", ours(true))];
    assert_eq!(reason(next(&noted(restore(2, 1), &["back-0", "back-1"]), Some(&ready), &both)), SUCCEEDED);
}

#[test]
fn a_pod_of_somebody_else_is_never_touched() {
    let other = Found { is_ours: false, ..ours(true) };
    assert_eq!(reason(next(&restore(1, 1), Some(&checkpoint(COMPLETED)), &[("web", other)])), POD_EXISTS);
}

#[test]
fn a_pod_that_was_deleted_is_not_made_again() {
    let object = noted(restore(1, 1), &["web"]);
    assert_eq!(reason(next(&object, Some(&checkpoint(COMPLETED)), &[])), IN_PROGRESS);
    let late = noted(restore(1, 61), &["web"]);
    assert_eq!(reason(next(&late, Some(&checkpoint(COMPLETED)), &[])), FAILED);
}

#[test]
fn a_checkpoint_that_cannot_be_restored_is_waited_for_or_given_up() {
    for (object, expected) in [
        (None, CHECKPOINT_NOT_READY),
        (Some(checkpoint(CAPTURING)), CHECKPOINT_NOT_READY),
        (Some(checkpoint(CHECKPOINT_FAILED)), FAILED),
        (Some(checkpoint(SOURCE_POD_NOT_FOUND)), FAILED),
    ] {
        assert_eq!(reason(next(&restore(1, 1), object.as_ref(), &[])), expected);
        assert_eq!(reason(next(&restore(1, 61), object.as_ref(), &[])), FAILED, "its time is over");
    }
    let mut going = checkpoint(COMPLETED);
    going.metadata.deletion_timestamp = Some(Time(at(NOW)));
    assert_eq!(reason(next(&restore(1, 1), Some(&going), &[])), CHECKPOINT_NOT_READY);
}

#[test]
fn what_kubelet_says_is_passed_on() {
    let stuck = Found { message: Some("CreateContainerError: no checkpoint here".into()), ..ours(false) };
    let object = noted(restore(1, 1), &["web"]);
    let Step::Say(verdict, ..) = next(&object, Some(&checkpoint(COMPLETED)), &[("web", stuck)]) else {
        panic!()
    };
    assert!(verdict.message.contains("no checkpoint here"), "{}", verdict.message);
}

#[test]
fn a_long_name_still_makes_names_of_pods() {
    let mut object = restore(100, 1);
    object.metadata.name = Some("x".repeat(253));
    let names = names(&object, &checkpoint(COMPLETED));
    assert_eq!(names.len(), 100);
    assert!(names.iter().all(|name| name.len() <= 253));
}

proptest! {
    /// Whatever pods there are, the steps come to an end within its time and make each pod at most once.
    #[test]
    fn it_makes_each_pod_once(count in 1i32..5, late: bool, foreign in 0usize..6) {
        let ready = checkpoint(COMPLETED);
        let mut object = restore(count, if late { 61 } else { 1 });
        let mut pods: BTreeMap<String, Found> = BTreeMap::new();
        if let Some(name) = names(&object, &ready).get(foreign) {
            pods.insert(name.clone(), Found { is_ours: false, ..ours(true) });
        }
        let mut made = Vec::new();
        for _ in 0..12 {
            match plan(&Seen { object: &object, checkpoint: Some(&ready), pods: pods.clone(), now: at(NOW) }) {
                Step::Make(name) => {
                    prop_assert!(!made.contains(&name) && !pods.contains_key(&name) && !late);
                    made.push(name.clone());
                    pods.insert(name.clone(), ours(true));
                    let status = object.status.get_or_insert_default();
                    status.pods.push(RestoredPod { name, uid: Some("u".into()), ..RestoredPod::default() });
                }
                Step::Say(..) | Step::Rest => break,
            }
        }
        prop_assert!(made.len() <= usize::try_from(count).unwrap());
    }
}
