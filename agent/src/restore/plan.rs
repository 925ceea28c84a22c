//! What to do next about a `PodRestore`. Pure.
//!
//! ```text
//! waits for its checkpoint ─▶ makes its pods, one a step ─▶ waits until they run ─▶ succeeded
//!          └────────────────────────┴──────────────────────────┴─ time over, or it cannot be ─▶ failed
//! ```
//! A pod is made only if the status has no UID for it: one that ran and was deleted since is not made again, since it would
//! begin anew where the captured one was.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;

use crate::api::checkpoint::{FAILED as CHECKPOINT_FAILED, SOURCE_POD_NOT_FOUND, SOURCE_POD_REPLACED};
use crate::api::condition::{self, Verdict};
use crate::api::restore::{CHECKPOINT_NOT_READY, FAILED, IN_PROGRESS, POD_EXISTS, RestoredPod, SUCCEEDED};
use crate::api::{PodCheckpoint, PodRestore, duration};
use crate::template;

/// Where the spec says nothing; kubelet pulls images and brings memory back within it.
const TIMEOUT: Duration = Duration::from_secs(600);
/// How often pods that are starting are looked at.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How often a checkpoint that is not ready is looked at.
const WAIT: Duration = Duration::from_secs(3);

/// Longest name of a pod.
const MAX_NAME: usize = 253;

/// A pod of one of the names that the restore needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Its UID.
    pub uid: String,
    /// Whether this very restore made it.
    pub is_ours: bool,
    /// Whether all its containers run.
    pub running: bool,
    /// Whether it has ended.
    pub ended: bool,
    /// Why it does not run, as kubelet or the scheduler says it.
    pub message: Option<String>,
}

/// What is seen.
#[derive(Debug, Clone)]
pub struct Seen<'a> {
    /// The object.
    pub object: &'a PodRestore,
    /// Its checkpoint.
    pub checkpoint: Option<&'a PodCheckpoint>,
    /// Pods by name.
    pub pods: BTreeMap<String, Found>,
    /// The time.
    pub now: Timestamp,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Nothing more.
    Rest,
    /// Make the pod of this name.
    Make(String),
    /// Say how it stands, and look again then.
    Say(Verdict, Vec<RestoredPod>, Option<Duration>),
}

/// The next step.
pub fn plan(seen: &Seen<'_>) -> Step {
    let object = seen.object;
    let status = object.status.clone().unwrap_or_default();
    let reason = condition::reason(&status.conditions);
    if object.metadata.deletion_timestamp.is_some() || matches!(reason, SUCCEEDED | FAILED) {
        return Step::Rest;
    }
    let asked = object.metadata.creation_timestamp.as_ref().map_or(seen.now, |time| time.0);
    let is_late = seen.now.duration_since(asked)
        > SignedDuration::try_from(timeout(object)).unwrap_or(SignedDuration::MAX);
    let step = toward(seen, &status.pods);
    match step {
        Step::Say(verdict, pods, _) if is_late && verdict.status != "True" => {
            let message = format!("not within {}: {}", duration::format(timeout(object)), verdict.message);
            Step::Say(Verdict::no(FAILED, message), pods, None)
        }
        Step::Make(name) if is_late => {
            let message = format!("pod {name} was not made within {}", duration::format(timeout(object)));
            Step::Say(Verdict::no(FAILED, message), status.pods, None)
        }
        step => step,
    }
}

/// How long the pods may take.
pub fn timeout(object: &PodRestore) -> Duration {
    let asked = object.spec.timeout_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    asked.map_or(TIMEOUT, Duration::from_secs)
}

/// The names of the pods that it makes; none where the checkpoint does not say what the pod was called.
pub fn names(object: &PodRestore, checkpoint: &PodCheckpoint) -> Vec<String> {
    if object.spec.count == 1 {
        let template =
            checkpoint.status.as_ref().and_then(|status| status.checkpointed_pod_template.as_ref());
        let captured = template.and_then(template::name).map(str::to_owned);
        return object.spec.pod_name.clone().or(captured).into_iter().collect();
    }
    let mut base = object.name_any();
    base.truncate(MAX_NAME - 4);
    (0..object.spec.count).map(|number| format!("{base}-{number}")).collect()
}

