//! What to do about a `CheckpointSchedule`. Pure: from what is seen to a list of actions and the status that says so.
//!
//! ```text
//! due / runNow ─▶ a run: the selected pods wait ─▶ at most maxConcurrent checkpoints at a time ─▶ the run is over
//! node cordoned ─▶ its pods are captured at once ─▶ marked evictable ─▶ `kubectl drain` gets on
//! always: what retention does not keep is deleted; failed ones but the last few are deleted
//! ```
//! Invariants: a checkpoint's name follows from schedule, run and pod, so that doing an action twice is doing it once; a
//! pod leaves the waiting list only with the status that is written after its checkpoint was made.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use sha2::{Digest, Sha256};

use super::drain;
use super::keep::{self, Kept};
use super::times::Times;
use crate::api::condition::{self, Verdict};
use crate::api::schedule::{ConcurrencyPolicy, FAILED, INVALID, RUNNING, Run, SCHEDULED, SUSPENDED, Trigger};
use crate::api::{CheckpointSchedule, CheckpointScheduleStatus, PodCheckpoint};
use crate::size;

/// Failed checkpoints that are kept for people to look at.
const FAILED_KEPT: usize = 3;
/// Longest name of an object.
const MAX_NAME: usize = 253;

/// A pod that the selector finds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Its node.
    pub node: Option<String>,
    /// What it belongs to when it is gone.
    pub series: String,
    /// Whether a handler of ours runs it.
    pub ours: bool,
    /// Whether it runs and is not being deleted.
    pub running: bool,
    /// Value of the label [`crate::api::EVICTABLE`].
    pub evictable: Option<String>,
}

/// A checkpoint of this schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Name of the object.
    pub name: String,
    /// Its pod.
    pub pod: String,
    /// UID of its pod.
    pub pod_uid: Option<String>,
    /// What retention counts together when the pod is gone.
    pub series: String,
    /// When it was asked for.
    pub created: Timestamp,
    /// How it stands.
    pub state: State,
    /// Memory and disks.
    pub bytes: u64,
    /// Held by a person, or a restore needs it.
    pub untouchable: bool,
    /// The cordon that it was taken for.
    pub drain: Option<String>,
}

/// How a checkpoint stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It is being taken, or waits.
    Active,
    /// It was completed then.
    Complete(Timestamp),
    /// It failed, for good.
    Failed,
    /// It is being deleted.
    Leaving,
}

/// What is seen.
#[derive(Debug, Clone)]
pub struct Seen<'a> {
    /// The object.
    pub object: &'a CheckpointSchedule,
    /// Its pods.
    pub pods: Vec<Pod>,
    /// Its checkpoints.
    pub checkpoints: Vec<Checkpoint>,
    /// Cordoned nodes and when each was seen so.
    pub cordoned: BTreeMap<String, String>,
    /// Whether the disruption budget that keeps pods from eviction is there.
    pub guarded: bool,
    /// The time.
    pub now: Timestamp,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Ask for a checkpoint.
    Make {
        /// Name of the object.
        name: String,
        /// Which pod.
        pod: Pod,
        /// The cordon that it is taken for.
        drain: Option<String>,
    },
    /// Delete one.
    Delete(String),
    /// Keep the selected pods from eviction, or do so no more.
    Guard(bool),
    /// Set or remove the label that lets a pod be evicted.
    Evictable(String, Option<&'static str>),
}

/// What to do, and what the status says afterwards.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// In this order.
    pub actions: Vec<Action>,
    /// The new status.
    pub status: CheckpointScheduleStatus,
    /// When to look again if nothing happens before.
    pub again: Option<Timestamp>,
}

/// Decides.
pub fn plan(seen: &Seen<'_>) -> Plan {
    let object = seen.object;
    let mut status = object.status.clone().unwrap_or_default();
    status.observed_generation = object.metadata.generation;
    let mut actions = drain::guard(seen);
    let times = object.spec.schedule.as_deref().filter(|_| has(object, Trigger::Cron));
    let times = times.map(|schedule| Times::parse(schedule, object.spec.time_zone.as_deref())).transpose();
    let mut again = None;
    let mut invalid = None;
    match times {
        Ok(times) => {
            begin_runs(seen, times.as_ref(), &mut status, &mut actions);
            let next = times.as_ref().and_then(|times| times.next(seen.now));
            status.next_schedule_time = next.filter(|_| !object.spec.suspend).map(Time);
            again = next;
        }
        Err(error) => {
            status.next_schedule_time = None;
            invalid = Some(error.to_string());
        }
    }
    fill(seen, &mut status, &mut actions);
    actions.extend(drain::captures(seen));
    tidy(seen, &mut actions);
    let verdict = describe(seen, &mut status, &actions, invalid);
    condition::set_ready(&mut status.conditions, &verdict, object.metadata.generation, seen.now);
    Plan { actions, status, again }
}

