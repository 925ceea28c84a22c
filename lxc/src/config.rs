//! The container as a configuration of LXC: what `lxc-ls`, `lxc-info` and `lxc-attach` look up in it, by the file or by our
//! monitor. Nothing is made of it, and `lxc-start` is refused: it would start the container a second time, without its pod.

use std::path::Path;

use oci_spec::runtime::{LinuxIdMapping, LinuxNamespaceType, Spec};

use crate::plan::namespace;
use crate::refusal::Refusal;
use crate::resources::Setting;

/// What a container's configuration says besides its spec.
#[derive(Debug, Clone)]
pub struct Place<'a> {
    /// Root of the container, mounted.
    pub root: &'a Path,
    /// Its cgroup, relative to the root of the hierarchy.
    pub cgroup: &'a Path,
}

/// What liblxc calls the namespaces.
pub(crate) const NAMESPACES: [(LinuxNamespaceType, &str); 8] = [
    (LinuxNamespaceType::Mount, "mnt"),
    (LinuxNamespaceType::Pid, "pid"),
    (LinuxNamespaceType::Network, "net"),
    (LinuxNamespaceType::Ipc, "ipc"),
    (LinuxNamespaceType::Uts, "uts"),
    (LinuxNamespaceType::Cgroup, "cgroup"),
    (LinuxNamespaceType::User, "user"),
    (LinuxNamespaceType::Time, "time"),
];

/// Always the same.
const FIXED: [(&str, &str); 12] = [
    ("lxc.rootfs.managed", "0"),
    ("lxc.autodev", "0"),
    ("lxc.tty.max", "0"),
    ("lxc.pty.max", "0"),
    ("lxc.console.path", "none"),
    ("lxc.mount.auto", ""),
    ("lxc.apparmor.profile", "unchanged"),
    ("lxc.signal.halt", "SIGTERM"),
    ("lxc.signal.stop", "SIGKILL"),
    ("lxc.cgroup.relative", "0"),
    ("lxc.cap.drop", ""),
    ("lxc.hook.pre-start", "false"),
];

/// The configuration as a file of lines `key = value`.
///
/// # Errors
/// For what the LXC tools cannot read.
pub fn text(spec: &Spec, place: &Place<'_>, settings: &[Setting]) -> Result<String, Refusal> {
    let mut lines = Lines::default();
    lines.put("lxc.rootfs.path", format!("dir:{}", path("root.path", place.root)?))?;
    for (key, value) in FIXED {
        lines.put(key, value)?;
    }
    lines.put("lxc.cgroup.dir.container", path("linux.cgroupsPath", place.cgroup)?)?;
    lines.namespaces(spec)?;
    lines.ids(spec)?;
    for (file, value) in settings {
        lines.put(&format!("lxc.cgroup2.{file}"), value)?;
    }
    Ok(lines.0)
}

/// `CLONE_NEW*` of the namespaces that the container does not share with the host; `lxc-attach` enters those.
#[must_use]
pub fn clone_flags(spec: &Spec) -> u32 {
    let of = |kind: LinuxNamespaceType| namespace(spec, kind).map_or(0, |_| kind as u32);
    NAMESPACES.iter().fold(0, |flags, (kind, _)| flags | of(*kind))
}

fn path<'a>(field: &str, path: &'a Path) -> Result<&'a str, Refusal> {
    path.to_str().ok_or_else(|| Refusal::of(field, format!("is {path:?}, which is not UTF-8")))
}

#[derive(Default)]
struct Lines(String);

impl Lines {
    fn put(&mut self, key: &str, value: impl AsRef<str>) -> Result<(), Refusal> {
        let value = value.as_ref();
        // One value, one line: whoever can add a line can run anything as root (lxc.hook.*).
        if value.contains(['\n', '\r', '\0']) {
            return Err(Refusal::of(key, format!("would be {value:?}, which is more than one line")));
        }
        self.0.push_str(key);
        self.0.push_str(" = ");
        self.0.push_str(value);
        self.0.push('\n');
        Ok(())
    }

