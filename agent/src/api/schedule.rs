//! `CheckpointSchedule`: checkpoints of the pods that a selector finds, by the clock, by hand or before their node is drained.
#![allow(clippy::duplicated_attributes, reason = "printer columns of one derive have the same keys")]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::checkpoint::{DeletionPolicy, Mode, conditions};
use super::keep::Retention;

/// It waits for its next time.
pub const SCHEDULED: &str = "Scheduled";
/// Some of its checkpoints are being taken.
pub const RUNNING: &str = "CheckpointInProgress";
/// Nothing is taken until `suspend` is false.
pub const SUSPENDED: &str = "Suspended";
/// Schedule, time zone or selector cannot be understood; the message says which and why.
pub const INVALID: &str = "InvalidSchedule";
/// The last run failed, whole or in part.
pub const FAILED: &str = "CheckpointFailed";

/// When, what, and how long to keep.
#[derive(CustomResource, KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "cryopod.dev",
    version = "v1alpha1",
    kind = "CheckpointSchedule",
    namespaced,
    doc = "CheckpointSchedule takes checkpoints of the pods that its selector finds, by the clock, by hand, or before their node is drained, and deletes what its retention does not keep.",
    status = "CheckpointScheduleStatus",
    derive = "PartialEq",
    shortname = "cpsched",
    category = "cryopod",
    printcolumn(name = "Schedule", type_ = "string", json_path = ".spec.schedule"),
    printcolumn(name = "Suspend", type_ = "boolean", json_path = ".spec.suspend"),
    printcolumn(name = "Active", type_ = "integer", json_path = ".status.active"),
    printcolumn(name = "Last Success", type_ = "date", json_path = ".status.lastSuccessfulTime"),
    printcolumn(name = "Kept", type_ = "integer", json_path = ".status.kept"),
    printcolumn(name = "Size", type_ = "string", json_path = ".status.size"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Next", type_ = "string", json_path = ".status.nextScheduleTime", priority = 1),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        priority = 1
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!self.triggers.exists(t, t == 'Cron') || has(self.schedule)").message("the trigger Cron needs a schedule, e.g. \"0 3 * * *\""))]
pub struct CheckpointScheduleSpec {
    /// Times in cron's five fields, as in a `CronJob`: minute, hour, day, month, weekday; or @hourly, @daily …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 120))]
    pub schedule: Option<String>,
    /// IANA time zone of the schedule, e.g. Europe/Berlin; UTC if not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub time_zone: Option<String>,
    /// How late a run may begin, in seconds, when nobody could begin it in time; without it a run that was missed is made up
    /// for once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 604800))]
    pub starting_deadline_seconds: Option<i64>,
    /// What happens when its time comes and the last run still goes on.
    #[serde(default)]
    pub concurrency_policy: ConcurrencyPolicy,
    /// Take nothing until it is false; retention goes on.
    #[serde(default)]
    pub suspend: bool,
    /// The pods, in the namespace of this object, by their labels; empty for all that run with a handler of cryopod.
    #[serde(default)]
    pub selector: LabelSelector,
    /// What makes it take checkpoints.
    #[serde(default = "by_the_clock")]
    #[schemars(length(min = 1, max = 2))]
    pub triggers: Vec<Trigger>,
    /// Any new value takes checkpoints once, now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 120))]
    pub run_now: Option<String>,
    /// How many pods at the same time.
    #[serde(default = "one_at_a_time")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_concurrent: i32,
    /// Which checkpoints of this schedule are kept.
    #[serde(default)]
    pub retention: Retention,
    /// What happens to a drain when a checkpoint that it waits for fails.
    #[serde(default)]
    pub drain_failure_policy: DrainFailurePolicy,
    /// What each checkpoint is like.
    #[serde(default)]
    pub checkpoint: CheckpointTemplate,
}

fn by_the_clock() -> Vec<Trigger> {
    vec![Trigger::Cron]
}

fn one_at_a_time() -> i32 {
    1
}

/// What happens when the last run still goes on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConcurrencyPolicy {
    /// Both go on.
    Allow,
    /// The new one is left out.
    #[default]
    Forbid,
    /// The old one is ended.
    Replace,
}

/// What makes a schedule take checkpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Trigger {
    /// The time.
    Cron,
    /// The pod's node is cordoned: its pods are captured, and only then may they be evicted.
    NodeDrain,
}

/// What happens to a drain when a checkpoint that it waits for fails.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DrainFailurePolicy {
    /// The pod stays until somebody decides: by the label `cryopod.dev/evictable`, or by another checkpoint.
    #[default]
    Block,
    /// The pod may be evicted without a checkpoint.
    Evict,
}

/// The part of a checkpoint's spec that is the same for all of a schedule.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CheckpointTemplate {
    /// What to capture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// Longest time that one may take, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86400))]
    pub timeout_seconds: Option<i64>,
    /// What happens to the data when a checkpoint's object is deleted, by retention or by a person.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}

/// What became of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CheckpointScheduleStatus {
    /// Generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The time that the last run was for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_schedule_time: Option<Time>,
    /// When a checkpoint was last completed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_successful_time: Option<Time>,
    /// The time of the next run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_schedule_time: Option<Time>,
    /// The last value of `runNow` that was acted upon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_run_now: Option<String>,
    /// Runs that go on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub runs: Vec<Run>,
    /// Checkpoints that are being taken.
    #[serde(default)]
    pub active: i32,
    /// Complete checkpoints of this schedule.
    #[serde(default)]
    pub kept: i32,
    /// All of them together, e.g. 3.4Gi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<String>,
    /// `Ready` and its reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
}

/// One round over the selected pods.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    /// Part of the names of its checkpoints: the minute it is for, in UTC, or `now-` and the hash of `runNow`.
    pub id: String,
    /// When it began.
    pub start_time: Time,
    /// Pods that are still to be captured.
    pub waiting: Vec<String>,
}
