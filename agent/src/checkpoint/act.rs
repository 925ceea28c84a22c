//! The steps of a `PodCheckpoint` on its node, done.

mod capture;
#[cfg(test)]
mod requests;

use std::sync::Arc;
use std::time::Duration;

use cryopod_checkpoint::id::CheckpointId;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::runtime::controller::Action;
use kube::{Api, Resource, ResourceExt};
use serde_json::{Value, json};

use super::plan::{Data, Seen, Source, Step, plan};
use crate::api::checkpoint::{COMPLETED, DATA_MISSING, DeletionPolicy, FAILED, IN_PROGRESS};
use crate::api::condition::{self, Verdict};
use crate::api::{FINALIZER, PodCheckpoint};
use crate::context::{Context, Error, optional};
use crate::template;

/// Does the next step; the write of it brings the next call.
pub(super) async fn reconcile(object: Arc<PodCheckpoint>, context: Arc<Context>) -> Result<Action, Error> {
    let namespace = object.namespace().unwrap_or_default();
    let name = object.name_any();
    let api: Api<PodCheckpoint> = Api::namespaced(context.client.clone(), &namespace);
    let is_done = |object: &PodCheckpoint| {
        let conditions =
            object.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        object.metadata.deletion_timestamp.is_none() && condition::reason(conditions) == COMPLETED
    };
    // What the watch has may be older than our own last step; one that is complete changes only by others' doing.
    let object = if is_done(&object) {
        Arc::unwrap_or_clone(object)
    } else {
        match optional(api.get(&name).await.map_err(Error::api("read a checkpoint")))? {
            Some(object) => object,
            None => return Ok(Action::await_change()),
        }
    };
    let work = Work { context: &context, api: &api, namespace: &namespace, name: &name };
    let seen = work.look(&object).await?;
    match plan(&seen) {
        Step::Wait(None) => Ok(Action::await_change()),
        Step::Wait(Some(time)) => Ok(Action::requeue(time)),
        Step::Protect => work.finalizers(&object, true).await,
        Step::Unprotect => work.finalizers(&object, false).await,
        Step::Begin(id) => work.begin(&object, &id, seen.pod.as_ref()).await,
        Step::Capture(order) => work.capture(&object, *order).await,
        Step::Complete(stored) => work.complete(&object, &stored).await,
        Step::Say(verdict, again) => {
            work.say(&object, &verdict).await?;
            Ok(again.map_or_else(Action::await_change, Action::requeue))
        }
        Step::DeleteData(id) => work.delete_data(&object, id).await,
        Step::DeleteObject => work.delete_object(&object).await,
    }
}

/// What a pod is for a checkpoint.
pub(crate) async fn source(context: &Context, namespace: &str, name: &str) -> Result<Option<Source>, Error> {
    let pod = context.pods(namespace).get(name).await.map_err(Error::api("read a pod"));
    Ok(optional(pod)?.map(|pod| {
        let text = |path: &str| pod.data.pointer(path).and_then(Value::as_str).map(str::to_owned);
        Source {
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            node: text("/spec/nodeName"),
            phase: text("/status/phase").unwrap_or_default(),
        }
    }))
}

struct Work<'a> {
    context: &'a Arc<Context>,
    api: &'a Api<PodCheckpoint>,
    namespace: &'a str,
    name: &'a str,
}