    fn namespaces(&mut self, spec: &Spec) -> Result<(), Refusal> {
        let mut own = Vec::new();
        for (kind, name) in NAMESPACES {
            match namespace(spec, kind) {
                None => {}
                Some(None) => own.push(name),
                Some(Some(shared)) => {
                    let field = format!("linux.namespaces[{name}].path");
                    if !shared.is_absolute() {
                        return Err(Refusal::of(field, format!("is {shared:?}, which is not absolute")));
                    }
                    self.put(&format!("lxc.namespace.share.{name}"), path(&field, shared)?)?;
                }
            }
        }
        // Those that are neither new nor shared are the host's.
        self.put("lxc.namespace.clone", own.join(" "))
    }

    fn ids(&mut self, spec: &Spec) -> Result<(), Refusal> {
        let linux = spec.linux().as_ref().filter(|_| namespace(spec, LinuxNamespaceType::User).is_some());
        let Some(linux) = linux else { return Ok(()) };
        for (kind, mappings) in [("u", linux.uid_mappings()), ("g", linux.gid_mappings())] {
            mappings.iter().flatten().try_for_each(|mapping| self.mapping(kind, mapping))?;
        }
        Ok(())
    }

    fn mapping(&mut self, kind: &str, mapping: &LinuxIdMapping) -> Result<(), Refusal> {
        let (inside, outside, count) = (mapping.container_id(), mapping.host_id(), mapping.size());
        self.put("lxc.idmap", format!("{kind} {inside} {outside} {count}"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(linux: &Value) -> Result<String, Refusal> {
        let spec: Spec = serde_json::from_value(json!({ "ociVersion": "1.2.0", "linux": linux })).unwrap();
        let place = Place { root: Path::new("/bundle/rootfs"), cgroup: Path::new("kubepods/pod1/c1") };
        text(&spec, &place, &[("memory.max".to_owned(), "67108864".to_owned())])
    }

    fn has(text: &str, line: &str) {
        assert!(text.lines().any(|each| each == line), "{line:?} is not in\n{text}");
    }

    #[test]
    fn namespaces_are_new_shared_or_the_hosts() {
        let text = of(&json!({
            "namespaces": [
                { "type": "mount" }, { "type": "pid" }, { "type": "cgroup" },
                { "type": "network", "path": "/run/netns/x" }, { "type": "uts", "path": "/proc/7/ns/uts" }
            ]
        }))
        .unwrap();
        has(&text, "lxc.namespace.clone = mnt pid cgroup");
        has(&text, "lxc.namespace.share.net = /run/netns/x");
        has(&text, "lxc.namespace.share.uts = /proc/7/ns/uts");
        has(&text, "lxc.cgroup2.memory.max = 67108864");
        has(&text, "lxc.hook.pre-start = false");
        assert!(!text.contains("lxc.idmap") && !text.contains("share.ipc"));
    }

    #[test]
    fn a_user_namespace_is_mapped() {
        let ids = json!([{ "containerID": 0, "hostID": 100_000, "size": 65_536 }]);
        let namespaces = json!([{ "type": "mount" }, { "type": "user" }]);
        let text = of(&json!({ "namespaces": namespaces, "uidMappings": ids, "gidMappings": ids })).unwrap();
        has(&text, "lxc.idmap = u 0 100000 65536");
        has(&text, "lxc.idmap = g 0 100000 65536");
        has(&text, "lxc.namespace.clone = mnt user");
        let shared = json!([{ "type": "mount" }, { "type": "user", "path": "/proc/7/ns/user" }]);
        let text = of(&json!({ "namespaces": shared, "uidMappings": ids, "gidMappings": ids })).unwrap();
        has(&text, "lxc.idmap = u 0 100000 65536");
        has(&text, "lxc.namespace.share.user = /proc/7/ns/user");
    }

    #[test]
    fn nothing_can_add_a_line() {
        let evil = json!({ "namespaces": [{ "type": "mount" }, { "type": "ipc", "path": "/x\nlxc.hook.stop = /evil" }] });
        assert_eq!(of(&evil).unwrap_err().field, "lxc.namespace.share.ipc");
    }
}
