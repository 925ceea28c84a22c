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
