//! The caller's side of Control, for programs that do not run tokio themselves.
//!
//! ```no_run
//! # fn main() -> Result<(), cryopod_shim::control::client::ClientError> {
//! for shim in cryopod_shim::discovery::list()? {
//!     let client = cryopod_shim::control::client::Client::connect(&shim.socket)?;
//!     println!("{} runs {} containers", shim.pod.name, client.info()?.containers.len());
//! }
//! # Ok(())
//! # }
//! ```

pub mod exec;
mod tasks;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cryopod_checkpoint::kind::Kind;
use cryopod_checkpoint::refusal::Refusal;
use cryopod_command::{Limits, Stop};
use tokio::runtime::Runtime;
use ttrpc::asynchronous::transport::Socket;
use ttrpc::context::{self, Context};

use super::api;
use crate::proto::control_ttrpc::ControlClient;
use crate::rpc;

/// Everything but a checkpoint answers at once; a shim that does not is stuck.
const QUICK: Duration = Duration::from_secs(10);

/// How often progress and the caller's limits are looked at during a checkpoint.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A shim did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens, or no event loop can be made.
    #[error("reach the shim at {socket}: {source}", socket = socket.display())]
    Connect {
        /// The socket.
        socket: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The shim refused or failed.
    #[error("{message}")]
    Refused {
        /// How to react.
        kind: Kind,
        /// What it said.
        message: String,
        /// Its three parts, where it is a refusal of a checkpoint.
        refusal: Option<Box<Refusal>>,
    },
    /// The connection broke before the answer came; the shim may have died.
    #[error("the shim did not answer: {0}")]
    Lost(String),
    /// The caller's limits ended the call; the pod runs on.
    #[error("stopped waiting for the shim ({0:?}); the pod runs on")]
    Stopped(Stop),
    /// The caller's limits ended the wait; the shim goes on with it.
    #[error("the shim has not answered yet ({0:?}) and goes on; `cryopod state` shows what came of it")]
    Unanswered(Stop),
    /// The directory of shims cannot be read.
    #[error("look for shims: {0}")]
    Discovery(#[from] io::Error),
}

impl ClientError {
    /// How a caller should react.
    pub fn kind(&self) -> Kind {
        match self {
            ClientError::Connect { .. } | ClientError::Lost(_) => Kind::Unavailable,
            ClientError::Refused { kind, .. } => *kind,
            ClientError::Stopped(stop) | ClientError::Unanswered(stop) => Kind::from(*stop),
            ClientError::Discovery(_) => Kind::Internal,
        }
    }
}

impl From<ttrpc::Error> for ClientError {
    fn from(error: ttrpc::Error) -> Self {
        match error {
            ttrpc::Error::RpcStatus(status) => ClientError::Refused {
                kind: rpc::kind(status.code()),
                message: status.message().to_owned(),
                refusal: rpc::refusal(&status).map(Box::new),
            },
            other => ClientError::Lost(other.to_string()),
        }
    }
}

/// A connection to one shim.
pub struct Client {
    runtime: Runtime,
    connection: ttrpc::asynchronous::Client,
    control: ControlClient,
}

/// A connection to one shim, for programs that run tokio themselves and ask often.
pub struct Asking(ControlClient);

impl std::fmt::Debug for Asking {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Asking")
    }
}

impl Asking {
    /// Connects to the socket that [`crate::discovery`] names.
    ///
    /// # Errors
    /// When nobody listens there.
    pub async fn connect(socket: &Path) -> Result<Self, ClientError> {
        let failed = |source| ClientError::Connect { socket: socket.to_owned(), source };
        let stream = tokio::net::UnixStream::connect(socket).await.map_err(failed)?;
        Ok(Self(ControlClient::new(ttrpc::asynchronous::Client::new(Socket::from(stream)))))
    }

    /// Counters in Prometheus text form.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn metrics(&self) -> Result<String, ClientError> {
        Ok(self.0.metrics(quick(), &api::MetricsRequest::new()).await?.text)
    }
}

fn quick() -> Context {
    context::with_duration(QUICK)
}

impl Client {
    /// Connects to the socket that [`crate::discovery`] names.
    ///
    /// # Errors
    /// When nobody listens there.
    pub fn connect(socket: &Path) -> Result<Self, ClientError> {
        let failed = |source| ClientError::Connect { socket: socket.to_owned(), source };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let stream = runtime.block_on(tokio::net::UnixStream::connect(socket)).map_err(failed)?;
        let connection = runtime.block_on(async { ttrpc::asynchronous::Client::new(Socket::from(stream)) });
        let control = ControlClient::new(connection.clone());
        Ok(Self { runtime, connection, control })
    }

    /// What the shim runs.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn info(&self) -> Result<api::InfoResponse, ClientError> {
        Ok(self.runtime.block_on(self.control.info(quick(), &api::InfoRequest::new()))?)
    }

    /// Captures the pod or a container of it. `progress` is called now and then while it runs.
    ///
    /// # Errors
    /// See [`ClientError`]. When `limits` end it, the shim is left by closing the connection, which ends the capture:
    /// the pod runs on and nothing is stored.
    pub fn checkpoint(
        self,
        request: &api::CheckpointRequest,
        progress: &mut dyn FnMut(&api::ProgressResponse),
        limits: &Limits,
    ) -> Result<api::CheckpointResponse, ClientError> {
        self.runtime.block_on(async {
            let capture = self.control.checkpoint(Context::default(), request);
            tokio::pin!(capture);
            loop {
                tokio::select! {
                    result = &mut capture => return Ok(result?),
                    () = tokio::time::sleep(LOOK_EVERY) => {}
                }
                limits.check().map_err(ClientError::Stopped)?;
                let ask = api::ProgressRequest::new();
                tokio::select! {
                    result = &mut capture => return Ok(result?),
                    seen = self.control.progress(quick(), &ask) => {
                        if let Ok(seen) = seen && seen.running {
                            progress(&seen);
                        }
                    }
                }
            }
        })
    }

    /// How far a checkpoint is that somebody else has begun.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn progress(&self) -> Result<api::ProgressResponse, ClientError> {
        Ok(self.runtime.block_on(self.control.progress(quick(), &api::ProgressRequest::new()))?)
    }

    /// Ends a running checkpoint and lets every container run; the ids of those that were frozen.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn thaw(&self) -> Result<Vec<String>, ClientError> {
        Ok(self.runtime.block_on(self.control.thaw(quick(), &api::ThawRequest::new()))?.thawed)
    }

    /// Counters in Prometheus text form.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn metrics(&self) -> Result<String, ClientError> {
        Ok(self.runtime.block_on(self.control.metrics(quick(), &api::MetricsRequest::new()))?.text)
    }
}
