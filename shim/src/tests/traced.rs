//! What is logged for a request names the caller's trace, also where the request is a mere question.

use cryopod_runtime::config::Level;
use protobuf::well_known_types::any::Any;
use ttrpc::context::Context;

use super::fake::shim;
use crate::log;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

fn traced() -> Context {
    let mut context = ttrpc::context::with_duration(std::time::Duration::from_secs(5));
    context.add("traceparent".to_owned(), format!("00-{TRACE}-{PARENT}-01"));
    context
}

#[tokio::test]
async fn a_line_of_a_request_names_the_callers_trace_and_span() {
    use containerd_shim_protos::sandbox_api as sandbox;
    use containerd_shim_protos::shim::shim as api;
    let shim = shim().await;
    let logs = tempfile::tempdir().unwrap();
    let path = logs.path().join("log");
    std::fs::write(&path, "").unwrap();
    let _default = tracing::subscriber::set_default(log::subscriber(logs.path(), &[], Level::Debug));
    let id = || "none".to_owned();
    let context = traced;
    let mut update = api::UpdateTaskRequest { id: id(), ..Default::default() };
    update.resources = Some(Any { value: b"{}".to_vec(), ..Any::default() }).into();
    shim.task.update(context(), &update).await.unwrap_err();
    shim.task.state(context(), &api::StateRequest { id: id(), ..Default::default() }).await.unwrap_err();
    shim.task.pids(context(), &api::PidsRequest { id: id(), ..Default::default() }).await.unwrap_err();
    shim.task.wait(context(), &api::WaitRequest { id: id(), ..Default::default() }).await.unwrap_err();
    shim.task.stats(context(), &api::StatsRequest { id: id(), ..Default::default() }).await.unwrap_err();
    shim.task.close_io(context(), &api::CloseIORequest { id: id(), ..Default::default() }).await.unwrap_err();
    shim.task
        .resize_pty(context(), &api::ResizePtyRequest { id: id(), ..Default::default() })
        .await
        .unwrap_err();
    let status = sandbox::SandboxStatusRequest { sandbox_id: id(), ..Default::default() };
    shim.sandbox.sandbox_status(context(), &status).await.unwrap_err();
    let metrics = sandbox::SandboxMetricsRequest { sandbox_id: id(), ..Default::default() };
    shim.sandbox.sandbox_metrics(context(), &metrics).await.unwrap_err();

    let text = std::fs::read_to_string(&path).unwrap();
    for method in [
        "update",
        "state",
        "pids",
        "wait",
        "stats",
        "close-io",
        "resize-pty",
        "sandbox-status",
        "sandbox-metrics",
    ] {
        let fields = format!(" method={method} id=none trace_id={TRACE} parent_id={PARENT}");
        assert!(text.lines().any(|line| line.contains(&fields)), "{method}: {text}");
    }
}
