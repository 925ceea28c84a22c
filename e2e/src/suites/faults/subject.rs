//! The container that the faults happen to: counts in memory, in a file and on standard output, on a ZFS clone.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::cryopod;
use crate::shell::{eventually, ok, sh};
use crate::suite::{Failure, ensure};

const TOP: &str = "tank/faults";
const BUNDLES: &str = "/run/cryopod-e2e/faults";
const PATIENCE: Duration = Duration::from_secs(30);
const COUNT: &str = "i=0; while :; do i=$((i+1)); echo $i >> /count; sleep 0.1; done";

/// A running standalone container.
#[derive(Debug)]
pub struct Subject {
    /// Its name.
    pub name: String,
    pid: u64,
    started: String,
}

impl Subject {
    /// Starts one; whatever an earlier test left under that name goes first.
    pub fn start(name: &str) -> Result<Self, Failure> {
        base()?;
        ok(&format!("cryopod delete --force {name}"))?;
        sh(&format!("zfs destroy -r {TOP}/{name}"))?;
        ok(&format!("zfs clone -o mountpoint=/{TOP}/{name} {TOP}/base@image {TOP}/{name}"))?;
        let bundle = format!("{BUNDLES}/{name}");
        ok(&format!("rm -rf {bundle}; mkdir -p {bundle}"))?;
        ok(&format!("cryopod spec --bundle {bundle} -- sh -c '{COUNT}'"))?;
        let path = format!("{bundle}/config.json");
        let text = fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?;
        let mut spec: Value = serde_json::from_str(&text).map_err(|e| format!("{path}: {e}"))?;
        spec["root"]["path"] = format!("/{TOP}/{name}").into();
        spec["root"]["readonly"] = false.into();
        fs::write(&path, spec.to_string()).map_err(|e| format!("{path}: {e}"))?;
        ok(&format!("cryopod run --detach --bundle {bundle} {name}"))?;
        Self::running(name)
    }

    /// One that runs already.
    pub fn running(name: &str) -> Result<Self, Failure> {
        let state = cryopod::ok(&["state", name])?;
        let pid = state["pid"].as_u64().filter(|&pid| pid > 0).ok_or_else(|| format!("no pid in {state}"))?;
        let subject = Self { name: name.to_owned(), pid, started: started(pid)? };
        subject.counts()?;
        Ok(subject)
    }

    /// Its bundle, where [`Subject::start`] has made one.
    pub fn bundle(&self) -> String {
        format!("{BUNDLES}/{}", self.name)
    }

    /// I1: the very same process runs, is not frozen and counts.
    pub fn survived(&self) -> Result<(), Failure> {
        let now = started(self.pid).map_err(|e| format!("I1: {} is gone: {e}", self.name))?;
        ensure(now == self.started, || format!("I1: pid {} is another process now", self.pid))?;
        self.counts().map_err(|e| format!("I1: {e}"))
    }

    /// Its file grows, and holds each number once (memory and file are in step: I6 after a restore).
    pub fn counts(&self) -> Result<(), Failure> {
        let before = self.count()?;
        eventually(&format!("{} counts on from {before}", self.name), PATIENCE, || {
            Ok((self.count()? > before).then_some(()))
        })
    }

    fn count(&self) -> Result<u64, Failure> {
        let path = format!("/proc/{}/root/count", self.pid);
        let text = match fs::read_to_string(&path) {
            // It has not written its first line yet.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && started(self.pid).is_ok() => String::new(),
            read => read.map_err(|e| format!("{path}: {e}"))?,
        };
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        for (line, expected) in whole.lines().zip(1_u64..) {
            ensure(line == expected.to_string(), || format!("I6: line {expected} of {path} is {line:?}"))?;
        }
        Ok(whole.lines().count() as u64)
    }

    /// Ends it and removes its file system.
    pub fn remove(self) -> Result<(), Failure> {
        ok(&format!("cryopod delete --force {}", self.name))?;
        sh(&format!("zfs destroy -r {TOP}/{}; rm -rf {BUNDLES}/{}", self.name, self.name)).map(drop)
    }
}

/// Start time of a process in clock ticks since boot (field 22 of /proc/PID/stat, proc(5)).
fn started(pid: u64) -> Result<String, Failure> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?;
    let after = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    after.split_whitespace().nth(19).map(str::to_owned).ok_or_else(|| format!("{path}: {text:?}"))
}

/// The image: busybox in a dataset with a snapshot, as an image of the snapshotter would be.
fn base() -> Result<(), Failure> {
    if Path::new(&format!("/{TOP}/base/bin/sh")).exists() {
        return Ok(());
    }
    ok(&format!(
        "zfs create -p {TOP}/base && cd /{TOP}/base && mkdir -p bin dev proc sys tmp etc && \
         cp /bin/busybox bin/busybox && for a in sh sleep cat echo; do ln -sf busybox bin/$a; done && \
         zfs snapshot {TOP}/base@image"
    ))
    .map(drop)
}
