//! Questions about the node that change nothing: its units, programs, libraries and mounts.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use cryopod_command::{Command, Limits};
use nix::time::{ClockId, clock_gettime};

use super::containerd::{self, Kind};
use super::files::at;
use super::{Error, bundles};
use crate::host::{at_work, programs};

/// Programs that only tell something.
pub(super) const QUESTION: std::time::Duration = std::time::Duration::from_secs(30);
/// Where programs may be that a service is started with.
const PATH: &[&str] = &["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// Handlers with pods; where there are none, programs of ours that run all the same.
pub(super) fn in_use(kind: Kind) -> BTreeMap<String, BTreeSet<String>> {
    let bundles = bundles::in_use(Path::new(kind.run()));
    if !bundles.is_empty() {
        return bundles;
    }
    programs::own_library().map(|library| at_work::programs(&library)).unwrap_or_default()
}

pub(super) fn is_active(unit: &str) -> bool {
    let ask = Command::new("systemctl").args(["is-active", "--quiet", unit]);
    ask.status(&Limits::within(QUESTION)).is_ok_and(|(status, _)| status.success())
}

pub(super) fn since(unit: &str) -> Option<u64> {
    let ask =
        Command::new("systemctl").args(["show", "--value", "--property=ActiveEnterTimestampMonotonic", unit]);
    let output = ask.run(&Limits::within(QUESTION)).ok()?;
    String::from_utf8_lossy(&output.stdout).trim().parse().ok().filter(|since| *since > 0)
}

pub(super) fn version(program: &str) -> Option<(u32, u32)> {
    let output = Command::new(found(program)?).arg("--version").run(&Limits::within(QUESTION)).ok()?;
    containerd::version(&String::from_utf8_lossy(&output.stdout))
}

/// A program by path, or by name where services look.
pub(super) fn found(program: &str) -> Option<PathBuf> {
    let path = Path::new(program);
    if path.is_absolute() {
        return path.exists().then(|| path.to_owned());
    }
    PATH.iter().map(|dir| Path::new(dir).join(program)).find(|path| path.exists())
}

/// Handlers whose programs or libraries are not here.
pub(super) fn impossible(handlers: &[String]) -> BTreeMap<String, String> {
    let why = |handler: &String| {
        let shim = format!("containerd-shim-{handler}-v2");
        let lxc = handler == "cryopod-lxc";
        let programs = std::iter::once(shim.as_str()).chain(lxc.then_some("cryopod-lxc"));
        if let Some(missing) = programs.into_iter().find(|name| found(name).is_none()) {
            return Some(format!("{missing} is not installed"));
        }
        (lxc && !has_library("libseccomp.so.2"))
            .then(|| "libseccomp.so.2 is missing: install libseccomp2".to_owned())
    };
    handlers.iter().filter_map(|handler| Some((handler.clone(), why(handler)?))).collect()
}

pub(super) fn has_library(name: &str) -> bool {
    let Some(program) = found("ldconfig") else { return true };
    let listed = Command::new(program).arg("-p").run(&Limits::within(QUESTION));
    listed.map_or(true, |output| String::from_utf8_lossy(&output.stdout).contains(name))
}

/// The snapshotter works where its folder is a ZFS file system.
pub(super) fn zfs(kind: Kind) -> bool {
    let folder = format!("{}/io.containerd.snapshotter.v1.zfs", kind.root());
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mounts.lines().any(|line| {
        let mut words = line.split(' ').skip(1);
        (words.next(), words.next()) == (Some(folder.as_str()), Some("zfs"))
    })
}

pub(super) fn others(drop_in: &Path) -> bool {
    let entries = drop_in.parent().and_then(|dir| fs::read_dir(dir).ok()).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .any(|path| path != drop_in && path.extension().is_some_and(|it| it == "toml"))
}

pub(super) fn boot() -> Result<String, Error> {
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    Ok(fs::read_to_string(path).map_err(at("read", path))?.trim().to_owned())
}

/// As systemd counts.
pub(super) fn now_us() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(u64::MAX, |now| {
        let (seconds, nanoseconds) = (now.tv_sec().unsigned_abs(), now.tv_nsec().unsigned_abs());
        seconds * 1_000_000 + nanoseconds / 1_000
    })
}
