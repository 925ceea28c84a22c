//! Checkpoints that no agent takes care of: the leader says why, and lets go what nobody can delete any more.
//!
//! ```text
//! no node yet:  no such pod ─▶ failed      pod not bound ─▶ pending     nobody claims it ─▶ its node is named, then failed
//! has a node:   that node is no object of the cluster any more ─▶ not ready; a deleted object is let go
//! ```

mod nodes;

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use jiff::{SignedDuration, Timestamp};
use kube::api::{Patch, PatchParams};
use kube::runtime::controller::{Action, Config, Controller};
use kube::runtime::{WatchStreamExt, reflector, watcher};
use kube::{Api, Resource, ResourceExt};
use serde_json::json;

use crate::api::checkpoint::{
    COMPLETED, FAILED, NODE_UNAVAILABLE, PENDING, SOURCE_POD_NOT_FOUND, SOURCE_POD_REPLACED,
};
use crate::api::condition::{self, Verdict};
use crate::api::{FINALIZER, PodCheckpoint, duration};
use crate::checkpoint::plan::{Source, timeout};
use crate::checkpoint::{PAGE, slim};
use crate::context::{Context, Error, optional};
use nodes::Nodes;

/// A pod may be made in the same breath as its checkpoint, and an agent claims within a second or two.
const PATIENCE: SignedDuration = SignedDuration::from_secs(10);
/// How often an object that waits for others is looked at.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// How often one that is in good hands is looked at.
const RARELY: Duration = Duration::from_secs(300);

/// What is seen.
#[derive(Debug, Clone)]
pub struct Seen<'a> {
    /// The object.
    pub object: &'a PodCheckpoint,
    /// Its pod; None where there is none, or it is not asked for.
    pub pod: Option<Source>,
    /// Whether its node is an object of the cluster; true where it has none.
    pub has_node: bool,
    /// The time.
    pub now: Timestamp,
}

/// What to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Look again then.
    Wait(Duration),
    /// Say how it stands.
    Say(Verdict),
    /// Its node is gone and with it whoever could delete the data.
    LetGo,
}

/// The next step.
pub fn plan(seen: &Seen<'_>) -> Step {
    let object = seen.object;
    let status = object.status.clone().unwrap_or_default();
    let reason = condition::reason(&status.conditions);
    let is_over = matches!(reason, FAILED | SOURCE_POD_NOT_FOUND | SOURCE_POD_REPLACED);
    if let Some(node) = &status.node_name {
        if seen.has_node {
            return Step::Wait(RARELY);
        }
        let is_protected = object.finalizers().iter().any(|finalizer| finalizer == FINALIZER);
        if object.metadata.deletion_timestamp.is_some() {
            return if is_protected { Step::LetGo } else { Step::Wait(RARELY) };
        }
        if is_over || reason == NODE_UNAVAILABLE {
            return Step::Wait(RARELY);
        }
        let message = format!(
            "node {node} is no longer in the cluster, and the checkpoint is on it: bring the node back under its name, or delete \
             this object"
        );
        // Not `failed`: the node may come back, with the data.
        let reason = if reason == COMPLETED { NODE_UNAVAILABLE } else { FAILED };
        return Step::Say(Verdict::no(reason, message));
    }
    if object.metadata.deletion_timestamp.is_some() || is_over {
        return Step::Wait(RARELY);
    }
    unclaimed(seen, reason)
}

