//! Kill, terminal size and end of input: what goes to a process without its runtime.

use std::sync::Arc;

use cryopod_command::Limits;
use nix::errno::Errno;

use super::{Container, STEP_WITHIN};
use crate::error::{TaskError, blocking};
use crate::io::{Io, IoError};

impl Container {
    /// Sends a raw signal to one process by its pidfd, or through the backend to all of the container.
    ///
    /// Takes no operation lock: a kill must get through while a start or a delete hangs.
    ///
    /// # Errors
    /// NOT_FOUND for what has ended, whether noticed already or not.
    pub async fn kill(&self, exec_id: &str, signal: i32, all: bool) -> Result<(), TaskError> {
        let process = if exec_id.is_empty() { "init" } else { exec_id }.to_owned();
        let ended = || TaskError::Ended { id: self.id.clone(), process: process.clone() };
        let child = {
            let mut inner = self.inner();
            let target = inner.process(&self.id, exec_id)?;
            if target.state.ended().is_some() {
                return Err(ended());
            }
            target.child.clone()
        };
        if exec_id.is_empty() {
            // Whoever waits for the rest of a pod that is being stopped would not see a polite signal. Not for an exec,
            // nor for what has ended: containerd sends a signal after each of them.
            self.shared.together.give_up();
        }
        let Some(child) = child else {
            return Err(TaskError::NotStarted { id: self.id.clone(), process });
        };
        if all && exec_id.is_empty() {
            let (backend, id, pid) = (self.backend(), self.id.clone(), child.pid());
            return blocking(move || backend.kill(&id, pid, signal, true, &Limits::within(STEP_WITHIN)))
                .await;
        }
        child.signal(signal).map_err(|source| {
            if source.raw_os_error() == Some(Errno::ESRCH as i32) {
                return ended();
            }
            TaskError::Signal { id: self.id.clone(), pid: child.pid(), signal, source }
        })
    }

    fn io(&self, exec_id: &str) -> Result<Option<Arc<Io>>, TaskError> {
        Ok(self.inner().process(&self.id, exec_id)?.io.clone())
    }

    /// Sets the size of a process's terminal.
    ///
    /// # Errors
    /// Without a terminal.
    pub fn resize(&self, exec_id: &str, columns: u16, rows: u16) -> Result<(), TaskError> {
        let io = self.io(exec_id)?.ok_or(IoError::NotATerminal)?;
        Ok(io.resize(columns, rows)?)
    }

    /// Lets a process see the end of its input.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn close_stdin(&self, exec_id: &str) -> Result<(), TaskError> {
        if let Some(io) = self.io(exec_id)? {
            io.close_stdin();
        }
        Ok(())
    }
}
