//! What deciding costs: a schedule of 1,000 pods that begins a run, with two checkpoints of each pod and a retention.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use cryopod_agent::api::CheckpointSchedule;
use cryopod_agent::schedule::plan::{Action, Checkpoint, Pod, Seen, State, plan};
use jiff::Timestamp;
use serde_json::json;

use super::{AT_A_TIME, PODS, median};

const ROUNDS: usize = 9;

fn pod(number: usize) -> Pod {
    Pod {
        name: format!("web-{number}"),
        uid: format!("uid-{number}"),
        node: Some("elsewhere".into()),
        series: "web".into(),
        ours: true,
        running: true,
        evictable: None,
    }
}

fn checkpoint(number: usize, hours: i64) -> Checkpoint {
    let at = Timestamp::from_second(1_800_000_000 - hours * 3600).unwrap();
    Checkpoint {
        name: format!("night-web-{number}-{hours}"),
        pod: format!("web-{number}"),
        pod_uid: Some(format!("uid-{number}")),
        series: "web".into(),
        created: at,
        state: State::Complete(at),
        bytes: 24 << 20,
        untouchable: false,
        drain: None,
    }
}

#[test]
fn a_run_of_a_thousand_pods_is_planned_at_once() {
    let object: CheckpointSchedule = serde_json::from_value(json!({
        "apiVersion": "cryopod.dev/v1alpha1", "kind": "CheckpointSchedule",
        "metadata": { "name": "night", "namespace": "scale" },
        "spec": { "schedule": "0 3 * * *", "runNow": "now", "maxConcurrent": AT_A_TIME, "retention": { "keepLast": 1 } },
    }))
    .unwrap();
    let seen = Seen {
        object: &object,
        pods: (0..PODS).map(pod).collect(),
        checkpoints: (0..PODS).flat_map(|number| [checkpoint(number, 1), checkpoint(number, 25)]).collect(),
        cordoned: BTreeMap::new(),
        guarded: false,
        now: Timestamp::from_second(1_800_000_000).unwrap(),
    };
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let began = Instant::now();
        let planned = plan(&seen);
        times.push(began.elapsed());
        let count = |is: fn(&Action) -> bool| planned.actions.iter().filter(|it| is(it)).count();
        assert_eq!(count(|it| matches!(it, Action::Make { .. })), AT_A_TIME);
        assert_eq!(count(|it| matches!(it, Action::Delete(_))), PODS, "of each pod the older one goes");
        assert_eq!(planned.status.runs[0].waiting.len(), PODS - AT_A_TIME);
    }
    println!(
        "plan for {PODS} pods with two checkpoints each: median {:?} of {ROUNDS}",
        median(times.clone())
    );
    // Far more than it takes, for busy machines without optimisation.
    assert!(median(times) < Duration::from_secs(1));
}
