//! `CheckpointSchedule`: the leader takes checkpoints when it is time, keeps those that retention keeps, and holds drains until
//! their pods are captured.

mod act;
mod changes;
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
use crate::metrics::Metrics;

/// Runs while this agent leads.
pub async fn run(context: Arc<Context>) {
    let api: Api<CheckpointSchedule> = Api::all(context.client.clone());
    let settings = Config::default().concurrency(4).debounce(Duration::from_millis(200));
    let controller = Controller::new(api, watcher::Config::default()).with_config(settings);
    let schedules = controller.store();
    let (known, metrics) = (schedules.clone(), Arc::clone(&context.metrics));
    let _shown = Shown(Arc::clone(&metrics));
    let of_schedule = |checkpoint: PodCheckpoint| {
        let namespace = checkpoint.namespace().unwrap_or_default();
        let schedule = checkpoint.labels().get(SCHEDULED_BY).cloned();
        schedule.map(|name| ObjectRef::new(&name).within(&namespace))
    };
    let nodes: Api<Node> = Api::all(context.client.clone());
    // A node that is cordoned concerns every schedule that waits for drains.
    let of_node = move |_: Node| {
        let draining =
            schedules.state().into_iter().filter(|it| it.spec.triggers.contains(&Trigger::NodeDrain));
        draining.map(|it| ObjectRef::from_obj(&*it)).collect::<Vec<_>>()
    };
    let forget = async {
        loop {
            tokio::time::sleep(FORGET_EVERY).await;
            let there = known.state();
            metrics.keep_schedules(|namespace, name| {
                there.iter().any(|it| it.namespace().as_deref() == Some(namespace) && it.name_any() == name)
            });
        }
    };
    let controlled = controller
        .watches_stream(changes::of_checkpoints(context.client.clone()), of_schedule)
        .watches(nodes, watcher::Config::default(), of_node)
        .run(act::reconcile, retry, context)
        .for_each(|_| async {});
    tokio::join!(controlled, forget);
}

/// How often schedules that were deleted are taken out of `/metrics`.
const FORGET_EVERY: Duration = Duration::from_secs(15);

/// Takes all schedules out of `/metrics` when this agent leads no more: the next leader shows them.
struct Shown(Arc<Metrics>);

impl Drop for Shown {
    fn drop(&mut self) {
        self.0.keep_schedules(|_, _| false);
    }
}

#[allow(clippy::needless_pass_by_value, reason = "the controller's signature")]
fn retry(object: Arc<CheckpointSchedule>, error: &Error, _: Arc<Context>) -> Action {
    if error.is_conflict() {
        return Action::requeue(Duration::from_millis(100));
    }
    tracing::warn!(namespace = object.namespace(), name = object.name_any(), %error, "checkpointschedule");
    Action::requeue(Duration::from_secs(5))
}