/// Whether the schedule has this trigger.
pub(super) fn has(object: &CheckpointSchedule, trigger: Trigger) -> bool {
    object.spec.triggers.contains(&trigger)
}

/// Begins a run if its time has come, or somebody asks for one.
fn begin_runs(
    seen: &Seen<'_>,
    times: Option<&Times>,
    status: &mut CheckpointScheduleStatus,
    actions: &mut Vec<Action>,
) {
    let spec = &seen.object.spec;
    if let Some(token) = &spec.run_now
        && status.last_run_now.as_ref() != Some(token)
    {
        let hash = Sha256::digest(token.as_bytes());
        let digits: String = hash.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        status.last_run_now = Some(token.clone());
        begin(seen, format!("now-{digits}"), status);
    }
    if spec.suspend {
        return;
    }
    let made = seen.object.metadata.creation_timestamp.as_ref().map_or(seen.now, |time| time.0);
    let after = status.last_schedule_time.as_ref().map_or(made, |time| time.0);
    let Some(due) = times.and_then(|times| times.due(after, seen.now)) else { return };
    let late = seen.now.duration_since(due);
    let too_late = spec.starting_deadline_seconds.is_some_and(|most| late > SignedDuration::from_secs(most));
    let is_busy = !status.runs.is_empty() || seen.checkpoints.iter().any(|it| it.state == State::Active);
    // Acted upon, and if only by leaving it out.
    status.last_schedule_time = Some(Time(due));
    if too_late || (is_busy && spec.concurrency_policy == ConcurrencyPolicy::Forbid) {
        return;
    }
    if is_busy && spec.concurrency_policy == ConcurrencyPolicy::Replace {
        status.runs.clear();
        let active = seen.checkpoints.iter().filter(|it| it.state == State::Active && it.drain.is_none());
        actions.extend(active.map(|it| Action::Delete(it.name.clone())));
    }
    begin(seen, due.strftime("%Y%m%d%H%M").to_string(), status);
}

fn begin(seen: &Seen<'_>, id: String, status: &mut CheckpointScheduleStatus) {
    let waiting: Vec<String> =
        seen.pods.iter().filter(|pod| pod.ours && pod.running).map(|pod| pod.name.clone()).collect();
    status.runs.retain(|run| run.id != id);
    status.runs.push(Run { id, start_time: Time(seen.now), waiting });
}

/// Asks for as many as may be taken at the same time.
fn fill(seen: &Seen<'_>, status: &mut CheckpointScheduleStatus, actions: &mut Vec<Action>) {
    let replaced: BTreeSet<&str> = actions
        .iter()
        .filter_map(|action| if let Action::Delete(name) = action { Some(name.as_str()) } else { None })
        .collect();
    let active = seen
        .checkpoints
        .iter()
        .filter(|it| it.state == State::Active && it.drain.is_none() && !replaced.contains(it.name.as_str()))
        .count();
    let most = usize::try_from(seen.object.spec.max_concurrent.max(1)).unwrap_or(1);
    let mut free = most.saturating_sub(active);
    let pods: BTreeMap<&str, &Pod> = seen.pods.iter().map(|pod| (pod.name.as_str(), pod)).collect();
    let known: BTreeSet<&str> = seen.checkpoints.iter().map(|it| it.name.as_str()).collect();
    let mut made = Vec::new();
    for run in &mut status.runs {
        run.waiting.retain(|name| {
            let object = name_of(&seen.object.name_any(), &run.id, name);
            // Gone, ended, or made before a kill that kept the status from saying so.
            let Some(pod) = pods.get(name.as_str()).filter(|pod| pod.running) else { return false };
            if known.contains(object.as_str()) {
                return false;
            }
            if free == 0 {
                return true;
            }
            free -= 1;
            made.push(Action::Make { name: object, pod: (*pod).clone(), drain: None });
            false
        });
    }
    status.runs.retain(|run| !run.waiting.is_empty());
    actions.extend(made);
}

/// The name of a checkpoint: says what it is as far as there is room, and is one of a kind.
pub(super) fn name_of(schedule: &str, run: &str, pod: &str) -> String {
    let plain = format!("{schedule}-{pod}-{run}");
    if plain.len() <= MAX_NAME {
        return plain;
    }
    let hash = Sha256::digest(plain.as_bytes());
    let digits: String = hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let mut short: String = plain.chars().take(MAX_NAME - 17).collect();
    short.truncate(short.trim_end_matches(['-', '.']).len());
    format!("{short}-{digits}")
}

