//! Drains: the pods of a schedule with the trigger `NodeDrain` may be evicted only when they have been captured. Pure.
//!
//! `kubectl drain` cordons a node and evicts at once, so there would be no time between the two. A disruption budget keeps
//! the selected pods from eviction all the time, but for those with a label; the eviction is then refused with "too many
//! requests", which drain answers by trying again. When a node is cordoned, its pods are captured, and each gets the label.

use kube::ResourceExt;

use super::plan::{Action, Checkpoint, Pod, Seen, State, has, name_of};
use crate::api::schedule::{DrainFailurePolicy, Trigger};

/// Value of the label: the pod was captured for a drain.
pub(super) const CAPTURED: &str = "captured";
/// Value of the label: no handler of ours runs the pod, so it cannot be captured and nobody waits for it.
pub(super) const NOT_OURS: &str = "not-captured";
/// Value of the label: its checkpoint failed, and the schedule lets it go all the same.
pub(super) const FAILED: &str = "capture-failed";

fn is_wanted(seen: &Seen<'_>) -> bool {
    let object = seen.object;
    has(object, Trigger::NodeDrain) && !object.spec.suspend && object.metadata.deletion_timestamp.is_none()
}

/// The budget is there exactly as long as it is wanted; pods that are not ours are let through before it is.
pub(super) fn guard(seen: &Seen<'_>) -> Vec<Action> {
    let wanted = is_wanted(seen);
    let mut actions = Vec::new();
    if wanted {
        let others = seen.pods.iter().filter(|pod| !pod.ours && pod.evictable.is_none());
        actions.extend(others.map(|pod| Action::Evictable(pod.name.clone(), Some(NOT_OURS))));
    }
    if wanted != seen.guarded {
        actions.push(Action::Guard(wanted));
    }
    if !wanted && seen.guarded {
        let marked = seen.pods.iter().filter(|pod| is_our_mark(pod));
        actions.extend(marked.map(|pod| Action::Evictable(pod.name.clone(), None)));
    }
    actions
}

/// Captures of pods on cordoned nodes, and the labels that follow from them.
pub(super) fn captures(seen: &Seen<'_>) -> Vec<Action> {
    if !is_wanted(seen) {
        return Vec::new();
    }
    seen.pods.iter().filter(|pod| pod.ours).filter_map(|pod| one(seen, pod)).collect()
}

fn one(seen: &Seen<'_>, pod: &Pod) -> Option<Action> {
    let Some(cordon) = pod.node.as_ref().and_then(|node| seen.cordoned.get(node)) else {
        // The node takes pods again: what was captured for the drain is old by now.
        return is_our_mark(pod).then(|| Action::Evictable(pod.name.clone(), None));
    };
    if pod.evictable.is_some() {
        return None;
    }
    let label = |value| Some(Action::Evictable(pod.name.clone(), Some(value)));
    if !pod.running {
        return label(CAPTURED);
    }
    let of_this =
        |it: &&Checkpoint| it.pod_uid.as_ref() == Some(&pod.uid) && it.drain.as_ref() == Some(cordon);
    let lets_go = seen.object.spec.drain_failure_policy == DrainFailurePolicy::Evict;
    match seen.checkpoints.iter().find(of_this).map(|it| it.state) {
        Some(State::Complete(_)) => label(CAPTURED),
        Some(State::Failed) if lets_go => label(FAILED),
        Some(State::Active | State::Failed | State::Leaving) => None,
        None => {
            let run = format!("drain-{}", cordon.to_ascii_lowercase().replace([':', '+'], ""));
            let name = name_of(&seen.object.name_any(), &run, &pod.name);
            Some(Action::Make { name, pod: pod.clone(), drain: Some(cordon.clone()) })
        }
    }
}

fn is_our_mark(pod: &Pod) -> bool {
    matches!(pod.evictable.as_deref(), Some(CAPTURED | FAILED | NOT_OURS))
}
