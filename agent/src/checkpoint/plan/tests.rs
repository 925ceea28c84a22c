use cryopod_checkpoint::manifest::CapturedMode;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use proptest::prelude::*;

use super::*;
use crate::api::checkpoint::{IN_PROGRESS, PodCheckpointSpec, PodCheckpointStatus, SourcePod};

const NOW: i64 = 1_800_000_000;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

fn object() -> PodCheckpoint {
    let spec = PodCheckpointSpec {
        source_pod: SourcePod { name: "web".into(), uid: None },
        timeout_seconds: Some(60),
        mode: Some(Mode::Full),
        containers: Vec::new(),
        deletion_policy: DeletionPolicy::Delete,
        ttl: None,
    };
    let mut object = PodCheckpoint::new("cp", spec);
    object.metadata.namespace = Some("default".into());
    object.metadata.uid = Some("object-uid".into());
    object.metadata.finalizers = Some(vec![FINALIZER.into()]);
    object
}

fn begun() -> PodCheckpoint {
    let mut object = object();
    let mut status = PodCheckpointStatus {
        node_name: Some("n1".into()),
        checkpoint_id: Some(id_of(&object).to_string()),
        source_pod_uid: Some("pod-uid".into()),
        start_time: Some(Time(at(NOW - 10))),
        ..PodCheckpointStatus::default()
    };
    condition::set_ready(&mut status.conditions, &Verdict::no(IN_PROGRESS, ""), None, at(NOW - 10));
    object.status = Some(status);
    object
}

fn complete() -> PodCheckpoint {
    let mut object = begun();
    let status = object.status.as_mut().unwrap();
    status.completion_time = Some(Time(at(NOW - 5)));
    condition::set_ready(&mut status.conditions, &Verdict::yes(COMPLETED, ""), None, at(NOW - 5));
    object
}

fn running() -> Option<Source> {
    Some(Source { uid: "pod-uid".into(), node: Some("n1".into()), phase: "Running".into() })
}

fn stored(uid: &str) -> Data {
    Data::Whole(Box::new(Stored {
        id: id_of(&object()),
        object_uid: Some(uid.into()),
        mode: CapturedMode::Full,
        memory_refused: None,
        created: at(NOW - 9),
        freeze: Duration::from_millis(118),
        total: Duration::from_secs(1),
        memory_bytes: 1,
        disk_bytes: 2,
        criu_frozen: Vec::new(),
        snapshots: Vec::new(),
        containers: Vec::new(),
        place: "tank/cryopod".into(),
    }))
}

fn next(object: &PodCheckpoint, pod: Option<Source>, data: Data) -> Step {
    plan(&Seen { object, pod, data, node: "n1", now: at(NOW) })
}

fn reason(step: Step) -> &'static str {
    match step {
        Step::Say(verdict, _) => verdict.reason,
        other => panic!("{other:?} says nothing"),
    }
}

#[test]
fn it_is_protected_then_noted_then_captured() {
    let mut fresh = object();
    fresh.metadata.finalizers = None;
    assert_eq!(next(&fresh, running(), Data::NotAsked), Step::Protect);
    assert_eq!(next(&object(), running(), Data::NotAsked), Step::Begin(id_of(&object())));
    let Step::Capture(order) = next(&begun(), running(), Data::Missing) else { panic!() };
    assert_eq!(order.timeout, Duration::from_secs(50), "ten of sixty seconds have passed");
    assert_eq!((order.mode, order.pod.as_str()), (Some("full"), "default/web"));
    assert_eq!(order.labels[LABEL_UID], "object-uid");
}

#[test]
fn the_shim_is_told_which_containers_and_who_asked() {
    let mut object = begun();
    object.spec.containers = vec!["app".into(), "side".into()];
    object.metadata.annotations = Some([(REQUESTED_BY.to_owned(), "jane@example.com".to_owned())].into());
    let Step::Capture(order) = next(&object, running(), Data::Missing) else { panic!() };
    assert_eq!(order.containers, ["app", "side"]);
    assert_eq!(order.requested_by.as_deref(), Some("jane@example.com"));
}

#[test]
fn after_a_kill_the_store_decides() {
    assert!(matches!(next(&begun(), running(), stored("object-uid")), Step::Complete(_)));
    assert!(
        matches!(next(&begun(), None, stored("object-uid")), Step::Complete(_)),
        "the pod has gone meanwhile"
    );
    assert_eq!(
        reason(next(&begun(), running(), stored("older"))),
        FAILED,
        "an earlier object's data is not ours"
    );
    assert!(matches!(next(&begun(), running(), Data::Missing), Step::Capture(_)));
}

#[test]
fn another_pod_of_the_name_is_never_captured() {
    let other = || running().map(|pod| Source { uid: "other".into(), ..pod });
    let mut meant = object();
    meant.spec.source_pod.uid = Some("pod-uid".into());
    assert_eq!(reason(next(&meant, other(), Data::NotAsked)), SOURCE_POD_REPLACED);
    assert_eq!(reason(next(&begun(), other(), Data::Missing)), SOURCE_POD_REPLACED);
    let moved = running().map(|pod| Source { node: Some("n2".into()), ..pod });
    assert_eq!(reason(next(&begun(), moved, Data::Missing)), SOURCE_POD_REPLACED);
    assert_eq!(reason(next(&object(), None, Data::NotAsked)), SOURCE_POD_NOT_FOUND);
}

#[test]
fn a_pod_that_does_not_run_is_waited_for_or_refused() {
    let phase = |phase: &str| running().map(|pod| Source { phase: phase.into(), ..pod });
    assert_eq!(reason(next(&object(), phase("Pending"), Data::NotAsked)), crate::api::checkpoint::PENDING);
    assert_eq!(reason(next(&object(), phase("Succeeded"), Data::NotAsked)), FAILED);
}

