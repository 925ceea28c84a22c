//! containerd's Checkpoint of this container, and what a capture leaves to do for Resume and Delete.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use containerd_shim_protos::events::task::TaskCheckpointed;
use cryopod_checkpoint::capture::Ending;
use cryopod_checkpoint::target::PodIdentity;
use cryopod_command::{Cancel, Limits};
use tokio::sync::RwLockWriteGuard;

use super::{Container, STEP_WITHIN};
use crate::capture::cri::{self, CriOrder};
use crate::capture::order::{self, Choices, Order, Subject};
use crate::capture::release;
use crate::capture::{DoorError, Node, Watch};
use crate::error::{TaskError, blocking};
use crate::events::Event;
use crate::process::state::{Change, State};

/// Ends containers that a committed capture has left frozen: all of them, even when one cannot be ended, which recovery
/// then tries again.
///
/// # Errors
/// The first that there was.
pub async fn end(containers: &[Arc<Container>], ending: Ending) -> Result<(), TaskError> {
    let mut first = Ok(());
    for container in containers {
        match container.kill("", libc::SIGKILL, true).await {
            // Somebody was faster.
            Ok(()) | Err(TaskError::Ended { .. }) => {}
            Err(error) => {
                tracing::error!(id = container.id, %error, "stays frozen after its checkpoint; recovery ends it");
                first = first.and(Err(error));
            }
        }
    }
    if first.is_ok() {
        ending.ended();
    }
    first
}

