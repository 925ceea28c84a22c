//! The spec as liblxc's configuration: namespaces, ids, cgroup and root. What liblxc does in other words than the spec has
//! (mounts, capabilities, users, filters) is left to `cryopod-init`.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxIdMapping, LinuxNamespaceType, LinuxTimeOffset, Spec};

use crate::plan::namespace;
use crate::refusal::Refusal;
use crate::resources::Setting;

/// What a container's configuration says besides its spec.
#[derive(Debug, Clone)]
pub struct Place<'a> {
    /// Root of the container, mounted.
    pub root: &'a Path,
    /// Its cgroup, relative to the root of the hierarchy; it must not exist.
    pub cgroup: &'a Path,
    /// Where liblxc may put itself meanwhile.
    pub monitor_cgroup: &'a Path,
    /// Where liblxc writes what it has to say.
    pub log: &'a Path,
    /// Mounts that liblxc makes, with their type.
    pub mounts: &'a [(PathBuf, String)],
    /// Command at which the container waits before its root is changed.
    pub gate: Option<&'a str>,
}

/// What liblxc calls the namespaces.
const NAMESPACES: [(LinuxNamespaceType, &str); 8] = [
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
const FIXED: [(&str, &str); 13] = [
    ("lxc.rootfs.managed", "0"),
    // The spec's mounts are made by cryopod-init; liblxc would add its own ideas of /dev and terminals.
    ("lxc.autodev", "0"),
    ("lxc.tty.max", "0"),
    ("lxc.pty.max", "0"),
    ("lxc.console.path", "none"),
    ("lxc.mount.auto", ""),
    ("lxc.apparmor.profile", "unchanged"),
    // The first process outlives liblxc's monitor, which ends when the container is made.
    ("lxc.monitor.signal.pdeath", "0"),
    ("lxc.signal.halt", "SIGTERM"),
    ("lxc.signal.stop", "SIGKILL"),
    ("lxc.cgroup.relative", "0"),
    ("lxc.cap.drop", ""),
    ("lxc.log.level", "ERROR"),
];

/// The configuration as a file of lines `key = value`.
///
/// # Errors
/// For what liblxc cannot express.
pub fn text(spec: &Spec, place: &Place<'_>, settings: &[Setting]) -> Result<String, Refusal> {
    let mut lines = Lines::default();
    lines.put("lxc.rootfs.path", format!("dir:{}", path("root.path", place.root)?))?;
    for (key, value) in FIXED {
        lines.put(key, value)?;
    }
    lines.put("lxc.log.file", path("log", place.log)?)?;
    lines.put("lxc.cgroup.dir.container", path("linux.cgroupsPath", place.cgroup)?)?;
    lines.put("lxc.cgroup.dir.monitor", path("linux.cgroupsPath", place.monitor_cgroup)?)?;
    lines.namespaces(spec)?;
    lines.ids(spec)?;
    for (destination, kind) in place.mounts {
        let inside = destination.strip_prefix("/").unwrap_or(destination);
        let at = escape(path("mounts.destination", inside)?);
        lines.put("lxc.mount.entry", format!("{kind} {at} {kind} create=dir 0 0"))?;
    }
    if let Some(gate) = place.gate {
        lines.put("lxc.hook.mount", gate)?;
    }
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

/// liblxc splits mount entries at spaces, as fstab(5).
fn escape(path: &str) -> String {
    path.replace('\\', "\\134").replace(' ', "\\040").replace('\t', "\\011")
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
        if namespace(spec, LinuxNamespaceType::Mount) != Some(None) {
            return Err(Refusal::of("linux.namespaces", "has no mount namespace of the container's own"));
        }
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
        self.put("lxc.namespace.clone", own.join(" "))?;
        for (clock, offset) in spec.linux().iter().filter_map(|linux| linux.time_offsets().as_ref()).flatten()
        {
            self.clock(clock, offset)?;
        }
        Ok(())
    }

    fn clock(&mut self, clock: &str, offset: &LinuxTimeOffset) -> Result<(), Refusal> {
        let name = match clock {
            "boottime" => "boot",
            "monotonic" => "monotonic",
            other => {
                return Err(Refusal::of(format!("linux.timeOffsets.{other}"), "is no clock of a namespace"));
            }
        };
        let (seconds, nanoseconds) = (offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0));
        // liblxc takes one unit for one clock.
        let value = if nanoseconds == 0 {
            format!("{seconds}s")
        } else {
            let all = seconds.checked_mul(1_000_000_000).and_then(|all| all.checked_add(nanoseconds.into()));
            let field = format!("linux.timeOffsets.{clock}");
            format!("{}ns", all.ok_or_else(|| Refusal::of(field, "is too large"))?)
        };
        self.put(&format!("lxc.time.offset.{name}"), value)
    }

    fn ids(&mut self, spec: &Spec) -> Result<(), Refusal> {
        let Some(linux) = spec.linux() else { return Ok(()) };
        let Some(shared) = namespace(spec, LinuxNamespaceType::User) else { return Ok(()) };
        for (kind, field, mappings) in
            [("u", "uidMappings", linux.uid_mappings()), ("g", "gidMappings", linux.gid_mappings())]
        {
            let mappings = mappings.as_ref().filter(|mappings| !mappings.is_empty());
            // A shared namespace has its mappings already; that there are some tells liblxc to become its root.
            let mappings = mappings.ok_or_else(|| {
                let which = if shared.is_some() { "a shared" } else { "a new" };
                Refusal::of(format!("linux.{field}"), format!("is missing for {which} user namespace"))
            })?;
            mappings.iter().try_for_each(|mapping| self.mapping(kind, mapping))?;
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
        let mounts =
            [(PathBuf::from("/proc"), "proc".to_owned()), (PathBuf::from("/a b"), "sysfs".to_owned())];
        let place = Place {
            root: Path::new("/bundle/rootfs"),
            cgroup: Path::new("kubepods/pod1/c1"),
            monitor_cgroup: Path::new("kubepods/pod1/c1-start"),
            log: Path::new("/run/c1/log"),
            mounts: &mounts,
            gate: Some("/bin/init gate 5 6"),
        };
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
            ],
            "timeOffsets": { "boottime": { "secs": 5 }, "monotonic": { "secs": 1, "nanosecs": 7 } }
        }))
        .unwrap();
        has(&text, "lxc.namespace.clone = mnt pid cgroup");
        has(&text, "lxc.namespace.share.net = /run/netns/x");
        has(&text, "lxc.namespace.share.uts = /proc/7/ns/uts");
        has(&text, "lxc.time.offset.boot = 5s");
        has(&text, "lxc.time.offset.monotonic = 1000000007ns");
        has(&text, "lxc.cgroup2.memory.max = 67108864");
        has(&text, "lxc.hook.mount = /bin/init gate 5 6");
        has(&text, "lxc.mount.entry = sysfs a\\040b sysfs create=dir 0 0");
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
        assert_eq!(of(&json!({ "namespaces": namespaces })).unwrap_err().field, "linux.uidMappings");
        let shared = json!([{ "type": "mount" }, { "type": "user", "path": "/proc/7/ns/user" }]);
        let text = of(&json!({ "namespaces": shared, "uidMappings": ids, "gidMappings": ids })).unwrap();
        has(&text, "lxc.idmap = u 0 100000 65536");
        has(&text, "lxc.namespace.share.user = /proc/7/ns/user");
    }

    #[test]
    fn nothing_can_add_a_line() {
        let evil = json!({ "namespaces": [{ "type": "mount" }, { "type": "ipc", "path": "/x\nlxc.hook.stop = /evil" }] });
        assert_eq!(of(&evil).unwrap_err().field, "lxc.namespace.share.ipc");
        assert_eq!(of(&json!({ "namespaces": [] })).unwrap_err().field, "linux.namespaces");
    }
}
