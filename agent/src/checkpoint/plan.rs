//! What to do next about a `PodCheckpoint` that belongs to this node. Pure: from what is seen to one step.
//!
//! ```text
//! unclaimed ─claim─▶ protected ─begin─▶ in progress ─capture─▶ complete ─ttl─▶ deleted
//!                                          │   ▲                   └ data gone: not ready
//!                                          │   └ agent killed: what is in the store decides
//!                                          └▶ failed (for good; the pod runs on)
//! deleted by anybody: capture ended, data removed (or retained), protection removed
//! ```
//! Invariant: the id is in the status before the shim is asked, so that whatever is in the store can be found again.

use std::collections::BTreeMap;
use std::time::Duration;

use cryopod_checkpoint::id::CheckpointId;
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;

use crate::api::checkpoint::{
    COMPLETED, DATA_MISSING, DeletionPolicy, FAILED, Mode, PodCheckpoint, SOURCE_POD_NOT_FOUND,
    SOURCE_POD_REPLACED,
};
use crate::api::condition::{self, Verdict};
use crate::api::{FINALIZER, HOLD, REQUESTED_BY, duration};
use crate::node::{LABEL_OBJECT, LABEL_UID, Order, Stored};

/// Where the spec says nothing: more than any capture that was seen, memory of some GiB included.
pub const TIMEOUT: Duration = Duration::from_secs(600);

/// How often a complete checkpoint is looked at again, for data that somebody removed behind our back.
const LOOK_AGAIN: Duration = Duration::from_secs(600);
/// How often a pod that does not run yet is looked at.
const WAIT_FOR_POD: Duration = Duration::from_secs(2);

/// What is known of the pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Its UID.
    pub uid: String,
    /// Node that it is bound to.
    pub node: Option<String>,
    /// `Pending`, `Running`, `Succeeded`, `Failed`.
    pub phase: String,
}

/// What is known of the data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// Nothing was asked: there cannot be any.
    NotAsked,
    /// There is none.
    Missing,
    /// It is there; nothing more was asked.
    There,
    /// It is there, and this is it.
    Whole(Box<Stored>),
}

/// What is seen.
#[derive(Debug, Clone)]
pub struct Seen<'a> {
    /// The object.
    pub object: &'a PodCheckpoint,
    /// The pod of its name; None where there is none, and where it is not asked for.
    pub pod: Option<Source>,
    /// The data of its id.
    pub data: Data,
    /// This node.
    pub node: &'a str,
    /// The time.
    pub now: Timestamp,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Nothing until something changes, or until then.
    Wait(Option<Duration>),
    /// Protect the object, so that it does not go before its data.
    Protect,
    /// Note id, time and pod in the status.
    Begin(CheckpointId),
    /// Ask the shim.
    Capture(Box<Order>),
    /// Say that it is complete.
    Complete(Box<Stored>),
    /// Say how it stands.
    Say(Verdict, Option<Duration>),
    /// Remove the data.
    DeleteData(CheckpointId),
    /// Let the object go.
    Unprotect,
    /// Its time is over.
    DeleteObject,
}

/// The next step.
pub fn plan(seen: &Seen<'_>) -> Step {
    let object = seen.object;
    let is_protected = object.finalizers().iter().any(|finalizer| finalizer == FINALIZER);
    if object.metadata.deletion_timestamp.is_some() {
        return if is_protected { leave(seen) } else { Step::Wait(None) };
    }
    let status = object.status.clone().unwrap_or_default();
    match condition::reason(&status.conditions) {
        COMPLETED | DATA_MISSING => return keep(seen),
        // For good: a schedule or a person makes another one.
        FAILED | SOURCE_POD_REPLACED | SOURCE_POD_NOT_FOUND => return Step::Wait(None),
        _ => {}
    }
    if !is_protected {
        return Step::Protect;
    }
    let Some(id) = status.checkpoint_id.as_deref().and_then(|id| id.parse::<CheckpointId>().ok()) else {
        return match source(seen) {
            Ok(_) => Step::Begin(id_of(object)),
            Err(step) => step,
        };
    };
    let began = status.start_time.as_ref().map_or(seen.now, |time| time.0);
    take(seen, id, began)
}

/// The id that a checkpoint has in the store of its node.
pub fn id_of(object: &PodCheckpoint) -> CheckpointId {
    CheckpointId::of_object(&object.namespace().unwrap_or_default(), &object.name_any())
}

/// How long the capture may take.
pub fn timeout(object: &PodCheckpoint) -> Duration {
    let asked = object.spec.timeout_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    asked.map_or(TIMEOUT, Duration::from_secs)
}

/// It is to go: the data first.
fn leave(seen: &Seen<'_>) -> Step {
    let status = seen.object.status.as_ref();
    let id = status.and_then(|status| status.checkpoint_id.as_deref()).and_then(|id| id.parse().ok());
    match id {
        Some(id) if seen.object.spec.deletion_policy == DeletionPolicy::Delete => match seen.data {
            Data::Missing | Data::NotAsked => Step::Unprotect,
            // Only what was made for this very object; an earlier one of its name may have left its data on purpose.
            Data::Whole(ref stored) if is_foreign(stored, seen.object) => Step::Unprotect,
            Data::There | Data::Whole(_) => Step::DeleteData(id),
        },
        _ => Step::Unprotect,
    }
}

