//! One container of the pod: its init, its execs, and the lock that orders what is done to it.
//!
//! Two locks. `op` (asynchronous) serialises what changes the container through its runtime – start, pause, resume,
//! checkpoint, update, delete; starts of execs share it, and the commit of a checkpoint whose containers run again. It may be held for as long as a runtime call takes. `inner`
//! is held for moments only and guards states and the order of events. State, Wait, Pids, Connect and Kill take
//! `inner` alone, so a slow runtime call of this container delays none of them, and of another container nothing.

mod checkpoint;
mod create;
mod delete;
mod exec;
mod exit;
mod freeze;
mod query;
mod signal;
mod start;
mod update;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cryopod_checkpoint::lock::Share;
use cryopod_runtime::backend::{Backend, Stdio};
use cryopod_runtime::cgroup::Cgroup;
use cryopod_zfs::DatasetName;
use tokio::sync::{RwLock, RwLockWriteGuard, watch};

use crate::backends::Chosen;
use crate::bundle::{Brief, State as BundleState};
use crate::capture::cri::Pending;
use crate::capture::marks::Marks;
use crate::error::TaskError;
use crate::events::Publisher;
use crate::exits::Registry;
use crate::io::{Owner, Prepared};
use crate::members;
use crate::process::Process;
use crate::process::state::{Change, State};
use crate::together::{Company, Together};

pub use checkpoint::end;
pub use create::New;
pub use delete::Deleted;

/// A runtime makes or starts a container in well under a second; kubelet waits two minutes for either.
const CREATE_WITHIN: Duration = Duration::from_secs(110);

/// Signals to all, pause, resume and update are single steps.
const STEP_WITHIN: Duration = Duration::from_secs(30);

/// Taking back a create that failed: its caller has its error by then or has gone.
const UNDO_WITHIN: Duration = Duration::from_secs(9);

/// For streams that do not end although their process has.
const REMOVE_WITHIN: Duration = Duration::from_secs(5);

/// What all containers of a pod share.
pub struct Shared {
    /// containerd namespace.
    pub namespace: String,
    /// Id of the group, that is the sandbox.
    pub group: String,
    /// Bundle of the sandbox, where `delete` looks for all that belongs to it.
    pub home: PathBuf,
    /// Events to containerd.
    pub publisher: Publisher,
    /// PIDs that somebody waits for.
    pub registry: Registry,
    /// Restored containers that wait for the others of their pod.
    pub together: Arc<Together>,
    /// What of the pod was brought back already.
    pub marks: Marks,
}

/// How init comes to life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Launch {
    /// The runtime creates it at Create and starts it at Start.
    Fresh,
    /// Its memory is brought back at Start; Create executes nothing.
    Restore {
        /// CRIU images of this container.
        images: PathBuf,
        /// Writable directory for logs.
        work: PathBuf,
        /// Established TCP connections.
        tcp: cryopod_checkpoint::target::TcpPolicy,
        /// Checkpoint id or directory, for people.
        from: String,
        /// Who comes back with it.
        company: Company,
    },
}

/// A container.
pub struct Container {
    /// Its id.
    pub id: String,
    /// Its bundle.
    pub bundle: PathBuf,
    /// What its spec says.
    pub brief: Brief,
    /// What runs it.
    pub chosen: Chosen,
    /// Its root, where that is a ZFS dataset.
    pub dataset: Option<DatasetName>,
    /// Order of creation in the pod.
    pub number: u64,
    shared: Arc<Shared>,
    op: RwLock<()>,
    inner: Mutex<Inner>,
}

/// Guarded by `Container::inner`.
struct Inner {
    init: Process,
    execs: BTreeMap<String, Process>,
    cgroup: Option<Cgroup>,
    oom_kills: u64,
    bundle_state: BundleState,
    launch: Launch,
    // Checkpoint id or directory that was put in place, to be remembered at the first start.
    placed_from: Option<String>,
    /// Keeps the images of a restore until Start has read them.
    reading: Option<Share>,
    // What a checkpoint for containerd left to do.
    pending: Option<Pending>,
    // Streams of a restore that waits for Start.
    waiting: Option<(Stdio, Prepared)>,
    // Restored and frozen until the others of its checkpoint are back.
    apart: watch::Sender<bool>,
    // What has, or had last, its turn on `op`; for who waits in vain.
    doing: &'static str,
}

impl Container {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        // No code between lock and unlock can leave Inner half changed: `apply` is all or nothing.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for its turn to do something to the container.
    async fn turn(&self, doing: &'static str) -> RwLockWriteGuard<'_, ()> {
        let turn = self.op.write().await;
        self.inner().doing = doing;
        turn
    }

    fn backend(&self) -> Arc<dyn Backend> {
        self.chosen.backend.clone()
    }

    fn owner(&self) -> Owner<'_> {
        Owner {
            id: &self.id,
            namespace: &self.shared.namespace,
            uid: self.chosen.io_uid,
            gid: self.chosen.io_gid,
        }
    }

    /// Writes what `delete` has to know into the bundle, and beside the note of the pod. Blocks.
    fn note(&self, state: &BundleState) -> Result<(), TaskError> {
        state.write(&self.bundle)?;
        Ok(members::note(&self.shared.home, &self.bundle, state)?)
    }

    /// As if a checkpoint without memory had been put in place, for which a test would need a store.
    #[cfg(test)]
    pub fn placed_for_test(&self, from: &str) {
        self.inner().placed_from = Some(from.to_owned());
    }

    /// As if something were done to it.
    #[cfg(test)]
    pub async fn turn_for_test(&self, doing: &'static str) -> RwLockWriteGuard<'_, ()> {
        self.turn(doing).await
    }

    /// The bundle's root file system.
    pub fn rootfs(&self) -> PathBuf {
        self.bundle.join("rootfs")
    }
}

impl Inner {
    fn process(&mut self, id: &str, exec: &str) -> Result<&mut Process, TaskError> {
        if exec.is_empty() {
            return Ok(&mut self.init);
        }
        let missing = || TaskError::NoProcess { id: id.to_owned(), exec: exec.to_owned() };
        self.execs.get_mut(exec).ok_or_else(missing)
    }

    fn change(&mut self, id: &str, exec: &str, change: Change) -> Result<State, TaskError> {
        self.process(id, exec)?.apply(change).map_err(|source| TaskError::State { id: id.to_owned(), source })
    }
}
