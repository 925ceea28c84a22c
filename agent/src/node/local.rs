//! The node that the agent runs on.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cryopod_checkpoint::id::CheckpointId;
use cryopod_checkpoint::kind::Kind;
use cryopod_checkpoint::manifest::Manifest;
use cryopod_checkpoint::refusal;
use cryopod_command::{Cancel, Limits};
use cryopod_runtime::config::Sources;
use cryopod_shim::capture::Node;
use cryopod_shim::control::api;
use cryopod_shim::control::client::{Client, ClientError};
use cryopod_shim::discovery::{self, Shim};

use super::{NodeError, NodeWork, Order, Progress, Stored};
use crate::metrics::Metrics;

/// A look at the store; a pool that is busy with a scrub still answers well within it.
const LOOK: Duration = Duration::from_secs(60);
/// How old the list of checkpoints may be where only presence is asked for: a restarted agent asks for a thousand of them
/// within a second or two.
const LIST_AGE: Duration = Duration::from_secs(10);

/// The real one.
#[derive(Debug)]
pub struct LocalNode {
    sources: Sources,
    metrics: Arc<Metrics>,
    list: Mutex<Option<(Instant, BTreeSet<CheckpointId>)>>,
}

impl LocalNode {
    /// By the configuration that these files give.
    pub fn new(sources: Sources, metrics: Arc<Metrics>) -> Self {
        Self { sources, metrics, list: Mutex::default() }
    }

    /// Does it and notes how long it took.
    fn timed<T>(&self, operation: &'static str, work: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let done = work();
        self.metrics.store_call(operation, began.elapsed());
        done
    }

    fn open(&self) -> Result<Node, NodeError> {
        Node::open(&self.sources, &Limits::within(LOOK)).map_err(|error| NodeError::Store(error.to_string()))
    }

    fn forget_list(&self) {
        *self.list.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = None;
    }
}

/// The running pod of this UID.
fn shim_of(order: &Order) -> Result<Shim, NodeError> {
    let shims = discovery::list().map_err(|error| NodeError::Unreachable {
        pod: order.pod.clone(),
        message: format!("{}: {error}", discovery::DIR),
    })?;
    shims
        .into_iter()
        .find(|shim| shim.pod.uid == order.pod_uid)
        .ok_or_else(|| NodeError::NotOurs { pod: order.pod.clone() })
}

fn request(order: &Order) -> api::CheckpointRequest {
    let mut request = api::CheckpointRequest::new();
    request.id = order.id.to_string();
    // A shim of an earlier version knows of one alone.
    request.container = order.containers.first().cloned().unwrap_or_default();
    request.containers.clone_from(&order.containers);
    request.requested_by = order.requested_by.clone().unwrap_or_default();
    request.mode = order.mode.unwrap_or_default().to_owned();
    request.labels = order.labels.clone().into_iter().collect();
    request.timeout_seconds = order.timeout.as_secs().max(1);
    request
}

/// What a failed capture means to whoever asked for it.
fn failure(error: ClientError, order: &Order) -> NodeError {
    let pod = order.pod.clone();
    match error {
        ClientError::Stopped(_) | ClientError::Unanswered(_) => NodeError::Cancelled,
        ClientError::Refused { refusal: Some(refusal), .. } if refusal.code == refusal::BUSY => {
            NodeError::Busy { pod }
        }
        ClientError::Refused { refusal: Some(refusal), .. } => {
            NodeError::Capture { reason: refusal.code.clone(), message: refusal.to_string() }
        }
        ClientError::Refused { kind: Kind::Unavailable, message, .. } => {
            NodeError::Unreachable { pod, message }
        }
        ClientError::Refused { kind, message, .. } => {
            NodeError::Capture { reason: format!("{kind:?}").to_ascii_lowercase(), message }
        }
        error @ (ClientError::Connect { .. } | ClientError::Lost(_) | ClientError::Discovery(_)) => {
            NodeError::Unreachable { pod, message: error.to_string() }
        }
    }
}

/// What is wrong with a checkpoint that a shim made that has not understood the whole request.
fn lacking(order: &Order, stored: &Stored) -> Option<NodeError> {
    let is_there = |name: &&String| stored.containers.iter().any(|(there, ..)| there == *name);
    let missing = order.containers.iter().find(|name| !is_there(name))?;
    let message = format!(
        "container {missing} of pod {} was not captured, since the shim of the pod is of a version that knows of one container or \
         all: capture all of them, or make the pod anew",
        order.pod
    );
    Some(NodeError::Capture { reason: "old-shim".to_owned(), message })
}

