//! No method is left to the generated defaults, which answer NOT_FOUND with "… is not supported": containerd would take
//! that for a task that is gone.

use std::time::Duration;

use containerd_shim_protos::sandbox_api as sandbox;
use containerd_shim_protos::shim::shim as api;
use ttrpc::context::{Context, with_duration};

use super::fake::shim;

fn soon() -> Context {
    with_duration(Duration::from_secs(5))
}

/// What a call answered, for the message of a failed assertion.
fn said<T>(result: ttrpc::Result<T>) -> String {
    match result {
        Ok(_) => "ok".to_owned(),
        Err(ttrpc::Error::RpcStatus(status)) => status.message().to_owned(),
        Err(error) => error.to_string(),
    }
}

macro_rules! answers {
    ($client:expr, $($method:ident: $request:ty),* $(,)?) => {
        vec![$((stringify!($method), said($client.$method(soon(), &<$request>::new()).await))),*]
    };
}

#[tokio::test]
async fn every_method_of_task_and_sandbox_is_our_own() {
    let shim = shim().await;
    let mut answers = answers!(
        shim.task,
        state: api::StateRequest,
        create: api::CreateTaskRequest,
        start: api::StartRequest,
        delete: api::DeleteRequest,
        pids: api::PidsRequest,
        pause: api::PauseRequest,
        resume: api::ResumeRequest,
        checkpoint: api::CheckpointTaskRequest,
        kill: api::KillRequest,
        exec: api::ExecProcessRequest,
        resize_pty: api::ResizePtyRequest,
        close_io: api::CloseIORequest,
        update: api::UpdateTaskRequest,
        wait: api::WaitRequest,
        stats: api::StatsRequest,
        connect: api::ConnectRequest,
    );
    answers.extend(answers!(
        shim.sandbox,
        create_sandbox: sandbox::CreateSandboxRequest,
        platform: sandbox::PlatformRequest,
        sandbox_status: sandbox::SandboxStatusRequest,
        ping_sandbox: sandbox::PingRequest,
        sandbox_metrics: sandbox::SandboxMetricsRequest,
        stop_sandbox: sandbox::StopSandboxRequest,
        wait_sandbox: sandbox::WaitSandboxRequest,
        start_sandbox: sandbox::StartSandboxRequest,
        shutdown_sandbox: sandbox::ShutdownSandboxRequest,
    ));
    answers.extend(answers!(shim.task, shutdown: api::ShutdownRequest));
    assert_eq!(answers.len(), 17 + 9);
    for (method, answer) in answers {
        assert!(!answer.contains("is not supported"), "{method}: {answer}");
    }
}
