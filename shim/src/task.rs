//! The Task service (containerd.task.v3): decodes each of the 17 requests and calls the pod.
//!
//! Requests that change something run detached: containerd's deadlines and lost connections do not stop them half-way.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use containerd_shim_protos::shim::oci::{CheckpointOptions, ProcessDetails};
use containerd_shim_protos::shim::shim as api;
use containerd_shim_protos::shim_async::Task;
use containerd_shim_protos::types::task::ProcessInfo;
use protobuf::Message;
use protobuf::well_known_types::any::Any;
use protobuf::well_known_types::empty::Empty;
use ttrpc::r#async::TtrpcContext;

use crate::capture::order::Choices;
use crate::capture::place::Wish;
use crate::container::New;
use crate::error::TaskError;
use crate::events::{any, timestamp};
use crate::io::StdioPaths;
use crate::metrics_message;
use crate::mounts::Mount;
use crate::pod::Pod;
use crate::rpc::{CancelOnDrop, detached, traced};

/// Serves Task for one pod.
pub struct TaskService {
    /// The pod.
    pub pod: Arc<Pod>,
}

/// JSON inside an Any, as containerd sends specs and resources.
fn json(what: &'static str, any: Option<&Any>) -> Result<serde_json::Value, TaskError> {
    let bytes = any.map(|any| any.value.as_slice()).unwrap_or_default();
    serde_json::from_slice(bytes).map_err(|error| TaskError::Malformed { what, reason: error.to_string() })
}

/// Without options containerd wants the container to run on; options of another type are refused.
fn checkpoint_options(any: Option<&Any>) -> Result<CheckpointOptions, TaskError> {
    let Some(any) = any.filter(|any| !any.type_url.is_empty()) else {
        return Ok(CheckpointOptions::default());
    };
    let malformed = |reason| TaskError::Malformed { what: "checkpoint options", reason };
    if !any.type_url.ends_with("containerd.runc.v1.CheckpointOptions") {
        return Err(malformed(format!("type {} is not containerd.runc.v1.CheckpointOptions", any.type_url)));
    }
    CheckpointOptions::parse_from_bytes(&any.value).map_err(|error| malformed(error.to_string()))
}

fn packed<M: protobuf::MessageFull>(message: &M) -> Result<Any, TaskError> {
    any(message).map_err(|error| TaskError::Malformed { what: "the answer", reason: error.to_string() })
}

impl TaskService {
    /// PID of the process that stands for a sandbox made through the Sandbox API; containerd asks for it as for a task.
    fn sandbox_pid(&self, id: &str) -> Option<u32> {
        self.pod.sandbox().filter(|sandbox| sandbox.id() == id).map(|sandbox| sandbox.seen().pid)
    }
}

#[async_trait]
impl Task for TaskService {
    async fn state(
        &self,
        context: &TtrpcContext,
        request: api::StateRequest,
    ) -> ttrpc::Result<api::StateResponse> {
        let work = async { self.pod.container(&request.id)?.state(&request.exec_id) };
        traced(context, "state", &request.id, work).await
    }

    async fn create(
        &self,
        context: &TtrpcContext,
        request: api::CreateTaskRequest,
    ) -> ttrpc::Result<api::CreateTaskResponse> {
        let (pod, id) = (self.pod.clone(), request.id.clone());
        let work = async move {
            let mount = |m: containerd_shim_protos::types::mount::Mount| Mount {
                kind: m.type_,
                source: m.source,
                target: m.target,
                options: m.options,
            };
            let new = New {
                id: request.id,
                bundle: Path::new(&request.bundle).to_owned(),
                mounts: request.rootfs.into_iter().map(mount).collect(),
                stdio: StdioPaths {
                    stdin: request.stdin,
                    stdout: request.stdout,
                    stderr: request.stderr,
                    terminal: request.terminal,
                },
                wish: (!request.checkpoint.is_empty())
                    .then(|| Wish::Images(request.checkpoint.clone().into())),
                checkpoint: request.checkpoint,
                neighbours: Vec::new(),
            };
            let mut response = api::CreateTaskResponse::new();
            response.pid = pod.create(new, request.options.as_ref()).await?;
            Ok::<_, TaskError>(response)
        };
        detached(context, "create", &id, work).await
    }

