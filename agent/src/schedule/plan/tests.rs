use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use proptest::prelude::*;

use super::*;
use crate::api::keep::Retention;
use crate::api::schedule::{CheckpointScheduleSpec, CheckpointTemplate, DrainFailurePolicy};

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

const NOON: &str = "2026-11-22T12:00:30Z";

fn hourly() -> CheckpointSchedule {
    let spec = CheckpointScheduleSpec {
        schedule: Some("0 * * * *".into()),
        time_zone: None,
        starting_deadline_seconds: None,
        concurrency_policy: ConcurrencyPolicy::Forbid,
        suspend: false,
        selector: LabelSelector::default(),
        triggers: vec![Trigger::Cron],
        run_now: None,
        max_concurrent: 2,
        retention: Retention::default(),
        drain_failure_policy: DrainFailurePolicy::Block,
        checkpoint: CheckpointTemplate::default(),
    };
    let mut object = CheckpointSchedule::new("hourly", spec);
    object.metadata.namespace = Some("default".into());
    object.metadata.creation_timestamp = Some(Time(at("2026-11-22T11:30:00Z")));
    object
}

fn pod(name: &str) -> Pod {
    Pod {
        name: name.into(),
        uid: format!("{name}-uid"),
        node: Some("n1".into()),
        series: "web".into(),
        ours: true,
        running: true,
        evictable: None,
    }
}

fn checkpoint(name: &str, pod: &str, state: State) -> Checkpoint {
    Checkpoint {
        name: name.into(),
        pod: pod.into(),
        pod_uid: Some(format!("{pod}-uid")),
        series: "web".into(),
        created: at("2026-11-22T11:00:00Z"),
        state,
        bytes: 10,
        untouchable: false,
        drain: None,
    }
}

fn seen(object: &CheckpointSchedule) -> Seen<'_> {
    Seen {
        object,
        pods: ["a", "b", "c"].map(pod).to_vec(),
        checkpoints: Vec::new(),
        cordoned: BTreeMap::new(),
        guarded: false,
        now: at(NOON),
    }
}

fn made(plan: &Plan) -> Vec<&str> {
    let made = plan.actions.iter().filter_map(|action| match action {
        Action::Make { pod, .. } => Some(pod.name.as_str()),
        _ => None,
    });
    made.collect()
}

fn reason(plan: &Plan) -> &str {
    condition::reason(&plan.status.conditions)
}

#[test]
fn a_run_takes_so_many_pods_at_a_time_and_remembers_the_rest() {
    let object = hourly();
    let first = plan(&seen(&object));
    assert_eq!(made(&first), ["a", "b"]);
    assert_eq!(first.status.runs[0].waiting, ["c"]);
    assert_eq!(first.status.last_schedule_time, Some(Time(at("2026-11-22T12:00:00Z"))));
    assert_eq!(first.status.next_schedule_time, Some(Time(at("2026-11-22T13:00:00Z"))));
    assert_eq!(reason(&first), RUNNING);
    let Action::Make { name, .. } = &first.actions[0] else { panic!() };
    assert_eq!(name, "hourly-a-202611221200");
    // One is done: the next begins.
    let mut object = hourly();
    object.status = Some(first.status);
    let mut later = seen(&object);
    later.checkpoints = vec![
        checkpoint("hourly-a-202611221200", "a", State::Complete(at(NOON))),
        checkpoint("hourly-b-202611221200", "b", State::Active),
    ];
    let second = plan(&later);
    assert_eq!(made(&second), ["c"]);
    assert!(second.status.runs.is_empty());
    assert_eq!((second.status.kept, second.status.active), (1, 2));
}

#[test]
fn a_kill_after_a_checkpoint_was_made_does_not_make_it_twice() {
    let object = hourly();
    let mut again = seen(&object);
    again.checkpoints = vec![checkpoint("hourly-a-202611221200", "a", State::Complete(at(NOON)))];
    assert_eq!(made(&plan(&again)), ["b", "c"]);
}