impl NodeWork for LocalNode {
    fn capture(
        &self,
        order: &Order,
        progress: &mut dyn FnMut(Progress),
        cancel: &Cancel,
    ) -> Result<Stored, NodeError> {
        let shim = shim_of(order)?;
        let client = Client::connect(&shim.socket).map_err(|error| failure(error, order))?;
        // The shim keeps the time; this is for one that hangs.
        let limits = Limits::within(order.timeout + Duration::from_secs(30)).with_cancel(cancel.clone());
        let mut seen = |at: &api::ProgressResponse| {
            progress(Progress { step: at.phase.clone(), done: at.done_bytes, total: at.total_bytes });
        };
        let answer =
            client.checkpoint(&request(order), &mut seen, &limits).map_err(|error| failure(error, order))?;
        self.forget_list();
        let manifest = Manifest::parse(&answer.manifest)
            .map_err(|error| NodeError::Store(format!("the shim's answer: {error}")))?;
        let place = answer.store.as_ref().map(|store| store.place.clone()).unwrap_or_default();
        let stored = Stored::of(&manifest, place);
        if let Some(error) = lacking(order, &stored) {
            self.delete(&stored.id)?;
            return Err(error);
        }
        Ok(stored)
    }

    fn stored(&self, id: &CheckpointId) -> Result<Option<Stored>, NodeError> {
        let node = self.open()?;
        match self.timed("read", || node.store.manifest(id, &Limits::within(LOOK))) {
            Ok(manifest) => Ok(Some(Stored::of(&manifest, node.store.place()))),
            Err(error) if error.kind() == Kind::NotFound => Ok(None),
            Err(error) => Err(NodeError::Store(error.to_string())),
        }
    }

    fn has(&self, id: &CheckpointId) -> Result<bool, NodeError> {
        let mut list = self.list.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some((at, ids)) = list.as_ref()
            && at.elapsed() < LIST_AGE
        {
            return Ok(ids.contains(id));
        }
        let node = self.open()?;
        let found = self.timed("list", || node.store.list(&Limits::within(LOOK)));
        let found = found.map_err(|error| NodeError::Store(error.to_string()))?;
        let ids: BTreeSet<_> = found.into_iter().map(|info| info.id).collect();
        let has = ids.contains(id);
        *list = Some((Instant::now(), ids));
        Ok(has)
    }

    fn delete(&self, id: &CheckpointId) -> Result<(), NodeError> {
        let node = self.open()?;
        self.forget_list();
        match self.timed("delete", || node.store.delete(id, &Limits::within(LOOK))) {
            Ok(deleted) => {
                tracing::info!(%id, ?deleted, "deleted");
                Ok(())
            }
            Err(error) if error.kind() == Kind::NotFound => Ok(()),
            Err(error) => Err(NodeError::Store(error.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order() -> Order {
        Order {
            id: CheckpointId::of_object("default", "a"),
            pod_uid: "u".into(),
            pod: "default/web".into(),
            containers: Vec::new(),
            mode: Some("full"),
            labels: [("k".to_owned(), "v".to_owned())].into(),
            requested_by: None,
            timeout: Duration::from_millis(10),
        }
    }

    #[test]
    fn what_is_not_said_is_left_to_the_shim() {
        let said = request(&order());
        assert_eq!((said.mode.as_str(), said.container.as_str(), said.timeout_seconds), ("full", "", 1));
        assert_eq!(said.labels.get("k").map(String::as_str), Some("v"));
        assert_eq!(request(&Order { mode: None, ..order() }).mode, "");
    }

    #[test]
    fn several_containers_and_who_asks_are_told_and_less_than_that_is_no_checkpoint() {
        let order = Order {
            containers: vec!["app".into(), "side".into()],
            requested_by: Some("jane".into()),
            ..order()
        };
        let said = request(&order);
        assert_eq!((said.container.as_str(), said.requested_by.as_str()), ("app", "jane"));
        assert_eq!(said.containers, ["app", "side"]);
        let mut stored = crate::script::stored("u");
        let error = lacking(&order, &stored).unwrap();
        assert!(
            !error.is_passing() && error.to_string().contains("container side of pod default/web"),
            "{error}"
        );
        stored.containers.push(("side".into(), String::new(), true));
        assert!(lacking(&order, &stored).is_none());
    }

    #[test]
    fn a_failure_says_whether_it_passes_by_itself() {
        let refused =
            |kind, message: &str| ClientError::Refused { kind, message: message.to_owned(), refusal: None };
        let coded = |code| ClientError::Refused {
            kind: Kind::FailedPrecondition,
            message: "a checkpoint of this pod is being taken already".to_owned(),
            refusal: Some(Box::new(refusal::Refusal::new(code, "why", "what to do"))),
        };
        assert!(failure(coded(refusal::BUSY), &order()).is_passing());
        assert!(!failure(coded(refusal::NO_SPACE), &order()).is_passing(), "the words do not count");
        assert!(failure(ClientError::Lost("gone".into()), &order()).is_passing());
        let lasting = failure(refused(Kind::ResourceExhausted, "full"), &order());
        assert!(!lasting.is_passing());
        assert_eq!(lasting.reason(), "resourceexhausted");
    }
}
