//! The pod in a checkpoint: what is kept of the captured one, and the new pod that is made of it.
//!
//! Works on JSON, so that fields of a newer Kubernetes than the agent knows are kept. Pure.

use serde_json::{Map, Value, json};

use crate::api;

/// Labels that tie a pod to the controller that made it: with them, that controller would take the restored pod for one of
/// its own and delete what is one too many.
const CONTROLLERS_LABELS: &[&str] = &[
    "pod-template-hash",
    "controller-revision-hash",
    "pod-template-generation",
    "statefulset.kubernetes.io/pod-name",
    "apps.kubernetes.io/pod-index",
    "batch.kubernetes.io/controller-uid",
    "batch.kubernetes.io/job-name",
    "controller-uid",
    "job-name",
];

/// Annotations about the captured pod's own life.
const OWN_ANNOTATIONS: &[&str] = &[
    "kubectl.kubernetes.io/last-applied-configuration",
    api::RESTORE_FROM,
    api::RESTORED_BY_UID,
    api::REQUESTED_BY,
    "kubernetes.io/config.mirror",
];

/// Fields of a spec that scheduler and admission filled in, and that they fill in anew.
const FILLED_IN: &[&str] =
    &["nodeName", "serviceAccount", "priority", "preemptionPolicy", "overhead", "ephemeralContainers"];

/// What the token volume that the API server adds begins with.
const TOKEN_VOLUME: &str = "kube-api-access-";

/// What a new pod is wanted to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted<'a> {
    /// Name of the new pod.
    pub name: &'a str,
    /// Its namespace.
    pub namespace: &'a str,
    /// Object that it is restored from.
    pub checkpoint: &'a str,
    /// Restore that makes it.
    pub restore: &'a str,
    /// Its UID.
    pub restore_uid: &'a str,
    /// Who asked for that restore.
    pub requested_by: Option<&'a str>,
    /// Node that has the checkpoint.
    pub node: &'a str,
}

/// Metadata and spec of a pod, without what belongs to that one pod only. `pod` has `metadata` and `spec`.
pub fn of(pod: &Value) -> Value {
    let mut spec = pod.get("spec").and_then(Value::as_object).cloned().unwrap_or_default();
    for field in FILLED_IN {
        spec.remove(*field);
    }
    let tokens: Vec<String> =
        names(spec.get("volumes")).filter(|name| name.starts_with(TOKEN_VOLUME)).map(str::to_owned).collect();
    without(spec.get_mut("volumes"), &tokens);
    for list in ["containers", "initContainers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            without(container.get_mut("volumeMounts"), &tokens);
        }
    }
    let metadata = pod.get("metadata").and_then(Value::as_object).cloned().unwrap_or_default();
    let kept = |field: &str, dropped: &[&str]| {
        let mut map = metadata.get(field).and_then(Value::as_object).cloned().unwrap_or_default();
        map.retain(|key, _| !dropped.contains(&key.as_str()) && key != api::RESTORED_BY);
        Value::Object(map)
    };
    json!({
        "metadata": {
            "name": metadata.get("name").cloned().unwrap_or(Value::Null),
            "labels": kept("labels", CONTROLLERS_LABELS),
            "annotations": kept("annotations", OWN_ANNOTATIONS),
        },
        "spec": spec,
    })
}

/// The name of the captured pod.
pub fn name(template: &Value) -> Option<&str> {
    template.pointer("/metadata/name").and_then(Value::as_str)
}

/// The pod to be made: the template with its patches, and then with what makes it a restore, which no patch can change.
pub fn pod<'a>(template: &Value, patches: impl IntoIterator<Item = &'a Value>, wanted: &Wanted<'_>) -> Value {
    let mut pod = json!({
        "metadata": template.get("metadata").cloned().unwrap_or_default(),
        "spec": template.get("spec").cloned().unwrap_or_default(),
    });
    for patch in patches {
        merge(&mut pod, patch);
    }
    let mut metadata = Map::new();
    for field in ["labels", "annotations"] {
        let map = pod.pointer(&format!("/metadata/{field}")).and_then(Value::as_object).cloned();
        metadata.insert(field.to_owned(), Value::Object(map.unwrap_or_default()));
    }
    metadata.insert("name".into(), json!(wanted.name));
    metadata.insert("namespace".into(), json!(wanted.namespace));
    metadata["annotations"][api::RESTORE_FROM] = json!(wanted.checkpoint);
    metadata["annotations"][api::RESTORED_BY_UID] = json!(wanted.restore_uid);
    if let Some(user) = wanted.requested_by {
        metadata["annotations"][api::REQUESTED_BY] = json!(user);
    } else if let Some(annotations) = metadata["annotations"].as_object_mut() {
        // A patch has no say in who asked.
        annotations.remove(api::REQUESTED_BY);
    }
    metadata["labels"][api::RESTORED_BY] = json!(label_value(wanted.restore));
    let mut spec = pod.get("spec").and_then(Value::as_object).cloned().unwrap_or_default();
    // A patch could bind the pod past the scheduler, to a node that does not have the checkpoint.
    spec.remove("nodeName");
    pin(&mut spec, wanted.node);
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec })
}

