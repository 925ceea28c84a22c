//! The Sandbox service (containerd.runtime.sandbox.v1) for one pod.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use containerd_shim_protos::sandbox_api as api;
use containerd_shim_protos::sandbox_async::Sandbox as SandboxApi;
use cryopod_runtime::stats;
use ttrpc::r#async::TtrpcContext;

use super::files::Files;
use super::{Sandbox, SandboxError, plan};
use crate::error::{TaskError, blocking};
use crate::events::{any, timestamp};
use crate::metrics_message;
use crate::pod::Pod;
use crate::rpc::{detached, status, traced};

/// The words that CRI compares with (`runtime.PodSandboxState_name`).
const READY: &str = "SANDBOX_READY";
const NOT_READY: &str = "SANDBOX_NOTREADY";

/// Serves Sandbox for one pod.
pub(crate) struct SandboxService {
    pub(crate) pod: Arc<Pod>,
}

impl SandboxService {
    fn find(&self, id: &str) -> Result<Arc<Sandbox>, SandboxError> {
        let unknown = || SandboxError::Unknown(id.to_owned());
        self.pod.sandbox().filter(|sandbox| sandbox.id() == id).ok_or_else(unknown)
    }

    fn found(&self, id: &str) -> ttrpc::Result<Arc<Sandbox>> {
        self.find(id).map_err(|error| status(&error))
    }
}

#[async_trait]
impl SandboxApi for SandboxService {
    async fn create_sandbox(
        &self,
        context: &TtrpcContext,
        request: api::CreateSandboxRequest,
    ) -> ttrpc::Result<api::CreateSandboxResponse> {
        let (pod, id) = (self.pod.clone(), request.sandbox_id.clone());
        let work = async move {
            let uname = nix::sys::utsname::uname();
            let host = uname.map(|u| u.nodename().to_string_lossy().into_owned()).unwrap_or_default();
            let options = request.options.as_ref();
            let mut plan = plan::read(&request.sandbox_id, options, &request.netns_path, &host)?;
            let bundle = Path::new(&request.bundle_path);
            let files = Files::of(&request.sandbox_id, bundle, &plan.names).unwrap_or_else(|| {
                tracing::warn!(bundle = request.bundle_path, "no place for hosts, resolv.conf and /dev/shm");
                Files::none()
            });
            pod.identify(plan.identity.clone());
            let namespace = &pod.shared().namespace;
            let subject = std::mem::take(&mut plan.subject);
            let sandbox = Sandbox::new(&request.sandbox_id, namespace, bundle.to_owned(), plan, files);
            pod.set_sandbox(sandbox)?;
            pod.routing().introduce(subject)?;
            Ok::<_, SandboxError>(api::CreateSandboxResponse::new())
        };
        detached(context, "create-sandbox", &id, work).await
    }

    async fn start_sandbox(
        &self,
        context: &TtrpcContext,
        request: api::StartSandboxRequest,
    ) -> ttrpc::Result<api::StartSandboxResponse> {
        let sandbox = self.found(&request.sandbox_id)?;
        let registry = self.pod.shared().registry.clone();
        let work = async move {
            let seen = sandbox.start(&registry).await?;
            let mut response = api::StartSandboxResponse::new();
            response.pid = seen.pid;
            response.created_at = Some(timestamp(seen.created_at)).into();
            Ok::<_, SandboxError>(response)
        };
        detached(context, "start-sandbox", &request.sandbox_id, work).await
    }

    async fn platform(
        &self,
        _: &TtrpcContext,
        request: api::PlatformRequest,
    ) -> ttrpc::Result<api::PlatformResponse> {
        self.found(&request.sandbox_id)?;
        let mut platform = containerd_shim_protos::types::platform::Platform::new();
        platform.os = "linux".to_owned();
        // Go's names for architectures.
        (platform.architecture, platform.variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64".to_owned(), String::new()),
            "aarch64" => ("arm64".to_owned(), "v8".to_owned()),
            other => (other.to_owned(), String::new()),
        };
        let mut response = api::PlatformResponse::new();
        response.platform = Some(platform).into();
        Ok(response)
    }

    async fn stop_sandbox(
        &self,
        context: &TtrpcContext,
        request: api::StopSandboxRequest,
    ) -> ttrpc::Result<api::StopSandboxResponse> {
        let sandbox = self.found(&request.sandbox_id)?;
        let work = async move {
            sandbox.stop().await;
            Ok::<_, SandboxError>(api::StopSandboxResponse::new())
        };
        detached(context, "stop-sandbox", &request.sandbox_id, work).await
    }

