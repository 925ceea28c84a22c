//! For tests of what controllers ask of the API server: one that answers by a script, and a node whose answers are given.
//!
//! A request that is not the next of the script, and one of the script that nobody sends, fail the test. The server and the
//! node write into one log, so that a test can say that something happened on the node before it was said to the cluster.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use cryopod_checkpoint::id::CheckpointId;
use cryopod_checkpoint::manifest::CapturedMode;
use cryopod_command::Cancel;
use hyper::{Method, Request, Response};
use jiff::Timestamp;
use kube::Client;
use kube::client::Body;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tower_test::mock;

use crate::context::Context;
use crate::metrics::Metrics;
use crate::node::{NodeError, NodeWork, Order, Progress, Stored};

/// The node of these tests.
pub(crate) const NODE: &str = "n1";

/// What a body has to be.
type Check = Box<dyn FnOnce(&Value) + Send>;

/// A request that is expected, and its answer.
pub(crate) struct Call {
    method: Method,
    /// With its query if the query matters.
    path: String,
    checks: Vec<Check>,
    status: u16,
    /// None for what was sent.
    answer: Option<Value>,
}

/// Expects this and answers with the body that it is sent.
pub(crate) fn call(method: Method, path: &str) -> Call {
    Call { method, path: path.to_owned(), checks: Vec::new(), status: 200, answer: None }
}

/// Expects a read, which finds this.
pub(crate) fn get(path: &str, answer: &Value) -> Call {
    call(Method::GET, path).says(answer)
}

/// Expects a patch of this merge, as far as it is named, and answers with the object.
pub(crate) fn patch(path: &str, part: Value, answer: &Value) -> Call {
    call(Method::PATCH, path).with(move |body| assert_has(body, &part)).says(answer)
}

/// Expects an event with this reason about an object of this kind.
pub(crate) fn event(kind: &'static str, reason: &'static str) -> Call {
    call(Method::POST, "/apis/events.k8s.io/v1/namespaces/default/events").with(move |body| {
        assert_eq!((&body["regarding"]["kind"], &body["reason"]), (&json!(kind), &json!(reason)), "{body}");
    })
}

impl Call {
    /// The body has to be so, too.
    pub(crate) fn with(mut self, check: impl FnOnce(&Value) + Send + 'static) -> Self {
        self.checks.push(Box::new(check));
        self
    }

    /// The answer.
    pub(crate) fn says(mut self, answer: &Value) -> Self {
        self.answer = Some(answer.clone());
        self
    }

    /// The answer is a failure: 404 NotFound, 409 Conflict, 500 InternalError …
    pub(crate) fn fails(mut self, status: u16, reason: &str) -> Self {
        self.status = status;
        self.answer = Some(json!({
            "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": status, "reason": reason,
            "message": format!("said {reason}"), "metadata": {},
        }));
        self
    }
}

/// Every field of `part` is in `whole` with the same value; null in `part` means that it must be null there too.
pub(crate) fn assert_has(whole: &Value, part: &Value) {
    let Value::Object(fields) = part else {
        assert_eq!(whole, part);
        return;
    };
    for (key, value) in fields {
        let Some(found) = whole.get(key) else { panic!("there is no {key} in {whole}") };
        assert_has(found, value);
    }
}

/// What happened, in this order: `PATCH /apis/…`, `node: delete default_cp` …
pub(crate) type Log = Arc<Mutex<Vec<String>>>;

fn note(log: &Log, line: String) {
    log.lock().unwrap().push(line);
}

/// A capture of the test's making.
type Capture = dyn Fn(&mut dyn FnMut(Progress), &Cancel) -> Result<Stored, NodeError> + Send + Sync;

/// A node with these answers.
pub(crate) struct FakeNode {
    log: Log,
    stored: Mutex<Option<Stored>>,
    deletions: Mutex<VecDeque<Result<(), NodeError>>>,
    capture: Box<Capture>,
}

impl FakeNode {
    /// Nothing is in its store, and a capture succeeds.
    pub(crate) fn new() -> Self {
        Self::capturing(|_, _| Ok(stored("object-uid")))
    }

    /// A capture does this.
    pub(crate) fn capturing(
        capture: impl Fn(&mut dyn FnMut(Progress), &Cancel) -> Result<Stored, NodeError> + Send + Sync + 'static,
    ) -> Self {
        Self {
            log: Log::default(),
            stored: Mutex::new(None),
            deletions: Mutex::default(),
            capture: Box::new(capture),
        }
    }

