//! The shim's ways into the checkpoint room: whole pods for Control, one container for containerd's Checkpoint, and
//! putting a checkpoint in place of a new container.
//!
//! Everything here blocks and runs off the event loop; callers hold the operation locks of the containers concerned.
//! Configuration, store and journal are opened for each operation and closed again: most pods are never captured, and
//! an idle shim keeps nothing of this in memory.

pub(crate) mod chosen;
pub mod cri;
pub mod marks;
pub(crate) mod node;
pub mod order;
pub mod place;
pub mod release;
pub mod settling;
pub mod stamp;
pub mod stored;

use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use cryopod_checkpoint::capture::CaptureError;
use cryopod_checkpoint::id::NameError;
use cryopod_checkpoint::journal::JournalError;
use cryopod_checkpoint::kind::Kind;
use cryopod_checkpoint::progress::Progress;
use cryopod_checkpoint::refusal::{BUSY, Refusal};
use cryopod_checkpoint::restore::PlaceError;
use cryopod_checkpoint::settle::SettleError;
use cryopod_checkpoint::store::StoreError;
use cryopod_checkpoint::swap::SwapError;
use cryopod_command::Cancel;

use crate::bundle::BundleError;
use crate::rpc::Failure;
pub use node::Node;

/// What whoever comes second is told, with a code: an agent asks again, where all other refusals are for good.
static SECOND: LazyLock<Refusal> = LazyLock::new(|| {
    let text = "a checkpoint of this pod is being taken already";
    Refusal::new(BUSY, text, "try again when it is complete")
});

/// A capture or restore did not come about.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] cryopod_runtime::config::ConfigError),
    /// ZFS is asked for and cannot be used.
    #[error("the configuration asks for ZFS: {0}")]
    NoZfs(cryopod_zfs::DetectError),
    /// `store.zfs.root` is no dataset name.
    #[error("store.zfs.root of the configuration: {0}")]
    StoreRoot(cryopod_zfs::NameError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The capture.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// Putting a checkpoint in place.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// Keeping a dataset whose owner is about to destroy it.
    #[error(transparent)]
    Settle(#[from] SettleError),
    /// The stand-in for containerd's diff.
    #[error(transparent)]
    Swap(#[from] SwapError),
    /// The containers cannot be described.
    #[error(transparent)]
    Runtime(#[from] cryopod_runtime::error::Error),
    /// An id or name of the request.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A choice of the request.
    #[error("{what} {value:?} is unknown; expected {expected}")]
    Choice {
        /// `mode`, `tcp`, …
        what: &'static str,
        /// What was given.
        value: String,
        /// What there is.
        expected: &'static str,
    },
    /// Only one capture of a pod at a time.
    #[error("{}", *SECOND)]
    Busy,
    /// containerd reads the root of one of them.
    #[error(
        "containerd has not finished its own checkpoint of container {0}: try again when its task is resumed"
    )]
    Unfinished(String),
    /// Nothing that could be captured.
    #[error("{0}")]
    Nothing(String),
    /// What is remembered of a restored pod.
    #[error(transparent)]
    Marks(#[from] BundleError),
    /// Containers of one pod with different runtimes.
    #[error("containers {first} and {second} have different runtimes; a pod is captured with one")]
    Mixed {
        /// One.
        first: String,
        /// Another.
        second: String,
    },
    /// The images could not be handed on.
    #[error("{action} {path}: {source}", path = path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: std::path::PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// A pod asks for the memory of another namespace's.
    #[error(
        "checkpoint {checkpoint} is of a pod in namespace {theirs}; a pod in {ours} cannot be restored from it: make the pod in \
         {theirs}"
    )]
    Foreign {
        /// Its id.
        checkpoint: String,
        /// Namespace of the captured pod.
        theirs: String,
        /// Namespace of the new one.
        ours: String,
    },
    /// A checkpoint without memory, where memory is asked for.
    #[error("checkpoint {0} has no memory images")]
    NoMemory(String),
    /// A test asked for it.
    #[error(transparent)]
    Fault(#[from] cryopod_checkpoint::fault::Injected),
}

impl DoorError {
    /// The refusal with its three parts, where this is one.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Capture(error) => error.refusal(),
            Self::Runtime(error) => error.refusal(),
            Self::Busy => Some(&SECOND),
            _ => None,
        }
    }

    fn file(action: &'static str, path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { action, path, source }
    }
}

