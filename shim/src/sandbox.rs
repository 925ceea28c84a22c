//! The sandbox of `sandboxer = "shim"`: namespaces without a pause container.
//!
//! A tiny process of this same binary ([`holder`]) keeps the pod's network, IPC, UTS and, if shared, PID namespace
//! alive; CRI names them to each container as `/proc/<holder>/ns/…`. What the pause container's controller would put
//! on disk (hosts, resolv.conf, hostname, /dev/shm) is made by [`files`] where CRI looks for it.

pub(crate) mod files;
pub(crate) mod holder;
pub(crate) mod plan;
mod service;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use cryopod_checkpoint::fault;
use cryopod_checkpoint::kind::Kind;
use cryopod_runtime::cgroup::Cgroup;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::watch;

use crate::bundle::{BundleError, State as BundleState};
use crate::error::{TaskError, blocking};
use crate::exits::{self, Child, Exit, Registry};
use crate::rpc::Failure;
use files::Files;
use plan::{Plan, PlanError};
pub(crate) use service::SandboxService;

/// The holder ends at once when it is killed.
const HOLDER_ENDS_WITHIN: Duration = Duration::from_secs(5);

/// A request about the sandbox failed.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The shim serves another one, or none yet.
    #[error("sandbox {0} does not exist in this shim")]
    Unknown(String),
    /// There is one already.
    #[error("sandbox {0} exists already")]
    Exists(String),
    /// Start before Create, twice, or after Stop.
    #[error("sandbox {id} is {state}")]
    State {
        /// Sandbox id.
        id: String,
        /// `not started`, `started`, `stopped`.
        state: &'static str,
    },
    /// The configuration cannot be served.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Files for the pod cannot be made.
    #[error("make {path}: {source}", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The process that holds the namespaces cannot be started.
    #[error("start the namespace holder: {0}")]
    Holder(String),
    /// Bundle files.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// Containers of the pod.
    #[error(transparent)]
    Task(#[from] TaskError),
}

impl Failure for SandboxError {
    fn kind(&self) -> Kind {
        match self {
            SandboxError::Unknown(_) => Kind::NotFound,
            SandboxError::Exists(_) => Kind::AlreadyExists,
            SandboxError::State { .. } => Kind::FailedPrecondition,
            SandboxError::Plan(error) => error.kind(),
            SandboxError::File { .. } | SandboxError::Holder(_) | SandboxError::Bundle(_) => Kind::Internal,
            SandboxError::Task(error) => error.kind(),
        }
    }
}

/// A sandbox made through the Sandbox API.
pub struct Sandbox {
    id: String,
    namespace: String,
    bundle: PathBuf,
    plan: Plan,
    files: Files,
    inner: Mutex<Inner>,
    done: watch::Sender<Option<Exit>>,
}

/// Guarded by `Sandbox::inner`, held for moments.
struct Inner {
    phase: Phase,
    child: Option<Arc<Child>>,
    created_at: SystemTime,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Created,
    Starting,
    Ready,
    Stopped,
}

/// What can be seen of a sandbox.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    /// Whether its namespaces are there.
    pub ready: bool,
    /// PID of the holder; 0 before the start.
    pub pid: u32,
    /// When it was started.
    pub created_at: SystemTime,
    /// When and how it ended.
    pub exit: Option<Exit>,
}

