//! `PodCheckpoint`: memory and disks of a pod, captured at one instant and kept on the pod's node.
#![allow(clippy::duplicated_attributes, reason = "printer columns of one derive have the same keys")]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// It waits for the agent of the pod's node.
pub const PENDING: &str = "Pending";
/// It is being taken.
pub const IN_PROGRESS: &str = "CheckpointInProgress";
/// It is in the store and can be restored.
pub const COMPLETED: &str = "CheckpointCompleted";
/// It was not taken; the message says why and what to do. The pod runs on.
pub const FAILED: &str = "CheckpointFailed";
/// The pod of this name is not the one that was meant.
pub const SOURCE_POD_REPLACED: &str = "SourcePodReplaced";
/// There is no pod of this name; beyond the KEP's reasons.
pub const SOURCE_POD_NOT_FOUND: &str = "SourcePodNotFound";
/// The object is there and its data is not; beyond the KEP's reasons.
pub const DATA_MISSING: &str = "CheckpointDataMissing";
/// The node that has it does not answer; beyond the KEP's reasons.
pub const NODE_UNAVAILABLE: &str = "NodeUnavailable";

/// What to capture, and how long to keep it. Immutable.
#[derive(CustomResource, KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "cryopod.dev",
    version = "v1alpha1",
    kind = "PodCheckpoint",
    namespaced,
    doc = "PodCheckpoint captures memory and disks of a running pod at one instant and keeps them on the pod's node.",
    status = "PodCheckpointStatus",
    derive = "PartialEq",
    shortname = "cpcp",
    category = "cryopod",
    selectable = ".spec.sourcePod.name",
    selectable = ".status.nodeName",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason"
    ),
    printcolumn(name = "Source", type_ = "string", json_path = ".spec.sourcePod.name"),
    printcolumn(name = "Node", type_ = "string", json_path = ".status.nodeName"),
    printcolumn(name = "Size", type_ = "string", json_path = ".status.size"),
    printcolumn(name = "Freeze", type_ = "string", json_path = ".status.freezeDuration"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Mode", type_ = "string", json_path = ".status.mode", priority = 1),
    printcolumn(name = "ID", type_ = "string", json_path = ".status.checkpointID", priority = 1),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        priority = 1
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self == oldSelf").message("the spec of a checkpoint cannot be changed: make another checkpoint"))]
pub struct PodCheckpointSpec {
    /// The pod, in the namespace of this object.
    pub source_pod: SourcePod,
    /// Longest time that taking it may last, in seconds; after that it fails and the pod runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86400))]
    pub timeout_seconds: Option<i64>,
    /// What to capture; if not set, what the pod's annotation or the node's configuration says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// The containers to capture, by their names, all at one instant; none for the whole pod. Those that are left out start
    /// afresh in a restored pod.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub containers: Vec<String>,
    /// What happens to the data when this object is deleted.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
    /// How long after its completion the object deletes itself, e.g. 720h; for ever if not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 40))]
    #[x_kube(validation = Rule::new("duration(self) >= duration('0s')").message("write for example 90s, 1h30m or 720h"))]
    pub ttl: Option<String>,
}

/// Which pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SourcePod {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its UID; with it, a pod that has the same name later is not taken for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
}

/// What is captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Mode {
    /// Memory and disk where that is possible, else the disk; the status says which and why.
    Auto,
    /// Memory and disk, or fail.
    Full,
    /// Disk alone.
    Disk,
}

impl Mode {
    /// As the shim and the command line call it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Full => "full",
            Self::Disk => "disk",
        }
    }
}

/// What happens to the data when the object is deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// It is deleted.
    #[default]
    Delete,
    /// It stays in the store of its node, where `cryopod checkpoints` shows it.
    Retain,
}

/// What became of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodCheckpointStatus {
    /// Generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Node that takes or has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
    /// UID of the captured pod.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "sourcePodUID")]
    pub source_pod_uid: Option<String>,
    /// Its id in the store of the node.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "checkpointID")]
    pub checkpoint_id: Option<String>,
    /// Where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint_location: Option<Location>,
    /// When the node's agent began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// When it was committed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// What was captured: `Full` or `Disk`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// How long no task of the pod ran, e.g. 118ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub freeze_duration: Option<String>,
    /// Memory and disks together, e.g. 24Mi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<String>,
    /// Bytes of memory images and copied volumes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<i64>,
    /// Bytes that the disks refer to, shared with their images or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_bytes: Option<i64>,
    /// Step and bytes of a capture that goes on, for people who wait for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<CaptureProgress>,
    /// The captured containers.
    #[serde(default, skip_serializing_if = "Vec::is_empty", rename = "checkpointedContainers")]
    pub containers: Vec<CapturedContainer>,
    /// Metadata and spec of the pod as it was captured: what a `PodRestore` makes its pods from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub checkpointed_pod_template: Option<serde_json::Value>,
    /// `Ready` and its reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
}

/// Where a checkpoint is: today always on its node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Location {
    /// `NodeLocal`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Set for `NodeLocal`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_local: Option<NodeLocal>,
}

/// In the store of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeLocal {
    /// Dataset or directory of the store, and the checkpoint below it.
    pub path: String,
}

/// How far a capture is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CaptureProgress {
    /// Step, e.g. `freeze`.
    pub step: String,
    /// Bytes done in this step.
    pub done_bytes: i64,
    /// Bytes of this step in all; 0 where that is not known.
    pub total_bytes: i64,
}

/// One captured container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CapturedContainer {
    /// Its name in the pod.
    pub name: String,
    /// Its image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Whether its memory was captured.
    pub memory: bool,
}

/// Any object: a pod template is validated when a pod is made from it, and its schema alone is larger than all of ours.
pub(super) fn any_object(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "type": "object", "nullable": true, "x-kubernetes-preserve-unknown-fields": true })
}

/// Conditions are merged by their type.
pub(super) fn conditions(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let item = generator.subschema_for::<Condition>();
    schemars::json_schema!({
        "type": "array",
        "items": item,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
    })
}
