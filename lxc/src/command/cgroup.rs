//! Which cgroup a container gets.

use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::Spec;

use crate::refusal::Refusal;

/// Where containers go whose spec names no cgroup.
const DEFAULT: &str = "cryopod";

/// Relative to the root of the hierarchy.
pub(super) fn path(spec: &Spec, id: &str, systemd: bool) -> Result<PathBuf, Refusal> {
    let field = "linux.cgroupsPath";
    if systemd {
        return Err(Refusal::of("--systemd-cgroup", "is not supported by the LXC backend yet"));
    }
    let wanted = spec.linux().as_ref().and_then(|linux| linux.cgroups_path().as_deref());
    let Some(wanted) = wanted.filter(|path| *path != Path::new("")) else {
        return Ok(Path::new(DEFAULT).join(id));
    };
    let mut path = PathBuf::new();
    for component in wanted.components() {
        match component {
            Component::Normal(name) => path.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(Refusal::of(field, format!("is {wanted:?}, which leads upwards")));
            }
        }
    }
    if path == Path::new("") {
        return Err(Refusal::of(field, "is the root of the hierarchy, which no container can have"));
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(wanted: &str) -> Result<PathBuf, Refusal> {
        let spec = json!({ "ociVersion": "1.2.0", "linux": { "cgroupsPath": wanted } });
        path(&serde_json::from_value(spec).unwrap(), "c1", false)
    }

    #[test]
    fn it_is_below_the_root_of_the_hierarchy() {
        assert_eq!(of("/kubepods/pod1/c1").unwrap(), Path::new("kubepods/pod1/c1"));
        assert_eq!(of("a/./b").unwrap(), Path::new("a/b"));
        assert_eq!(of("").unwrap(), Path::new("cryopod/c1"));
        assert!(of("/").is_err() && of("/a/../../b").is_err());
    }
}
