//! How errors become ttrpc codes, and how a request's work outlives its connection.
//!
//! containerd branches on NOT_FOUND, ALREADY_EXISTS, FAILED_PRECONDITION and UNIMPLEMENTED only, so each error enum
//! of this crate says its [`Kind`]. ttrpc drops a handler when its connection closes or its deadline passes;
//! [`detached`] lets the work itself go on, since half of a `create` is worse than a finished one.

use std::future::Future;

use crate::idle;
use cryopod_checkpoint::kind::Kind;
use cryopod_checkpoint::refusal::Refusal;
use cryopod_command::Cancel;
use tracing::Instrument;
use ttrpc::r#async::TtrpcContext;
use ttrpc::error::{get_rpc_status, get_status};
use ttrpc::{Code, proto::Any};

/// An error that knows how its caller should react.
pub trait Failure: std::error::Error {
    /// The class of this error.
    fn kind(&self) -> Kind;

    /// What goes along with the answer for a caller of ours; containerd gets messages alone.
    fn refusal(&self) -> Option<&Refusal> {
        None
    }
}

/// Type of the status detail that carries a refusal: its three parts as JSON. Who does not know it has the message.
const REFUSAL: &str = "cryopod.dev/refusal";

/// The ttrpc code of a kind.
pub fn code(kind: Kind) -> Code {
    match kind {
        Kind::NotFound => Code::NOT_FOUND,
        Kind::AlreadyExists => Code::ALREADY_EXISTS,
        Kind::InvalidArgument => Code::INVALID_ARGUMENT,
        Kind::FailedPrecondition => Code::FAILED_PRECONDITION,
        Kind::Unimplemented => Code::UNIMPLEMENTED,
        Kind::DeadlineExceeded => Code::DEADLINE_EXCEEDED,
        Kind::Cancelled => Code::CANCELLED,
        Kind::ResourceExhausted => Code::RESOURCE_EXHAUSTED,
        Kind::PermissionDenied => Code::PERMISSION_DENIED,
        Kind::Unavailable => Code::UNAVAILABLE,
        Kind::DataLoss => Code::DATA_LOSS,
        Kind::Internal => Code::INTERNAL,
    }
}

/// The kind behind a code that a shim answered.
pub fn kind(code: Code) -> Kind {
    match code {
        Code::NOT_FOUND => Kind::NotFound,
        Code::ALREADY_EXISTS => Kind::AlreadyExists,
        Code::INVALID_ARGUMENT | Code::OUT_OF_RANGE => Kind::InvalidArgument,
        Code::FAILED_PRECONDITION | Code::ABORTED => Kind::FailedPrecondition,
        Code::UNIMPLEMENTED => Kind::Unimplemented,
        Code::DEADLINE_EXCEEDED => Kind::DeadlineExceeded,
        Code::CANCELLED => Kind::Cancelled,
        Code::RESOURCE_EXHAUSTED => Kind::ResourceExhausted,
        Code::PERMISSION_DENIED | Code::UNAUTHENTICATED => Kind::PermissionDenied,
        Code::UNAVAILABLE => Kind::Unavailable,
        Code::DATA_LOSS => Kind::DataLoss,
        Code::OK | Code::UNKNOWN | Code::INTERNAL => Kind::Internal,
    }
}

/// The answer for an error.
pub fn status(error: &impl Failure) -> ttrpc::Error {
    let mut status = get_status(code(error.kind()), error.to_string());
    if let Some(value) = error.refusal().and_then(|refusal| serde_json::to_vec(refusal).ok()) {
        let mut detail = Any::new();
        (detail.type_url, detail.value) = (REFUSAL.to_owned(), value);
        status.details.push(detail);
    }
    ttrpc::Error::RpcStatus(status)
}

/// The refusal that an answer carries.
pub fn refusal(status: &ttrpc::Status) -> Option<Refusal> {
    let detail = status.details.iter().find(|detail| detail.type_url == REFUSAL)?;
    serde_json::from_slice(&detail.value).ok()
}

/// Runs the work of one request to its end, even when the caller goes away, inside a span with the caller's trace
/// id. A panic in it is logged and answered as INTERNAL; the shim lives on.
///
/// # Errors
/// Those of the work.
pub async fn detached<T, E, F>(
    context: &TtrpcContext,
    name: &'static str,
    id: &str,
    work: F,
) -> ttrpc::Result<T>
where
    T: Send + 'static,
    E: Failure + Send + 'static,
    F: Future<Output = Result<T, E>> + Send + 'static,
{
    let span = span(context, name, id);
    let work = async move {
        let result = work.await;
        match &result {
            Ok(_) => tracing::debug!("done"),
            // containerd asks for things that are gone all the time.
            Err(error) if error.kind() == Kind::NotFound => tracing::debug!(%error, "not found"),
            Err(error) => tracing::warn!(%error, "failed"),
        }
        result
    };
    let ended = tokio::spawn(work.instrument(span)).await;
    idle::hint();
    match ended {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(status(&error)),
        Err(error) => {
            tracing::error!(method = name, id, %error, "the request's work panicked or was aborted");
            Err(get_rpc_status(
                Code::INTERNAL,
                format!("{name} of {id}: internal error of the shim: {error}"),
            ))
        }
    }
}

