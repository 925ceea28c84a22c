//! Pause and resume.

use std::sync::Arc;

use containerd_shim_protos::events::task::{TaskPaused, TaskResumed};
use cryopod_command::Limits;

use super::{Container, STEP_WITHIN};
use crate::error::{TaskError, blocking};
use crate::events::Event;
use crate::process::state::{Change, State};

impl Container {
    /// Freezes all tasks of the container.
    ///
    /// # Errors
    /// When it does not run, or the runtime fails; then it runs on.
    pub async fn pause(self: &Arc<Self>) -> Result<(), TaskError> {
        let mut slots = self.shared.publisher.reserve(1).await?;
        let _op = self.turn("pause").await;
        self.inner().change(&self.id, "", Change::Pause)?;
        let (backend, id) = (self.backend(), self.id.clone());
        let paused = blocking(move || backend.pause(&id, &Limits::within(STEP_WITHIN))).await;
        let mut inner = self.inner();
        match paused {
            Ok(()) => {
                inner.change(&self.id, "", Change::Paused)?;
                let mut event = TaskPaused::new();
                event.container_id.clone_from(&self.id);
                slots.publish(&Event::Paused(event));
                Ok(())
            }
            Err(error) => {
                inner.change(&self.id, "", Change::PauseFailed)?;
                Err(error)
            }
        }
    }

    /// Lets a restored container run that has waited for the others of its checkpoint. After a pause it goes on with
    /// the resume.
    pub(super) fn let_go_on(self: &Arc<Self>) {
        let this = self.clone();
        tokio::spawn(async move {
            let _op = this.turn("resume").await;
            let waits = {
                let mut inner = this.inner();
                std::mem::take(&mut inner.apart) && inner.init.state == State::Running
            };
            if !waits {
                return;
            }
            let (backend, id) = (this.backend(), this.id.clone());
            if let Err(error) = blocking(move || backend.resume(&id, &Limits::within(STEP_WITHIN))).await {
                tracing::error!(id = this.id, %error, "a restored container stays frozen; resume its task");
            }
        });
    }

    /// Lets a paused container run again.
    ///
    /// # Errors
    /// When it is not paused, or the runtime fails; then it stays paused.
    pub async fn resume(self: &Arc<Self>) -> Result<(), TaskError> {
        let mut slots = self.shared.publisher.reserve(1).await?;
        let _op = self.turn("resume").await;
        let state = self.inner().init.state;
        state
            .transition(Change::Resumed)
            .map_err(|source| TaskError::State { id: self.id.clone(), source })?;
        if state == State::Paused {
            let (backend, id) = (self.backend(), self.id.clone());
            blocking(move || backend.resume(&id, &Limits::within(STEP_WITHIN))).await?;
        }
        // Only after the container runs: giving the dataset its name back may take a moment.
        let resumed = {
            let mut inner = self.inner();
            inner.change(&self.id, "", Change::Resumed)
        };
        self.finish_checkpoint(STEP_WITHIN).await;
        resumed?;
        let mut event = TaskResumed::new();
        event.container_id.clone_from(&self.id);
        slots.publish(&Event::Resumed(event));
        Ok(())
    }
}
