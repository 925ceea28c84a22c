//! Reads what `containerd config dump` says of our runtime handlers.
//!
//! containerd 2.x, configuration versions 3 and 4: `plugins."io.containerd.cri.v1.runtime"` and `….v1.images`.

use toml::{Table, Value};

use super::facts::{ContainerdConfig, Handler};

/// Whether containerd finds our shim by this runtime type: `io.containerd.cryopod.v2`, or with a runtime in its name.
fn is_ours(runtime_type: &str) -> bool {
    let name = runtime_type.strip_prefix("io.containerd.cryopod").and_then(|rest| rest.strip_suffix(".v2"));
    name.is_some_and(|name| name.is_empty() || name.len() > 1 && name.starts_with('-'))
}

/// What containerd uses where nothing is said.
const DEFAULT_SNAPSHOTTER: &str = "overlayfs";

/// The part that concerns us.
pub(super) fn parse(dump: &str) -> Result<ContainerdConfig, String> {
    let table: Table = dump.parse().map_err(|error: toml::de::Error| error.message().to_owned())?;
    let plugin = |name: &str| table.get("plugins").and_then(|plugins| plugins.get(name));
    let Some(runtime) = plugin("io.containerd.cri.v1.runtime") else {
        return Err("containerd runs without its CRI plugin: kubelet cannot use this node".into());
    };
    let snapshotter = plugin("io.containerd.cri.v1.images").and_then(|images| text(images, "snapshotter"));
    let runtimes = runtime.get("containerd").and_then(|section| section.get("runtimes"));
    let mut handlers: Vec<Handler> = runtimes
        .and_then(Value::as_table)
        .into_iter()
        .flatten()
        .filter(|(_, runtime)| text(runtime, "runtime_type").is_some_and(|name| is_ours(&name)))
        .map(|(name, runtime)| Handler {
            name: name.clone(),
            snapshotter: text(runtime, "snapshotter"),
            annotations: passes_annotations(runtime),
        })
        .collect();
    handlers.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(ContainerdConfig {
        handlers,
        snapshotter: snapshotter.unwrap_or_else(|| DEFAULT_SNAPSHOTTER.into()),
        enable_criu: runtime.get("enable_criu").and_then(Value::as_bool),
    })
}

/// A string that is there and not empty.
fn text(value: &Value, key: &str) -> Option<String> {
    value.get(key).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned)
}

/// Whether an annotation of ours matches one of the handler's patterns, which are those of path.Match.
fn passes_annotations(runtime: &Value) -> bool {
    let patterns = runtime.get("pod_annotations").and_then(Value::as_array);
    patterns
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .any(|pattern| matches!(pattern, "*" | "*/*" | "cryopod.dev/*" | "cryopod.dev*" | "cryopod*"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DUMP: &str = r#"
        version = 3
        [plugins.'io.containerd.cri.v1.images']
        snapshotter = "overlayfs"
        [plugins.'io.containerd.cri.v1.runtime']
        enable_criu = false
        [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
        runtime_type = "io.containerd.runc.v2"
        [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.cryopod]
        runtime_type = "io.containerd.cryopod.v2"
        snapshotter = "zfs"
        pod_annotations = ["cryopod.dev/*"]
        [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.bare]
        runtime_type = "io.containerd.cryopod.v2"
        snapshotter = ""
        pod_annotations = ["example.org/*"]
    "#;

    #[test]
    fn our_handlers_are_found_and_no_others() {
        let config = parse(DUMP).unwrap();
        let bare = Handler { name: "bare".into(), snapshotter: None, annotations: false };
        let full = Handler { name: "cryopod".into(), snapshotter: Some("zfs".into()), annotations: true };
        assert_eq!(config.handlers, vec![bare, full]);
        assert_eq!((config.snapshotter.as_str(), config.enable_criu), ("overlayfs", Some(false)));
    }

    #[test]
    fn a_containerd_without_cri_is_told_from_one_without_handlers() {
        assert!(parse("version = 3").unwrap_err().contains("CRI plugin"));
        assert!(parse("[plugins.'io.containerd.cri.v1.runtime']").unwrap().handlers.is_empty());
        assert!(parse("=").is_err());
    }
}
