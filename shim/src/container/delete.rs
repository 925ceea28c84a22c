//! Delete of a container or an exec.
//!
//! CRI cancels after 10 s and comes again, so all steps together end before, and each may be repeated: what one Delete
//! has done, the next one finds done. What could not be drained by then is lost, as with containerd's own shim.
//!
//! ```text
//! 0 s        2 s                          6 s    6.5 s     7.5 s                9.3 s     10 s
//! ├─ turn ───┼─ runtime, and streams ─────┼ exit ┼─ swap ──┼─ unmount, store ───┤         CRI cancels
//! ```
//! A step may use what the ones before it have left, so a Delete that waited for nobody has all the time for the rest.
//! A capture is waited for and not cancelled: who deletes a pod right after its checkpoint wants both.

use std::sync::Arc;
use std::time::{Duration, Instant};

use containerd_shim_protos::events::task::TaskDelete;
use cryopod_command::Limits;
use tokio::sync::RwLockWriteGuard;
use tokio::task::JoinSet;

use super::{Container, REMOVE_WITHIN};
use crate::error::{TaskError, blocking};
use crate::events::{Event, timestamp};
use crate::exits::Exit;
use crate::io::Io;
use crate::members;
use crate::mounts;
use crate::process::state::{Change, State};

/// By when another operation on the container has to be over.
const TURN_BY: Duration = Duration::from_secs(2);
/// By when the runtime has removed it. A runtime needs a fraction of a second, on a loaded node some.
const REMOVED_BY: Duration = Duration::from_secs(6);
/// By when the exit of what was killed now is known.
const EXITED_BY: Duration = Duration::from_millis(6500);
/// By when its dataset has its name back.
const SWAPPED_BY: Duration = Duration::from_millis(7500);
/// By when all is done; of that, unmounting a busy root takes up to a second.
const LET_GO_BY: Duration = Duration::from_millis(9300);

/// The time since a Delete began.
#[derive(Debug, Clone, Copy)]
struct Clock(Instant);

impl Clock {
    fn until(self, end: Duration) -> Duration {
        end.saturating_sub(self.0.elapsed())
    }
}

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
    /// While it runs, while something else is done to it, and when something of it cannot be removed; then Delete may
    /// be repeated.
    pub async fn delete(self: &Arc<Self>) -> Result<Deleted, TaskError> {
        let clock = Clock(Instant::now());
        let _op = self.turn_to_delete(clock).await?;
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
        let removed = blocking(move || backend.delete(&id, &Limits::within(clock.until(REMOVED_BY))));
        let (removed, ()) = tokio::join!(removed, self.drain(streams, clock.until(REMOVED_BY)));
        removed?;
        if state == State::Created && self.inner().init.child.is_some() {
            // The runtime killed what was created; its exit comes before the delete event.
            let mut done = self.inner().init.done();
            let ended = done.wait_for(Option::is_some);
            drop(tokio::time::timeout(clock.until(EXITED_BY), ended).await);
        }
        self.finish_checkpoint(clock.until(SWAPPED_BY)).await;
        let this = self.clone();
        blocking(move || {
            mounts::unmount_all(&this.rootfs())?;
            this.let_go(&Limits::within(clock.until(LET_GO_BY)))?;
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

    async fn turn_to_delete(&self, clock: Clock) -> Result<RwLockWriteGuard<'_, ()>, TaskError> {
        if self.inner().init.state == State::Creating {
            // Its creator has given up and asks once: nobody would come again to remove what it still makes.
            return Ok(self.turn("delete").await);
        }
        let turn = tokio::time::timeout(clock.until(TURN_BY), self.turn("delete")).await;
        turn.map_err(|_| TaskError::Occupied { id: self.id.clone(), doing: self.inner().doing })
    }

    /// Waits for the output of all processes at once: one that nobody reads takes no time from the others.
    async fn drain(&self, streams: Vec<Arc<Io>>, patience: Duration) {
        let patience = patience.min(REMOVE_WITHIN);
        let mut drained = JoinSet::new();
        for io in streams {
            drained.spawn(async move { io.drain(patience).await });
        }
        while let Some(whole) = drained.join_next().await {
            if !whole.unwrap_or(false) {
                tracing::warn!(id = self.id, "a stream of the container did not end; its rest is lost");
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_has_some_time_and_all_end_before_cri_gives_up() {
        let ends = [Duration::ZERO, TURN_BY, REMOVED_BY, EXITED_BY, SWAPPED_BY, LET_GO_BY];
        for pair in ends.windows(2) {
            assert!(pair[1] >= pair[0] + Duration::from_millis(500), "{pair:?}");
        }
        assert!(LET_GO_BY <= Duration::from_millis(9500));
    }
}
