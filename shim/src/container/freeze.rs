//! Pause and resume.

use std::sync::Arc;
use std::time::Duration;

use containerd_shim_protos::events::task::{TaskPaused, TaskResumed};
use cryopod_command::Limits;

use super::{Container, Inner, STEP_WITHIN};
use crate::error::{TaskError, blocking};
use crate::events::Event;
use crate::process::state::{Change, State};

impl Container {
    /// Freezes all tasks of the container.
    ///
    /// # Errors
    /// When it does not run, or the runtime fails; then it runs on.
    pub async fn pause(self: &Arc<Self>) -> Result<(), TaskError> {
        let mut slots = self.shared.publisher.reserve(1).await?;
        let _op = self.turn("pause").await;
        self.inner().change(&self.id, "", Change::Pause)?;
        let (backend, id) = (self.backend(), self.id.clone());
        let paused = blocking(move || backend.pause(&id, &Limits::within(STEP_WITHIN))).await;
        let mut inner = self.inner();
        match paused {
            Ok(()) => {
                inner.change(&self.id, "", Change::Paused)?;
                let mut event = TaskPaused::new();
                event.container_id.clone_from(&self.id);
                slots.publish(&Event::Paused(event));
                Ok(())
            }
            Err(error) => {
                inner.change(&self.id, "", Change::PauseFailed)?;
                Err(error)
            }
        }
    }

    /// Lets a restored container run that has waited for the others of its checkpoint. After a pause it goes on with
    /// the resume.
    pub(super) fn let_go_on(self: &Arc<Self>) {
        let this = self.clone();
        tokio::spawn(async move {
            let _op = this.turn("resume").await;
            if let Err(error) = this.go_on().await {
                tracing::error!(id = this.id, %error, "a restored container stays frozen; resume its task");
            }
        });
    }

    /// For a process that is to run in it: if this container waits for the others of its checkpoint, so does the
    /// process, but not for long. kubelet runs a postStart hook before it makes the next container and kills the
    /// container whose hook fails, so then the whole pod is let go. A probe has given up by then (one second, unless the
    /// pod says more), and lets nobody go.
    ///
    /// # Errors
    /// When the process was removed meanwhile, or the container cannot be thawed.
    pub(super) async fn wait_no_longer(&self, exec_id: &str, patience: Duration) -> Result<(), TaskError> {
        let waits = |inner: &Inner| *inner.apart.borrow() && inner.init.state == State::Running;
        let mut apart = {
            let inner = self.inner();
            if !waits(&inner) {
                return Ok(());
            }
            inner.apart.subscribe()
        };
        if tokio::time::timeout(patience, apart.wait_for(|apart| !apart)).await.is_ok() {
            return Ok(());
        }
        // A start that still runs has told the others by then.
        let _op = self.op.write().await;
        {
            let mut inner = self.inner();
            inner.process(&self.id, exec_id)?;
            if !waits(&inner) {
                return Ok(());
            }
        }
        tracing::warn!(
            id = self.id,
            exec = exec_id,
            "a process is to run in a container that waits for others of its checkpoint: those that are back go on alone"
        );
        self.shared.together.give_up();
        self.go_on().await
    }

    /// Thaws what has waited, once; under the operation lock.
    async fn go_on(&self) -> Result<(), TaskError> {
        let waits = {
            let inner = self.inner();
            inner.apart.send_replace(false) && inner.init.state == State::Running
        };
        if !waits {
            return Ok(());
        }
        let (backend, id) = (self.backend(), self.id.clone());
        blocking(move || backend.resume(&id, &Limits::within(STEP_WITHIN))).await
    }