impl Failure for DoorError {
    fn kind(&self) -> Kind {
        match self {
            DoorError::Config(_)
            | DoorError::StoreRoot(_)
            | DoorError::Name(_)
            | DoorError::Choice { .. } => Kind::InvalidArgument,
            DoorError::Foreign { .. } => Kind::PermissionDenied,
            DoorError::NoZfs(_) => Kind::Unavailable,
            DoorError::Store(error) => error.kind(),
            DoorError::Journal(error) => error.kind(),
            DoorError::Capture(error) => error.kind(),
            DoorError::Place(error) => error.kind(),
            DoorError::Settle(error) => error.kind(),
            DoorError::Swap(error) => error.kind(),
            DoorError::Runtime(error) => error.kind(),
            DoorError::Busy
            | DoorError::Unfinished(_)
            | DoorError::Nothing(_)
            | DoorError::Mixed { .. }
            | DoorError::NoMemory(_) => Kind::FailedPrecondition,
            DoorError::File { .. } | DoorError::Marks(_) | DoorError::Fault(_) => Kind::Internal,
        }
    }
}

/// How far the running capture of a pod is, for whoever asks meanwhile; and the switch that ends it.
#[derive(Debug, Default)]
pub struct Watch(Mutex<Seen>);

/// One look at a [`Watch`].
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Whether a capture runs.
    pub running: bool,
    /// The present step.
    pub step: String,
    /// Bytes done of it.
    pub done: u64,
    /// Bytes in all, where known.
    pub total: Option<u64>,
    /// Ends the capture; the pod runs on.
    pub cancel: Option<Cancel>,
}

impl Watch {
    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        // Plain values: whatever was written last is good to read.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What can be seen now.
    pub fn look(&self) -> Seen {
        self.seen().clone()
    }

    /// Marks a capture as running; `None` when one runs already. The mark goes with the returned guard.
    pub fn begin(self: &Arc<Self>, cancel: Cancel) -> Option<Running> {
        let mut seen = self.seen();
        if seen.running {
            return None;
        }
        *seen = Seen { running: true, step: "begin".to_owned(), cancel: Some(cancel), ..Seen::default() };
        Some(Running(self.clone()))
    }
}

impl Progress for Watch {
    fn step(&self, name: &str) {
        let mut seen = self.seen();
        name.clone_into(&mut seen.step);
        (seen.done, seen.total) = (0, None);
    }

    fn bytes(&self, done: u64, total: Option<u64>) {
        let mut seen = self.seen();
        (seen.done, seen.total) = (done, total);
    }
}

/// A capture that runs.
#[derive(Debug)]
pub struct Running(Arc<Watch>);

impl Running {
    /// Where its progress goes.
    pub fn watch(&self) -> &Watch {
        &self.0
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        *self.0.seen() = Seen::default();
    }
}

/// Named steps of this crate for fault injection.
pub const STEPS: &[&str] = &[
    "shim.cri.taken",
    "shim.cri.copied",
    "shim.cri.committed",
    "shim.cri.swapped",
    "shim.resume.swap-back",
    "shim.delete.adopt",
    "shim.create.placed",
    "shim.create.mounted",
    "shim.start.restored",
    "shim.sandbox.held",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_capture_runs_and_its_progress_can_be_seen() {
        let watch = Arc::new(Watch::default());
        let cancel = Cancel::new();
        let running = watch.begin(cancel.clone()).unwrap();
        assert!(watch.begin(Cancel::new()).is_none());
        running.watch().step("freeze");
        running.watch().bytes(1, Some(2));
        let seen = watch.look();
        assert_eq!((seen.running, seen.step.as_str(), seen.done, seen.total), (true, "freeze", 1, Some(2)));
        seen.cancel.unwrap().cancel();
        assert!(cancel.is_cancelled());
        drop(running);
        assert!(!watch.look().running);
        assert!(watch.begin(Cancel::new()).is_some());
    }
}
