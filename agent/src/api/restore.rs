//! `PodRestore`: makes pods from a checkpoint, on the node that has it.
#![allow(clippy::duplicated_attributes, reason = "printer columns of one derive have the same keys")]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::checkpoint::{any_object, conditions};

/// It waits for something; the message says for what.
pub const PENDING: &str = "Pending";
/// Its checkpoint is not there or not complete.
pub const CHECKPOINT_NOT_READY: &str = "CheckpointNotReady";
/// A pod with the name that it needs exists, and is not of this restore.
pub const POD_EXISTS: &str = "PodExists";
/// The pod that the checkpoint and the patches describe is refused by Kubernetes.
pub const POD_REFUSED: &str = "PodRefused";
/// Its pods are made and do not run yet.
pub const IN_PROGRESS: &str = "RestoreInProgress";
/// All its pods run.
pub const SUCCEEDED: &str = "RestoreSucceeded";
/// It did not succeed in time; the message has the reason of the first pod.
pub const FAILED: &str = "RestoreFailed";

/// What to make from which checkpoint. Immutable.
#[derive(CustomResource, KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "cryopod.dev",
    version = "v1alpha1",
    kind = "PodRestore",
    namespaced,
    doc = "PodRestore makes pods from a checkpoint, on the node that has it: one that continues the captured pod, or several clones.",
    status = "PodRestoreStatus",
    derive = "PartialEq",
    shortname = "cprs",
    category = "cryopod",
    selectable = ".spec.checkpointName",
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
    printcolumn(name = "Checkpoint", type_ = "string", json_path = ".spec.checkpointName"),
    printcolumn(name = "Node", type_ = "string", json_path = ".status.nodeName"),
    printcolumn(name = "Pods", type_ = "integer", json_path = ".status.readyPods"),
    printcolumn(name = "Wanted", type_ = "integer", json_path = ".spec.count"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        priority = 1
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self == oldSelf").message("the spec of a restore cannot be changed: make another restore"),
    validation = Rule::new("self.count == 1 || !has(self.podName)").message("podName is for one pod; the clones of count > 1 are named after the PodRestore")
)]
pub struct PodRestoreSpec {
    /// The `PodCheckpoint`, in the namespace of this object.
    #[schemars(length(min = 1, max = 253))]
    pub checkpoint_name: String,
    /// How many pods: one continues the captured pod under its name, several are clones named after this object.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 100))]
    pub count: i32,
    /// Name of the pod, if not that of the captured one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub pod_name: Option<String>,
    /// Changes to the captured pod's metadata and spec, in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub patches: Vec<TemplatePatch>,
    /// Longest time that the pods may take to run again, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86400))]
    pub timeout_seconds: Option<i64>,
}

fn one() -> i32 {
    1
}

/// A change of the captured pod.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TemplatePatch {
    /// A JSON merge patch (RFC 7386) on `{"metadata": …, "spec": …}` of the pod: null removes, lists are replaced.
    #[schemars(schema_with = "any_object")]
    pub merge: serde_json::Value,
}

/// What became of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodRestoreStatus {
    /// Generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Node that has the checkpoint and so gets the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
    /// Id of the checkpoint in the node's store.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "checkpointID")]
    pub checkpoint_id: Option<String>,
    /// When its first pod was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// When the last of its pods ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// Its pods.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pods: Vec<RestoredPod>,
    /// How many of them run.
    #[serde(default)]
    pub ready_pods: i32,
    /// `Ready` and its reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
}

/// A pod of a restore.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RestoredPod {
    /// Its name.
    pub name: String,
    /// Its UID; empty until it is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// Whether all its containers run.
    pub running: bool,
    /// Why not, as kubelet says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}
