//! Namespaces: which are new, which are joined, and how the first process gets into them.

use cryopod_init::plan::Enter;
use oci_spec::runtime::{LinuxIdMapping, LinuxNamespaceType, LinuxTimeOffset, Spec};

use super::namespace;
use crate::config::NAMESPACES;
use crate::refusal::Refusal;

/// All but the descriptors of those that are joined, the root and the hooks, which the host has.
pub(super) fn enter(spec: &Spec) -> Result<Enter, Refusal> {
    if namespace(spec, LinuxNamespaceType::Mount) != Some(None) {
        return Err(Refusal::of("linux.namespaces", "has no mount namespace of the container's own"));
    }
    let (mut new, mut joins_for_children) = (0, false);
    for (kind, _) in NAMESPACES {
        match namespace(spec, kind) {
            None => {}
            Some(None) => new |= kind as u32,
            Some(Some(_)) => {
                joins_for_children |= matches!(kind, LinuxNamespaceType::Pid | LinuxNamespaceType::User);
            }
        }
    }
    let makes = |kind: LinuxNamespaceType| new & kind as u32 != 0;
    let user = namespace(spec, LinuxNamespaceType::User).is_some();
    if user {
        mapped(spec)?;
    }
    Ok(Enter {
        new,
        // In a user namespace of its own it could not join those of the host any more, and `execve` would take its privileges, since
        // nobody is root in there before there are mappings.
        second: joins_for_children || makes(LinuxNamespaceType::Time) || makes(LinuxNamespaceType::User),
        user,
        clocks: clocks(spec)?,
        ..Enter::default()
    })
}

/// A shared namespace has its mappings already; the spec's say who its root is for the host.
fn mapped(spec: &Spec) -> Result<(), Refusal> {
    let linux = spec.linux().as_ref();
    let shared = matches!(namespace(spec, LinuxNamespaceType::User), Some(Some(_)));
    for (field, mappings) in [
        ("uidMappings", linux.and_then(|linux| linux.uid_mappings().as_ref())),
        ("gidMappings", linux.and_then(|linux| linux.gid_mappings().as_ref())),
    ] {
        if mappings.is_none_or(Vec::is_empty) {
            let which = if shared { "a shared" } else { "a new" };
            return Err(Refusal::of(
                format!("linux.{field}"),
                format!("is missing for {which} user namespace"),
            ));
        }
    }
    Ok(())
}

/// Mappings as the lines of `/proc/PID/uid_map`.
pub fn lines(mappings: Option<&Vec<LinuxIdMapping>>) -> String {
    let line = |mapping: &LinuxIdMapping| {
        format!("{} {} {}\n", mapping.container_id(), mapping.host_id(), mapping.size())
    };
    mappings.into_iter().flatten().map(line).collect()
}

fn clocks(spec: &Spec) -> Result<String, Refusal> {
    let offsets = spec.linux().iter().filter_map(|linux| linux.time_offsets().as_ref()).flatten();
    let mut lines =
        offsets.map(|(clock, offset)| self::clock(clock, offset)).collect::<Result<Vec<_>, _>>()?;
    lines.sort();
    Ok(lines.concat())
}

fn clock(clock: &str, offset: &LinuxTimeOffset) -> Result<String, Refusal> {
    if !matches!(clock, "boottime" | "monotonic") {
        return Err(Refusal::of(format!("linux.timeOffsets.{clock}"), "is no clock of a namespace"));
    }
    Ok(format!("{clock} {} {}\n", offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(linux: &Value) -> Result<Enter, Refusal> {
        enter(&serde_json::from_value(json!({ "ociVersion": "1.2.0", "linux": linux })).unwrap())
    }

    fn namespaces(namespaces: &Value) -> Enter {
        let ids = json!([{ "containerID": 0, "hostID": 100_000, "size": 65_536 }]);
        of(&json!({ "namespaces": namespaces, "uidMappings": ids, "gidMappings": ids })).unwrap()
    }

    #[test]
    fn one_call_makes_what_can_be_made_so() {
        let shared = json!({ "type": "network", "path": "/run/netns/x" });
        let plain = namespaces(&json!([{ "type": "mount" }, { "type": "pid" }, shared]));
        assert_eq!(plain.new, (libc::CLONE_NEWNS | libc::CLONE_NEWPID).unsigned_abs());
        assert!(!plain.second && !plain.user);
        let mapped = namespaces(&json!([{ "type": "mount" }, { "type": "user" }]));
        assert!(mapped.user && mapped.second);
        for more in [
            json!([{ "type": "mount" }, { "type": "user", "path": "/proc/7/ns/user" }]),
            json!([{ "type": "mount" }, { "type": "pid", "path": "/proc/7/ns/pid" }]),
            json!([{ "type": "mount" }, { "type": "time" }]),
        ] {
            assert!(namespaces(&more).second, "{more}");
        }
    }

    #[test]
    fn a_user_namespace_has_mappings_and_a_time_namespace_clocks() {
        let without = json!({ "namespaces": [{ "type": "mount" }, { "type": "user" }] });
        assert_eq!(of(&without).unwrap_err().field, "linux.uidMappings");
        assert_eq!(of(&json!({ "namespaces": [] })).unwrap_err().field, "linux.namespaces");
        let clocks = |offsets: &Value| {
            of(&json!({ "namespaces": [{ "type": "mount" }, { "type": "time" }], "timeOffsets": offsets }))
        };
        let both = json!({ "monotonic": { "secs": 1, "nanosecs": 7 }, "boottime": { "secs": 5 } });
        assert_eq!(clocks(&both).unwrap().clocks, "boottime 5 0\nmonotonic 1 7\n");
        let wrong = clocks(&json!({ "realtime": { "secs": 1 } })).unwrap_err();
        assert_eq!(wrong.field, "linux.timeOffsets.realtime");
        let ids = json!([{ "containerID": 0, "hostID": 1, "size": 2 }, { "containerID": 2, "hostID": 9, "size": 1 }]);
        let ids: Vec<LinuxIdMapping> = serde_json::from_value(ids).unwrap();
        assert_eq!(lines(Some(&ids)), "0 1 2\n2 9 1\n");
    }
}
