//! What every controller of the agent works with.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use kube::api::{ApiResource, DynamicObject};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Api, Client};

use crate::api::MANAGER;
use crate::metrics::Metrics;
use crate::node::{NodeError, NodeWork};

/// Kubernetes takes notes of events up to this length.
const MAX_NOTE: usize = 1024;

/// A step of a controller failed; it is tried again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server.
    #[error("{action}: {}", said(source))]
    Api {
        /// What was tried.
        action: &'static str,
        /// What it said.
        source: kube::Error,
    },
    /// The node.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// A thread of ours panicked or the process ends.
    #[error("the work on the node was not finished: {0}")]
    Thread(#[from] tokio::task::JoinError),
}

impl Error {
    /// For `map_err` of a call to the API server.
    pub fn api(action: &'static str) -> impl FnOnce(kube::Error) -> Self {
        move |source| Self::Api { action, source }
    }

    /// Whether somebody else has written the same object in the meantime.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Api { source: kube::Error::Api(status), .. } if status.code == 409)
    }

    /// Whether the object is not there (any more).
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Api { source: kube::Error::Api(status), .. } if status.code == 404)
    }
}

/// What the API server said, without our library's words around it.
fn said(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

/// None for an object that is not there.
pub fn optional<T>(result: Result<T, Error>) -> Result<Option<T>, Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_gone() => Ok(None),
        Err(error) => Err(error),
    }
}

/// What every controller of the agent works with.
pub struct Context {
    /// The API server.
    pub client: Client,
    /// Name of this node's Node object.
    pub node: String,
    /// The node itself.
    pub work: Arc<dyn NodeWork>,
    /// What was done, for `/metrics`.
    pub metrics: Arc<Metrics>,
    recorder: Recorder,
}

impl Context {
    /// For the agent of this node.
    pub fn new(client: Client, node: &str, work: Arc<dyn NodeWork>, metrics: Arc<Metrics>) -> Self {
        let reporter = Reporter { controller: MANAGER.to_owned(), instance: Some(node.to_owned()) };
        let recorder = Recorder::new(client.clone(), reporter);
        Self { client, node: node.to_owned(), work, metrics, recorder }
    }

    /// The time.
    pub fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    /// Pods with all their fields, those included that this program's types do not know.
    pub fn pods(&self, namespace: &str) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), namespace, &ApiResource::erase::<Pod>(&()))
    }

    /// Tells people; that it could not is only logged, since the condition says the same.
    pub async fn event(
        &self,
        about: &ObjectReference,
        warning: bool,
        action: &str,
        reason: &str,
        note: &str,
    ) {
        let mut note = note.to_owned();
        let end = (0..=MAX_NOTE.min(note.len())).rev().find(|at| note.is_char_boundary(*at)).unwrap_or(0);
        note.truncate(end);
        let event = Event {
            type_: if warning { EventType::Warning } else { EventType::Normal },
            reason: reason.to_owned(),
            note: Some(note),
            action: action.to_owned(),
            secondary: None,
        };
        if let Err(error) = self.recorder.publish(&event, about).await {
            tracing::debug!(%error, reason, "event");
        }
    }
}
