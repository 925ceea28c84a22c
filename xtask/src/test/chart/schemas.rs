//! Schemas of Kubernetes' own kinds, offline: the Python package `kubernetes-validate` carries those of many versions. It is
//! fetched by pip, by its hash, into the cache; of each version the kinds that the chart makes are taken out, each with all
//! that it refers to, and closed: a field that the schema does not know is an error.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use cryopod_command::{Command, Limits};
use serde_json::{Value, json};

use crate::cache::Cache;
use crate::recipe::Recipe;

/// Raised when what is done with the package changes.
const REVISION: &str = "2";
const PACKAGE: &str = "kubernetes-validate==1.37.0";
const HASH: &str = "85136d018a27b50ec7fc049d902bfa5193f5976807e6c0f408e3ab6fe078cad9";
/// Names as kubeconform asks for them: kind, first part of the group, version.
const KINDS: &[&str] = &[
    "clusterrole-rbac-v1",
    "clusterrolebinding-rbac-v1",
    "configmap-v1",
    "customresourcedefinition-apiextensions-v1",
    "daemonset-apps-v1",
    "job-batch-v1",
    "pod-v1",
    "role-rbac-v1",
    "rolebinding-rbac-v1",
    "runtimeclass-node-v1",
    "service-v1",
    "serviceaccount-v1",
    "validatingadmissionpolicy-admissionregistration-v1",
    "validatingadmissionpolicybinding-admissionregistration-v1",
];
/// Kinds of later versions, and the first that has them.
const LATER: &[(&str, &str)] = &[
    ("mutatingadmissionpolicy-admissionregistration-v1", "1.36.0"),
    ("mutatingadmissionpolicybinding-admissionregistration-v1", "1.36.0"),
];
/// How a kind refers to a definition; definitions refer to each other by the part behind the number sign.
const REFERENCE: &str = "/api/_definitions.json#/$defs/";

/// The folder with a folder `v1.34.0` per version.
pub(super) fn folder(cache: &Cache, versions: &[&str]) -> Result<PathBuf, String> {
    let key =
        Recipe::default().text(REVISION).text(HASH).text(KINDS.join(",")).text(versions.join(",")).key();
    let folder = cache.root().join("schemas").join(key);
    if folder.is_dir() {
        return Ok(folder);
    }
    let parent = folder.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(parent).map_err(|error| error.to_string())?;
    let half = tempfile::tempdir_in(parent).map_err(|error| error.to_string())?;
    let wheel = fetch(half.path())?;
    for version in versions {
        extract(&wheel, version, half.path())?;
    }
    fs::remove_file(&wheel).map_err(|error| error.to_string())?;
    let half = half.keep();
    match fs::rename(&half, &folder) {
        Ok(()) => Ok(folder),
        // Somebody else was faster.
        Err(_) if folder.is_dir() => {
            fs::remove_dir_all(&half).map(|()| folder).map_err(|error| error.to_string())
        }
        Err(error) => Err(format!("{}: {error}", folder.display())),
    }
}

fn fetch(folder: &Path) -> Result<PathBuf, String> {
    let list = folder.join("requirements.txt");
    fs::write(&list, format!("{PACKAGE} --hash=sha256:{HASH}\n")).map_err(|error| error.to_string())?;
    let pip = Command::new("pip3").args(["download", "--quiet", "--no-deps", "--require-hashes", "--dest"]);
    pip.arg(folder)
        .arg("--requirement")
        .arg(&list)
        .run(&Limits::none())
        .map_err(|error| error.to_string())?;
    fs::remove_file(&list).map_err(|error| error.to_string())?;
    let mut there = fs::read_dir(folder).map_err(|error| error.to_string())?.flatten();
    there.next().map(|entry| entry.path()).ok_or_else(|| "pip left no file".into())
}

