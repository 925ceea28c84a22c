//! The steps of a `PodRestore`, done.

#[cfg(test)]
mod requests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use kube::runtime::controller::Action;
use kube::{Api, Resource, ResourceExt};
use serde_json::{Value, json};

use super::plan::{Found, Seen, Step, names, plan};
use crate::api::condition::{self, Verdict};
use crate::api::restore::{FAILED, IN_PROGRESS, POD_REFUSED, RestoredPod, SUCCEEDED};
use crate::api::{PodCheckpoint, PodRestore, REQUESTED_BY, RESTORED_BY_UID};
use crate::context::{Context, Error, optional};
use crate::template::{self, Wanted};

/// Does the next step.
pub(super) async fn reconcile(object: Arc<PodRestore>, context: Arc<Context>) -> Result<Action, Error> {
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let conditions = object.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    if matches!(condition::reason(conditions), SUCCEEDED | FAILED) {
        return Ok(Action::await_change());
    }
    let api: Api<PodRestore> = Api::namespaced(context.client.clone(), &namespace);
    // The watch may be behind our own last step.
    let Some(object) = optional(api.get(&name).await.map_err(Error::api("read a restore")))? else {
        return Ok(Action::await_change());
    };
    let checkpoints: Api<PodCheckpoint> = Api::namespaced(context.client.clone(), &namespace);
    let checkpoint = checkpoints.get(&object.spec.checkpoint_name).await;
    let checkpoint = optional(checkpoint.map_err(Error::api("read the checkpoint of a restore")))?;
    let work = Work { context: &context, api: &api, object: &object, namespace: &namespace };
    let pods = match &checkpoint {
        Some(checkpoint) => work.pods(&names(&object, checkpoint)).await?,
        None => BTreeMap::new(),
    };
    let seen = Seen { object: &object, checkpoint: checkpoint.as_ref(), pods, now: context.now() };
    match (plan(&seen), &checkpoint) {
        (Step::Make(name), Some(checkpoint)) => work.make(&name, checkpoint).await,
        (Step::Say(verdict, pods, again), _) => work.say(&verdict, pods, again, checkpoint.as_ref()).await,
        (Step::Rest | Step::Make(_), _) => Ok(Action::await_change()),
    }
}

struct Work<'a> {
    context: &'a Arc<Context>,
    api: &'a Api<PodRestore>,
    object: &'a PodRestore,
    namespace: &'a str,
}

impl Work<'_> {
    async fn pods(&self, names: &[String]) -> Result<BTreeMap<String, Found>, Error> {
        let (api, uid) = (self.context.pods(self.namespace), self.object.uid());
        let mut pods = BTreeMap::new();
        for name in names {
            let pod = optional(api.get(name).await.map_err(Error::api("read a restored pod")))?;
            if let Some(pod) = pod {
                pods.insert(name.clone(), found(&pod, uid.as_deref()));
            }
        }
        Ok(pods)
    }

    /// Makes one pod and notes it at once. Killed in between, the next look finds the pod, which says whose it is.
    async fn make(&self, name: &str, checkpoint: &PodCheckpoint) -> Result<Action, Error> {
        let status = checkpoint.status.clone().unwrap_or_default();
        let template = status.checkpointed_pod_template.unwrap_or_default();
        let (restore, uid) = (self.object.name_any(), self.object.uid().unwrap_or_default());
        let wanted = Wanted {
            name,
            namespace: self.namespace,
            checkpoint: &self.object.spec.checkpoint_name,
            restore: &restore,
            restore_uid: &uid,
            requested_by: self.object.annotations().get(REQUESTED_BY).map(String::as_str),
            node: status.node_name.as_deref().unwrap_or_default(),
        };
        let patches = self.object.spec.patches.iter().map(|patch| &patch.merge);
        let pod = template::pod(&template, patches, &wanted);
        let made = match serde_json::from_value::<DynamicObject>(pod) {
            Ok(pod) => self.context.pods(self.namespace).create(&PostParams::default(), &pod).await,
            Err(error) => Err(kube::Error::SerdeError(error)),
        };
        let made = match made {
            Ok(pod) => pod,
            // Made by us and not noted, or by somebody else: the next look tells.
            Err(kube::Error::Api(status)) if status.code == 409 => {
                return Ok(Action::requeue(Duration::ZERO));
            }
            Err(kube::Error::Api(status)) if (400..500).contains(&status.code) && status.code != 429 => {
                let message = format!("Kubernetes refuses pod {name}: {}", status.message);
                let verdict = Verdict::no(POD_REFUSED, message);
                let pods = self.object.status.clone().unwrap_or_default().pods;
                return self.say(&verdict, pods, Some(Duration::from_secs(10)), Some(checkpoint)).await;
            }
            Err(source) => return Err(Error::Api { action: "make a restored pod", source }),
        };
        let mut pods = self.object.status.clone().unwrap_or_default().pods;
        pods.retain(|pod| pod.name != name);
        pods.push(RestoredPod { name: name.to_owned(), uid: made.uid(), running: false, message: None });
        let verdict = Verdict::no(IN_PROGRESS, format!("pod {name} is made"));
        self.say(&verdict, pods, Some(Duration::ZERO), Some(checkpoint)).await
    }

    async fn say(
        &self,
        verdict: &Verdict,
        pods: Vec<RestoredPod>,
        again: Option<Duration>,
        checkpoint: Option<&PodCheckpoint>,
    ) -> Result<Action, Error> {
        let action = again.map_or_else(Action::await_change, Action::requeue);
        let before = self.object.status.clone().unwrap_or_default();
        let mut status = before.clone();
        let (generation, now) = (self.object.metadata.generation, self.context.now());
        condition::set_ready(&mut status.conditions, verdict, generation, now);
        status.observed_generation = generation;
        status.ready_pods = i32::try_from(pods.iter().filter(|pod| pod.running).count()).unwrap_or(i32::MAX);
        if !pods.is_empty() && status.start_time.is_none() {
            status.start_time = Some(Time(now));
        }
        status.pods = pods;
        let theirs = checkpoint.and_then(|checkpoint| checkpoint.status.as_ref());
        status.node_name = theirs.and_then(|it| it.node_name.clone()).or(status.node_name);
        status.checkpoint_id = theirs.and_then(|it| it.checkpoint_id.clone()).or(status.checkpoint_id);
        if verdict.reason == SUCCEEDED {
            status.completion_time = Some(Time(now));
        }
        if status == before {
            return Ok(action);
        }
        let patch = Patch::Merge(json!({ "status": status }));
        let written = self.api.patch_status(&self.object.name_any(), &PatchParams::default(), &patch).await;
        optional(written.map_err(Error::api("tell how a restore stands")))?;
        if condition::reason(&before.conditions) != verdict.reason {
            let warning = !matches!(verdict.reason, SUCCEEDED | IN_PROGRESS);
            let about = self.object.object_ref(&());
            self.context.event(&about, warning, "Restore", verdict.reason, &verdict.message).await;
            let since = |time: &Time| Duration::try_from(now.duration_since(time.0)).unwrap_or_default();
            match verdict.reason {
                SUCCEEDED => {
                    let time = status.start_time.as_ref().map(since).unwrap_or_default();
                    self.context.metrics.restored(time);
                }
                FAILED => self.context.metrics.restore_failed(condition::reason(&before.conditions)),
                _ => {}
            }
        }
        Ok(action)
    }
}

