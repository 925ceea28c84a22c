//! `PodCheckpoint` on the node of its pod: the agent there claims it, captures, keeps the status true, and removes the data
//! before the object goes.
//!
//! Two watches by field selector, so that an agent holds only its own objects: those without a node, which it claims if the
//! pod is here, and those with this node. What to do next is decided by [`plan`], which touches nothing; each step is done
//! here and seen in the object before the next one is decided, so that an agent may be killed between any two.

mod act;
mod claim;
pub mod plan;

pub(crate) use act::source;

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use kube::runtime::controller::{Action, Config, Controller};
use kube::runtime::watcher;
use kube::{Api, ResourceExt};

use crate::api::PodCheckpoint;
use crate::context::{Context, Error};

/// Captures at the same time on one node; the shim has one a pod.
const CONCURRENCY: u16 = 4;

/// Runs until the process ends.
pub async fn run(context: Arc<Context>) {
    tokio::join!(controller(&context, true), controller(&context, false));
}

/// One of the two watches.
async fn controller(context: &Arc<Context>, unclaimed: bool) {
    let node = if unclaimed { "" } else { context.node.as_str() };
    let selector = watcher::Config::default().fields(&format!("status.nodeName={node}"));
    let api: Api<PodCheckpoint> = Api::all(context.client.clone());
    let settings = Config::default().concurrency(CONCURRENCY);
    let controller = Controller::new(api, selector).with_config(settings);
    let done = |result: Result<(_, Action), _>| async {
        if let Err(error) = result {
            tracing::debug!(%error, "podcheckpoints");
        }
    };
    if unclaimed {
        controller.run(claim::reconcile, retry, Arc::clone(context)).for_each(done).await;
    } else {
        controller.run(act::reconcile, retry, Arc::clone(context)).for_each(done).await;
    }
}

/// A failed step is tried again; a conflict at once, since somebody else was only quicker.
#[allow(clippy::needless_pass_by_value, reason = "the controller's signature")]
fn retry(object: Arc<PodCheckpoint>, error: &Error, _: Arc<Context>) -> Action {
    if error.is_conflict() {
        return Action::requeue(Duration::from_millis(100));
    }
    tracing::warn!(namespace = object.namespace(), name = object.name_any(), %error, "podcheckpoint");
    Action::requeue(Duration::from_secs(5))
}