fn extract(wheel: &Path, version: &str, folder: &Path) -> Result<(), String> {
    let read = |name: &str| {
        let path = format!("kubernetes_validate/kubernetes-json-schema/v{version}-local/{name}.json");
        let unzip = Command::new("unzip").arg("-p").arg(wheel).arg(path);
        let unzip = unzip.stdout(cryopod_command::Stdout::Capture { limit: 64 << 20 });
        let output = unzip.run(&Limits::none()).map_err(|error| error.to_string())?;
        serde_json::from_slice::<Value>(&output.stdout)
            .map_err(|error| format!("{name} of {version}: {error}"))
    };
    let definitions = read("_definitions")?;
    let to = folder.join(format!("v{version}"));
    fs::create_dir_all(&to).map_err(|error| error.to_string())?;
    let later = LATER.iter().filter(|(_, since)| version >= *since).map(|(kind, _)| kind);
    for kind in KINDS.iter().chain(later) {
        let schema = whole(read(kind)?, &definitions)?;
        fs::write(to.join(format!("{kind}.json")), schema.to_string()).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// A schema with everything that it refers to inside itself, closed.
fn whole(mut schema: Value, definitions: &Value) -> Result<Value, String> {
    let mut wanted = BTreeSet::new();
    close(&mut schema, &mut wanted);
    let mut inside = serde_json::Map::new();
    while let Some(name) = wanted.pop_first() {
        let found = definitions.get("$defs").and_then(|all| all.get(&name));
        let mut definition = found.ok_or_else(|| format!("no definition {name}"))?.clone();
        let mut more = BTreeSet::new();
        close(&mut definition, &mut more);
        inside.insert(name, definition);
        wanted.extend(more.into_iter().filter(|name| !inside.contains_key(name)));
    }
    schema["$defs"] = Value::Object(inside);
    Ok(schema)
}

/// Turns references inwards, noting them, and forbids unknown fields where fields are named.
fn close(value: &mut Value, wanted: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            // Addresses of their own would be what references start from. As properties they are no texts.
            for key in ["$id", "$schema"] {
                if map.get(key).is_some_and(Value::is_string) {
                    map.remove(key);
                }
            }
            let inner =
                |it: &str| it.strip_prefix(REFERENCE).or(it.strip_prefix("#/$defs/")).map(str::to_owned);
            if let Some(name) = map.get("$ref").and_then(Value::as_str).and_then(inner) {
                map.insert("$ref".into(), json!(format!("#/$defs/{name}")));
                wanted.insert(name);
            }
            let named = map.get("properties").is_some_and(Value::is_object);
            let free = map.contains_key("additionalProperties")
                || map.get("x-kubernetes-preserve-unknown-fields").is_some();
            if named && !free {
                map.insert("additionalProperties".into(), json!(false));
            }
            map.values_mut().for_each(|value| close(value, wanted));
        }
        Value::Array(list) => list.iter_mut().for_each(|value| close(value, wanted)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_carries_what_it_refers_to_and_nothing_else() {
        let definitions = json!({"$defs": {
            "a": {"properties": {"b": {"$ref": format!("{REFERENCE}b")}}},
            "b": {"$id": "x", "items": {"$ref": "#/$defs/d"}, "additionalProperties": {"type": "string"}},
            "c": {},
            "d": {"properties": {"$id": {"type": "string"}}},
        }});
        let schema = json!({"properties": {"spec": {"$ref": format!("{REFERENCE}a")}}});
        let schema = whole(schema, &definitions).unwrap();
        assert_eq!(schema["properties"]["spec"]["$ref"], "#/$defs/a");
        assert_eq!(
            (&schema["additionalProperties"], &schema["$defs"]["a"]["additionalProperties"]),
            (&json!(false), &json!(false))
        );
        assert_eq!(schema["$defs"]["b"]["additionalProperties"]["type"], "string");
        assert_eq!(schema["$defs"].as_object().unwrap().len(), 3);
        assert_eq!(schema["$defs"]["d"]["properties"]["$id"]["type"], "string");
        assert!(schema["$defs"]["b"].get("$id").is_none());
        let missing = json!({"$ref": format!("{REFERENCE}x")});
        assert!(whole(missing, &definitions).is_err());
    }
}
