//! `PodCheckpoint` on the node of its pod: the agent there claims it, captures, keeps the status true, and removes the data
//! before the object goes.
//!
//! Two watches by field selector, so that an agent holds only its own objects: those without a node, which it claims if the
//! pod is here, and those with this node. What to do next is decided by [`plan`], which touches nothing; each step is done
//! here and seen in the object before the next one is decided, so that an agent may be killed between any two.

mod act;
mod claim;
mod first;
pub mod plan;

pub(crate) use act::source;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use kube::runtime::controller::{Action, Config, Controller};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::{WatchStreamExt, reflector, watcher};
use kube::{Api, ResourceExt};

use crate::api::{PodCheckpoint, condition};
use crate::context::{Context, Error};
use first::FirstLooks;

/// Captures at the same time on one node; the shim has one a pod.
const CONCURRENCY: u16 = 4;

/// Objects that one list brings at once: each comes with its pod's template, of which nothing is kept. With 500, or from the
/// API server's cache, which gives all at once, the leader of a cluster with 1,200 of them has 50 MiB resident; with 100, 27 MiB.
pub(crate) const PAGE: u32 = 100;

/// How often the objects are counted for `/metrics`.
const COUNT_EVERY: Duration = Duration::from_secs(5);

/// Runs until the process ends.
pub async fn run(context: Arc<Context>) {
    tokio::join!(controller(&context, true), controller(&context, false));
}

/// One of the two watches.
async fn controller(context: &Arc<Context>, unclaimed: bool) {
    let node = if unclaimed { "" } else { context.node.as_str() };
    let selector = watcher::Config::default().fields(&format!("status.nodeName={node}")).page_size(PAGE);
    let api: Api<PodCheckpoint> = Api::all(context.client.clone());
    let settings = Config::default().concurrency(CONCURRENCY);
    // The captured pod's template is most of an object and nothing that is decided here.
    let (reader, writer) = reflector::store();
    let stream = watcher(api, selector).default_backoff().modify(slim).reflect(writer).applied_objects();
    let controller = Controller::for_stream(stream, reader.clone()).with_config(settings);
    let first = FirstLooks::new(Arc::clone(&context.metrics));
    let done = |result: Result<(ObjectRef<PodCheckpoint>, Action), _>| {
        match result {
            Ok((object, _)) => first.looked(object),
            Err(error) => tracing::debug!(%error, "podcheckpoints"),
        }
        std::future::ready(())
    };
    if unclaimed {
        controller.run(claim::reconcile, retry, Arc::clone(context)).for_each(done).await;
    } else {
        let count = async {
            loop {
                let mut reasons = BTreeMap::<String, u64>::new();
                for object in reader.state() {
                    let status = object.status.as_ref();
                    let reason = status.map_or("", |status| condition::reason(&status.conditions));
                    *reasons.entry(reason.to_owned()).or_default() += 1;
                }
                context.metrics.objects(reasons);
                first.keep(|object| reader.get(object).is_some());
                tokio::time::sleep(COUNT_EVERY).await;
            }
        };
        let controller = controller.run(act::reconcile, retry, Arc::clone(context)).for_each(done);
        let listed = async {
            if reader.wait_until_ready().await.is_ok() {
                first.listed(reader.state().iter().map(|object| ObjectRef::from_obj(&**object)));
            }
        };
        tokio::join!(controller, count, listed);
    }
}

/// Without what is large and decides nothing.
pub(crate) fn slim(object: &mut PodCheckpoint) {
    object.metadata.managed_fields = None;
    if let Some(status) = &mut object.status {
        status.checkpointed_pod_template = None;
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
