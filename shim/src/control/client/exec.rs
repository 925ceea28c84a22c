//! A further process in a container of a running pod, with streams of the caller's: containerd's Task service does it,
//! so that containerd hears of it like of its own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use containerd_shim_protos::shim::shim as task;
use cryopod_checkpoint::kind::Kind;
use cryopod_command::Limits;
use protobuf::well_known_types::any::Any;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::Instant;
use ttrpc::context::Context;

use super::{Client, ClientError, api, quick};
pub use crate::io::StdioPaths;

/// Type of a process in the runtime specification, as containerd names it.
const PROCESS: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";
/// To take back a process that the caller no longer wants.
const UNDO: Duration = Duration::from_secs(10);
/// Until that is tried again; a process that starts takes a fraction of a second.
const AGAIN: Duration = Duration::from_millis(50);
/// What outlives SIGPIPE that long has no use for it.
const AFTER_SIGPIPE: Duration = Duration::from_secs(2);
const SIGKILL: u32 = 9;
const SIGPIPE: u32 = 13;

/// A process to be run.
#[derive(Debug, Clone)]
pub struct Exec<'a> {
    /// Id of the container.
    pub container: &'a str,
    /// Id of the process, unique in the container.
    pub id: &'a str,
    /// `process` of the runtime specification.
    pub process: &'a serde_json::Value,
    /// Fifos; empty where there is none.
    pub stdio: StdioPaths,
    /// Nobody attends it: the shim itself forgets it at its end.
    pub detached: bool,
}

/// What happens on the caller's side while the process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// Standard input is at its end.
    Ended,
    /// The caller's terminal has this many columns and rows now.
    Resized(u16, u16),
    /// The caller got this signal.
    Signal(u32),
    /// Nobody reads the output any more: the process ends as if it had written into a closed pipe itself.
    Closed,
}

