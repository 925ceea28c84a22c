//! The objects of the API group `cryopod.dev/v1alpha1`.
//!
//! `PodCheckpoint` has the names, conditions and reasons of the built-in object that Kubernetes prepares (KEP-5823), so that
//! moving to that is mechanical; what it has beyond is said at each field. No object has a phase: conditions tell. The
//! custom resource definitions of the chart are generated from these types, see [`crds`].

pub mod checkpoint;
pub mod condition;
pub mod duration;
pub mod keep;
pub mod page;
pub mod restore;
pub mod schedule;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

pub use checkpoint::{PodCheckpoint, PodCheckpointSpec, PodCheckpointStatus};
pub use restore::{PodRestore, PodRestoreSpec, PodRestoreStatus};
pub use schedule::{CheckpointSchedule, CheckpointScheduleSpec, CheckpointScheduleStatus};

/// The API group.
pub const GROUP: &str = "cryopod.dev";
/// Its version.
pub const VERSION: &str = "v1alpha1";
/// What the agent is called as owner of fields and reporter of events.
pub const MANAGER: &str = "cryopod-agent";

/// Set by the agent on a checkpoint's object, so that its data is removed before the object is.
pub const FINALIZER: &str = "cryopod.dev/podcheckpoint-protection";
/// Annotation of a pod: which checkpoint it continues. The name of a `PodCheckpoint` in the pod's namespace, or an id of the
/// node's store.
pub const RESTORE_FROM: &str = "cryopod.dev/restore-from";
/// Label of a pod: the `PodRestore` that made it.
pub const RESTORED_BY: &str = "cryopod.dev/podrestore";
/// Annotation of a pod: UID of that restore, since a name may come again.
pub const RESTORED_BY_UID: &str = "cryopod.dev/podrestore-uid";
/// Label of a checkpoint: the schedule that made it.
pub const SCHEDULED_BY: &str = "cryopod.dev/schedule";
/// Annotation of a checkpoint: what retention counts together when its pod is gone, e.g. the name of the Deployment.
pub const SERIES: &str = "cryopod.dev/series";
/// Annotation of a checkpoint that was taken for a drain: when its node was cordoned.
pub const DRAIN: &str = "cryopod.dev/drain";
/// Label of a pod: it may be evicted although a schedule with the trigger NodeDrain selects it.
pub const EVICTABLE: &str = "cryopod.dev/evictable";
/// Annotation of a node: when it was seen cordoned.
pub const CORDONED: &str = "cryopod.dev/cordoned-at";
/// Annotation of a checkpoint or restore: who asked for it, set and checked at admission; of a pod: who asked for the restore
/// that made it, set by the agent alone.
pub const REQUESTED_BY: &str = "cryopod.dev/requested-by";
/// Annotation of a checkpoint: any value but `false` keeps schedules and time limits from deleting it.
pub const HOLD: &str = "cryopod.dev/hold";

/// The definitions of all our kinds, as they are installed in a cluster.
pub fn crds() -> Vec<CustomResourceDefinition> {
    vec![PodCheckpoint::crd(), PodRestore::crd(), CheckpointSchedule::crd()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_schema_and_keeps_its_status_apart() {
        for crd in crds() {
            let name = crd.metadata.name.clone().unwrap_or_default();
            assert!(name.ends_with(GROUP), "{name}");
            let version = &crd.spec.versions[0];
            assert_eq!(version.name, VERSION, "{name}");
            assert!(version.schema.is_some() && version.subresources.is_some(), "{name}");
            assert!(crd.spec.names.categories.iter().flatten().any(|it| it == "cryopod"), "{name}");
        }
    }
}