#[test]
fn a_run_that_is_not_over_is_kept_replaced_or_joined() {
    for (policy, expected, deleted) in [
        (ConcurrencyPolicy::Forbid, vec![], 0),
        (ConcurrencyPolicy::Replace, vec!["a", "b"], 1),
        (ConcurrencyPolicy::Allow, vec!["a"], 0),
    ] {
        let mut object = hourly();
        object.spec.concurrency_policy = policy;
        let mut busy = seen(&object);
        busy.checkpoints = vec![checkpoint("hourly-a-202611221100", "a", State::Active)];
        let plan = plan(&busy);
        assert_eq!(made(&plan), expected, "{policy:?}");
        let deletes = plan.actions.iter().filter(|action| matches!(action, Action::Delete(_))).count();
        assert_eq!(deletes, deleted, "{policy:?}");
        assert_eq!(plan.status.last_schedule_time, Some(Time(at("2026-11-22T12:00:00Z"))), "{policy:?}");
    }
}

#[test]
fn too_late_is_left_out_and_suspended_takes_nothing() {
    let mut object = hourly();
    object.spec.starting_deadline_seconds = Some(20);
    assert!(made(&plan(&seen(&object))).is_empty(), "thirty seconds late");
    object.spec.starting_deadline_seconds = Some(60);
    assert_eq!(made(&plan(&seen(&object))).len(), 2);
    object.spec.suspend = true;
    let suspended = plan(&seen(&object));
    assert!(made(&suspended).is_empty() && suspended.status.next_schedule_time.is_none());
    assert_eq!(reason(&suspended), SUSPENDED);
}

#[test]
fn run_now_runs_once_for_each_new_value_even_when_suspended() {
    let mut object = hourly();
    object.spec.suspend = true;
    object.spec.run_now = Some("before the upgrade".into());
    let first = plan(&seen(&object));
    assert_eq!(made(&first).len(), 2);
    object.status = Some(CheckpointScheduleStatus { runs: Vec::new(), ..first.status });
    assert!(made(&plan(&seen(&object))).is_empty());
}

#[test]
fn what_cannot_be_understood_is_said_and_retention_goes_on() {
    let mut object = hourly();
    object.spec.schedule = Some("every day".into());
    object.spec.retention.keep_last = Some(1);
    let mut odd = seen(&object);
    odd.checkpoints = vec![
        checkpoint("old", "a", State::Complete(at("2026-11-22T10:00:00Z"))),
        checkpoint("new", "a", State::Complete(at("2026-11-22T11:00:00Z"))),
    ];
    let plan = plan(&odd);
    assert_eq!(reason(&plan), INVALID);
    assert_eq!(plan.actions, [Action::Delete("old".into())]);
}

#[test]
fn only_running_pods_of_ours_are_taken() {
    let object = hourly();
    let mut some = seen(&object);
    some.pods[0].ours = false;
    some.pods[1].running = false;
    assert_eq!(made(&plan(&some)), ["c"]);
}

#[test]
fn of_failed_ones_the_last_three_stay() {
    let object = hourly();
    let mut many = seen(&object);
    many.now = at("2026-11-22T11:45:00Z");
    many.checkpoints = (0..5)
        .map(|n| Checkpoint {
            created: at(&format!("2026-11-22T10:0{n}:00Z")),
            ..checkpoint(&format!("f{n}"), "a", State::Failed)
        })
        .collect();
    let plan = plan(&many);
    assert_eq!(plan.actions, [Action::Delete("f1".into()), Action::Delete("f0".into())]);
    assert_eq!(reason(&plan), FAILED);
}

fn draining() -> CheckpointSchedule {
    let mut object = hourly();
    object.spec.triggers = vec![Trigger::NodeDrain];
    object
}