impl Sandbox {
    /// A sandbox that is not started.
    pub fn new(id: &str, namespace: &str, bundle: PathBuf, plan: Plan, files: Files) -> Arc<Self> {
        Arc::new(Self {
            id: id.to_owned(),
            namespace: namespace.to_owned(),
            bundle,
            plan,
            files,
            inner: Mutex::new(Inner { phase: Phase::Created, child: None, created_at: SystemTime::now() }),
            done: watch::Sender::new(None),
        })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Plain assignments only, so a panic leaves nothing half done.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// cgroup of the pod, if CRI gave one.
    pub fn cgroup(&self) -> Option<&Cgroup> {
        self.plan.cgroup.as_ref()
    }

    /// The namespaces of its own, as an OCI spec names them.
    pub fn namespaces(&self) -> serde_json::Value {
        let (holder, pid) = (&self.plan.holder, self.seen().pid);
        let mut list = Vec::new();
        if let Some(netns) = &holder.netns {
            list.push(serde_json::json!({"type": "network", "path": netns}));
        }
        let own = [("ipc", holder.ipc), ("uts", holder.hostname.is_some()), ("pid", holder.pid)];
        for (kind, _) in own.into_iter().filter(|(_, own)| *own && pid > 0) {
            list.push(serde_json::json!({"type": kind, "path": format!("/proc/{pid}/ns/{kind}")}));
        }
        list.into()
    }

    /// Whether it still keeps the shim alive.
    pub fn is_active(&self) -> bool {
        self.inner().phase != Phase::Stopped
    }

    /// Makes files and namespaces.
    ///
    /// # Errors
    /// See [`SandboxError`]; then nothing of it is left.
    pub async fn start(self: &Arc<Self>, registry: &Registry) -> Result<Seen, SandboxError> {
        {
            let mut inner = self.inner();
            if inner.phase != Phase::Created {
                let state = if inner.phase == Phase::Stopped { "stopped" } else { "started" };
                return Err(SandboxError::State { id: self.id.clone(), state });
            }
            inner.phase = Phase::Starting;
        }
        let this = self.clone();
        let _expecting = registry.expect();
        let held = blocking(move || Ok::<_, TaskError>(this.make())).await;
        self.begun(held.map_err(SandboxError::from).and_then(|made| made), registry).await
    }

    /// Takes over the holder, unless Stop came while it was made: then it goes again, since nobody else knows of it.
    async fn begun(
        self: &Arc<Self>,
        made: Result<u32, SandboxError>,
        registry: &Registry,
    ) -> Result<Seen, SandboxError> {
        let child = match made.and_then(|pid| watch_holder(pid, registry)) {
            Ok(child) => Arc::new(child),
            Err(error) => {
                self.files.remove();
                self.inner().phase = Phase::Stopped;
                return Err(error);
            }
        };
        let wanted = {
            let mut inner = self.inner();
            let wanted = inner.phase == Phase::Starting;
            if wanted {
                inner.phase = Phase::Ready;
                inner.child = Some(child.clone());
                inner.created_at = SystemTime::now();
            }
            wanted
        };
        if !wanted {
            child.signal(libc::SIGKILL).ok();
            if tokio::time::timeout(HOLDER_ENDS_WITHIN, child.ended()).await.is_err() {
                tracing::error!(pid = child.pid(), "the namespace holder does not end");
            }
            // Again: they may have been made after Stop removed them.
            self.files.remove();
            return Err(SandboxError::State { id: self.id.clone(), state: "stopped" });
        }
        let this = self.clone();
        tokio::spawn(async move {
            let exit = child.ended().await;
            this.inner().phase = Phase::Stopped;
            this.done.send_replace(Some(exit));
        });
        Ok(self.seen())
    }

    /// The note for `delete` first, then what it is to remove. Blocks.
    fn make(&self) -> Result<u32, SandboxError> {
        let state = BundleState::new(&self.id, &self.namespace, &self.id);
        state.write(&self.bundle)?;
        self.files.make()?;
        let held = holder::spawn(&self.plan.holder).map_err(SandboxError::Holder)?;
        let pid = held.pid;
        fault::step("shim.sandbox.held").map_err(|error| SandboxError::Holder(error.to_string()))?;
        BundleState { pid, pid_started: exits::start_time(pid).unwrap_or(0), ..state }.write(&self.bundle)?;
        if self.inner().phase != Phase::Starting {
            // Stopped meanwhile: a holder that is not told to stay ends with `held`.
            return Err(SandboxError::State { id: self.id.clone(), state: "stopped" });
        }
        held.stay().map_err(|error| SandboxError::Holder(error.to_string()))?;
        Ok(pid)
    }

    /// What can be seen of it now.
    pub fn seen(&self) -> Seen {
        let inner = self.inner();
        Seen {
            ready: inner.phase == Phase::Ready,
            pid: inner.child.as_ref().map_or(0, |child| child.pid()),
            created_at: inner.created_at,
            exit: *self.done.borrow(),
        }
    }

    /// Becomes `Some` when the namespaces are gone.
    pub fn done(&self) -> watch::Receiver<Option<Exit>> {
        self.done.subscribe()
    }

    /// Lets go of namespaces and files. Idempotent.
    pub async fn stop(&self) {
        let child = self.inner().child.clone();
        match child {
            Some(child) => {
                child.signal(libc::SIGKILL).ok();
                let mut done = self.done();
                if tokio::time::timeout(HOLDER_ENDS_WITHIN, done.wait_for(Option::is_some)).await.is_err() {
                    tracing::error!(pid = child.pid(), "the namespace holder does not end");
                }
            }
            None => {
                self.inner().phase = Phase::Stopped;
                self.done.send_replace(Some(Exit { status: 0, at: SystemTime::now() }));
            }
        }
        self.files.remove();
    }
}

/// Watches a holder that stays; one that cannot be watched would stay for ever, so it is killed.
fn watch_holder(pid: u32, registry: &Registry) -> Result<Child, SandboxError> {
    Child::open(pid, registry).map_err(|error| {
        if let Ok(raw) = i32::try_from(pid) {
            // Its number is its own: it is our child, and nobody has reaped it.
            kill(Pid::from_raw(raw), Signal::SIGKILL).ok();
        }
        SandboxError::Holder(format!("watch process {pid}: {error}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sandbox() -> Arc<Sandbox> {
        Sandbox::new("s", "ns", PathBuf::new(), Plan::default(), Files::none())
    }

    /// A child that stands for the holder and that std does not reap.
    fn holder() -> u32 {
        let child = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        let pid = child.id();
        std::mem::forget(child);
        pid
    }

    #[tokio::test]
    async fn a_sandbox_that_is_stopped_while_it_starts_leaves_no_holder() {
        let (sandbox, pid) = (sandbox(), holder());
        sandbox.inner().phase = Phase::Starting;
        sandbox.stop().await;
        let error = sandbox.begun(Ok(pid), &Registry::default()).await.unwrap_err();
        assert!(matches!(error, SandboxError::State { state: "stopped", .. }), "{error}");
        assert!(!sandbox.is_active() && !sandbox.seen().ready);
        assert!(exits::start_time(pid).is_none(), "ended and reaped");
    }

    #[tokio::test]
    async fn a_sandbox_that_nobody_stops_has_its_holder_until_it_is_stopped() {
        let (sandbox, pid) = (sandbox(), holder());
        sandbox.inner().phase = Phase::Starting;
        let seen = sandbox.begun(Ok(pid), &Registry::default()).await.unwrap();
        assert!(seen.ready && seen.pid == pid);
        sandbox.stop().await;
        assert!(!sandbox.is_active());
        assert_eq!(sandbox.seen().exit.map(|exit| exit.status), Some(137));
    }
}