    async fn start(
        &self,
        context: &TtrpcContext,
        request: api::StartRequest,
    ) -> ttrpc::Result<api::StartResponse> {
        let (pod, id) = (self.pod.clone(), request.id.clone());
        let work = async move {
            let container = pod.container(&request.id)?;
            let mut response = api::StartResponse::new();
            response.pid = match request.exec_id.as_str() {
                "" => container.start().await?,
                exec => container.start_exec(exec).await?,
            };
            Ok::<_, TaskError>(response)
        };
        detached(context, "start", &id, work).await
    }

    async fn delete(
        &self,
        context: &TtrpcContext,
        request: api::DeleteRequest,
    ) -> ttrpc::Result<api::DeleteResponse> {
        let (pod, id) = (self.pod.clone(), request.id.clone());
        let work = async move {
            let deleted = pod.delete(&request.id, &request.exec_id).await?;
            let mut response = api::DeleteResponse::new();
            response.pid = deleted.pid;
            response.exit_status = deleted.exit.status;
            response.exited_at = Some(timestamp(deleted.exit.at)).into();
            Ok::<_, TaskError>(response)
        };
        detached(context, "delete", &id, work).await
    }

    async fn pids(
        &self,
        context: &TtrpcContext,
        request: api::PidsRequest,
    ) -> ttrpc::Result<api::PidsResponse> {
        let work = async {
            let mut response = api::PidsResponse::new();
            if let Some(pid) = self.sandbox_pid(&request.id) {
                response.processes.push(ProcessInfo { pid, ..ProcessInfo::default() });
                return Ok(response);
            }
            for (pid, exec) in self.pod.container(&request.id)?.pids().await? {
                let mut process = ProcessInfo::new();
                process.pid = pid;
                if let Some(exec_id) = exec {
                    let details = ProcessDetails { exec_id, ..ProcessDetails::default() };
                    process.info = Some(packed(&details)?).into();
                }
                response.processes.push(process);
            }
            Ok::<_, TaskError>(response)
        };
        traced(context, "pids", &request.id, work).await
    }

    async fn pause(&self, context: &TtrpcContext, request: api::PauseRequest) -> ttrpc::Result<Empty> {
        let (pod, id) = (self.pod.clone(), request.id.clone());
        let work = async move { pod.container(&request.id)?.pause().await.map(|()| Empty::new()) };
        detached(context, "pause", &id, work).await
    }

    async fn resume(&self, context: &TtrpcContext, request: api::ResumeRequest) -> ttrpc::Result<Empty> {
        let (pod, id) = (self.pod.clone(), request.id.clone());
        let work = async move { pod.container(&request.id)?.resume().await.map(|()| Empty::new()) };
        detached(context, "resume", &id, work).await
    }

    async fn checkpoint(
        &self,
        context: &TtrpcContext,
        request: api::CheckpointTaskRequest,
    ) -> ttrpc::Result<Empty> {
        let (pod, id) = (self.pod.clone(), request.id.clone());
        // A caller that goes away ends the capture; the container runs on.
        let cancel = CancelOnDrop::new();
        let switch = cancel.switch();
        let work = async move {
            let options = checkpoint_options(request.options.as_ref())?;
            let images =
                if options.image_path.is_empty() { request.path } else { options.image_path.clone() };
            let choices = Choices { exit: options.exit, ..Choices::default() };
            let container = pod.container(&request.id)?;
            container.checkpoint(images.into(), choices, pod.identity(), pod.watch(), switch).await?;
            Ok::<_, TaskError>(Empty::new())
        };
        let answer = detached(context, "checkpoint", &id, work).await;
        cancel.disarm();
        answer
    }

    async fn kill(&self, context: &TtrpcContext, request: api::KillRequest) -> ttrpc::Result<Empty> {
        let (pod, id) = (self.pod.clone(), request.id.clone());
        let work = async move {
            let signal = i32::try_from(request.signal)
                .map_err(|e| TaskError::Malformed { what: "signal", reason: e.to_string() })?;
            pod.container(&request.id)?.kill(&request.exec_id, signal, request.all).await?;
            Ok::<_, TaskError>(Empty::new())
        };
        detached(context, "kill", &id, work).await
    }