/// Answers a request that changes nothing, so that it may be dropped with its caller, inside the same span.
///
/// # Errors
/// Those of the work, as answers.
pub async fn traced<T, E: Failure>(
    context: &TtrpcContext,
    name: &'static str,
    id: &str,
    work: impl Future<Output = Result<T, E>>,
) -> ttrpc::Result<T> {
    let work = async {
        work.await.map_err(|error| {
            tracing::debug!(%error, "refused");
            status(&error)
        })
    };
    work.instrument(span(context, name, id)).await
}

/// The span of a request: its fields stand on every line that is logged for it.
fn span(context: &TtrpcContext, name: &'static str, id: &str) -> tracing::Span {
    match parent(context) {
        Some((trace, parent)) => {
            tracing::info_span!("request", method = name, id, trace_id = trace, parent_id = parent)
        }
        None => tracing::info_span!("request", method = name, id),
    }
}

/// Throws a cancel switch when the request it belongs to is dropped before it was answered.
pub struct CancelOnDrop(Option<Cancel>);

impl CancelOnDrop {
    /// A new switch.
    pub fn new() -> Self {
        Self(Some(Cancel::new()))
    }

    /// The switch, for the work.
    pub fn switch(&self) -> Cancel {
        self.0.clone().unwrap_or_default()
    }

    /// The request was answered.
    pub fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        if let Some(cancel) = self.0.take() {
            cancel.cancel();
        }
    }
}

/// Trace id and span id of the caller, from its W3C `traceparent` (`00-<32 hex trace id>-<16 hex parent id>-<flags>`).
fn parent(context: &TtrpcContext) -> Option<(&str, &str)> {
    let parent = context.metadata.get("traceparent")?.first()?;
    let mut parts = parent.split('-').skip(1);
    let mut hex = |length: usize| {
        let part = parts.next()?;
        (part.len() == length && part.bytes().all(|b| b.is_ascii_hexdigit())).then_some(part)
    };
    Some((hex(32)?, hex(16)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("no such thing")]
    struct Gone;
    impl Failure for Gone {
        fn kind(&self) -> Kind {
            Kind::NotFound
        }
    }

    fn context(parent: &str) -> TtrpcContext {
        TtrpcContext {
            mh: ttrpc::proto::MessageHeader::default(),
            metadata: [("traceparent".to_owned(), vec![parent.to_owned()])].into(),
            timeout_nano: 0,
            connection_data: Default::default(),
        }
    }

    #[test]
    fn the_trace_is_taken_from_a_well_formed_parent_only() {
        let (trace, span) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
        assert_eq!(parent(&context(&format!("00-{trace}-{span}-01"))), Some((trace, span)));
        assert_eq!(parent(&context(&format!("00-{trace}-x-01"))), None);
        assert_eq!(parent(&context("00-zz-1-01")), None);
        assert_eq!(parent(&context("")), None);
    }

    #[tokio::test]
    async fn a_panic_in_a_request_is_an_answer_and_not_the_end_of_the_shim() {
        let result = detached::<(), Gone, _>(&context(""), "x", "y", async { panic!("boom") }).await;
        let Err(ttrpc::Error::RpcStatus(status)) = result else { panic!("{result:?}") };
        assert_eq!(status.code(), Code::INTERNAL);
    }

    #[tokio::test]
    async fn an_error_keeps_its_kind_on_the_wire() {
        let result = detached::<(), Gone, _>(&context(""), "x", "y", async { Err(Gone) }).await;
        let Err(ttrpc::Error::RpcStatus(status)) = result else { panic!("{result:?}") };
        assert_eq!((status.code(), status.message()), (Code::NOT_FOUND, "no such thing"));
    }

    #[tokio::test]
    async fn work_goes_on_when_its_caller_is_gone() {
        let (tell, mut heard) = tokio::sync::mpsc::channel(1);
        let context = context("");
        let request = detached::<(), Gone, _>(&context, "x", "y", async move {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            tell.send(()).await.ok();
            Ok(())
        });
        assert!(tokio::time::timeout(std::time::Duration::from_millis(1), request).await.is_err());
        assert_eq!(heard.recv().await, Some(()));
    }
}
