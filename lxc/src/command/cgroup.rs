//! Which cgroup a container gets.

use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::Spec;

use super::Failure;
use crate::refusal::Refusal;
use crate::systemd::{Scope, Unit};

/// Where containers go whose spec names no cgroup.
const DEFAULT: &str = "cryopod";

/// The group, and what keeps it until the container is in it.
pub(super) struct Place {
    /// Relative to the root of the hierarchy.
    pub(super) path: PathBuf,
    _scope: Option<Scope>,
}

/// As the spec says, in the words of the driver: a path, or `slice:prefix:name`.
pub(super) fn place(spec: &Spec, id: &str, systemd: bool) -> Result<Place, Failure> {
    let wanted = spec.linux().as_ref().and_then(|linux| linux.cgroups_path().as_deref());
    let text = wanted.and_then(Path::to_str).unwrap_or_default();
    // Nobody else writes colons there, and kubelet's driver need not be known twice.
    if !systemd && text.matches(':').count() != 2 {
        return Ok(Place { path: path(wanted, id)?, _scope: None });
    }
    let unit = Unit::parse(text, id)?;
    let own = std::env::current_exe()?.display().to_string();
    let scope = Scope::start(&unit, &[own, "wait".to_owned()])?;
    Ok(Place { path: scope.container(), _scope: Some(scope) })
}

fn path(wanted: Option<&Path>, id: &str) -> Result<PathBuf, Refusal> {
    let field = "linux.cgroupsPath";
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
    use super::*;

    fn of(wanted: &str) -> Result<PathBuf, Refusal> {
        path(Some(Path::new(wanted)), "c1")
    }

    #[test]
    fn it_is_below_the_root_of_the_hierarchy() {
        assert_eq!(of("/kubepods/pod1/c1").unwrap(), Path::new("kubepods/pod1/c1"));
        assert_eq!(of("a/./b").unwrap(), Path::new("a/b"));
        assert_eq!(of("").unwrap(), Path::new("cryopod/c1"));
        assert!(of("/").is_err() && of("/a/../../b").is_err());
    }
}