#[test]
fn a_drain_waits_until_its_pods_are_captured() {
    let object = draining();
    let mut first = seen(&object);
    first.pods = vec![pod("a"), Pod { node: Some("n2".into()), ..pod("b") }, Pod { ours: false, ..pod("x") }];
    let begun = plan(&first);
    assert_eq!(
        begun.actions,
        [Action::Evictable("x".into(), Some("not-captured")), Action::Guard(true)],
        "nobody is cordoned yet"
    );
    first.guarded = true;
    first.pods[2].evictable = Some("not-captured".into());
    first.cordoned = BTreeMap::from([("n1".into(), "2026-11-22T12:00:00Z".into())]);
    let cordoned = plan(&first);
    assert_eq!(made(&cordoned), ["a"], "b is on another node");
    let Action::Make { name, drain, .. } = &cordoned.actions[0] else { panic!() };
    assert_eq!(name, "hourly-a-drain-2026-11-22t120000z");
    let of_drain = |state| Checkpoint { drain: drain.clone(), ..checkpoint(name, "a", state) };
    first.checkpoints = vec![of_drain(State::Active)];
    assert!(plan(&first).actions.is_empty());
    first.checkpoints = vec![of_drain(State::Complete(at(NOON)))];
    assert_eq!(plan(&first).actions, [Action::Evictable("a".into(), Some("captured"))]);
    // Uncordoned again: the next drain captures again.
    first.pods[0].evictable = Some("captured".into());
    assert!(plan(&first).actions.is_empty());
    first.cordoned.clear();
    assert_eq!(plan(&first).actions, [Action::Evictable("a".into(), None)]);
}

#[test]
fn a_failed_capture_holds_the_drain_unless_the_schedule_says_otherwise() {
    let mut object = draining();
    let cordon = "2026-11-22T12:00:00Z";
    let state = |object: &CheckpointSchedule| {
        let mut seen = seen(object);
        seen.pods = vec![pod("a")];
        seen.guarded = true;
        seen.cordoned = BTreeMap::from([("n1".into(), cordon.into())]);
        let failed = checkpoint("hourly-a-drain-2026-11-22t120000z", "a", State::Failed);
        seen.checkpoints = vec![Checkpoint { drain: Some(cordon.into()), ..failed }];
        plan(&seen).actions
    };
    assert!(state(&object).is_empty());
    object.spec.drain_failure_policy = DrainFailurePolicy::Evict;
    assert_eq!(state(&object), [Action::Evictable("a".into(), Some("capture-failed"))]);
}

#[test]
fn without_the_trigger_nobody_is_kept_from_eviction() {
    let object = hourly();
    let mut was = seen(&object);
    was.now = at("2026-11-22T11:45:00Z");
    was.guarded = true;
    was.pods = vec![Pod { evictable: Some("captured".into()), ..pod("a") }];
    assert_eq!(plan(&was).actions, [Action::Guard(false), Action::Evictable("a".into(), None)]);
}

#[test]
fn names_are_one_of_a_kind_and_never_too_long() {
    let long = "x".repeat(253);
    let (one, two) = (name_of(&long, "1", "a"), name_of(&long, "2", "a"));
    assert!(one != two && one.len() <= 253 && two.len() <= 253);
}

proptest! {
    /// With everything working, a run captures each running pod of ours exactly once and never more at a time than it may.
    #[test]
    fn a_run_captures_each_pod_once(count in 1usize..20, most in 1i32..6, finish in proptest::collection::vec(0usize..3, 60)) {
        let mut object = hourly();
        object.spec.max_concurrent = most;
        let pods: Vec<Pod> = (0..count).map(|n| pod(&format!("p{n}"))).collect();
        let mut checkpoints: Vec<Checkpoint> = Vec::new();
        for turns in finish {
            let mut now = seen(&object);
            now.pods = pods.clone();
            now.checkpoints = checkpoints.clone();
            let done = plan(&now);
            for action in &done.actions {
                if let Action::Make { name, pod, .. } = action {
                    prop_assert!(checkpoints.iter().all(|it| it.name != *name && it.pod != pod.name));
                    checkpoints.push(checkpoint(name, &pod.name, State::Active));
                }
            }
            let active = checkpoints.iter().filter(|it| it.state == State::Active).count();
            prop_assert!(active <= usize::try_from(most).unwrap());
            object.status = Some(done.status);
            for it in checkpoints.iter_mut().filter(|it| it.state == State::Active).take(turns) {
                it.state = State::Complete(at(NOON));
            }
        }
        for it in &mut checkpoints {
            it.state = State::Complete(at(NOON));
        }
        for _ in 0..count {
            let mut now = seen(&object);
            now.pods = pods.clone();
            now.checkpoints = checkpoints.clone();
            let done = plan(&now);
            for action in &done.actions {
                if let Action::Make { name, pod, .. } = action {
                    checkpoints.push(checkpoint(name, &pod.name, State::Complete(at(NOON))));
                }
            }
            object.status = Some(done.status);
        }
        prop_assert_eq!(checkpoints.len(), count);
    }
}
