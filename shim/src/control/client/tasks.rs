//! Calls of containerd's Task service on the same socket, for containers of a running pod: what the shim does then, it
//! tells containerd by its events, so that both know the same state.

use std::future::Future;

use containerd_shim_protos::shim::shim as task;
use containerd_shim_protos::shim_async::TaskClient;
use cryopod_command::Limits;
use ttrpc::context::Context;

use super::{Client, ClientError, LOOK_EVERY};

impl Client {
    pub(super) fn tasks(&self) -> TaskClient {
        TaskClient::new(self.connection.clone())
    }

    /// Freezes all tasks of a container.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn pause(&self, container: &str, limits: &Limits) -> Result<(), ClientError> {
        let request = task::PauseRequest { id: container.to_owned(), ..task::PauseRequest::default() };
        self.answer(self.tasks().pause(Context::default(), &request), limits).map(drop)
    }

    /// Lets a paused container run.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn resume(&self, container: &str, limits: &Limits) -> Result<(), ClientError> {
        let request = task::ResumeRequest { id: container.to_owned(), ..task::ResumeRequest::default() };
        self.answer(self.tasks().resume(Context::default(), &request), limits).map(drop)
    }

    /// Sends a signal to the init of a container, or to all its processes.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn kill(&self, container: &str, signal: u32, all: bool, limits: &Limits) -> Result<(), ClientError> {
        let request =
            task::KillRequest { id: container.to_owned(), signal, all, ..task::KillRequest::default() };
        self.answer(self.tasks().kill(Context::default(), &request), limits).map(drop)
    }

    /// Waits for an answer within the caller's limits. The shim goes on with what it was asked for.
    pub(super) fn answer<T>(
        &self,
        call: impl Future<Output = ttrpc::Result<T>>,
        limits: &Limits,
    ) -> Result<T, ClientError> {
        self.runtime.block_on(async {
            tokio::pin!(call);
            loop {
                tokio::select! {
                    result = &mut call => return Ok(result?),
                    () = tokio::time::sleep(LOOK_EVERY) => {}
                }
                limits.check().map_err(ClientError::Unanswered)?;
            }
        })
    }
}