/// What a pod is for the restore of this UID.
fn found(pod: &DynamicObject, uid: Option<&str>) -> Found {
    let phase = pod.data.pointer("/status/phase").and_then(Value::as_str).unwrap_or_default();
    let statuses: Vec<&Value> = pod
        .data
        .pointer("/status/containerStatuses")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .collect();
    let running = phase == "Running"
        && !statuses.is_empty()
        && statuses.iter().all(|status| status.pointer("/state/running").is_some());
    let waiting = statuses.iter().find_map(|status| status.pointer("/state/waiting"));
    let ended = statuses.iter().find_map(|status| {
        status.pointer("/state/terminated").or_else(|| status.pointer("/lastState/terminated"))
    });
    let unscheduled = pod
        .data
        .pointer("/status/conditions")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .find(|condition| condition["type"] == "PodScheduled" && condition["status"] == "False");
    Found {
        uid: pod.uid().unwrap_or_default(),
        is_ours: pod.annotations().get(RESTORED_BY_UID).map(String::as_str) == uid,
        running,
        ended: phase == "Succeeded",
        message: waiting.or(ended).or(unscheduled).map(reason_and_message),
    }
}

fn reason_and_message(said: &Value) -> String {
    let text = |key: &str| said.get(key).and_then(Value::as_str).unwrap_or_default();
    match (text("reason"), text("message")) {
        (reason, "") => reason.to_owned(),
        ("", message) => message.to_owned(),
        (reason, message) => format!("{reason}: {message}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(status: &Value) -> DynamicObject {
        serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": "web", "uid": "u", "annotations": { RESTORED_BY_UID: "r" } },
            "status": status,
        }))
        .unwrap()
    }

    #[test]
    fn a_pod_runs_when_all_its_containers_do() {
        let both = json!({ "phase": "Running", "containerStatuses": [
            { "state": { "running": {} } }, { "state": { "waiting": { "reason": "CreateContainerError", "message": "why" } } },
        ]});
        let half = found(&pod(&both), Some("r"));
        assert!(!half.running && half.is_ours);
        assert_eq!(half.message.as_deref(), Some("CreateContainerError: why"));
        let whole = json!({ "phase": "Running", "containerStatuses": [{ "state": { "running": {} } }] });
        assert!(found(&pod(&whole), Some("r")).running);
        assert!(!found(&pod(&whole), Some("another")).is_ours);
        assert!(!found(&pod(&json!({ "phase": "Pending" })), Some("r")).running);
    }

    #[test]
    fn a_pod_that_no_node_takes_says_why() {
        let unscheduled = json!({ "phase": "Pending", "conditions": [
            { "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes" },
        ]});
        let found = found(&pod(&unscheduled), Some("r"));
        assert_eq!(found.message.as_deref(), Some("Unschedulable: 0/1 nodes"));
    }
}