    async fn wait_sandbox(
        &self,
        context: &TtrpcContext,
        request: api::WaitSandboxRequest,
    ) -> ttrpc::Result<api::WaitSandboxResponse> {
        let work = async {
            let mut done = self.find(&request.sandbox_id)?.done();
            let unknown = || SandboxError::Unknown(request.sandbox_id.clone());
            let exit = *done.wait_for(Option::is_some).await.map_err(|_| unknown())?;
            let exit = exit.ok_or_else(unknown)?;
            let mut response = api::WaitSandboxResponse::new();
            response.exit_status = exit.status;
            response.exited_at = Some(timestamp(exit.at)).into();
            Ok::<_, SandboxError>(response)
        };
        traced(context, "wait-sandbox", &request.sandbox_id, work).await
    }

    async fn sandbox_status(
        &self,
        context: &TtrpcContext,
        request: api::SandboxStatusRequest,
    ) -> ttrpc::Result<api::SandboxStatusResponse> {
        let work = async {
            let sandbox = self.find(&request.sandbox_id)?;
            let seen = sandbox.seen();
            let mut response = api::SandboxStatusResponse::new();
            response.sandbox_id.clone_from(&request.sandbox_id);
            response.pid = seen.pid;
            response.state = if seen.ready { READY } else { NOT_READY }.to_owned();
            response.created_at = Some(timestamp(seen.created_at)).into();
            if let Some(exit) = seen.exit {
                response.exited_at = Some(timestamp(exit.at)).into();
            }
            if request.verbose {
                // Under the names that the pause container's controller uses: scripts look for the PID and the network
                // namespace of a pod in `crictl inspectp`.
                let info = serde_json::json!({
                    "pid": seen.pid,
                    "processStatus": if seen.ready { "running" } else { "stopped" },
                    "runtimeType": crate::info::NAME,
                    "runtimeSpec": {"linux": {"namespaces": sandbox.namespaces()}},
                    "shimPid": std::process::id(),
                    "containers": self.pod.all().len(),
                });
                response.info.insert("info".to_owned(), info.to_string());
            }
            Ok::<_, SandboxError>(response)
        };
        traced(context, "sandbox-status", &request.sandbox_id, work).await
    }

    async fn ping_sandbox(
        &self,
        _: &TtrpcContext,
        request: api::PingRequest,
    ) -> ttrpc::Result<api::PingResponse> {
        self.found(&request.sandbox_id)?;
        Ok(api::PingResponse::new())
    }

    async fn shutdown_sandbox(
        &self,
        context: &TtrpcContext,
        request: api::ShutdownSandboxRequest,
    ) -> ttrpc::Result<api::ShutdownSandboxResponse> {
        let pod = self.pod.clone();
        let work = async move {
            // Also for a sandbox whose creation failed: containerd cleans up with this call.
            pod.remove_all().await;
            Ok::<_, SandboxError>(api::ShutdownSandboxResponse::new())
        };
        detached(context, "shutdown-sandbox", &request.sandbox_id, work).await
    }

    async fn sandbox_metrics(
        &self,
        context: &TtrpcContext,
        request: api::SandboxMetricsRequest,
    ) -> ttrpc::Result<api::SandboxMetricsResponse> {
        let work = async {
            let sandbox = self.find(&request.sandbox_id)?;
            let cgroup = sandbox.cgroup().cloned().ok_or_else(|| SandboxError::State {
                id: request.sandbox_id.clone(),
                state: "without a cgroup of its own (no cgroup_parent was given)",
            })?;
            let stats = blocking(move || stats::read(&cgroup)).await?;
            let data = any(&metrics_message::from_stats(&stats))
                .map_err(|error| TaskError::Malformed { what: "the answer", reason: error.to_string() })?;
            let mut response = api::SandboxMetricsResponse::new();
            let metric = response.metrics.mut_or_insert_default();
            metric.timestamp = Some(timestamp(std::time::SystemTime::now())).into();
            metric.id.clone_from(&request.sandbox_id);
            metric.data = Some(data).into();
            Ok::<_, SandboxError>(response)
        };
        traced(context, "sandbox-metrics", &request.sandbox_id, work).await
    }
}
