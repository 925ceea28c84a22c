//! Objects that have no node yet: the agent of the pod's node takes them.

use std::sync::Arc;
use std::time::Duration;

use kube::api::{Patch, PatchParams};
use kube::runtime::controller::Action;
use kube::{Api, ResourceExt};
use serde_json::json;

use super::act;
use crate::api::PodCheckpoint;
use crate::context::{Context, Error, optional};

/// A pod may be bound to a node, and so to us, after its checkpoint was asked for.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Takes it if its pod is on this node.
pub(super) async fn reconcile(object: Arc<PodCheckpoint>, context: Arc<Context>) -> Result<Action, Error> {
    let status = object.status.as_ref();
    if object.metadata.deletion_timestamp.is_some()
        || status.is_some_and(|status| status.node_name.is_some() || status.completion_time.is_some())
    {
        return Ok(Action::await_change());
    }
    let namespace = object.namespace().unwrap_or_default();
    let pod = act::source(&context, &namespace, &object.spec.source_pod.name).await?;
    if pod.is_none_or(|pod| pod.node.as_deref() != Some(context.node.as_str())) {
        return Ok(Action::requeue(LOOK_AGAIN));
    }
    let api: Api<PodCheckpoint> = Api::namespaced(context.client.clone(), &namespace);
    // The version makes sure that nobody else, the leader's judgement included, was quicker.
    let patch = json!({
        "metadata": { "resourceVersion": object.resource_version() },
        "status": { "nodeName": context.node },
    });
    let claimed = api.patch_status(&object.name_any(), &PatchParams::default(), &Patch::Merge(&patch)).await;
    optional(claimed.map_err(Error::api("claim a checkpoint")))?;
    Ok(Action::await_change())
}
