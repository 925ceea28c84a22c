//! `PodRestore`: the leader makes its pods, and tells when they run.
//!
//! The pods are not owned by the object: deleting it leaves them, as deleting a `PodCheckpoint` leaves its pod.

mod act;
pub mod plan;

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use kube::runtime::controller::{Action, Config, Controller};
use kube::runtime::watcher;
use kube::{Api, ResourceExt};

use crate::api::PodRestore;
use crate::context::{Context, Error};

/// Runs while this agent leads.
pub async fn run(context: Arc<Context>) {
    let api: Api<PodRestore> = Api::all(context.client.clone());
    let settings = Config::default().concurrency(8);
    let controller = Controller::new(api, watcher::Config::default()).with_config(settings);
    controller.run(act::reconcile, retry, context).for_each(|_| async {}).await;
}

#[allow(clippy::needless_pass_by_value, reason = "the controller's signature")]
fn retry(object: Arc<PodRestore>, error: &Error, _: Arc<Context>) -> Action {
    tracing::warn!(namespace = object.namespace(), name = object.name_any(), %error, "podrestore");
    Action::requeue(Duration::from_secs(if error.is_conflict() { 0 } else { 5 }))
}