    async fn exec(&self, context: &TtrpcContext, request: api::ExecProcessRequest) -> ttrpc::Result<Empty> {
        let (pod, id) = (self.pod.clone(), request.id.clone());
        let work = async move {
            let stdio = StdioPaths {
                stdin: request.stdin,
                stdout: request.stdout,
                stderr: request.stderr,
                terminal: request.terminal,
            };
            let spec = json("process spec", request.spec.as_ref())?;
            pod.container(&request.id)?.add_exec(&request.exec_id, stdio, spec).await?;
            Ok::<_, TaskError>(Empty::new())
        };
        detached(context, "exec", &id, work).await
    }

    async fn resize_pty(
        &self,
        context: &TtrpcContext,
        request: api::ResizePtyRequest,
    ) -> ttrpc::Result<Empty> {
        // A terminal has at most 65535 columns; clients send what their user dragged the window to.
        let clamp = |size: u32| u16::try_from(size).unwrap_or(u16::MAX);
        let work = async {
            let container = self.pod.container(&request.id)?;
            container.resize(&request.exec_id, clamp(request.width), clamp(request.height))?;
            Ok::<_, TaskError>(Empty::new())
        };
        traced(context, "resize-pty", &request.id, work).await
    }

    async fn close_io(&self, context: &TtrpcContext, request: api::CloseIORequest) -> ttrpc::Result<Empty> {
        let work = async {
            let container = self.pod.container(&request.id)?;
            if request.stdin {
                container.close_stdin(&request.exec_id)?;
            }
            Ok::<_, TaskError>(Empty::new())
        };
        traced(context, "close-io", &request.id, work).await
    }

    async fn update(&self, context: &TtrpcContext, request: api::UpdateTaskRequest) -> ttrpc::Result<Empty> {
        let (pod, id) = (self.pod.clone(), request.id.clone());
        let work = async move {
            let resources = json("resources", request.resources.as_ref())?;
            pod.container(&request.id)?.update(resources).await?;
            Ok::<_, TaskError>(Empty::new())
        };
        detached(context, "update", &id, work).await
    }

    async fn wait(
        &self,
        context: &TtrpcContext,
        request: api::WaitRequest,
    ) -> ttrpc::Result<api::WaitResponse> {
        let work = async {
            let mut done = self.pod.container(&request.id)?.done(&request.exec_id)?;
            let gone = || TaskError::NoContainer { id: request.id.clone() };
            let exit = *done.wait_for(Option::is_some).await.map_err(|_| gone())?;
            let exit = exit.ok_or_else(gone)?;
            let mut response = api::WaitResponse::new();
            response.exit_status = exit.status;
            response.exited_at = Some(timestamp(exit.at)).into();
            Ok::<_, TaskError>(response)
        };
        traced(context, "wait", &request.id, work).await
    }

    async fn stats(
        &self,
        context: &TtrpcContext,
        request: api::StatsRequest,
    ) -> ttrpc::Result<api::StatsResponse> {
        let work = async {
            let stats = self.pod.container(&request.id)?.stats().await?;
            let mut response = api::StatsResponse::new();
            response.stats = Some(packed(&metrics_message::from_stats(&stats))?).into();
            Ok::<_, TaskError>(response)
        };
        traced(context, "stats", &request.id, work).await
    }

    async fn connect(
        &self,
        context: &TtrpcContext,
        request: api::ConnectRequest,
    ) -> ttrpc::Result<api::ConnectResponse> {
        let work = async {
            let mut response = api::ConnectResponse::new();
            response.shim_pid = std::process::id();
            // An unknown id is no error: containerd would drop the sandbox of a shim that fails here.
            response.task_pid = match self.pod.container(&request.id) {
                Ok(container) => container.pid(),
                Err(_) => self.sandbox_pid(&request.id).unwrap_or(0),
            };
            response.version = env!("CARGO_PKG_VERSION").to_owned();
            Ok::<_, TaskError>(response)
        };
        traced(context, "connect", &request.id, work).await
    }

    async fn shutdown(&self, _: &TtrpcContext, _: api::ShutdownRequest) -> ttrpc::Result<Empty> {
        self.pod.shut_down_if_empty();
        Ok(Empty::new())
    }
}