fn toward(seen: &Seen<'_>, noted: &[RestoredPod]) -> Step {
    let object = seen.object;
    let (namespace, wanted) = (object.namespace().unwrap_or_default(), &object.spec.checkpoint_name);
    let wait =
        |message: String| Step::Say(Verdict::no(CHECKPOINT_NOT_READY, message), noted.to_vec(), Some(WAIT));
    let Some(checkpoint) = seen.checkpoint else {
        return wait(format!(
            "there is no PodCheckpoint {wanted} in namespace {namespace}; a checkpoint is restored in its own namespace only"
        ));
    };
    let status = checkpoint.status.clone().unwrap_or_default();
    if checkpoint.metadata.deletion_timestamp.is_some() {
        return wait(format!("PodCheckpoint {wanted} is being deleted"));
    }
    if !condition::is_ready(&status.conditions) {
        let (reason, message) = condition::find(&status.conditions, condition::READY)
            .map_or(("", ""), |ready| (ready.reason.as_str(), ready.message.as_str()));
        if matches!(reason, CHECKPOINT_FAILED | SOURCE_POD_NOT_FOUND | SOURCE_POD_REPLACED) {
            let message = format!("PodCheckpoint {wanted} holds nothing: {message}");
            return Step::Say(Verdict::no(FAILED, message), noted.to_vec(), None);
        }
        return wait(format!("PodCheckpoint {wanted} is not ready: {message} [{reason}]"));
    }
    let names = names(object, checkpoint);
    if names.is_empty() || status.checkpointed_pod_template.is_none() {
        let message = format!(
            "PodCheckpoint {wanted} does not say what its pod was like; make a pod with the annotation {}: {wanted} instead",
            crate::api::RESTORE_FROM
        );
        return Step::Say(Verdict::no(FAILED, message), noted.to_vec(), None);
    }
    pods(seen, &names, noted)
}

fn pods(seen: &Seen<'_>, names: &[String], noted: &[RestoredPod]) -> Step {
    let mut now: Vec<RestoredPod> = Vec::new();
    for name in names {
        let uid = noted.iter().find(|pod| pod.name == *name).and_then(|pod| pod.uid.clone());
        match (seen.pods.get(name), uid) {
            (None, None) => return Step::Make(name.clone()),
            (None, Some(uid)) => now.push(RestoredPod {
                name: name.clone(),
                uid: Some(uid),
                running: false,
                message: Some("it was deleted before it ran".into()),
            }),
            (Some(found), _) if !found.is_ours => {
                let message = format!(
                    "pod {name} exists already: delete it if the restored one is to take its place, or give the restored one \
                     another name by podName"
                );
                return Step::Say(Verdict::no(POD_EXISTS, message), noted.to_vec(), Some(WAIT));
            }
            (Some(found), _) => now.push(RestoredPod {
                name: name.clone(),
                uid: Some(found.uid.clone()),
                running: found.running || found.ended,
                message: found.message.clone().filter(|_| !found.running),
            }),
        }
    }
    let left: Vec<&RestoredPod> = now.iter().filter(|pod| !pod.running).collect();
    let Some(first) = left.first() else {
        let message = format!("{} on node {}", all(names), node(seen));
        return Step::Say(Verdict::yes(SUCCEEDED, message), now, None);
    };
    let why = first.message.as_deref().unwrap_or("it is being started");
    let message = format!("pod {} does not run yet: {why}", first.name);
    Step::Say(Verdict::no(IN_PROGRESS, message), now, Some(LOOK_AGAIN))
}

fn node(seen: &Seen<'_>) -> String {
    let status = seen.checkpoint.and_then(|checkpoint| checkpoint.status.as_ref());
    status.and_then(|status| status.node_name.clone()).unwrap_or_default()
}

fn all(names: &[String]) -> String {
    match names {
        [one] => format!("pod {one} runs"),
        many => format!("{} pods run", many.len()),
    }
}

#[cfg(test)]
mod tests;