impl Work<'_> {
    /// Asks for what the plan needs, and no more.
    async fn look<'a>(&'a self, object: &'a PodCheckpoint) -> Result<Seen<'a>, Error> {
        let status = object.status.clone().unwrap_or_default();
        let reason = condition::reason(&status.conditions);
        let is_going = object.metadata.deletion_timestamp.is_some();
        let is_complete = matches!(reason, COMPLETED | DATA_MISSING);
        let id = status.checkpoint_id.as_deref().and_then(|id| id.parse::<CheckpointId>().ok());
        let pod = if is_going || is_complete || reason == FAILED {
            None
        } else {
            source(self.context, self.namespace, &object.spec.source_pod.name).await?
        };
        let work = Arc::clone(&self.context.work);
        let retains = object.spec.deletion_policy == DeletionPolicy::Retain;
        let data = match id {
            None => Data::NotAsked,
            Some(_) if is_going && retains => Data::NotAsked,
            Some(id) if is_complete && !is_going => {
                match tokio::task::spawn_blocking(move || work.has(&id)).await?? {
                    true => Data::There,
                    false => Data::Missing,
                }
            }
            Some(id) => match tokio::task::spawn_blocking(move || work.stored(&id)).await?? {
                Some(stored) => Data::Whole(Box::new(stored)),
                None => Data::Missing,
            },
        };
        Ok(Seen { object, pod, data, node: &self.context.node, now: self.context.now() })
    }

    async fn write(&self, patch: &Value, action: &'static str) -> Result<Option<PodCheckpoint>, Error> {
        let written = self.api.patch_status(self.name, &PatchParams::default(), &Patch::Merge(patch)).await;
        optional(written.map_err(Error::api(action)))
    }

    async fn finalizers(&self, object: &PodCheckpoint, protect: bool) -> Result<Action, Error> {
        let mut finalizers: Vec<String> = object.finalizers().to_vec();
        finalizers.retain(|finalizer| finalizer != FINALIZER);
        if protect {
            finalizers.push(FINALIZER.to_owned());
        }
        // The list is replaced as a whole, so it must be the one that was read.
        let patch = json!({
            "metadata": { "finalizers": finalizers, "resourceVersion": object.resource_version() },
        });
        let written = self.api.patch(self.name, &PatchParams::default(), &Patch::Merge(&patch)).await;
        optional(written.map_err(Error::api("protect a checkpoint")))?;
        Ok(Action::requeue(Duration::ZERO))
    }

    async fn begin(
        &self,
        object: &PodCheckpoint,
        id: &CheckpointId,
        pod: Option<&Source>,
    ) -> Result<Action, Error> {
        let found = self.context.pods(self.namespace).get(&object.spec.source_pod.name).await;
        let template = optional(found.map_err(Error::api("read a pod")))?.and_then(|pod| {
            let value = serde_json::to_value(&pod).ok()?;
            Some(template::of(&value))
        });
        let mut status = object.status.clone().unwrap_or_default();
        let verdict = Verdict::no(IN_PROGRESS, format!("the agent of node {} takes it", self.context.node));
        condition::set_ready(
            &mut status.conditions,
            &verdict,
            object.metadata.generation,
            self.context.now(),
        );
        let patch = json!({ "status": {
            "observedGeneration": object.metadata.generation,
            "checkpointID": id,
            "sourcePodUID": pod.map(|pod| pod.uid.clone()),
            "startTime": Time(self.context.now()),
            "checkpointedPodTemplate": template,
            "conditions": status.conditions,
        }});
        let Some(begun) = self.write(&patch, "begin a checkpoint").await? else {
            return Ok(Action::await_change());
        };
        let note = format!("checkpoint {} of this pod is being taken", self.name);
        self.tell(&begun, false, "CheckpointStarted", &note).await;
        Ok(Action::requeue(Duration::ZERO))
    }

    async fn say(&self, object: &PodCheckpoint, verdict: &Verdict) -> Result<(), Error> {
        let mut status = object.status.clone().unwrap_or_default();
        let (generation, now) = (object.metadata.generation, self.context.now());
        if !condition::set_ready(&mut status.conditions, verdict, generation, now) {
            return Ok(());
        }
        let patch = json!({ "status": {
            "observedGeneration": generation, "conditions": status.conditions, "progress": Value::Null,
        }});
        if self.write(&patch, "tell how a checkpoint stands").await?.is_none() {
            return Ok(());
        }
        if verdict.reason != crate::api::checkpoint::PENDING {
            let note = format!("checkpoint {}: {}", self.name, verdict.message);
            let reason = if verdict.reason == FAILED { "CheckpointFailed" } else { verdict.reason };
            self.tell(object, verdict.status == "False", reason, &note).await;
        }
        Ok(())
    }

    async fn delete_data(&self, object: &PodCheckpoint, id: CheckpointId) -> Result<Action, Error> {
        let work = Arc::clone(&self.context.work);
        let deleted = tokio::task::spawn_blocking(move || work.delete(&id)).await?;
        if let Err(error) = &deleted {
            // The object stays until it works; whoever waits for it has to see why.
            let about = object.object_ref(&());
            self.context.event(&about, true, "Delete", "CheckpointDeletionFailed", &error.to_string()).await;
        }
        deleted?;
        Ok(Action::requeue(Duration::ZERO))
    }

    async fn delete_object(&self, object: &PodCheckpoint) -> Result<Action, Error> {
        let only_this = Preconditions { uid: object.uid(), resource_version: None };
        let deleted = self.api.delete(self.name, &DeleteParams::default().preconditions(only_this)).await;
        optional(deleted.map_err(Error::api("delete a checkpoint whose time is over")))?;
        Ok(Action::await_change())
    }

    /// An event about the checkpoint and one about its pod, where people look first.
    async fn tell(&self, object: &PodCheckpoint, warning: bool, reason: &str, note: &str) {
        let about = object.object_ref(&());
        self.context.event(&about, warning, "Checkpoint", reason, note).await;
        let uid = object.status.as_ref().and_then(|status| status.source_pod_uid.clone());
        if let Some(uid) = uid.or_else(|| object.spec.source_pod.uid.clone()) {
            let pod = k8s_openapi::api::core::v1::ObjectReference {
                api_version: Some("v1".into()),
                kind: Some("Pod".into()),
                name: Some(object.spec.source_pod.name.clone()),
                namespace: Some(self.namespace.to_owned()),
                uid: Some(uid),
                ..Default::default()
            };
            self.context.event(&pod, warning, "Checkpoint", reason, note).await;
        }
    }
}
