//! The one trait that every kind of container implements: OCI runtimes today, LXC, Proxmox and VMs next.
//!
//! No downcasts: what a backend cannot do it declares in [`Capabilities`], and the call answers
//! [`Kind::Unimplemented`](cryopod_checkpoint::kind::Kind). All calls block; the shim runs them off its event loop.
//! A call concerns one container; callers hold that container's lock and no other.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use cryopod_checkpoint::target::{AtInstant, DumpOptions, DumpStats, ImageDir, Member, TcpPolicy};
use cryopod_command::Limits;
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// What a backend can do; shown by `cryopod doctor` and `-info`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// Memory can be captured and brought back.
    pub memory_checkpoint: bool,
    /// Pre-dump rounds shorten the freeze.
    pub pre_dump: bool,
    /// Terminals.
    pub terminal: bool,
    /// Further processes in a running container.
    pub exec: bool,
    /// Pause and resume.
    pub pause: bool,
    /// Limits can be changed while it exists.
    pub update: bool,
}

/// Where a process gets its standard streams.
#[derive(Debug)]
pub enum Stdio {
    /// Three descriptors (pipes, never host files: CRIU refuses those); `None` is the null device.
    Pipes {
        /// Read end for the process.
        stdin: Option<OwnedFd>,
        /// Write end for the process.
        stdout: Option<OwnedFd>,
        /// Write end for the process.
        stderr: Option<OwnedFd>,
    },
    /// A terminal, whose master the runtime sends to this unix socket (SCM_RIGHTS).
    Terminal {
        /// Path of a listening socket.
        console_socket: PathBuf,
    },
}

/// What `create` and `restore` need.
#[derive(Debug)]
pub struct CreateRequest<'a> {
    /// Container id.
    pub id: &'a str,
    /// Bundle directory with `config.json` and a mounted `rootfs`.
    pub bundle: &'a Path,
    /// Standard streams.
    pub stdio: Stdio,
}

/// How memory comes back.
#[derive(Debug, Clone)]
pub struct RestoreRequest<'a> {
    /// CRIU images of this container; read only, never written to.
    pub images: &'a Path,
    /// Writable directory for logs and scratch files.
    pub work: &'a Path,
    /// Established TCP connections: `Keep` needs the same address.
    pub tcp: TcpPolicy,
    /// The container comes back frozen, before it has run an instruction; [`Backend::resume`] lets it go. For members
    /// of a pod that wait for the others.
    pub frozen: bool,
}

/// A further process in a container.
#[derive(Debug)]
pub struct ExecRequest<'a> {
    /// Container id.
    pub id: &'a str,
    /// Exec id, unique in the container.
    pub exec_id: &'a str,
    /// OCI `Process` as JSON.
    pub process: &'a serde_json::Value,
    /// Bundle directory, for the PID file and the log.
    pub bundle: &'a Path,
    /// Standard streams.
    pub stdio: Stdio,
}

/// One kind of container.
pub trait Backend: Send + Sync {
    /// Backend and runtime, e.g. `oci/crun`.
    fn name(&self) -> &str;

    /// What it can do on this node.
    fn capabilities(&self) -> Capabilities;

    /// OCI runtime features (`features.json` of the runtime spec), if the runtime reports them.
    fn features(&self, limits: &Limits) -> Result<Option<serde_json::Value>, Error>;

    /// Prepares the container; its init waits to be started. Returns the PID of init, a child of the nearest
    /// subreaper.
    fn create(&self, request: CreateRequest<'_>, limits: &Limits) -> Result<u32, Error>;

    /// Lets init run.
    fn start(&self, id: &str, limits: &Limits) -> Result<(), Error>;

    /// Brings memory back instead of create + start; the process runs on return. Returns the PID of init. A failure
    /// leaves no process, cgroup, mount or firewall rule.
    fn restore(
        &self,
        request: CreateRequest<'_>,
        restore: &RestoreRequest<'_>,
        limits: &Limits,
    ) -> Result<u32, Error>;

    /// Runs a further process and returns its PID.
    fn exec(&self, request: ExecRequest<'_>, limits: &Limits) -> Result<u32, Error>;

    /// Sends a raw signal number (real-time signals included) to init, or to all tasks.
    fn kill(&self, id: &str, pid: u32, signal: i32, all: bool, limits: &Limits) -> Result<(), Error>;

    /// Removes everything of a container, killing what still runs. Idempotent: absent is success.
    fn delete(&self, id: &str, limits: &Limits) -> Result<(), Error>;

    /// Stops all tasks.
    fn pause(&self, id: &str, limits: &Limits) -> Result<(), Error>;

    /// Lets them go on.
    fn resume(&self, id: &str, limits: &Limits) -> Result<(), Error>;

    /// Applies OCI `LinuxResources` (JSON), in any state.
    fn update(&self, id: &str, resources: &serde_json::Value, limits: &Limits) -> Result<(), Error>;

    /// cgroup v2 directory of the container, absolute.
    fn cgroup(&self, id: &str, pid: u32) -> Result<PathBuf, Error>;

    /// One pre-dump round (see [`cryopod_checkpoint::target::Target::pre_dump`]).
    fn pre_dump(&self, member: &Member, images: &ImageDir, limits: &Limits) -> Result<DumpStats, Error>;

    /// Dumps memory (see [`cryopod_checkpoint::target::Target::dump`]).
    fn dump(
        &self,
        member: &Member,
        images: &ImageDir,
        options: &DumpOptions,
        at_instant: &AtInstant<'_>,
        limits: &Limits,
    ) -> Result<DumpStats, Error>;
}