/// Nobody has taken it yet.
fn unclaimed(seen: &Seen<'_>, reason: &str) -> Step {
    let object = seen.object;
    let asked = object.metadata.creation_timestamp.as_ref().map_or(seen.now, |time| time.0);
    let age = seen.now.duration_since(asked);
    if age < PATIENCE {
        return Step::Wait(LOOK_AGAIN);
    }
    let (namespace, name) = (object.namespace().unwrap_or_default(), &object.spec.source_pod.name);
    let Some(pod) = &seen.pod else {
        let message =
            format!("there is no pod {name} in namespace {namespace}: see `kubectl -n {namespace} get pods`");
        return Step::Say(Verdict::no(SOURCE_POD_NOT_FOUND, message));
    };
    let is_late = age > SignedDuration::try_from(timeout(object)).unwrap_or(SignedDuration::MAX);
    let within = duration::format(timeout(object));
    let verdict = match &pod.node {
        None if is_late => {
            let message = format!("pod {namespace}/{name} was not bound to a node within {within}");
            Verdict::no(FAILED, message)
        }
        None => Verdict::no(PENDING, format!("pod {namespace}/{name} is not bound to a node yet")),
        Some(node) if is_late => Verdict::no(
            FAILED,
            format!(
                "no cryopod-agent on node {node} took it within {within}: see whether one runs there \
                 (`kubectl get pods -A -o wide -l app.kubernetes.io/name=cryopod`, or `systemctl status cryopod-agent` on the node)"
            ),
        ),
        Some(node) => Verdict::no(
            NODE_UNAVAILABLE,
            format!("waits for a cryopod-agent on node {node}; none has answered so far"),
        ),
    };
    if verdict.reason == reason { Step::Wait(LOOK_AGAIN) } else { Step::Say(verdict) }
}

/// Runs while this agent leads.
pub async fn run(context: Arc<Context>) {
    let api: Api<PodCheckpoint> = Api::all(context.client.clone());
    let settings = Config::default().concurrency(4);
    // All of the cluster: their pods' templates would be most of the leader's memory.
    let (reader, writer) = reflector::store();
    let stream = watcher(api, watcher::Config::default().page_size(PAGE)).default_backoff().modify(slim);
    let stream = stream.reflect(writer).applied_objects();
    let controller = Controller::for_stream(stream, reader).with_config(settings);
    let done = |_| async {};
    let leader = Arc::new(Leader { nodes: Nodes::default(), context });
    controller.run(reconcile, |_, _, _| Action::requeue(LOOK_AGAIN), leader).for_each(done).await;
}

/// What it works with.
struct Leader {
    context: Arc<Context>,
    nodes: Nodes,
}

async fn reconcile(object: Arc<PodCheckpoint>, leader: Arc<Leader>) -> Result<Action, Error> {
    let context = &leader.context;
    let namespace = object.namespace().unwrap_or_default();
    let api: Api<PodCheckpoint> = Api::namespaced(context.client.clone(), &namespace);
    let node = object.status.as_ref().and_then(|status| status.node_name.clone());
    let (pod, has_node) = match &node {
        None => (crate::checkpoint::source(context, &namespace, &object.spec.source_pod.name).await?, true),
        Some(node) => (None, leader.nodes.has(context, node).await?),
    };
    let seen = Seen { object: &object, pod, has_node, now: context.now() };
    match plan(&seen) {
        Step::Wait(time) => Ok(Action::requeue(time)),
        Step::Say(verdict) => {
            let mut conditions =
                object.status.as_ref().map(|status| status.conditions.clone()).unwrap_or_default();
            condition::set_ready(&mut conditions, &verdict, object.metadata.generation, context.now());
            // The version makes sure that an agent that has claimed it meanwhile wins.
            let patch = json!({
                "metadata": { "resourceVersion": object.resource_version() },
                "status": { "conditions": conditions, "observedGeneration": object.metadata.generation },
            });
            let name = object.name_any();
            let written = api.patch_status(&name, &PatchParams::default(), &Patch::Merge(&patch)).await;
            optional(written.map_err(Error::api("tell how a checkpoint stands")))?;
            if verdict.reason != PENDING {
                let about = object.object_ref(&());
                context.event(&about, true, "Checkpoint", verdict.reason, &verdict.message).await;
            }
            Ok(Action::requeue(LOOK_AGAIN))
        }
        Step::LetGo => {
            let kept: Vec<_> = object.finalizers().iter().filter(|it| *it != FINALIZER).collect();
            let patch = json!({ "metadata": {
                "finalizers": kept, "resourceVersion": object.resource_version(),
            }});
            let about = object.object_ref(&());
            let note = "its node is no longer in the cluster; data that is still on it stays until somebody deletes it there";
            context.event(&about, true, "Delete", "CheckpointDataLeft", note).await;
            let name = object.name_any();
            let written = api.patch(&name, &PatchParams::default(), &Patch::Merge(&patch)).await;
            optional(written.map_err(Error::api("let a checkpoint go")))?;
            Ok(Action::await_change())
        }
    }
}

#[cfg(test)]
mod requests;
#[cfg(test)]
mod tests;
