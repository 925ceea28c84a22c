//! Capability names to the kernel's numbers (`linux/capability.h`).

use cryopod_init::plan;
use oci_spec::runtime::{Capabilities, LinuxCapabilities};

/// In the order of their numbers.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// The five sets as bits, as far as `available` goes: a node may have fewer than a privileged pod asks for, and what the
/// node has not got no process on it can have (runc and crun do the same).
#[must_use]
pub fn sets(wanted: Option<&LinuxCapabilities>, available: u64) -> plan::Capabilities {
    let Some(wanted) = wanted else { return plan::Capabilities::default() };
    let bits = |set: &Option<Capabilities>| set.as_ref().map_or(0, mask) & available;
    plan::Capabilities {
        bounding: bits(wanted.bounding()),
        effective: bits(wanted.effective()),
        permitted: bits(wanted.permitted()),
        inheritable: bits(wanted.inheritable()),
        ambient: bits(wanted.ambient()),
    }
}

fn mask(set: &Capabilities) -> u64 {
    set.iter()
        .filter_map(|capability| number(&capability.to_string()))
        .fold(0, |mask, number| mask | 1 << number)
}

/// The kernel's number of a capability, with or without `CAP_` before it.
#[must_use]
pub fn number(name: &str) -> Option<usize> {
    let bare = name.strip_prefix("CAP_").unwrap_or(name);
    NAMES.iter().position(|known| *known == bare)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_capability_of_the_spec_has_a_number() {
        let all: Vec<String> = NAMES.iter().map(|name| format!("CAP_{name}")).collect();
        let set: Capabilities = serde_json::from_value(serde_json::json!(all)).unwrap();
        assert_eq!(mask(&set), (1 << NAMES.len()) - 1);
        assert_eq!((number("CAP_CHOWN"), number("SYS_ADMIN"), number("CAP_NO")), (Some(0), Some(21), None));
    }

    #[test]
    fn sets_are_kept_apart_and_nothing_is_promised_that_the_node_has_not_got() {
        let wanted: LinuxCapabilities = serde_json::from_value(serde_json::json!({
            "bounding": ["CAP_KILL", "CAP_BPF"], "effective": ["CAP_KILL"], "ambient": ["CAP_CHOWN"]
        }))
        .unwrap();
        let sets = sets(Some(&wanted), (1 << 39) - 1);
        assert_eq!((sets.bounding, sets.effective, sets.ambient), (1 << 5, 1 << 5, 1));
        assert_eq!((sets.permitted, sets.inheritable), (0, 0));
    }
}
