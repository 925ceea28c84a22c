//! `CheckpointSchedule`: the leader takes checkpoints when it is time, keeps those that retention keeps, and holds drains until
//! their pods are captured.

mod act;
mod drain;
pub mod keep;
pub mod plan;
pub mod times;

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::Node;
use kube::runtime::controller::{Action, Config, Controller};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use kube::{Api, ResourceExt};

use crate::api::schedule::Trigger;
use crate::api::{CheckpointSchedule, PodCheckpoint, SCHEDULED_BY};
use crate::context::{Context, Error};

/// Runs while this agent leads.
pub async fn run(context: Arc<Context>) {
    let api: Api<CheckpointSchedule> = Api::all(context.client.clone());
    let settings = Config::default().concurrency(4).debounce(Duration::from_millis(200));
    let controller = Controller::new(api, watcher::Config::default()).with_config(settings);
    let schedules = controller.store();
    let of_schedule = |checkpoint: PodCheckpoint| {
        let namespace = checkpoint.namespace().unwrap_or_default();
        let schedule = checkpoint.labels().get(SCHEDULED_BY).cloned();
        schedule.map(|name| ObjectRef::new(&name).within(&namespace))
    };
    let checkpoints: Api<PodCheckpoint> = Api::all(context.client.clone());
    let nodes: Api<Node> = Api::all(context.client.clone());
    // A node that is cordoned concerns every schedule that waits for drains.
    let of_node = move |_: Node| {
        let draining =
            schedules.state().into_iter().filter(|it| it.spec.triggers.contains(&Trigger::NodeDrain));
        draining.map(|it| ObjectRef::from_obj(&*it)).collect::<Vec<_>>()
    };
    controller
        .watches(checkpoints, watcher::Config::default().labels(SCHEDULED_BY), of_schedule)
        .watches(nodes, watcher::Config::default(), of_node)
        .run(act::reconcile, retry, context)
        .for_each(|_| async {})
        .await;
}

#[allow(clippy::needless_pass_by_value, reason = "the controller's signature")]
fn retry(object: Arc<CheckpointSchedule>, error: &Error, _: Arc<Context>) -> Action {
    if error.is_conflict() {
        return Action::requeue(Duration::from_millis(100));
    }
    tracing::warn!(namespace = object.namespace(), name = object.name_any(), %error, "checkpointschedule");
    Action::requeue(Duration::from_secs(5))
}
