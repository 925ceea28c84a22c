//! What a pod is for its schedule.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Pod as CorePod;
use kube::ResourceExt;

use crate::api::EVICTABLE;
use crate::schedule::plan::Pod;

/// The pod of the API server; `handlers`: RuntimeClasses of ours.
pub(super) fn summary(pod: &CorePod, handlers: &BTreeSet<String>) -> Pod {
    let (spec, status) = (pod.spec.as_ref(), pod.status.as_ref());
    let class = spec.and_then(|spec| spec.runtime_class_name.as_ref());
    let phase = status.and_then(|status| status.phase.as_deref());
    Pod {
        name: pod.name_any(),
        uid: pod.uid().unwrap_or_default(),
        node: spec.and_then(|spec| spec.node_name.clone()),
        series: series(pod),
        ours: class.is_some_and(|class| handlers.contains(class)),
        running: phase == Some("Running") && pod.metadata.deletion_timestamp.is_none(),
        evictable: pod.labels().get(EVICTABLE).cloned(),
    }
}

/// What a pod belongs to: its Deployment, as far as its name tells, or its other owner; itself where its name is stable.
fn series(pod: &CorePod) -> String {
    let owner = pod.owner_references().iter().find(|owner| owner.controller == Some(true));
    match owner {
        Some(owner) if owner.kind == "ReplicaSet" => {
            let hash = pod.labels().get("pod-template-hash");
            let deployment = hash.and_then(|hash| owner.name.strip_suffix(&format!("-{hash}")));
            deployment.unwrap_or(&owner.name).to_owned()
        }
        Some(owner) if owner.kind != "StatefulSet" => owner.name.clone(),
        _ => pod.name_any(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(value: serde_json::Value) -> CorePod {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn pods_of_a_deployment_are_one_series_and_those_of_a_statefulset_one_each() {
        let owned = |kind: &str, name: &str| {
            pod(json!({ "metadata": {
                "name": "web-7d4b9-abcde", "labels": { "pod-template-hash": "7d4b9" },
                "ownerReferences": [{ "apiVersion": "apps/v1", "kind": kind, "name": name, "uid": "u", "controller": true }],
            }}))
        };
        assert_eq!(series(&owned("ReplicaSet", "web-7d4b9")), "web");
        assert_eq!(series(&owned("ReplicaSet", "bare")), "bare");
        assert_eq!(series(&owned("Job", "work")), "work");
        assert_eq!(series(&owned("StatefulSet", "web")), "web-7d4b9-abcde");
        assert_eq!(series(&pod(json!({ "metadata": { "name": "one" } }))), "one");
    }

    #[test]
    fn a_pod_is_ours_by_the_handler_of_its_class() {
        let handlers = BTreeSet::from(["fast".to_owned()]);
        let with = |class: Option<&str>| {
            pod(
                json!({ "spec": { "containers": [], "runtimeClassName": class }, "status": { "phase": "Running" } }),
            )
        };
        assert!(summary(&with(Some("fast")), &handlers).ours);
        assert!(!summary(&with(Some("slow")), &handlers).ours);
        assert!(!summary(&with(None), &handlers).ours);
    }
}
