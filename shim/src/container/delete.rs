//! Delete of a container or an exec.
//!
//! CRI cancels after 10 s and comes again, so every step is bounded and may be repeated; what could not be drained by
//! then is lost, as with containerd's own shim.

use std::sync::Arc;
use std::time::{Duration, Instant};

use containerd_shim_protos::events::task::TaskDelete;
use cryopod_command::Limits;

use super::{Container, DELETE_WITHIN, REMOVE_WITHIN};
use crate::error::{TaskError, blocking};
use crate::events::{Event, timestamp};
use crate::exits::Exit;
use crate::io::Io;
use crate::members;
use crate::mounts;
use crate::process::state::{Change, State};

/// What Delete answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deleted {
    /// PID it had.
    pub pid: u32,
    /// How it ended.
    pub exit: Exit,
}

impl Container {
    /// Removes a container that is STOPPED, or CREATED and never started.
    ///
    /// # Errors
    /// While it runs, and when something of it cannot be removed; then Delete may be repeated.
    pub async fn delete(self: &Arc<Self>) -> Result<Deleted, TaskError> {
        let begun = Instant::now();
        // At least a moment for each step: Delete is called again, and must get on then.
        let rest = || DELETE_WITHIN.saturating_sub(begun.elapsed()).max(Duration::from_secs(1));
        let _op = self.op.write().await;
        let (state, streams) = {
            let inner = self.inner();
            let state = inner.init.state;
            if state == State::Deleted {
                return Err(TaskError::NoContainer { id: self.id.clone() });
            }
            state
                .transition(Change::Delete)
                .map_err(|source| TaskError::State { id: self.id.clone(), source })?;
            let streams: Vec<Arc<Io>> =
                inner.execs.values().chain([&inner.init]).filter_map(|process| process.io.clone()).collect();
            (state, streams)
        };
        let (backend, id) = (self.backend(), self.id.clone());
        let removed = blocking(move || backend.delete(&id, &Limits::within(REMOVE_WITHIN)));
        let drained = async {
            for io in &streams {
                if !io.drain(REMOVE_WITHIN).await {
                    tracing::warn!(id = self.id, "a stream of the container did not end; its rest is lost");
                }
            }
        };
        let (removed, ()) = tokio::join!(removed, drained);
        removed?;
        if state == State::Created && self.inner().init.child.is_some() {
            // The runtime killed what was created; its exit comes before the delete event.
            let mut done = self.inner().init.done();
            drop(tokio::time::timeout(rest(), done.wait_for(Option::is_some)).await);
        }
        self.finish_checkpoint(rest()).await;
        let limits = Limits::within(rest());
        let this = self.clone();
        blocking(move || {
            mounts::unmount_all(&this.rootfs())?;
            this.let_go(&limits)?;
            members::forget(&this.shared.home, &this.id);
            Ok::<_, TaskError>(())
        })
        .await?;
        let mut inner = self.inner();
        let exit = inner.init.state.ended().unwrap_or_else(Exit::unknown);
        let deleted = Deleted { pid: inner.init.pid(), exit };
        inner.change(&self.id, "", Change::Delete)?;
        let mut event = TaskDelete::new();
        event.container_id.clone_from(&self.id);
        event.pid = deleted.pid;
        event.exit_status = exit.status;
        event.exited_at = Some(timestamp(exit.at)).into();
        inner.init.slots.publish(&Event::Delete(event));
        Ok(deleted)
    }

    /// Removes an exec that is STOPPED or was never started.
    ///
    /// # Errors
    /// While it runs.
    pub async fn delete_exec(&self, exec_id: &str) -> Result<Deleted, TaskError> {
        let io = {
            let mut inner = self.inner();
            let exec = inner.process(&self.id, exec_id)?;
            exec.state
                .transition(Change::Delete)
                .map_err(|source| TaskError::State { id: self.id.clone(), source })?;
            exec.io.clone()
        };
        if let Some(io) = io {
            io.drain(REMOVE_WITHIN).await;
        }
        let mut inner = self.inner();
        let exec = inner.process(&self.id, exec_id)?;
        let deleted = Deleted { pid: exec.pid(), exit: exec.state.ended().unwrap_or_else(Exit::unknown) };
        exec.apply(Change::Delete).map_err(|source| TaskError::State { id: self.id.clone(), source })?;
        inner.execs.remove(exec_id);
        Ok(deleted)
    }
}
