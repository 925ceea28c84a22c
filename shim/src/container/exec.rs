//! Further processes in a running container.

use std::sync::Arc;
use std::time::Duration;

use containerd_shim_protos::events::task::{TaskExecAdded, TaskExecStarted};
use cryopod_command::Limits;
use cryopod_runtime::backend::ExecRequest;

use super::{CREATE_WITHIN, Container};
use crate::bootstrap::is_safe_id;
use crate::error::{TaskError, blocking};
use crate::events::Event;
use crate::exits::{Child, Exit};
use crate::io::{self, StdioPaths};
use crate::process::state::{Change, State};
use crate::process::{EVENTS_PER_PROCESS, Process};

/// How long a process waits for the others of a restored pod before it lets the pod go: above the timeout of common
/// probes, below what people accept of a hook.
const WAITS_APART: Duration = Duration::from_secs(10);

impl Container {
    /// Registers an exec; nothing runs yet.
    ///
    /// # Errors
    /// When the id is taken or no file name, or the container has ended.
    pub async fn add_exec(
        &self,
        exec_id: &str,
        stdio: StdioPaths,
        spec: serde_json::Value,
    ) -> Result<(), TaskError> {
        if !is_safe_id(exec_id) {
            return Err(TaskError::BadId(exec_id.to_owned()));
        }
        let slots = self.shared.publisher.reserve(EVENTS_PER_PROCESS).await?;
        let mut inner = self.inner();
        self.require_running(inner.init.state)?;
        if inner.execs.contains_key(exec_id) {
            return Err(TaskError::Exists { what: "process", id: exec_id.to_owned() });
        }
        let mut exec = Process::new(exec_id, State::Created, stdio, slots);
        exec.spec = spec;
        let mut event = TaskExecAdded::new();
        event.container_id.clone_from(&self.id);
        event.exec_id = exec_id.to_owned();
        exec.slots.publish(&Event::ExecAdded(event));
        inner.execs.insert(exec_id.to_owned(), exec);
        Ok(())
    }

    fn require_running(&self, state: State) -> Result<(), TaskError> {
        match state {
            State::Running => Ok(()),
            other => Err(TaskError::NotRunning { id: self.id.clone(), state: other.name() }),
        }
    }

    /// Starts a registered exec; its PID. Execs of one container start side by side.
    ///
    /// # Errors
    /// When it was started before, the container does not run, or the runtime fails; then the exec is STOPPED.
    pub async fn start_exec(self: &Arc<Self>, exec_id: &str) -> Result<u32, TaskError> {
        self.wait_no_longer(exec_id, WAITS_APART).await?;
        let _op = self.op.read().await;
        self.inner().doing = "exec";
        let (stdio, spec) = {
            let mut inner = self.inner();
            let state = inner.init.state;
            let exec = inner.process(&self.id, exec_id)?;
            self.require_running(state)?;
            exec.apply(Change::Start).map_err(|source| TaskError::State { id: self.id.clone(), source })?;
            (exec.stdio.clone(), std::mem::take(&mut exec.spec))
        };
        match self.run_exec(exec_id, &stdio, spec).await {
            Ok(pid) => Ok(pid),
            Err(error) => {
                if let Some(exec) = self.inner().execs.get_mut(exec_id) {
                    // It never ran: no exit is published, but whoever waits for it is told.
                    let over = [Change::StartFailed, Change::Exited(Exit::unknown()), Change::Drained];
                    over.into_iter().try_for_each(|change| exec.apply(change).map(|_| ())).ok();
                }
                Err(error)
            }
        }
    }

    async fn run_exec(
        self: &Arc<Self>,
        exec_id: &str,
        paths: &StdioPaths,
        spec: serde_json::Value,
    ) -> Result<u32, TaskError> {
        let (stdio, opening) = io::begin(paths, self.owner(), &self.shared.registry).await?;
        let (this, exec) = (self.clone(), exec_id.to_owned());
        let expecting = self.shared.registry.expect();
        let run = blocking(move || {
            let request =
                ExecRequest { id: &this.id, exec_id: &exec, process: &spec, bundle: &this.bundle, stdio };
            this.chosen.backend.exec(request, &Limits::within(CREATE_WITHIN))
        });
        let (pid, prepared) = opening.finish_during(run).await?;
        let child = Child::open(pid, &self.shared.registry).map_err(|source| TaskError::Watch {
            id: self.id.clone(),
            pid,
            source,
        })?;
        drop(expecting);
        let child = Arc::new(child);
        let connected = match prepared {
            Ok(prepared) => prepared.connect().await,
            Err(error) => Err(error),
        };
        let opened = connected.and_then(|io| io.open_input().map(|()| io));
        let io = match opened {
            Ok(io) => Arc::new(io),
            Err(error) => {
                child.signal(libc::SIGKILL).ok();
                child.ended().await;
                return Err(error.into());
            }
        };
        let mut inner = self.inner();
        let exec = inner.process(&self.id, exec_id)?;
        exec.child = Some(child.clone());
        exec.io = Some(io);
        exec.apply(Change::Started).map_err(|source| TaskError::State { id: self.id.clone(), source })?;
        let mut event = TaskExecStarted::new();
        event.container_id.clone_from(&self.id);
        event.exec_id = exec_id.to_owned();
        event.pid = pid;
        exec.slots.publish(&Event::ExecStarted(event));
        drop(inner);
        self.watch_exec(exec_id, child);
        Ok(pid)
    }
}
