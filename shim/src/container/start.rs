//! Start of init: the runtime's `start`, or bringing memory back.

use std::sync::Arc;

use containerd_shim_protos::events::task::TaskStart;
use cryopod_command::Limits;
use cryopod_runtime::backend::{CreateRequest, RestoreRequest};

use super::create::{Made, Waiting, note_pid, observe};
use super::{CREATE_WITHIN, Container, Launch};
use crate::error::{TaskError, blocking};
use crate::events::Event;
use crate::process::state::{Change, State};

impl Container {
    /// Starts init; its PID. TaskStart is queued before any exit of it.
    ///
    /// # Errors
    /// When it is not CREATED, or the runtime fails; then it is CREATED, or STOPPED if it died.
    pub async fn start(self: &Arc<Self>) -> Result<u32, TaskError> {
        let _op = self.op.write().await;
        self.inner().change(&self.id, "", Change::Start)?;
        let result = match &self.launch {
            Launch::Fresh => self.start_fresh().await,
            Launch::Restore { .. } => self.start_restored().await,
        };
        let change = if result.is_ok() { Change::Started } else { Change::StartFailed };
        let (pid, state) = {
            let mut inner = self.inner();
            let state = inner.change(&self.id, "", change)?;
            let pid = inner.init.pid();
            if result.is_ok() {
                let mut event = TaskStart::new();
                event.container_id.clone_from(&self.id);
                event.pid = pid;
                inner.init.slots.publish(&Event::Start(event));
            }
            (pid, state)
        };
        if result.is_ok() && self.launch != Launch::Fresh {
            self.watch_init();
        }
        if let State::Exiting(exit) = state {
            self.finish_init(exit);
        }
        result.map(|()| pid)
    }

    async fn start_fresh(&self) -> Result<(), TaskError> {
        let (backend, id) = (self.backend(), self.id.clone());
        blocking(move || backend.start(&id, &Limits::within(CREATE_WITHIN))).await
    }

    async fn start_restored(self: &Arc<Self>) -> Result<(), TaskError> {
        let waiting: Option<Waiting> = self.inner().waiting.take();
        let Some((stdio, prepared)) = waiting else {
            return Err(TaskError::NotStarted { id: self.id.clone(), process: "init".to_owned() });
        };
        let this = self.clone();
        let made: Made = blocking(move || {
            let Launch::Restore { images, work, tcp, .. } = &this.launch else {
                return Err(TaskError::NotStarted { id: this.id.clone(), process: "init".to_owned() });
            };
            std::fs::create_dir_all(work)
                .map_err(|source| TaskError::Directory { path: work.clone(), source })?;
            let request = CreateRequest { id: &this.id, bundle: &this.bundle, stdio };
            let restore = RestoreRequest { images, work, tcp: *tcp };
            let backend = this.backend();
            let pid = backend.restore(request, &restore, &Limits::within(CREATE_WITHIN))?;
            let state = this.inner().bundle_state.clone();
            note_pid(state, pid, &this.bundle)?;
            Ok(observe(&*backend, &this.id, pid))
        })
        .await?;
        self.adopt(made, prepared).await
    }
}
