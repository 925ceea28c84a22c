//! The shim's side of Control.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cryopod_checkpoint::kind::Kind;
use cryopod_checkpoint::refusal::Refusal;
use cryopod_runtime::cgroup::{Cgroup, CgroupError};
use ttrpc::r#async::TtrpcContext;

use super::api;
use crate::capture::chosen;
use crate::capture::order::Choices;
use crate::error::{TaskError, blocking};
use crate::metrics;
use crate::pod::Pod;
use crate::process::state::State;
use crate::proto::control_ttrpc::Control;
use crate::rpc::{CancelOnDrop, Failure, detached, status};

/// Serves Control for one pod.
pub(crate) struct ControlService {
    pub(crate) pod: Arc<Pod>,
}

/// A capture that failed, told to a caller of ours: a refusal goes along with its code and its advice.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct Told(#[from] TaskError);

impl Failure for Told {
    fn kind(&self) -> Kind {
        self.0.kind()
    }

    fn refusal(&self) -> Option<&Refusal> {
        match &self.0 {
            TaskError::Door(error) => error.refusal(),
            _ => None,
        }
    }
}

/// The word that control.proto has for a state.
fn word(state: State) -> &'static str {
    match state {
        State::Creating => "creating",
        State::Created | State::Starting | State::StartingExited(_) => "created",
        State::Running | State::Pausing | State::Exiting(_) => "running",
        State::Paused => "paused",
        // containerd has it as paused as well; a caller that would resume it must not, as long as its disk is read.
        State::Thawed => "thawed",
        State::Stopped(_) | State::Deleted => "stopped",
    }
}

#[async_trait]
impl Control for ControlService {
    async fn info(&self, _: &TtrpcContext, _: api::InfoRequest) -> ttrpc::Result<api::InfoResponse> {
        let identity = self.pod.identity();
        let mut pod = api::Pod::new();
        (pod.id, pod.name) = (identity.id, identity.name);
        (pod.namespace, pod.uid) = (identity.namespace, identity.uid);
        let container = |c: Arc<crate::container::Container>| {
            let summary = c.summary();
            let mut container = api::Container::new();
            container.name = summary.name;
            container.state = word(summary.state).to_owned();
            container.pid = summary.pid;
            container.backend = c.chosen.backend.name().to_owned();
            container.bundle = c.bundle.display().to_string();
            container.sandbox = c.brief.is_sandbox();
            container.restored_from = summary.restored_from;
            container.execs = u32::try_from(summary.execs).unwrap_or(u32::MAX);
            container.id = summary.id;
            container
        };
        let mut response = api::InfoResponse::new();
        response.version = env!("CARGO_PKG_VERSION").to_owned();
        response.pid = std::process::id();
        response.namespace.clone_from(&self.pod.shared().namespace);
        response.pod = Some(pod).into();
        response.containers = self.pod.all().into_iter().map(container).collect();
        Ok(response)
    }

    async fn checkpoint(
        &self,
        context: &TtrpcContext,
        request: api::CheckpointRequest,
    ) -> ttrpc::Result<api::CheckpointResponse> {
        // A caller that goes away (Ctrl-C) ends the capture; the pod runs on.
        let cancel = CancelOnDrop::new();
        let (pod, switch) = (self.pod.clone(), cancel.switch());
        let id = pod.shared().group.clone();
        let work = async move {
            let choices =
                Choices::parse(&request.id, &request.mode, &request.tcp, &request.pre_dump, &request.volumes)
                    .map_err(TaskError::from)?;
            let labels = request.labels.into_iter().collect();
            let timeout =
                Some(request.timeout_seconds).filter(|seconds| *seconds > 0).map(Duration::from_secs);
            let requested_by = Some(request.requested_by).filter(|user| !user.is_empty());
            let choices = Choices { exit: request.exit, labels, timeout, requested_by, ..choices };
            let wanted = chosen::named(request.container, request.containers);
            let stored = pod.checkpoint(&wanted, choices, switch).await?;
            let mut response = api::CheckpointResponse::new();
            let captured = &stored.captured;
            response.id = captured.id.to_string();
            response.manifest = captured
                .manifest
                .to_bytes()
                .map_err(|error| TaskError::Malformed { what: "the manifest", reason: error.to_string() })?;
            // The manifest was written before the commit; the caller wants the commit's time too.
            response.timeline = serde_json::to_vec(&captured.timeline)
                .map_err(|error| TaskError::Malformed { what: "the timeline", reason: error.to_string() })?;
            response.store = Some(stored.told()).into();
            response.settled = stored.settled;
            Ok::<_, Told>(response)
        };
        let answer = detached(context, "control.checkpoint", &id, work).await;
        cancel.disarm();
        answer
    }

