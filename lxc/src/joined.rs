//! Namespaces that a container joins: each path has to be a namespace of the type that the spec says it is. What was looked at is
//! what is joined: the descriptor.

use std::fs::File;

use oci_spec::runtime::{LinuxNamespaceType, Spec};

use crate::refusal::Refusal;
use crate::sys;

/// What the kernel calls each type.
const TYPES: [(LinuxNamespaceType, i32); 8] = [
    (LinuxNamespaceType::Mount, libc::CLONE_NEWNS),
    (LinuxNamespaceType::Pid, libc::CLONE_NEWPID),
    (LinuxNamespaceType::Network, libc::CLONE_NEWNET),
    (LinuxNamespaceType::Ipc, libc::CLONE_NEWIPC),
    (LinuxNamespaceType::Uts, libc::CLONE_NEWUTS),
    (LinuxNamespaceType::Cgroup, libc::CLONE_NEWCGROUP),
    (LinuxNamespaceType::User, libc::CLONE_NEWUSER),
    (LinuxNamespaceType::Time, libc::CLONE_NEWTIME),
];

/// Opens the namespaces that the spec names, in the order in which they are joined: the user namespace at last, since who is in it
/// can join none of the host's any more.
///
/// # Errors
/// For the first path that is not there, is no namespace or is one of another type.
pub fn open(spec: &Spec) -> Result<Vec<File>, Refusal> {
    let namespaces = spec.linux().iter().filter_map(|linux| linux.namespaces().as_ref()).flatten();
    let mut opened = Vec::new();
    for namespace in namespaces {
        let Some(path) = namespace.path() else { continue };
        let kind = namespace.typ();
        let refused = |why: String| {
            Refusal::of(format!("linux.namespaces[{kind}].path"), format!("is {}, {why}", path.display()))
        };
        if !path.is_absolute() {
            return Err(refused("which is not absolute".to_owned()));
        }
        let file = File::open(path).map_err(|error| refused(format!("which cannot be opened: {error}")))?;
        let found =
            sys::namespace_type(&file).map_err(|error| refused(format!("which is no namespace: {error}")))?;
        if !TYPES.contains(&(kind, found)) {
            let of = TYPES.iter().find(|(_, flag)| *flag == found);
            let of = of.map_or_else(|| format!("type {found:#x}"), |(other, _)| format!("type {other}"));
            return Err(refused(format!("a namespace of {of}")));
        }
        opened.push((kind == LinuxNamespaceType::User, file));
    }
    opened.sort_by_key(|(user, _)| *user);
    Ok(opened.into_iter().map(|(_, file)| file).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(kind: &str, path: &str) -> Result<(), String> {
        let spec = serde_json::json!({
            "ociVersion": "1.0.2", "root": { "path": "rootfs" },
            "linux": { "namespaces": [{ "type": "mount" }, { "type": kind, "path": path }] }
        });
        open(&serde_json::from_value(spec).unwrap()).map(drop).map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn a_path_has_to_be_a_namespace_of_its_type() {
        for (kind, name) in [("network", "net"), ("ipc", "ipc"), ("uts", "uts"), ("cgroup", "cgroup")] {
            assert_eq!(checked(kind, &format!("/proc/self/ns/{name}")), Ok(()));
        }
        assert_eq!(
            checked("network", "/proc/self/ns/pid"),
            Err("linux.namespaces[net].path is /proc/self/ns/pid, a namespace of type pid".to_owned())
        );
        assert!(checked("uts", "/proc/self/status").is_err_and(|why| why.contains("which is no namespace")));
        assert!(checked("ipc", "/no/such/file").is_err_and(|why| why.contains("cannot be opened")));
    }
}