/// It is complete: until its time is over, or its data is gone.
fn keep(seen: &Seen<'_>) -> Step {
    let status = seen.object.status.clone().unwrap_or_default();
    let is_missing = condition::reason(&status.conditions) == DATA_MISSING;
    match (&seen.data, is_missing) {
        (Data::Missing, false) => {
            let message = format!(
                "checkpoint {} is not in the store of node {} any more: somebody deleted it there, or the pool is not imported",
                status.checkpoint_id.unwrap_or_default(),
                seen.node
            );
            return Step::Say(Verdict::no(DATA_MISSING, message), Some(LOOK_AGAIN));
        }
        (Data::There | Data::Whole(_), true) => {
            return Step::Say(Verdict::yes(COMPLETED, "the data is back"), Some(LOOK_AGAIN));
        }
        _ => {}
    }
    let is_held = seen.object.annotations().get(HOLD).is_some_and(|value| value != "false");
    let ends = seen.object.spec.ttl.as_deref().filter(|_| !is_held).and_then(|ttl| duration::parse(ttl).ok());
    let since = status.completion_time.as_ref().map(|time| time.0);
    let (Some(ttl), Some(since)) = (ends, since) else {
        return Step::Wait(Some(LOOK_AGAIN));
    };
    let ttl = SignedDuration::try_from(ttl).unwrap_or(SignedDuration::MAX);
    let left = ttl.saturating_sub(seen.now.duration_since(since));
    match Duration::try_from(left) {
        Ok(left) if !left.is_zero() => Step::Wait(Some(left.min(LOOK_AGAIN))),
        _ => Step::DeleteObject,
    }
}

/// It is begun: what is in the store decides, then the pod.
fn take(seen: &Seen<'_>, id: CheckpointId, began: Timestamp) -> Step {
    let object = seen.object;
    match &seen.data {
        Data::Whole(stored) if is_foreign(stored, object) => {
            let message = format!(
                "the store of node {} has a checkpoint {id} already, which an earlier object of this name left there: choose \
                 another name, or delete it with `cryopod checkpoints delete {id}`",
                seen.node
            );
            return Step::Say(Verdict::no(FAILED, message), None);
        }
        Data::Whole(stored) => return Step::Complete(stored.clone()),
        Data::NotAsked | Data::Missing | Data::There => {}
    }
    let left = SignedDuration::try_from(timeout(object))
        .unwrap_or(SignedDuration::MAX)
        .saturating_sub(seen.now.duration_since(began));
    let left = Duration::try_from(left).unwrap_or(Duration::ZERO);
    if left.is_zero() {
        let message = format!(
            "it was not complete within {}, and the pod runs on: raise timeoutSeconds, or see the agent's log on node {}",
            duration::format(timeout(object)),
            seen.node
        );
        return Step::Say(Verdict::no(FAILED, message), None);
    }
    let source = match source(seen) {
        Ok(source) => source,
        Err(step) => return step,
    };
    let status = object.status.clone().unwrap_or_default();
    if status.source_pod_uid.as_ref().is_some_and(|uid| *uid != source.uid) {
        return replaced(object, source);
    }
    let namespace = object.namespace().unwrap_or_default();
    let name = format!("{namespace}/{}", object.name_any());
    let labels = BTreeMap::from([
        (LABEL_OBJECT.to_owned(), name),
        (LABEL_UID.to_owned(), object.uid().unwrap_or_default()),
    ]);
    Step::Capture(Box::new(Order {
        id,
        pod_uid: source.uid.clone(),
        pod: format!("{namespace}/{}", object.spec.source_pod.name),
        containers: object.spec.containers.clone(),
        mode: object.spec.mode.map(Mode::word),
        labels,
        requested_by: object.annotations().get(REQUESTED_BY).cloned(),
        timeout: left,
    }))
}

fn is_foreign(stored: &Stored, object: &PodCheckpoint) -> bool {
    stored.object_uid != object.uid()
}

/// The pod, if it is the one that is meant and can be captured; else what to say.
fn source<'a>(seen: &'a Seen<'_>) -> Result<&'a Source, Step> {
    let object = seen.object;
    let (wanted, namespace) = (&object.spec.source_pod, object.namespace().unwrap_or_default());
    let name = &wanted.name;
    let Some(pod) = &seen.pod else {
        let message = format!("there is no pod {name} in namespace {namespace} any more");
        return Err(Step::Say(Verdict::no(SOURCE_POD_NOT_FOUND, message), None));
    };
    if wanted.uid.as_ref().is_some_and(|uid| *uid != pod.uid) {
        return Err(replaced(object, pod));
    }
    if pod.node.as_deref() != Some(seen.node) {
        // Claimed by us, so a pod of the same name has run here meanwhile.
        return Err(replaced(object, pod));
    }
    match pod.phase.as_str() {
        "Running" => Ok(pod),
        "Succeeded" | "Failed" => {
            let message = format!(
                "pod {namespace}/{name} has ended ({}): only a running pod can be captured",
                pod.phase
            );
            Err(Step::Say(Verdict::no(FAILED, message), None))
        }
        _ => {
            let message = format!("pod {namespace}/{name} does not run yet");
            Err(Step::Say(Verdict::no(crate::api::checkpoint::PENDING, message), Some(WAIT_FOR_POD)))
        }
    }
}

fn replaced(object: &PodCheckpoint, pod: &Source) -> Step {
    let wanted = &object.spec.source_pod;
    let status_uid = object.status.as_ref().and_then(|status| status.source_pod_uid.clone());
    let meant = wanted.uid.clone().or(status_uid).unwrap_or_else(|| "another one".to_owned());
    let message = format!(
        "pod {}/{} is now {} ({}), and {meant} was meant: make another checkpoint if that one is wanted",
        object.namespace().unwrap_or_default(),
        wanted.name,
        pod.uid,
        pod.node
            .as_deref()
            .map_or_else(|| "not bound to a node".to_owned(), |node| format!("on node {node}")),
    );
    Step::Say(Verdict::no(SOURCE_POD_REPLACED, message), None)
}

#[cfg(test)]
mod tests;
