//! `cryopod spec`: a config.json to start from.
//!
//! The container it describes can be checkpointed: standard streams are pipes (no terminal unless asked for) and
//! nothing of the host is mounted. Contents follow the OCI runtime specification, config.md and config-linux.md.

use std::io::Write;

use serde_json::{Value, json};

use crate::args::SpecArgs;
use crate::context::Context;
use crate::error::Error;

/// What a process of a container may do by default; the set that containerd and runc give.
const CAPABILITIES: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// Writes or prints the file.
pub(crate) fn run(context: &Context, args: &SpecArgs) -> Result<u8, Error> {
    let spec = default_spec(&args.command, args.terminal);
    if args.print {
        context.output.json(&spec)?;
        return Ok(crate::exit::OK);
    }
    let path = args.bundle.join("config.json");
    let mut text = serde_json::to_vec_pretty(&spec).map_err(|error| Error::Stdout(error.into()))?;
    text.push(b'\n');
    let mut options = std::fs::OpenOptions::new();
    options.write(true);
    if args.force {
        options.create(true).truncate(true)
    } else {
        options.create_new(true)
    };
    let written = options.open(&path).and_then(|mut file| file.write_all(&text));
    written.map_err(|source| match source.kind() {
        std::io::ErrorKind::AlreadyExists => Error::SpecExists { path: path.clone() },
        _ => Error::Write { what: "the specification", path: path.clone(), source },
    })?;
    context.output.result(&json!({ "path": path }), |_| format!("{}", path.display()))?;
    Ok(crate::exit::OK)
}

/// The specification for `command`, a shell where it is empty.
pub(crate) fn default_spec(command: &[String], terminal: bool) -> Value {
    let shell = ["sh".to_owned()];
    let args = if command.is_empty() { &shell[..] } else { command };
    let mut env = vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"];
    if terminal {
        env.push("TERM=xterm");
    }
    json!({
        "ociVersion": "1.2.0",
        "process": {
            "terminal": terminal,
            "user": { "uid": 0, "gid": 0 },
            "args": args,
            "env": env,
            "cwd": "/",
            "capabilities": {
                "bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES
            },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024 }],
            "noNewPrivileges": true
        },
        "root": { "path": "rootfs", "readonly": false },
        "hostname": "cryopod",
        "mounts": mounts(),
        "linux": {
            "namespaces": [
                { "type": "pid" }, { "type": "network" }, { "type": "ipc" },
                { "type": "uts" }, { "type": "mount" }, { "type": "cgroup" }
            ],
            "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
                "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi"
            ],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
        }
    })
}

fn mounts() -> Value {
    json!([
        { "destination": "/proc", "type": "proc", "source": "proc" },
        { "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
          "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
        { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
          "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"] },
        { "destination": "/dev/shm", "type": "tmpfs", "source": "shm",
          "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"] },
        { "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
          "options": ["nosuid", "noexec", "nodev"] },
        { "destination": "/sys", "type": "sysfs", "source": "sysfs",
          "options": ["nosuid", "noexec", "nodev", "ro"] },
        { "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
          "options": ["nosuid", "noexec", "nodev", "relatime", "ro"] }
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_specification_is_one_that_the_oci_types_read() {
        let spec: oci_spec::runtime::Spec =
            serde_json::from_value(default_spec(&["/bin/true".into()], false)).unwrap();
        let process = spec.process().as_ref().unwrap();
        assert_eq!(process.args().as_deref(), Some(&["/bin/true".to_owned()][..]));
        assert_ne!(process.terminal(), Some(true));
        assert_eq!(spec.root().as_ref().unwrap().path().to_str(), Some("rootfs"));
    }

    #[test]
    fn nothing_of_the_host_is_mounted_into_it() {
        let mounts = mounts();
        for mount in mounts.as_array().unwrap() {
            assert_ne!(mount["type"], "bind", "{mount}");
        }
    }
}
