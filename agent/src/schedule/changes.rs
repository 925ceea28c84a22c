//! Changes of checkpoints that concern their schedule: how they stand, and not how far a capture is, which changes each second and
//! would make the schedule list all of its pods as often.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::future::ready;
use std::hash::{Hash, Hasher};

use futures_util::{Stream, StreamExt};
use kube::runtime::WatchStreamExt;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, ResourceExt};

use crate::api::{PodCheckpoint, SCHEDULED_BY, condition};
use crate::checkpoint::PAGE;

/// The checkpoints of all schedules, each time that one stands otherwise than before, or is gone.
pub(super) fn of_checkpoints(
    client: Client,
) -> impl Stream<Item = Result<PodCheckpoint, watcher::Error>> + Send + 'static {
    let config = watcher::Config::default().labels(SCHEDULED_BY).page_size(PAGE);
    let mut known = Known::default();
    watcher(Api::all(client), config).default_backoff().filter_map(move |event| ready(known.concerns(event)))
}

/// How each of them stood last.
#[derive(Default)]
struct Known(HashMap<ObjectRef<PodCheckpoint>, u64>);

impl Known {
    fn concerns<E>(&mut self, event: Result<Event<PodCheckpoint>, E>) -> Option<Result<PodCheckpoint, E>> {
        match event {
            Ok(Event::Init) => {
                // What went while nobody watched is in no event.
                self.0.clear();
                None
            }
            Ok(Event::InitDone) => None,
            Ok(Event::InitApply(object) | Event::Apply(object)) => {
                let now = standing(&object);
                let before = self.0.insert(ObjectRef::from_obj(&object), now);
                (before != Some(now)).then_some(Ok(object))
            }
            Ok(Event::Delete(object)) => {
                self.0.remove(&ObjectRef::from_obj(&object));
                Some(Ok(object))
            }
            Err(error) => Some(Err(error)),
        }
    }
}

/// Everything of it that a plan asks for.
fn standing(object: &PodCheckpoint) -> u64 {
    let mut hasher = DefaultHasher::new();
    (object.metadata.deletion_timestamp.is_some(), object.labels(), object.annotations()).hash(&mut hasher);
    if let Some(status) = &object.status {
        let completed = status.completion_time.as_ref().map(|time| time.0);
        let reason = condition::reason(&status.conditions);
        (reason, completed, status.memory_bytes, status.disk_bytes).hash(&mut hasher);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn object(status: &Value) -> PodCheckpoint {
        serde_json::from_value(json!({
            "apiVersion": "cryopod.dev/v1alpha1", "kind": "PodCheckpoint",
            "metadata": { "name": "cp", "namespace": "default", "labels": { SCHEDULED_BY: "night" } },
            "spec": { "sourcePod": { "name": "web" } }, "status": status,
        }))
        .unwrap()
    }

    fn reason(reason: &str, more: &Value) -> PodCheckpoint {
        let mut status = more.clone();
        status["conditions"] = json!([{ "type": "Ready", "status": "False", "reason": reason, "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z" }]);
        object(&status)
    }

    #[test]
    fn progress_is_nothing_to_a_schedule_and_everything_else_is_told() {
        let mut known = Known::default();
        let mut told = |event| known.concerns(Ok::<_, ()>(event)).is_some();
        let progress =
            |done: i64| json!({ "progress": { "step": "dump", "doneBytes": done, "totalBytes": 9 } });
        assert!(!told(Event::Init));
        assert!(told(Event::InitApply(reason("CheckpointInProgress", &json!({})))), "it is new");
        assert!(!told(Event::Apply(reason("CheckpointInProgress", &progress(1)))));
        assert!(!told(Event::Apply(reason("CheckpointInProgress", &progress(2)))));
        assert!(told(Event::Apply(reason("CheckpointCompleted", &json!({ "memoryBytes": 5 })))));
        let mut held = reason("CheckpointCompleted", &json!({ "memoryBytes": 5 }));
        held.annotations_mut().insert("cryopod.dev/hold".into(), "true".into());
        assert!(told(Event::Apply(held.clone())));
        assert!(told(Event::Delete(held.clone())), "a place is free");
        assert!(told(Event::Apply(held.clone())), "another one of its name");
        assert!(!told(Event::Apply(held.clone())));
        assert!(!told(Event::Init));
        assert!(told(Event::InitApply(held)), "after a gap everything counts as new");
    }
}
