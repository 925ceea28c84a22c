//! One process of a container – its init or an exec – as containerd knows it.
//!
//! [`state`] holds what may follow what. A [`Process`] lives inside its container's `Inner` and is changed under
//! that lock only, where its events are queued as well: order of states is order of events.

pub mod state;

use std::sync::Arc;

use tokio::sync::watch;

use crate::events::Slots;
use crate::exits::{Child, Exit};
use crate::io::{Io, StdioPaths};
pub use state::{Change, State};

/// Events that a process may publish in its life: created or added, started, exit, delete.
pub const EVENTS_PER_PROCESS: u32 = 4;

/// An init or an exec.
pub struct Process {
    /// Empty for init.
    pub exec_id: String,
    /// Where it stands.
    pub state: State,
    /// The process itself, from the moment its PID is known.
    pub child: Option<Arc<Child>>,
    /// Paths that containerd gave, echoed in State.
    pub stdio: StdioPaths,
    /// Its streams, from the moment they are open.
    pub io: Option<Arc<Io>>,
    /// OCI `Process` of an exec.
    pub spec: serde_json::Value,
    /// Room for its events.
    pub slots: Slots,
    done: watch::Sender<Option<Exit>>,
}

impl Process {
    /// A process that does not run yet.
    pub fn new(exec_id: &str, state: State, stdio: StdioPaths, slots: Slots) -> Self {
        Self {
            exec_id: exec_id.to_owned(),
            state,
            child: None,
            stdio,
            io: None,
            spec: serde_json::Value::Null,
            slots,
            done: watch::Sender::new(None),
        }
    }

    /// PID on the host, 0 while there is none.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, |child| child.pid())
    }

    /// Applies `change`; on the way into STOPPED wakes everybody who waits.
    ///
    /// # Errors
    /// When the change is not allowed now; then nothing is changed.
    pub fn apply(&mut self, change: Change) -> Result<State, state::Refused> {
        let next = self.state.transition(change)?;
        self.state = next;
        match next {
            // State is STOPPED before any Wait returns: CRI deletes right after Wait and refuses otherwise.
            State::Stopped(exit) => {
                self.done.send_replace(Some(exit));
            }
            // Nobody waits for ever for what was deleted before it ran.
            State::Deleted if self.done.borrow().is_none() => {
                self.done.send_replace(Some(Exit::unknown()));
            }
            _ => {}
        }
        Ok(next)
    }

    /// Becomes `Some` when the process is STOPPED.
    pub fn done(&self) -> watch::Receiver<Option<Exit>> {
        self.done.subscribe()
    }
}