#[test]
fn its_time_ends_it() {
    let mut late = begun();
    late.status.as_mut().unwrap().start_time = Some(Time(at(NOW - 61)));
    assert_eq!(reason(next(&late, running(), Data::Missing)), FAILED);
    assert!(matches!(next(&late, running(), stored("object-uid")), Step::Complete(_)), "late, but there");
}

#[test]
fn a_failure_is_for_good() {
    for reason in [FAILED, SOURCE_POD_NOT_FOUND, SOURCE_POD_REPLACED] {
        let mut failed = begun();
        condition::set_ready(
            &mut failed.status.as_mut().unwrap().conditions,
            &Verdict::no(reason, ""),
            None,
            at(NOW),
        );
        assert_eq!(next(&failed, running(), Data::Missing), Step::Wait(None), "{reason}");
    }
}

#[test]
fn a_complete_one_goes_when_its_time_is_over_unless_it_is_held() {
    let mut object = complete();
    assert_eq!(next(&object, None, Data::There), Step::Wait(Some(LOOK_AGAIN)));
    object.spec.ttl = Some("8s".into());
    assert_eq!(next(&object, None, Data::There), Step::Wait(Some(Duration::from_secs(3))));
    object.spec.ttl = Some("5s".into());
    assert_eq!(next(&object, None, Data::There), Step::DeleteObject);
    object.annotations_mut().insert(HOLD.into(), "true".into());
    assert_eq!(next(&object, None, Data::There), Step::Wait(Some(LOOK_AGAIN)));
}

#[test]
fn data_that_somebody_removed_is_said_and_so_is_its_return() {
    let mut object = complete();
    assert_eq!(reason(next(&object, None, Data::Missing)), DATA_MISSING);
    let conditions = &mut object.status.as_mut().unwrap().conditions;
    condition::set_ready(conditions, &Verdict::no(DATA_MISSING, ""), None, at(NOW));
    assert_eq!(next(&object, None, Data::Missing), Step::Wait(Some(LOOK_AGAIN)));
    assert_eq!(reason(next(&object, None, Data::There)), COMPLETED);
}

#[test]
fn deleting_removes_the_data_first_and_only_what_is_its_own() {
    let mut going = complete();
    going.metadata.deletion_timestamp = Some(Time(at(NOW)));
    assert_eq!(next(&going, None, stored("object-uid")), Step::DeleteData(id_of(&going)));
    assert_eq!(next(&going, None, stored("older")), Step::Unprotect);
    assert_eq!(next(&going, None, Data::Missing), Step::Unprotect);
    going.spec.deletion_policy = DeletionPolicy::Retain;
    assert_eq!(next(&going, None, stored("object-uid")), Step::Unprotect);
    going.metadata.finalizers = None;
    assert_eq!(next(&going, None, Data::Missing), Step::Wait(None));
}

/// What a step does to what is seen next, with everything working.
fn apply(step: Step, object: &mut PodCheckpoint, data: &mut Data) -> bool {
    let status = object.status.get_or_insert_default();
    match step {
        Step::Wait(_) | Step::DeleteObject => return false,
        Step::Protect => object.metadata.finalizers = Some(vec![FINALIZER.into()]),
        Step::Begin(id) => {
            status.checkpoint_id = Some(id.to_string());
            status.source_pod_uid = Some("pod-uid".into());
            status.start_time = Some(Time(at(NOW)));
            *data = Data::Missing;
        }
        Step::Capture(_) => *data = stored("object-uid"),
        Step::Complete(_) => {
            status.completion_time = Some(Time(at(NOW)));
            condition::set_ready(&mut status.conditions, &Verdict::yes(COMPLETED, ""), None, at(NOW));
        }
        Step::Say(verdict, _) => {
            return condition::set_ready(&mut status.conditions, &verdict, None, at(NOW));
        }
        Step::DeleteData(_) => *data = Data::Missing,
        Step::Unprotect => object.metadata.finalizers = None,
    }
    true
}

proptest! {
    /// From wherever it stands, the steps come to an end; one that is deleted always goes, with its own data.
    #[test]
    fn it_always_comes_to_rest(
        stage in 0usize..3, phase in 0usize..4, replaced: bool, there in 0..4, deleted: bool, retain: bool, protected: bool,
    ) {
        let mut object: PodCheckpoint = [object(), begun(), complete()][stage].clone();
        if !protected {
            object.metadata.finalizers = None;
        }
        object.spec.deletion_policy = if retain { DeletionPolicy::Retain } else { DeletionPolicy::Delete };
        object.metadata.deletion_timestamp = deleted.then(|| Time(at(NOW)));
        let phase = ["Pending", "Running", "Succeeded", "Failed"][phase];
        let pod = running().map(|pod| Source {
            phase: phase.into(), uid: if replaced { "other".into() } else { pod.uid }, ..pod
        });
        let mut data = match (stage, there) {
            (0, _) => Data::NotAsked,
            (_, 0) => Data::Missing,
            (2, 1) => Data::There,
            (_, 3) => stored("older"),
            _ => stored("object-uid"),
        };
        let before = data.clone();
        let mut rest = false;
        for _ in 0..8 {
            let step = next(&object, pod.clone(), data.clone());
            if let Step::DeleteData(_) = &step {
                prop_assert!(deleted && !retain && before != stored("older"), "deleted what is not its own to delete");
            }
            if !apply(step, &mut object, &mut data) {
                rest = true;
                break;
            }
        }
        prop_assert!(rest, "it goes round in circles");
        prop_assert!(!deleted || object.finalizers().is_empty(), "a deleted object stays");
    }
}