/// A name as a label's value, which is shorter than a name may be.
pub fn label_value(name: &str) -> String {
    let mut value: String = name.chars().take(63).collect();
    value.truncate(value.trim_end_matches(['-', '.']).len());
    value
}

/// Puts the pod on this node through the scheduler, which still minds its resources and taints: each alternative of the
/// pod's own affinity gets the node in addition.
fn pin(spec: &mut Map<String, Value>, node: &str) {
    let field = json!({ "key": "metadata.name", "operator": "In", "values": [node] });
    let affinity = object(spec.entry("affinity").or_insert_with(|| json!({})));
    let node_affinity = object(affinity.entry("nodeAffinity").or_insert_with(|| json!({})));
    let required = object(
        node_affinity.entry("requiredDuringSchedulingIgnoredDuringExecution").or_insert_with(|| json!({})),
    );
    let terms = required.entry("nodeSelectorTerms").or_insert_with(|| json!([]));
    if !terms.is_array() {
        *terms = json!([]);
    }
    if let Some(terms) = terms.as_array_mut() {
        if terms.is_empty() {
            terms.push(json!({}));
        }
        for term in terms {
            // One that named the captured pod's node, or that of an earlier restore.
            object(term).insert("matchFields".into(), json!([field]));
        }
    }
}

/// The object in a place, which becomes one if it is something else.
fn object(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(map) => map,
        _ => unreachable!("made an object above"),
    }
}

fn names(list: Option<&Value>) -> impl Iterator<Item = &str> {
    let items = list.and_then(Value::as_array).into_iter().flatten();
    items.filter_map(|item| item.get("name").and_then(Value::as_str))
}

fn without(list: Option<&mut Value>, gone: &[String]) {
    if let Some(items) = list.and_then(Value::as_array_mut) {
        items.retain(|item| {
            item.get("name").and_then(Value::as_str).is_none_or(|name| !gone.iter().any(|it| it == name))
        });
    }
}

