//! Looks through a container's processes and mounts for what CRIU cannot capture.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use cryopod_checkpoint::refusal::Refusal;

use super::facts::Facts;
use crate::mountinfo::Mount;
use crate::spec::Spec;

/// Devices that CRIU opens again by itself (criu `files-ext.c`, `tty.c`, `tun.c`).
const DEVICES: &[&str] =
    &["null", "zero", "full", "random", "urandom", "tty", "ptmx", "console", "kmsg", "rtc", "net/tun"];
/// File system types that CRIU captures or mounts anew (criu `filesystems.c`, all without `--enable-fs`).
const FILE_SYSTEMS: &[&str] = &[
    "proc",
    "sysfs",
    "devtmpfs",
    "binfmt_misc",
    "tmpfs",
    "devpts",
    "btrfs",
    "pstore",
    "mqueue",
    "securityfs",
    "fusectl",
    "debugfs",
    "tracefs",
    "cgroup",
    "cgroup2",
    "overlay",
    "autofs",
];

/// Refuses for the first process that cannot be captured.
pub(super) fn processes(facts: &Facts, name: &str, init: u32, pids: &[u32]) -> Result<(), Refusal> {
    let parents: BTreeMap<u32, u32> =
        pids.iter().filter_map(|pid| facts.alive(*pid).map(|stat| (*pid, stat.ppid))).collect();
    if let Some(pid) = outsiders(init, &parents).first() {
        let command = command_line(facts, *pid);
        return Err(Refusal::new(
            "exec-session",
            format!("process {pid} ({command}) of container {name} was started by exec"),
            "end the exec session or probe and try again, or checkpoint the disk only",
        ));
    }
    let mounts: BTreeSet<u64> = facts.mounts(init).unwrap_or_default().iter().map(|m| m.id).collect();
    for pid in parents.keys() {
        let status = std::fs::read_to_string(facts.of(*pid, "status")).unwrap_or_default();
        if tracer(&status) != 0 {
            return Err(Refusal::new(
                "traced",
                format!(
                    "process {pid} ({}) of container {name} is traced by process {}",
                    command_line(facts, *pid),
                    tracer(&status)
                ),
                "detach the debugger",
            ));
        }
        files(facts, name, *pid, &mounts)?;
    }
    Ok(())
}

/// Processes of the cgroup that do not descend from init: CRIU dumps a tree and would leave them out.
fn outsiders(init: u32, parents: &BTreeMap<u32, u32>) -> Vec<u32> {
    let descends = |pid: u32| {
        let mut at = pid;
        // No tree is deeper than it has processes, so a loop ends.
        for _ in 0..=parents.len() {
            if at == init {
                return true;
            }
            match parents.get(&at) {
                Some(parent) => at = *parent,
                None => return false,
            }
        }
        false
    };
    parents.keys().copied().filter(|pid| !descends(*pid)).collect()
}

fn tracer(status: &str) -> u32 {
    let line = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
    line.and_then(|rest| rest.trim().parse().ok()).unwrap_or(0)
}

fn command_line(facts: &Facts, pid: u32) -> String {
    let bytes = std::fs::read(facts.of(pid, "cmdline")).unwrap_or_default();
    let words = String::from_utf8_lossy(&bytes).replace('\0', " ");
    words.trim().chars().take(60).collect()
}

fn files(facts: &Facts, name: &str, pid: u32, mounts: &BTreeSet<u64>) -> Result<(), Refusal> {
    let Ok(entries) = std::fs::read_dir(facts.of(pid, "fd")) else { return Ok(()) };
    for entry in entries.flatten() {
        let Ok(target) = std::fs::read_link(entry.path()) else { continue };
        let text = target.to_string_lossy();
        if text == "anon_inode:[io_uring]" {
            return Err(Refusal::new(
                "io-uring",
                format!("process {pid} ({}) of container {name} uses io_uring", command_line(facts, pid)),
                "switch io_uring off in the application or its seccomp profile, or checkpoint the disk only",
            ));
        }
        if is_foreign_device(&facts.dev, &text) {
            return Err(Refusal::new(
                "device-file",
                format!("process {pid} ({}) of container {name} has {text} open", command_line(facts, pid)),
                "close the device, or checkpoint the disk only",
            ));
        }
        // Memory files and files of internal mounts have ids that no mount table shows.
        if !text.starts_with('/')
            || text.starts_with("/memfd:")
            || text.ends_with(" (deleted)")
            || mounts.is_empty()
        {
            continue;
        }
        let number = entry.file_name();
        if stays_outside(&entry.path(), &facts.of(pid, "fdinfo").join(&number), &target, mounts) {
            return Err(Refusal::new(
                "host-file",
                format!(
                    "process {pid} ({}) of container {name} has {text} of the host open as descriptor {}",
                    command_line(facts, pid),
                    number.to_string_lossy()
                ),
                "give it a pipe instead of a file, or checkpoint the disk only",
            ));
        }
    }
    Ok(())
}

/// Whether a descriptor leads to a file outside the container's mounts. The process runs on: between the two looks the
/// number may have come to mean another file, such as the pipe that a shell puts back after `>>`. So it counts only
/// when the target is the same afterwards, and three times in a row, with a pause in between.
fn stays_outside(link: &Path, info: &Path, target: &Path, mounts: &BTreeSet<u64>) -> bool {
    (0..3).all(|look| {
        if look > 0 {
            std::thread::sleep(Duration::from_millis(2));
        }
        let mount = std::fs::read_to_string(info).ok().and_then(|info| mount_id(&info));
        let same = std::fs::read_link(link).is_ok_and(|now| now == target);
        same && mount.is_some_and(|id| !mounts.contains(&id))
    })
}