    /// Lets a paused container run again.
    ///
    /// # Errors
    /// When it is not paused, or the runtime fails; then it stays paused.
    pub async fn resume(self: &Arc<Self>) -> Result<(), TaskError> {
        let mut slots = self.shared.publisher.reserve(1).await?;
        let _op = self.turn("resume").await;
        let state = self.inner().init.state;
        state
            .transition(Change::Resumed)
            .map_err(|source| TaskError::State { id: self.id.clone(), source })?;
        if state == State::Paused {
            let (backend, id) = (self.backend(), self.id.clone());
            blocking(move || backend.resume(&id, &Limits::within(STEP_WITHIN))).await?;
        }
        // Only after the container runs: giving the dataset its name back may take a moment.
        let resumed = {
            let mut inner = self.inner();
            inner.change(&self.id, "", Change::Resumed)
        };
        self.finish_checkpoint(STEP_WITHIN).await;
        resumed?;
        let mut event = TaskResumed::new();
        event.container_id.clone_from(&self.id);
        slots.publish(&Event::Resumed(event));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Instant;

    use super::*;
    use crate::io::StdioPaths;
    use crate::tests::fake::{Shim, shim};
    use crate::together::Company;

    const SOON: Duration = Duration::from_millis(50);
    const LATE: Duration = Duration::from_secs(60);

    /// A container that is back and waits for `other`, with an exec `e`; and what tells that the pod was let go.
    async fn waiting(shim: &Shim) -> (Arc<Container>, Arc<Mutex<bool>>) {
        let container = shim.running("c").await;
        container.inner().apart.send_replace(true);
        let company = Company { members: ["c", "other"].map(str::to_owned).into(), patience: LATE };
        let gone = Arc::new(Mutex::new(false));
        let (flag, this) = (gone.clone(), container.clone());
        let let_go = Box::new(move || {
            *flag.lock().unwrap() = true;
            this.let_go_on();
        });
        container.shared.together.back("checkpoint", "c", &company, let_go);
        let spec = serde_json::json!({"args": ["exit 0"]});
        container.add_exec("e", StdioPaths::default(), spec).await.unwrap();
        (container, gone)
    }

    #[tokio::test]
    async fn a_hook_that_waits_for_its_container_lets_the_pod_go_in_the_end() {
        let shim = shim().await;
        let (container, gone) = waiting(&shim).await;
        container.wait_no_longer("e", SOON).await.unwrap();
        assert!(*gone.lock().unwrap() && !*container.inner().apart.borrow());
        container.start_exec("e").await.unwrap();
        container.kill("", libc::SIGKILL, false).await.unwrap();
    }

    #[tokio::test]
    async fn a_probe_that_has_given_up_lets_nobody_go() {
        let shim = shim().await;
        let (container, gone) = waiting(&shim).await;
        container.delete_exec("e").await.unwrap();
        container.wait_no_longer("e", SOON).await.unwrap_err();
        assert!(!*gone.lock().unwrap() && *container.inner().apart.borrow());
        container.kill("", libc::SIGKILL, false).await.unwrap();
        assert!(*gone.lock().unwrap(), "a pod that is being stopped waits for nobody");
    }

    #[tokio::test]
    async fn a_process_runs_as_soon_as_the_last_container_is_back() {
        let shim = shim().await;
        let (container, _) = waiting(&shim).await;
        let begin = Instant::now();
        let starting = container.clone();
        let starting = tokio::spawn(async move { starting.wait_no_longer("e", LATE).await });
        tokio::time::sleep(SOON).await;
        assert!(!starting.is_finished());
        container.let_go_on();
        starting.await.unwrap().unwrap();
        assert!(begin.elapsed() < LATE);
        container.kill("", libc::SIGKILL, false).await.unwrap();
    }

    #[tokio::test]
    async fn a_signal_to_an_exec_lets_nobody_go() {
        let shim = shim().await;
        let (container, gone) = waiting(&shim).await;
        container.kill("e", libc::SIGTERM, false).await.unwrap_err();
        container.kill("nobody", libc::SIGTERM, false).await.unwrap_err();
        assert!(!*gone.lock().unwrap());
        container.kill("", libc::SIGKILL, false).await.unwrap();
    }
}