    async fn progress(
        &self,
        _: &TtrpcContext,
        _: api::ProgressRequest,
    ) -> ttrpc::Result<api::ProgressResponse> {
        let seen = self.pod.watch().look();
        let mut response = api::ProgressResponse::new();
        response.running = seen.running;
        response.phase = seen.step;
        response.done_bytes = seen.done;
        response.total_bytes = seen.total.unwrap_or(0);
        Ok(response)
    }

    async fn thaw(&self, context: &TtrpcContext, _: api::ThawRequest) -> ttrpc::Result<api::ThawResponse> {
        let pod = self.pod.clone();
        let id = pod.shared().group.clone();
        let work = async move {
            if let Some(cancel) = pod.watch().look().cancel {
                cancel.cancel();
            }
            let mut response = api::ThawResponse::new();
            let mut failed = None;
            // One that cannot be thawed keeps no other frozen; the first error is told at the end.
            for container in pod.all() {
                let Some(cgroup) = container.cgroup() else { continue };
                match thaw(cgroup).await {
                    Ok(true) => response.thawed.push(container.id.clone()),
                    Ok(false) => {}
                    Err(error) => {
                        tracing::warn!(container = container.id, %error, "cannot be thawed");
                        failed.get_or_insert(error);
                    }
                }
            }
            failed.map_or(Ok(response), Err::<_, TaskError>)
        };
        detached(context, "control.thaw", &id, work).await
    }

    async fn release(
        &self,
        context: &TtrpcContext,
        request: api::ReleaseRequest,
    ) -> ttrpc::Result<api::ReleaseResponse> {
        let (pod, id) = (self.pod.clone(), request.container.clone());
        let work = async move {
            pod.container(&request.container)?.release_exec(&request.exec)?;
            Ok::<_, TaskError>(api::ReleaseResponse::new())
        };
        detached(context, "control.release", &id, work).await
    }

    async fn metrics(&self, _: &TtrpcContext, _: api::MetricsRequest) -> ttrpc::Result<api::MetricsResponse> {
        let text = metrics::render(&self.pod).await.map_err(|e| status(&e))?;
        let mut response = api::MetricsResponse::new();
        response.text = text;
        Ok(response)
    }
}

/// Writes `cgroup.freeze` itself: an emergency does not wait for locks or runtimes. Whether it was frozen; a cgroup that
/// has gone was not.
async fn thaw(cgroup: Cgroup) -> Result<bool, TaskError> {
    blocking(move || match cgroup.is_frozen() {
        Ok(true) => cgroup.begin_thaw().map(|()| true),
        Ok(false) | Err(CgroupError::Gone { .. }) => Ok(false),
        Err(error) => Err(error),
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::DoorError;
    use crate::control::client::ClientError;
    use cryopod_checkpoint::capture::CaptureError;
    use cryopod_checkpoint::target::TargetError;
    use protobuf::Message;

    /// What a caller gets of it, over the wire.
    fn heard(error: impl Into<DoorError>) -> (String, Option<Refusal>) {
        let told = Told(TaskError::Door(error.into()));
        let ttrpc::Error::RpcStatus(status) = status(&told) else { panic!("no status") };
        let status = ttrpc::Status::parse_from_bytes(&status.write_to_bytes().unwrap()).unwrap();
        match ClientError::from(ttrpc::Error::RpcStatus(status)) {
            ClientError::Refused { kind: Kind::FailedPrecondition, message, refusal } => {
                (message, refusal.map(|refusal| *refusal))
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_container_whose_disk_is_still_read_is_not_called_paused() {
        assert_eq!((word(State::Paused), word(State::Thawed)), ("paused", "thawed"));
        assert_eq!(State::Thawed.status(), State::Paused.status(), "containerd knows no other");
    }

    #[test]
    fn a_refusal_reaches_the_caller_with_its_code_and_its_advice() {
        let refusal = Refusal::new("io-uring", "process 7 uses io_uring", "checkpoint the disk only");
        let (message, parts) = heard(CaptureError::Refused(refusal.clone()));
        assert_eq!((message, parts), (refusal.to_string(), Some(refusal.clone())));
        let by_dump = TargetError {
            step: "dump",
            container: "web".to_owned(),
            kind: Kind::FailedPrecondition,
            refused: Some(Box::new(refusal.clone())),
            source: "criu failed".into(),
        };
        let (message, parts) = heard(CaptureError::Target(by_dump));
        assert_eq!((message.as_str(), parts), ("dump of container web: criu failed", Some(refusal)));
        assert_eq!(heard(CaptureError::Empty("web".to_owned())).1, None);
        let busy = heard(DoorError::Busy).1.unwrap();
        assert_eq!(
            busy.code,
            cryopod_checkpoint::refusal::BUSY,
            "who asks can tell it from what is for good"
        );
    }
}