fn is_foreign_device(dev: &Path, target: &str) -> bool {
    target.strip_prefix("/dev/").is_some_and(|device| {
        let captured =
            ["pts/", "shm/", "mqueue/", "hugepages/"].iter().any(|below| device.starts_with(below));
        !captured && !DEVICES.contains(&device) && is_device(&dev.join(device))
    })
}

/// Files below /dev that are no devices are ordinary files of its tmpfs. The container's /dev may differ from ours: of
/// what we do not have the dump will tell.
fn is_device(target: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    match std::fs::metadata(target) {
        Ok(meta) => meta.file_type().is_char_device() || meta.file_type().is_block_device(),
        Err(_) => false,
    }
}

fn mount_id(fdinfo: &str) -> Option<u64> {
    fdinfo.lines().find_map(|line| line.strip_prefix("mnt_id:")).and_then(|rest| rest.trim().parse().ok())
}

/// Refuses for the first mount that CRIU cannot capture.
pub(super) fn mounts(facts: &Facts, name: &str, init: u32, spec: &Spec) -> Result<(), Refusal> {
    let Some(table) = facts.mounts(init) else { return Ok(()) };
    let binds: Vec<_> = spec.mounts().into_iter().filter(|m| m.is_bind()).map(|m| m.destination).collect();
    let bad = table.iter().find(|mount| !captured(mount, &binds, spec));
    bad.map_or(Ok(()), |mount| {
        Err(Refusal::new(
            "unsupported-mount",
            format!("container {name} has a {} mounted at {}", mount.kind, mount.point.display()),
            "unmount it, mount it through the pod's spec, or checkpoint the disk only",
        ))
    })
}

/// The root and the binds of the spec are external to CRIU, whatever they are on.
fn captured(mount: &Mount, binds: &[std::path::PathBuf], spec: &Spec) -> bool {
    let external = mount.point == Path::new("/")
        || binds.contains(&mount.point)
        || spec.devices().contains(&mount.point);
    external || FILE_SYSTEMS.contains(&mount.kind.as_str())
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;
    use serde_json::json;

    #[test]
    fn whoever_does_not_descend_from_init_is_an_outsider() {
        let parents = BTreeMap::from([(10, 1), (11, 10), (12, 11), (20, 5), (21, 20)]);
        assert_eq!(outsiders(10, &parents), [20, 21]);
        assert_eq!(outsiders(10, &BTreeMap::from([(10, 1), (30, 31), (31, 30)])), [30, 31], "a loop ends");
    }

    #[test]
    fn the_tracer_is_read() {
        assert_eq!(tracer("Name:\tx\nTracerPid:\t77\n"), 77);
        assert_eq!(tracer("Name:\tx\n"), 0);
        assert_eq!(mount_id("pos:\t0\nflags:\t02\nmnt_id:\t41\n"), Some(41));
    }

    #[test]
    fn a_descriptor_that_changes_its_file_meanwhile_is_not_outside() {
        let dir = tempfile::tempdir().expect("directory");
        let mut child = Command::new("sh")
            .args(["-c", "while :; do echo x > file; done"])
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("sh starts");
        let facts = Facts::default();
        let mounts = facts.mounts(child.id()).expect("table").iter().map(|mount| mount.id).collect();
        let seen = (0..3000).try_for_each(|_| files(&facts, "web", child.id(), &mounts));
        child.kill().and_then(|()| child.wait()).expect("sh ends");
        seen.expect("a file of its own and a pipe are captured");
    }

    #[test]
    fn ordinary_devices_are_captured() {
        for device in ["/dev/null", "/dev/urandom", "/dev/pts/0", "/dev/shm/x", "/dev/nonexistent-here"] {
            assert!(!is_foreign_device(Path::new("/dev"), device), "{device}");
        }
    }

    #[test]
    fn mounts_of_the_spec_may_be_anything_and_others_must_be_known() {
        let spec = Spec::from_value(json!({"mounts": [
            {"destination": "/data", "type": "bind", "source": "/srv", "options": ["rbind"]}
        ]}));
        let binds = ["/data".into()];
        let mount = |point: &str, kind: &str| Mount {
            id: 1,
            root: "/".into(),
            point: point.into(),
            kind: kind.into(),
            source: "x".into(),
            options: String::new(),
        };
        for (point, kind, fine) in [
            ("/", "zfs", true),
            ("/data", "nfs4", true),
            ("/proc", "proc", true),
            ("/dev/shm", "tmpfs", true),
            ("/mnt", "fuse.sshfs", false),
            ("/data/below", "zfs", false),
        ] {
            assert_eq!(captured(&mount(point, kind), &binds, &spec), fine, "{point} {kind}");
        }
    }

    #[test]
    fn this_process_would_pass_or_be_refused_with_a_known_code() {
        let me = std::process::id();
        if let Err(refusal) = processes(&Facts::default(), "self", me, &[me]) {
            assert!(crate::preflight::CODES.iter().any(|(code, _)| *code == refusal.code), "{refusal}");
        }
    }
}