impl Container {
    /// Keeps others from changing the container for as long as the guard lives. One that has ended is not held, since
    /// it cannot start again, and is to be deleted whatever the rest of its pod does.
    pub async fn hold(&self) -> Option<RwLockWriteGuard<'_, ()>> {
        let turn = self.turn("checkpoint").await;
        self.init_state().ended().is_none().then_some(turn)
    }

    /// The container as it can be captured now; `None` when it does not run.
    pub fn subject(&self) -> Option<Subject> {
        let inner = self.inner();
        matches!(inner.init.state, State::Running | State::Paused).then(|| Subject {
            id: self.id.clone(),
            bundle: self.bundle.clone(),
            pid: inner.init.pid(),
            backend: self.backend(),
            note: self.chosen.note.clone(),
        })
    }

    /// Whether it runs, or is paused, with something of containerd's own checkpoint still to be done: a stand-in may
    /// be under its dataset's name.
    pub fn is_read_by_containerd(&self) -> bool {
        let inner = self.inner();
        match inner.init.state {
            State::Thawed => true,
            State::Running | State::Paused => inner.pending.is_some(),
            _ => false,
        }
    }

    /// Notes, for Delete and for `delete`, that snapshots of ours may be on its dataset from now on.
    ///
    /// # Errors
    /// When the bundle cannot be written.
    pub fn note_capture(&self) -> Result<(), TaskError> {
        let state = {
            let mut inner = self.inner();
            inner.bundle_state.captured = true;
            inner.bundle_state.clone()
        };
        self.note(&state)
    }

    /// Notes, before the first step of a restore, that the store may make a root for it, and that its own dataset may
    /// become a clone of the checkpoint's.
    ///
    /// # Errors
    /// When the bundle cannot be written.
    pub fn note_placing(&self) -> Result<(), TaskError> {
        let state = {
            let mut inner = self.inner();
            inner.bundle_state.placed = true;
            inner.bundle_state.captured |= self.dataset.is_some();
            inner.bundle_state.clone()
        };
        self.note(&state)
    }

    /// Captures this container into the store, and its memory images into `images`.
    ///
    /// # Errors
    /// When it is neither running nor paused, or the capture fails; then it is as before.
    pub async fn checkpoint(
        self: &Arc<Self>,
        images: PathBuf,
        choices: Choices,
        pod: PodIdentity,
        watch: &Arc<Watch>,
        cancel: Cancel,
    ) -> Result<(), TaskError> {
        let mut slots = self.shared.publisher.reserve(1).await?;
        let _op = self.turn("checkpoint").await;
        let running = watch.begin(cancel.clone()).ok_or(DoorError::Busy)?;
        let state = self.inner().init.state;
        if state == State::Thawed {
            return Err(DoorError::Unfinished(self.id.clone()).into());
        }
        let pending = self.inner().pending.take();
        if let Some(pending) = pending {
            // A pause that lasts over several checkpoints: no Resume has come in between.
            blocking(move || cri::finish(pending, &Limits::within(STEP_WITHIN))).await?;
        }
        let subject = self
            .subject()
            .ok_or_else(|| TaskError::NotCapturable { id: self.id.clone(), state: state.name() })?;
        let is_cri = self.brief.annotation(cryopod_runtime::spec::annotation::CONTAINER_TYPE).is_some();
        let order = Order {
            pod,
            subjects: vec![subject],
            sources: self.chosen.sources.clone(),
            choices,
            flat: true,
            ends_pause: false,
        };
        let dataset = self.dataset.clone();
        let early = is_cri && state == State::Paused;
        let cri_order = CriOrder { order, images, dataset, early };
        self.note_capture()?;
        let this = self.clone();
        let captured = blocking(move || {
            let node =
                Node::open(&this.chosen.sources, &Limits::within(STEP_WITHIN).with_cancel(cancel.clone()))?;
            let limits = order::limits(&node.config, &cancel);
            let thawed = || {
                if let Err(error) = this.inner().init.apply(Change::Thaw) {
                    tracing::error!(id = this.id, %error, "thawed in a state that does not know it");
                }
            };
            cri::capture(cri_order, node, &running, &limits, &thawed)
        })
        .await?;
        tracing::info!(
            id = self.id,
            checkpoint = captured.checkpoint.as_str(),
            thawed = captured.thawed,
            swapped = captured.pending.is_some(),
            "captured"
        );
        self.inner().pending = captured.pending;
        if captured.prepared.is_ok() {
            slots.publish(&self.checkpointed(captured.checkpoint.as_str()));
        }
        if let Some(ending) = captured.ending {
            end(std::slice::from_ref(self), ending).await?;
        }
        captured.prepared.map_err(TaskError::from)
    }

    fn checkpointed(&self, checkpoint: &str) -> Event {
        let mut event = TaskCheckpointed::new();
        event.container_id.clone_from(&self.id);
        event.checkpoint = checkpoint.to_owned();
        Event::Checkpointed(event)
    }

    /// Tells containerd that the container was captured, if it listens.
    pub async fn publish_checkpointed(&self, checkpoint: &str) {
        if let Ok(mut slots) = self.shared.publisher.reserve(1).await {
            slots.publish(&self.checkpointed(checkpoint));
        }
    }

    /// After containerd has read the root: its dataset gets its name back. A failure is logged and left to recovery.
    pub(super) async fn finish_checkpoint(&self, within: Duration) {
        let Some(pending) = self.inner().pending.take() else { return };
        let finish = move || cri::finish(pending, &Limits::within(within));
        if let Err(error) = blocking(finish).await {
            tracing::error!(id = self.id, %error, "the dataset does not have its name back; recovery tries again");
        }
    }

    /// With the root unmounted and before containerd destroys it: what of ours still needs it goes into the store, and
    /// a root that the store made goes away.
    pub(super) fn let_go(&self, limits: &Limits) -> Result<(), DoorError> {
        let (captured, placed) = {
            let inner = self.inner();
            (inner.bundle_state.captured, inner.bundle_state.placed)
        };
        if !captured && !placed {
            return Ok(());
        }
        let node = Node::open(&self.chosen.sources, limits)?;
        if let Some(dataset) = self.dataset.as_ref().filter(|_| captured) {
            release::dataset(&node, dataset, limits)?;
        }
        if placed {
            release::own_root(&node, &self.shared.namespace, &self.id, limits)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::fake::shim;

    #[tokio::test]
    async fn each_container_that_is_named_has_to_be_there_and_to_run() {
        let shim = shim().await;
        let running = shim.running("a").await;
        let ended = shim.running("b").await;
        ended.kill("", libc::SIGKILL, false).await.unwrap();
        while ended.subject().is_some() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let asked = async |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            shim.pod.checkpoint(&names, Choices::default(), Cancel::new()).await.unwrap_err()
        };
        let error = asked(&["a", "c"]).await;
        assert!(matches!(&error, TaskError::NoContainer { id } if id == "c"), "{error}");
        let error = asked(&["a", "b"]).await;
        assert!(matches!(&error, TaskError::Door(DoorError::Nothing(_))), "{error}");
        assert!(error.to_string().contains("container b of pod"), "{error}");
        running.kill("", libc::SIGKILL, false).await.unwrap();
    }

    #[tokio::test]
    async fn a_pod_is_not_captured_while_containerd_reads_a_root_of_it() {
        let shim = shim().await;
        let (other, container) = (shim.running("a").await, shim.running("b").await);
        container.pause().await.unwrap();
        container.inner().init.apply(Change::Thaw).unwrap();
        let error = shim.pod.checkpoint(&[], Choices::default(), Cancel::new()).await.unwrap_err();
        assert!(matches!(&error, TaskError::Door(DoorError::Unfinished(id)) if id == "b"), "{error}");
        let (images, identity) = (shim.dir.path().join("images"), shim.pod.identity());
        let again =
            container.checkpoint(images, Choices::default(), identity, shim.pod.watch(), Cancel::new()).await;
        assert!(matches!(again.unwrap_err(), TaskError::Door(DoorError::Unfinished(_))));
        container.resume().await.unwrap();
        assert!(!container.is_read_by_containerd());
        for container in [other, container] {
            container.kill("", libc::SIGKILL, false).await.unwrap();
        }
    }
}