/// Deletes what nobody wants any more.
fn tidy(seen: &Seen<'_>, actions: &mut Vec<Action>) {
    let kept: Vec<Kept> = seen.checkpoints.iter().filter_map(complete).collect();
    let living: BTreeSet<String> = seen.pods.iter().map(|pod| pod.name.clone()).collect();
    let mut gone = keep::plan(&kept, &living, &seen.object.spec.retention, seen.now);
    let mut failed: Vec<&Checkpoint> =
        seen.checkpoints.iter().filter(|it| it.state == State::Failed && !it.untouchable).collect();
    failed.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| b.name.cmp(&a.name)));
    // One that holds up a drain says why.
    let is_needed = |it: &&&Checkpoint| {
        it.drain.as_ref().is_some_and(|cordon| seen.cordoned.values().any(|it| it == cordon))
    };
    gone.extend(failed.iter().skip(FAILED_KEPT).filter(|it| !is_needed(it)).map(|it| it.name.clone()));
    actions.extend(gone.into_iter().map(Action::Delete));
}

fn complete(it: &Checkpoint) -> Option<Kept> {
    let State::Complete(completed) = it.state else { return None };
    Some(Kept {
        name: it.name.clone(),
        pod: it.pod.clone(),
        series: it.series.clone(),
        completed,
        bytes: it.bytes,
        untouchable: it.untouchable,
    })
}

fn describe(
    seen: &Seen<'_>,
    status: &mut CheckpointScheduleStatus,
    actions: &[Action],
    invalid: Option<String>,
) -> Verdict {
    let count = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
    let made = actions.iter().filter(|action| matches!(action, Action::Make { .. })).count();
    let active = seen.checkpoints.iter().filter(|it| it.state == State::Active).count() + made;
    let done: Vec<(Timestamp, u64)> = seen
        .checkpoints
        .iter()
        .filter_map(|it| if let State::Complete(at) = it.state { Some((at, it.bytes)) } else { None })
        .collect();
    status.active = count(active);
    status.kept = count(done.len());
    status.size = Some(size::format(done.iter().fold(0, |sum: u64, (_, bytes)| sum.saturating_add(*bytes))));
    let last = done.iter().map(|(at, _)| *at).max();
    let known = status.last_successful_time.as_ref().map(|time| time.0);
    status.last_successful_time = last.max(known).map(Time);
    let waiting: usize = status.runs.iter().map(|run| run.waiting.len()).sum();
    let newest = seen.checkpoints.iter().filter(|it| it.state != State::Leaving).max_by_key(|it| it.created);
    if let Some(why) = invalid {
        return Verdict::no(INVALID, why);
    }
    if active > 0 || waiting > 0 {
        return Verdict::yes(RUNNING, format!("{active} being taken, {waiting} pods wait"));
    }
    if let Some(newest) = newest.filter(|it| it.state == State::Failed) {
        let message = format!(
            "the last one failed: `kubectl -n {} describe podcheckpoint {}`",
            seen.object.namespace().unwrap_or_default(),
            newest.name
        );
        return Verdict::no(FAILED, message);
    }
    if seen.object.spec.suspend {
        return Verdict::no(SUSPENDED, "suspend is true");
    }
    let ours = seen.pods.iter().filter(|pod| pod.ours).count();
    Verdict::yes(SCHEDULED, format!("{ours} pods are selected"))
}

/// What a schedule needs to know of a checkpoint. `needed`: names that restores are about to read.
pub(super) fn checkpoint(object: &PodCheckpoint, needed: &BTreeSet<String>) -> Checkpoint {
    use crate::api::checkpoint as words;
    let status = object.status.clone().unwrap_or_default();
    let reason = condition::reason(&status.conditions);
    let completed = status.completion_time.as_ref().map(|time| time.0);
    let state = match (object.metadata.deletion_timestamp.is_some(), reason, completed) {
        (true, ..) => State::Leaving,
        (_, words::FAILED | words::SOURCE_POD_NOT_FOUND | words::SOURCE_POD_REPLACED, _) => State::Failed,
        (_, _, Some(at)) => State::Complete(at),
        _ => State::Active,
    };
    let annotation = |key: &str| object.annotations().get(key).cloned();
    let held = annotation(crate::api::HOLD).is_some_and(|value| value != "false");
    let bytes = |bytes: Option<i64>| bytes.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0);
    Checkpoint {
        name: object.name_any(),
        pod: object.spec.source_pod.name.clone(),
        pod_uid: object.spec.source_pod.uid.clone(),
        series: annotation(crate::api::SERIES).unwrap_or_else(|| object.spec.source_pod.name.clone()),
        created: object.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0),
        state,
        bytes: bytes(status.memory_bytes).saturating_add(bytes(status.disk_bytes)),
        untouchable: held || needed.contains(&object.name_any()),
        drain: annotation(crate::api::DRAIN),
    }
}

#[cfg(test)]
mod tests;