    /// This is in its store.
    pub(crate) fn has(self, stored: Stored) -> Self {
        *self.stored.lock().unwrap() = Some(stored);
        self
    }

    /// The first deletion fails.
    pub(crate) fn fails_to_delete(self, error: NodeError) -> Self {
        self.deletions.lock().unwrap().push_back(Err(error));
        self
    }
}

impl NodeWork for FakeNode {
    fn capture(
        &self,
        order: &Order,
        progress: &mut dyn FnMut(Progress),
        cancel: &Cancel,
    ) -> Result<Stored, NodeError> {
        note(&self.log, format!("node: capture {}", order.id));
        (self.capture)(progress, cancel)
    }

    fn stored(&self, _: &CheckpointId) -> Result<Option<Stored>, NodeError> {
        Ok(self.stored.lock().unwrap().clone())
    }

    fn has(&self, _: &CheckpointId) -> Result<bool, NodeError> {
        Ok(self.stored.lock().unwrap().is_some())
    }

    fn delete(&self, id: &CheckpointId) -> Result<(), NodeError> {
        note(&self.log, format!("node: delete {id}"));
        self.deletions.lock().unwrap().pop_front().unwrap_or(Ok(()))?;
        *self.stored.lock().unwrap() = None;
        Ok(())
    }
}

/// A checkpoint `default/cp` that was made for the object of this UID.
pub(crate) fn stored(uid: &str) -> Stored {
    Stored {
        id: CheckpointId::of_object("default", "cp"),
        object_uid: Some(uid.to_owned()),
        mode: CapturedMode::Full,
        memory_refused: None,
        created: Timestamp::now(),
        freeze: std::time::Duration::from_millis(118),
        total: std::time::Duration::from_secs(1),
        memory_bytes: 1 << 20,
        disk_bytes: 1 << 20,
        criu_frozen: Vec::new(),
        snapshots: Vec::new(),
        containers: vec![("app".into(), "app:1".into(), true)],
        place: "tank/cryopod".into(),
    }
}

/// An object as the API server wrote it.
pub(crate) fn object<T: DeserializeOwned>(value: &Value) -> Arc<T> {
    Arc::new(serde_json::from_value(value.clone()).unwrap())
}

/// Runs something of a controller against the script; what came of it, and what happened.
pub(crate) async fn play<T, F: Future<Output = T>>(
    node: FakeNode,
    script: Vec<Call>,
    run: impl FnOnce(Arc<Context>) -> F,
) -> (T, Vec<String>) {
    let (service, handle) = mock::pair::<Request<Body>, Response<Body>>();
    let log = Arc::clone(&node.log);
    let server = tokio::spawn(serve(handle, script, Arc::clone(&log)));
    let client = Client::new(service, "default");
    let context = Arc::new(Context::new(client, NODE, Arc::new(node), Arc::new(Metrics::default())));
    let result = run(context).await;
    // The context is gone, so the server sees the end. Its word comes first: whatever failed, it knows why.
    if let Err(error) = server.await {
        std::panic::resume_unwind(error.into_panic());
    }
    let log = log.lock().unwrap().clone();
    (result, log)
}

async fn serve(mut handle: mock::Handle<Request<Body>, Response<Body>>, script: Vec<Call>, log: Log) {
    for call in script {
        let whole = call.path.contains('?');
        let expected = format!("{} {}", call.method, if whole { sorted(&call.path) } else { call.path });
        let Some((request, reply)) = handle.next_request().await else { panic!("nobody asks {expected}") };
        let (parts, body) = request.into_parts();
        let path = if whole { sorted(&parts.uri.to_string()) } else { parts.uri.path().to_owned() };
        assert_eq!(format!("{} {path}", parts.method), expected, "the next of the script");
        note(&log, expected);
        let bytes = body.collect_bytes().await.unwrap();
        let sent: Value =
            if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).unwrap() };
        call.checks.into_iter().for_each(|check| check(&sent));
        let answer = call.answer.unwrap_or(sent).to_string();
        reply.send_response(
            Response::builder().status(call.status).body(Body::from(answer.into_bytes())).unwrap(),
        );
    }
    if let Some((request, _)) = handle.next_request().await {
        panic!("{} {} is not in the script", request.method(), request.uri());
    }
}

/// The parameters of a query in an order that does not depend on who wrote it.
fn sorted(uri: &str) -> String {
    let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
    let mut parameters: Vec<&str> = query.split('&').filter(|it| !it.is_empty()).collect();
    parameters.sort_unstable();
    format!("{path}?{}", parameters.join("&"))
}
