//! Mounts of the spec.

use std::path::{Component, Path, PathBuf};

use cryopod_init::options::{Bind, Options};
use cryopod_init::plan::{self, What};
use oci_spec::runtime::{Linux, LinuxIdMapping, Mount, Spec};

use super::{Host, Ids, Tree};
use crate::refusal::Refusal;

pub(super) fn place(trees: &mut Vec<Tree>, tree: Tree) -> i32 {
    trees.push(tree);
    i32::try_from(trees.len() - 1).unwrap_or(i32::MAX)
}

pub(super) fn mount(
    index: usize,
    wanted: &Mount,
    linux: &Linux,
    host: &Host<'_>,
    trees: &mut Vec<Tree>,
) -> Result<plan::Mount, Refusal> {
    let field = |name: &str| format!("mounts[{index}].{name}");
    let destination = absolute(wanted.destination());
    let options = wanted.options().iter().flatten().map(String::as_str);
    let options = Options::parse(options).map_err(|error| {
        Refusal::of(field("options"), format!("has {:?}, which is not supported", error.0))
    })?;
    let ids = ids(wanted, options.idmap, linux).map_err(|why| Refusal::of(field("uidMappings"), why))?;
    let kind = wanted.typ().as_deref().unwrap_or_default();
    let what = match (kind, options.bind) {
        (_, Some(reach)) => {
            tree(wanted, reach, ids, host, trees).ok_or_else(|| Refusal::of(field("source"), "is missing"))?
        }
        ("bind", None) => tree(wanted, Bind::One, ids, host, trees)
            .ok_or_else(|| Refusal::of(field("source"), "is missing"))?,
        (_, None) if ids.is_some() => {
            return Err(Refusal::of(field("uidMappings"), "is for bind mounts only"));
        }
        // The only ones that a user namespace cannot mount after the old root has gone.
        ("proc" | "sysfs", None) => What::Early { fstype: kind.to_owned() },
        ("", None) => return Err(Refusal::of(field("type"), "is missing")),
        (kind, None) => {
            let source = wanted.source().as_ref().map(|source| source.display().to_string());
            // What runc.v2 clients have always called it.
            let fstype = if kind == "cgroup" { "cgroup2" } else { kind };
            What::Filesystem { fstype: fstype.to_owned(), source: source.unwrap_or_else(|| kind.to_owned()) }
        }
    };
    Ok(plan::Mount { destination, what, options })
}

fn tree(
    wanted: &Mount,
    reach: Bind,
    ids: Option<Ids>,
    host: &Host<'_>,
    trees: &mut Vec<Tree>,
) -> Option<What> {
    let source = host.bundle.join(wanted.source().as_ref()?);
    let directory = source.is_dir();
    Some(What::Tree { fd: place(trees, Tree { source, reach, ids }), directory })
}

/// The mount's own mappings; with the option `idmap` and none of its own, the container's (runtime spec, "Linux mount options").
fn ids(wanted: &Mount, option: Option<Bind>, linux: &Linux) -> Result<Option<Ids>, &'static str> {
    let all = |mappings: Option<&Vec<LinuxIdMapping>>| -> Vec<(u32, u32, u32)> {
        let each = mappings.into_iter().flatten();
        each.map(|mapping| (mapping.container_id(), mapping.host_id(), mapping.size())).collect()
    };
    let own = (all(wanted.uid_mappings().as_ref()), all(wanted.gid_mappings().as_ref()));
    let (users, groups) = match own {
        (users, groups) if users.is_empty() && groups.is_empty() => {
            if option.is_none() {
                return Ok(None);
            }
            (all(linux.uid_mappings().as_ref()), all(linux.gid_mappings().as_ref()))
        }
        own => own,
    };
    if users.is_empty() || groups.is_empty() {
        return Err("and gidMappings are needed both for a mount with other owners");
    }
    Ok(Some(Ids { users, groups, reach: option.unwrap_or(Bind::One) }))
}

/// In the container everything begins at its root, and `..` at the root is the root.
pub(super) fn absolute(path: &Path) -> PathBuf {
    let mut absolute = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => absolute.push(name),
            Component::ParentDir => {
                absolute.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    absolute
}

/// Destinations of what the container gets of the host's tree, as the spec has them.
#[must_use]
pub fn bound(spec: &Spec) -> Vec<PathBuf> {
    sources(spec, Path::new("/")).into_iter().map(|(destination, _)| destination).collect()
}

/// The same with their sources.
#[must_use]
pub fn sources(spec: &Spec, bundle: &Path) -> Vec<(PathBuf, PathBuf)> {
    let bind = |mount: &&Mount| {
        let options = mount.options().iter().flatten();
        mount.typ().as_deref() == Some("bind")
            || options.into_iter().any(|option| option == "bind" || option == "rbind")
    };
    let mounts = spec.mounts().iter().flatten().filter(bind);
    mounts
        .filter_map(|mount| Some((absolute(mount.destination()), bundle.join(mount.source().as_ref()?))))
        .collect()
}

pub(super) fn propagation(name: Option<&str>) -> Result<u64, Refusal> {
    let Some(name) = name.filter(|name| !name.is_empty()) else { return Ok(0) };
    let parsed = Options::parse([name]).ok().map(|options| options.propagation).filter(|flags| *flags != 0);
    parsed.ok_or_else(|| {
        Refusal::of("linux.rootfsPropagation", format!("is {name:?}, which is no propagation"))
    })
}
