//! Exits and OOM kills.
//!
//! Invariant: the init exit is the last exit published of a container. Achieved by (1) killing what is left when init
//! did not take its PID namespace with it, (2) waiting for every exec that may run, (3) only then moving init to
//! STOPPED and queueing its TaskExit, under one lock. TaskOOM precedes it because the counters are read again first.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use containerd_shim_protos::events::task::{TaskExit, TaskOOM};
use cryopod_command::Limits;
use cryopod_runtime::oom::{self, OomWatch};
use tokio::io::Interest;

use super::{Container, STEP_WITHIN};
use crate::error::{TaskError, blocking};
use crate::events::{Event, timestamp};
use crate::exits::{Child, Exit};
use crate::process::Process;
use crate::process::state::{Change, State};
use crate::sys;

/// An exec that does not end after SIGKILL hangs in the kernel; the pod must not wait for it for ever.
const EXECS_END_WITHIN: Duration = Duration::from_secs(30);

impl Container {
    /// Follows init to its end.
    pub(super) fn watch_init(self: &Arc<Self>) {
        let Some(child) = self.inner().init.child.clone() else { return };
        let this = self.clone();
        tokio::spawn(async move {
            let exit = child.ended().await;
            this.publish_oom();
            let state = this.inner().init.apply(Change::Exited(exit));
            match state {
                Ok(State::Exiting(exit)) => this.finish_init(exit),
                // Start publishes TaskStart first and goes on from there.
                Ok(_) => {}
                Err(error) => tracing::error!(id = this.id, %error, "an exit that fits no state"),
            }
        });
    }

    /// Publishes the exit of init once nothing else of the container runs.
    pub(super) fn finish_init(self: &Arc<Self>, exit: Exit) {
        let this = self.clone();
        tokio::spawn(async move {
            if this.brief.shares_pid_namespace() {
                this.kill_leftovers().await;
            }
            this.await_execs().await;
            let mut inner = this.inner();
            if let Err(error) = inner.init.apply(Change::Drained) {
                tracing::error!(id = this.id, %error, "an end that fits no state");
                return;
            }
            let event = exit_event(&this.id, &this.id, &inner.init, exit);
            inner.init.slots.publish(&event);
            tracing::debug!(id = this.id, status = exit.status, "init ended");
        });
    }

    async fn kill_leftovers(&self) {
        let (backend, id, pid) = (self.backend(), self.id.clone(), self.inner().init.pid());
        let kill = move || backend.kill(&id, pid, libc::SIGKILL, true, &Limits::within(STEP_WITHIN));
        if let Err(error) = blocking(kill).await {
            tracing::debug!(id = self.id, %error, "nothing left to kill");
        }
    }

    async fn await_execs(&self) {
        let live: Vec<_> =
            self.inner().execs.values().filter(|exec| exec.state.is_live()).map(Process::done).collect();
        let all = async {
            for mut done in live {
                done.wait_for(Option::is_some).await.ok();
            }
        };
        if tokio::time::timeout(EXECS_END_WITHIN, all).await.is_err() {
            tracing::error!(
                id = self.id,
                "an exec does not end after its container did; not waiting any longer"
            );
        }
    }

    /// Follows an exec to its end.
    pub(super) fn watch_exec(self: &Arc<Self>, exec_id: &str, child: Arc<Child>) {
        let (this, exec_id) = (self.clone(), exec_id.to_owned());
        tokio::spawn(async move {
            let exit = child.ended().await;
            let mut inner = this.inner();
            let Some(exec) = inner.execs.get_mut(&exec_id) else { return };
            if let Err(error) = exec.apply(Change::Exited(exit)).and_then(|_| exec.apply(Change::Drained)) {
                tracing::error!(id = this.id, exec = exec_id, %error, "an exit that fits no state");
                return;
            }
            let event = exit_event(&this.id, &exec_id, exec, exit);
            exec.slots.publish(&event);
        });
    }

    /// Forgets an exec at its end, since nobody comes to delete it: else its record, its id and its room for events
    /// would be kept as long as the container.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn release_exec(self: &Arc<Self>, exec_id: &str) -> Result<(), TaskError> {
        let mut done = self.done(exec_id)?;
        // One that is never started ends with its container, which this must not keep.
        let (this, exec_id) = (Arc::downgrade(self), exec_id.to_owned());
        tokio::spawn(async move {
            if done.wait_for(Option::is_some).await.is_err() {
                return;
            }
            let Some(this) = this.upgrade() else { return };
            if let Err(error) = this.delete_exec(&exec_id).await {
                tracing::debug!(id = this.id, exec = exec_id, %error, "somebody else has forgotten it");
            }
        });
        Ok(())
    }

    /// Reports kills for want of memory as they happen.
    pub(super) fn watch_oom(self: &Arc<Self>, watch: OomWatch) {
        self.inner().oom_kills = watch.kills().container;
        let readable =
            watch.as_fd().try_clone_to_owned().and_then(|fd| sys::async_fd(fd, Interest::READABLE));
        let readable = match readable {
            Ok(readable) => readable,
            Err(error) => {
                tracing::info!(id = self.id, %error, "kills for want of memory are seen at the exit only");
                return;
            }
        };
        let this = Arc::downgrade(self);
        tokio::spawn(async move {
            while let Ok(mut ready) = readable.readable().await {
                ready.clear_ready();
                watch.drain();
                let Some(this) = this.upgrade() else { return };
                this.publish_oom();
                if this.inner().init.state.ended().is_some() {
                    return;
                }
            }
        });
    }

    /// Publishes TaskOOM if the kernel has killed since the last look.
    fn publish_oom(&self) {
        let mut inner = self.inner();
        let Some(cgroup) = &inner.cgroup else { return };
        let kills = oom::kills(cgroup).container;
        if kills <= inner.oom_kills || inner.init.state.ended().is_some() {
            return;
        }
        inner.oom_kills = kills;
        let mut event = TaskOOM::new();
        event.container_id.clone_from(&self.id);
        inner.init.slots.publish(&Event::Oom(event));
    }
}

fn exit_event(container: &str, id: &str, process: &Process, exit: Exit) -> Event {
    let mut event = TaskExit::new();
    event.container_id = container.to_owned();
    event.id = id.to_owned();
    event.pid = process.pid();
    event.exit_status = exit.status;
    event.exited_at = Some(timestamp(exit.at)).into();
    Event::Exit(event)
}