impl Client {
    /// The bundle of a container.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn bundle(&self, container: &str) -> Result<PathBuf, ClientError> {
        let request = task::StateRequest { id: container.to_owned(), ..task::StateRequest::default() };
        let state = self.runtime.block_on(self.tasks().state(quick(), &request))?;
        Ok(Path::new(&state.bundle).to_owned())
    }

    /// Starts a process; its PID. One that could not be started is forgotten again.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn exec(&self, exec: &Exec<'_>, limits: &Limits) -> Result<u32, ClientError> {
        let mut spec = Any::new();
        PROCESS.clone_into(&mut spec.type_url);
        // A value always has a JSON form.
        spec.value = exec.process.to_string().into_bytes();
        let request = task::ExecProcessRequest {
            id: exec.container.to_owned(),
            exec_id: exec.id.to_owned(),
            terminal: exec.stdio.terminal,
            stdin: exec.stdio.stdin.clone(),
            stdout: exec.stdio.stdout.clone(),
            stderr: exec.stdio.stderr.clone(),
            spec: Some(spec).into(),
            ..task::ExecProcessRequest::default()
        };
        self.answer(self.tasks().exec(Context::default(), &request), limits)
            .inspect_err(|error| self.take_back(exec, error))?;
        if exec.detached {
            // A shim from before an update does not know the call, and keeps a record that nobody needs.
            self.release(exec.container, exec.id, limits).ok();
        }
        let start = task::StartRequest {
            id: exec.container.to_owned(),
            exec_id: exec.id.to_owned(),
            ..task::StartRequest::default()
        };
        let started = self.answer(self.tasks().start(Context::default(), &start), limits);
        started.map(|started| started.pid).inspect_err(|_| {
            // It may start yet, with nobody at its streams.
            self.abandon(exec.container, exec.id).ok();
        })
    }

    /// What the shim has refused to register is not there; what it has not answered yet may be.
    fn take_back(&self, exec: &Exec<'_>, error: &ClientError) {
        if matches!(error, ClientError::Unanswered(_)) {
            self.abandon(exec.container, exec.id).ok();
        }
    }

    /// Kills a process that nobody attends, even one that is just being started, and removes it from what its shim
    /// knows. One that is not there any more is no error.
    ///
    /// # Errors
    /// See [`ClientError`]. Then the shim forgets it at its end.
    pub fn abandon(&self, container: &str, exec: &str) -> Result<(), ClientError> {
        let limits = Limits::within(UNDO);
        self.release(container, exec, &limits).ok();
        loop {
            // While it is being started there is nothing to be killed yet, and it cannot be deleted.
            self.exec_kill(container, exec, &limits).ok();
            match self.delete_exec(container, exec, &limits) {
                Err(ClientError::Refused { kind: Kind::NotFound, .. }) => return Ok(()),
                Err(ClientError::Refused { .. }) if limits.check().is_ok() => std::thread::sleep(AGAIN),
                result => return result,
            }
        }
    }

    /// Waits for the end of a process and passes on what happens meanwhile; its exit status.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn attend(
        &self,
        container: &str,
        exec: &str,
        mut inputs: UnboundedReceiver<Input>,
    ) -> Result<u32, ClientError> {
        let tasks = self.tasks();
        let (id, exec_id) = (container.to_owned(), exec.to_owned());
        let wait = task::WaitRequest { id, exec_id, ..task::WaitRequest::default() };
        self.runtime.block_on(async {
            let ended = tasks.wait(Context::default(), &wait);
            tokio::pin!(ended);
            let (mut open, mut kill_at) = (true, None);
            loop {
                tokio::select! {
                    answer = &mut ended => return Ok(answer?.exit_status),
                    input = inputs.recv(), if open => match input {
                        Some(input) => {
                            if input == Input::Closed {
                                kill_at.get_or_insert_with(|| Instant::now() + AFTER_SIGPIPE);
                            }
                            self.pass_on(container, exec, input).await;
                        }
                        None => open = false,
                    },
                    () = at(kill_at) => {
                        kill_at = None;
                        self.pass_on(container, exec, Input::Signal(SIGKILL)).await;
                    }
                }
            }
        })
    }

    /// Removes an ended process from what its shim knows; its output has been read.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn forget_exec(&self, container: &str, exec: &str) -> Result<(), ClientError> {
        self.delete_exec(container, exec, &Limits::within(UNDO))
    }

    fn delete_exec(&self, container: &str, exec: &str, limits: &Limits) -> Result<(), ClientError> {
        let (id, exec_id) = (container.to_owned(), exec.to_owned());
        let request = task::DeleteRequest { id, exec_id, ..task::DeleteRequest::default() };
        self.answer(self.tasks().delete(Context::default(), &request), limits).map(drop)
    }

    fn exec_kill(&self, container: &str, exec: &str, limits: &Limits) -> Result<(), ClientError> {
        let (id, exec_id) = (container.to_owned(), exec.to_owned());
        let request = task::KillRequest { id, exec_id, signal: SIGKILL, ..task::KillRequest::default() };
        self.answer(self.tasks().kill(Context::default(), &request), limits).map(drop)
    }

    /// From now on the shim forgets the process by itself, at its end.
    fn release(&self, container: &str, exec: &str, limits: &Limits) -> Result<(), ClientError> {
        let (container, exec) = (container.to_owned(), exec.to_owned());
        let request = api::ReleaseRequest { container, exec, ..api::ReleaseRequest::default() };
        self.answer(self.control.release(Context::default(), &request), limits).map(drop)
    }

    /// A process that has just ended takes nothing any more; its end is about to be seen.
    async fn pass_on(&self, container: &str, exec: &str, input: Input) {
        let (tasks, id, exec_id) = (self.tasks(), container.to_owned(), exec.to_owned());
        match input {
            Input::Ended => {
                let request =
                    task::CloseIORequest { id, exec_id, stdin: true, ..task::CloseIORequest::default() };
                tasks.close_io(quick(), &request).await.ok();
            }
            Input::Resized(width, height) => {
                let (width, height) = (u32::from(width), u32::from(height));
                let request = task::ResizePtyRequest {
                    id,
                    exec_id,
                    width,
                    height,
                    ..task::ResizePtyRequest::default()
                };
                tasks.resize_pty(quick(), &request).await.ok();
            }
            Input::Signal(_) | Input::Closed => {
                let signal = if let Input::Signal(signal) = input { signal } else { SIGPIPE };
                let request = task::KillRequest { id, exec_id, signal, ..task::KillRequest::default() };
                tasks.kill(quick(), &request).await.ok();
            }
        }
    }
}

/// Waits until then; for ever without a time.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}
