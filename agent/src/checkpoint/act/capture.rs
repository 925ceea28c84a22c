//! The capture itself: asked of the shim, followed while it goes on, and said to be complete.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use cryopod_command::Cancel;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Patch, PatchParams};
use kube::runtime::controller::Action;
use serde_json::{Value, json};

use super::Work;
use crate::api::checkpoint::{
    COMPLETED, CaptureProgress, CapturedContainer, FAILED, Location, Mode, NodeLocal,
};
use crate::api::condition::{self, Verdict};
use crate::api::{PodCheckpoint, PodCheckpointStatus, duration};
use crate::context::{Error, optional};
use crate::node::{NodeError, Order, Progress, Stored};
use crate::size;

/// How often a running capture is told in the status, and looked whether anybody still wants it.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// Before a shim that is busy or starting is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(1);

impl Work<'_> {
    /// Asks the shim on a thread of its own, tells how far it is, and ends it when the object is deleted meanwhile.
    pub(super) async fn capture(&self, object: &PodCheckpoint, order: Order) -> Result<Action, Error> {
        let cancel = Cancel::new();
        let seen = Arc::new(Mutex::new(Progress::default()));
        let task = tokio::task::spawn_blocking({
            let (work, order) = (Arc::clone(&self.context.work), order.clone());
            let (cancel, seen) = (cancel.clone(), Arc::clone(&seen));
            move || {
                let mut progress = |now: Progress| {
                    *seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = now;
                };
                work.capture(&order, &mut progress, &cancel)
            }
        });
        tokio::pin!(task);
        let mut told = Progress::default();
        let result = loop {
            tokio::select! {
                result = &mut task => break result?,
                () = tokio::time::sleep(TELL_EVERY) => {}
            }
            let now = seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
            if !self.is_wanted(&now, &mut told).await {
                cancel.cancel();
            }
        };
        match result {
            Ok(stored) => {
                self.context.metrics.captured(&stored);
                self.complete(object, &stored).await
            }
            Err(error) if error.is_passing() => {
                tracing::info!(id = %order.id, %error, "asked again");
                Ok(Action::requeue(ASK_AGAIN))
            }
            Err(NodeError::Cancelled) => Ok(Action::requeue(Duration::ZERO)),
            Err(error) => {
                self.context.metrics.capture_failed(error.reason());
                self.say(object, &Verdict::no(FAILED, error.to_string())).await?;
                Ok(Action::await_change())
            }
        }
    }

    /// Tells the progress, if there is any; whether the object is still there and to stay.
    async fn is_wanted(&self, now: &Progress, told: &mut Progress) -> bool {
        let object = if now == told {
            self.api.get(self.name).await.map_err(Error::api("read a checkpoint"))
        } else {
            let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
            let progress = CaptureProgress {
                step: now.step.clone(),
                done_bytes: bytes(now.done),
                total_bytes: bytes(now.total),
            };
            told.clone_from(now);
            let patch = Patch::Merge(json!({ "status": { "progress": progress } }));
            let written = self.api.patch_status(self.name, &PatchParams::default(), &patch).await;
            written.map_err(Error::api("tell the progress of a checkpoint"))
        };
        match optional(object) {
            Ok(Some(object)) => object.metadata.deletion_timestamp.is_none(),
            Ok(None) => false,
            // The API server is away: nobody has said that it is not wanted.
            Err(_) => true,
        }
    }

    pub(super) async fn complete(&self, object: &PodCheckpoint, stored: &Stored) -> Result<Action, Error> {
        let mut status = object.status.clone().unwrap_or_default();
        describe(&mut status, stored);
        let mut message = format!(
            "in the store of node {}, {}, the pod stood still for {}",
            self.context.node,
            status.size.clone().unwrap_or_default(),
            status.freeze_duration.clone().unwrap_or_default()
        );
        if let Some(why) = &stored.memory_refused {
            message.push_str(&format!("; the disk alone, since its memory could not be captured: {why}"));
        }
        let now = self.context.now();
        condition::set_ready(
            &mut status.conditions,
            &Verdict::yes(COMPLETED, message.clone()),
            object.metadata.generation,
            now,
        );
        status.completion_time = Some(Time(now));
        status.observed_generation = object.metadata.generation;
        let mut status = serde_json::to_value(&status).unwrap_or_default();
        // Nulls remove: a finished capture has no progress.
        status["progress"] = Value::Null;
        let Some(done) = self.write(&json!({ "status": status }), "complete a checkpoint").await? else {
            return Ok(Action::await_change());
        };
        let note = format!("checkpoint {}: {message}", self.name);
        self.tell(&done, stored.memory_refused.is_some(), "CheckpointSucceeded", &note).await;
        Ok(Action::requeue(Duration::ZERO))
    }
}

/// What the status says of a stored checkpoint.
fn describe(status: &mut PodCheckpointStatus, stored: &Stored) {
    use cryopod_checkpoint::manifest::CapturedMode;
    let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    status.checkpoint_id = Some(stored.id.to_string());
    status.checkpoint_location = Some(Location {
        kind: "NodeLocal".into(),
        node_local: Some(NodeLocal { path: format!("{}/checkpoints/{}", stored.place, stored.id) }),
    });
    status.mode = Some(match stored.mode {
        CapturedMode::Full => Mode::Full,
        CapturedMode::Disk => Mode::Disk,
    });
    status.freeze_duration = Some(duration::format(stored.freeze));
    status.memory_bytes = Some(bytes(stored.memory_bytes));
    status.disk_bytes = Some(bytes(stored.disk_bytes));
    status.size = Some(size::format(stored.memory_bytes.saturating_add(stored.disk_bytes)));
    status.containers = stored
        .containers
        .iter()
        .map(|(name, image, memory)| CapturedContainer {
            name: name.clone(),
            image: Some(image.clone()).filter(|image| !image.is_empty()),
            memory: *memory,
        })
        .collect();
}