/// RFC 7386.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    let target = object(target);
    for (key, value) in patch {
        if value.is_null() {
            target.remove(key);
        } else {
            merge(target.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn captured() -> Value {
        json!({
            "metadata": {
                "name": "web-7d4b9-abcde", "namespace": "default", "uid": "u", "resourceVersion": "5",
                "labels": { "app": "web", "pod-template-hash": "7d4b9" },
                "annotations": { "note": "kept", "cryopod.dev/restore-from": "older" },
                "ownerReferences": [{ "kind": "ReplicaSet", "name": "web-7d4b9" }],
            },
            "spec": {
                "nodeName": "n1", "priority": 0, "futureField": { "kept": true },
                "containers": [{
                    "name": "app", "image": "app:1",
                    "volumeMounts": [{ "name": "data", "mountPath": "/d" }, { "name": "kube-api-access-x7", "mountPath": "/t" }],
                }],
                "volumes": [{ "name": "data", "emptyDir": {} }, { "name": "kube-api-access-x7", "projected": {} }],
            },
            "status": { "phase": "Running" },
        })
    }

    fn wanted() -> Wanted<'static> {
        Wanted {
            name: "web",
            namespace: "default",
            checkpoint: "cp",
            restore: "back",
            restore_uid: "ru",
            requested_by: None,
            node: "n2",
        }
    }

    #[test]
    fn a_template_has_nothing_that_belongs_to_the_captured_pod_alone() {
        insta::assert_json_snapshot!(of(&captured()));
    }

    #[test]
    fn a_new_pod_is_a_restore_on_the_node_that_has_the_checkpoint() {
        insta::assert_json_snapshot!(pod(&of(&captured()), [], &wanted()));
    }

    #[test]
    fn patches_change_the_pod_and_never_what_makes_it_a_restore() {
        let patches = [json!({
            "metadata": {
                "name": "other", "namespace": "kube-system", "ownerReferences": [{}],
                "labels": { "app": null, "tier": "test" },
                "annotations": { "cryopod.dev/restore-from": "foreign" },
            },
            "spec": { "nodeName": "n9", "containers": [{ "name": "app", "image": "app:2" }] },
        })];
        let made = pod(&of(&captured()), &patches, &wanted());
        assert_eq!(made["metadata"]["name"], "web");
        assert_eq!(made["metadata"]["namespace"], "default");
        assert!(made["metadata"].get("ownerReferences").is_none());
        assert_eq!(made["metadata"]["annotations"][api::RESTORE_FROM], "cp");
        assert_eq!(made["metadata"]["labels"], json!({ "tier": "test", "cryopod.dev/podrestore": "back" }));
        assert_eq!(made["spec"]["containers"][0]["image"], "app:2");
        assert!(made["spec"].get("nodeName").is_none());
    }

    #[test]
    fn who_asked_is_what_the_restore_says_and_neither_the_captured_pod_nor_a_patch() {
        let mut captured = captured();
        captured["metadata"]["annotations"][api::REQUESTED_BY] = json!("earlier");
        let kept = of(&captured);
        assert!(kept["metadata"]["annotations"].get(api::REQUESTED_BY).is_none());
        let patches = [json!({ "metadata": { "annotations": { "cryopod.dev/requested-by": "forged" } } })];
        let nobody = pod(&kept, &patches, &wanted());
        assert!(nobody["metadata"]["annotations"].get(api::REQUESTED_BY).is_none());
        let made = pod(&kept, &patches, &Wanted { requested_by: Some("jane"), ..wanted() });
        assert_eq!(made["metadata"]["annotations"][api::REQUESTED_BY], "jane");
    }

    #[test]
    fn every_alternative_of_an_affinity_gets_the_node() {
        let mut template = of(&captured());
        template["spec"]["affinity"] = json!({ "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{ "matchExpressions": [{ "key": "a", "operator": "Exists" }] }, {}] } } });
        let made = pod(&template, [], &wanted());
        let terms = made.pointer(
            "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms",
        );
        let terms = terms.and_then(Value::as_array).unwrap();
        assert_eq!(terms.len(), 2);
        assert!(terms.iter().all(|term| term["matchFields"][0]["values"] == json!(["n2"])));
        assert_eq!(terms[0]["matchExpressions"][0]["key"], "a", "the pod's own wishes stay");
    }

    #[test]
    fn what_rfc_7386_says_about_patches_holds() {
        for (target, patch, result) in [
            (json!({"a":"b"}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"b"}), json!({"a":null}), json!({})),
            (json!({"a":["b"]}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":{"b":"c"}}), json!({"a":{"b":"d","c":null}}), json!({"a":{"b":"d"}})),
            (json!({}), json!({"a":{"bb":{"ccc":null}}}), json!({"a":{"bb":{}}})),
            (json!({"a":[{"b":"c"}]}), json!({"a":[1]}), json!({"a":[1]})),
        ] {
            let mut made = target;
            merge(&mut made, &patch);
            assert_eq!(made, result, "{patch}");
        }
    }

    proptest! {
        #[test]
        fn no_patch_makes_it_panic_or_moves_the_pod(text in r#"\{"(metadata|spec)":(null|1|"x"|\[\]|\{"(affinity|labels|annotations|containers)":(null|1|\[1\]|\{"nodeAffinity":(1|\[\])\})\})\}"#) {
            let patch: Value = serde_json::from_str(&text).unwrap();
            let made = pod(&of(&captured()), [&patch], &wanted());
            let at = "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms/0/matchFields/0/values/0";
            prop_assert_eq!(made.pointer(at), Some(&json!("n2")));
            prop_assert_eq!(&made["metadata"]["annotations"][api::RESTORE_FROM], &json!("cp"));
        }

        #[test]
        fn a_label_is_one(name in "[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?") {
            let value = label_value(&name);
            prop_assert!(value.len() <= 63 && !value.ends_with(['-', '.']) && !value.is_empty());
        }
    }
}
