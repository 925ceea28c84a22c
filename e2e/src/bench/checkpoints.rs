//! Checkpoint and restore of a container that changed much on disk, against containerd's own CRI checkpoint.
//!
//! The freeze is what the application sees: a process in the container notes the longest time between two of its
//! steps, on both sides alike. The stock side uses the overlay snapshotter, since on the ZFS snapshotter containerd's
//! checkpoint fails (it mounts a dataset that is in use).

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Figure, Sizes, median};
use crate::crictl::{Container, Pod, Spec};
use crate::shell::{eventually, exec_ok, ok};
use crate::suite::{Failure, ensure};

/// Writes the file, then steps every 5 ms and notes the longest gap in milliseconds since the marker was made, and a token
/// that it has in memory alone.
const APP: &str = r"
import os, sys, time
mib, life = int(sys.argv[1]), os.urandom(8).hex()
block = os.urandom(1 << 20)
with open('/data/big', 'wb') as f:
    for i in range(mib):
        f.write(i.to_bytes(8, 'little') + block[8:])
os.sync()
open('/data/ready', 'w').close()
worst, last, written = 0.0, time.monotonic(), 0.0
while True:
    now = time.monotonic()
    worst = max(worst, now - last)
    last = now
    if os.path.exists('/data/reset'):
        os.unlink('/data/reset'); worst = 0.0
    if now - written > 0.5:
        with open('/data/gap.tmp', 'w') as f: f.write('%f %s' % (worst * 1000, life))
        os.rename('/data/gap.tmp', '/data/gap'); written = now
    time.sleep(0.005)
";

/// One checkpoint and restore, in milliseconds.
struct Sample {
    freeze: f64,
    /// To a checkpoint that can be restored: committed, respectively the archive.
    total: f64,
    /// Ours only: until it is independent of its source. The archive is from the start.
    settled: f64,
    restore: f64,
}

/// `checkpoint_freeze`, `checkpoint_total`, `checkpoint_settled`, `restore_total`, `freeze_growth`.
pub fn figures(sizes: &Sizes) -> Result<Vec<Figure>, Failure> {
    let mut large = Vec::new();
    let mut small = Vec::new();
    let mut theirs = Vec::new();
    // In turn, so that a slow spell of the machine meets both sides.
    for run in 0..sizes.runs.max(sizes.stock_large_runs) {
        if run < sizes.runs {
            large.push(ours(sizes.large_mib)?);
            small.push(ours(sizes.small_mib)?);
        }
        if run < sizes.stock_large_runs {
            theirs.push(stock(sizes.large_mib)?);
        }
    }
    let of = |samples: &[Sample], what: fn(&Sample) -> f64| samples.iter().map(what).collect::<Vec<_>>();
    let figure = |key, what: String, get: fn(&Sample) -> f64, target| Figure {
        key,
        what,
        unit: "ms",
        ours: of(&large, get),
        stock: of(&theirs, get),
        target: Some(target),
        middle: median,
    };
    let mib = sizes.large_mib;
    Ok(vec![
        figure(
            "checkpoint_freeze",
            format!(
                "longest stop seen by an application that changed {mib} MiB on disk: `cryopod checkpoint` against `crictl checkpoint` (runc.v2, runc, overlayfs)"
            ),
            |s| s.freeze,
            0.03,
        ),
        figure(
            "checkpoint_total",
            format!("command to a committed checkpoint in the store, {mib} MiB changed"),
            |s| s.total,
            0.2,
        ),
        Figure {
            target: None,
            ..figure(
                "checkpoint_settled",
                format!("command to a checkpoint that is independent of its source, {mib} MiB changed"),
                |s| s.settled,
                0.0,
            )
        },
        figure(
            "restore_total",
            format!("CreateContainer + StartContainer from the checkpoint, {mib} MiB changed"),
            |s| s.restore,
            0.5,
        ),
        Figure {
            key: "freeze_growth",
            what: format!("our freeze with {mib} MiB changed against {} MiB", sizes.small_mib),
            unit: "ms",
            ours: of(&large, |s| s.freeze),
            stock: of(&small, |s| s.freeze),
            target: Some(1.3),
            middle: median,
        },
    ])
}

fn app(mib: u32) -> Spec {
    Spec {
        name: "app".into(),
        image: "localhost/workloads:1".into(),
        command: ["python3", "-c", APP, &mib.to_string()].map(str::to_owned).to_vec(),
        extra: json!({}),
    }
}

fn start(handler: &str, mib: u32) -> Result<(Pod, Container), Failure> {
    let pod = Pod::run(handler, "bench")?;
    let container = pod.start(&app(mib))?;
    let root = format!("/proc/{}/root/data", container.pid()?);
    let patience = Duration::from_secs(120 + u64::from(mib));
    eventually("the application has written its file", patience, || {
        Ok(fs::exists(format!("{root}/ready")).unwrap_or(false).then_some(()))
    })?;
    ok("sync; zpool sync tank")?;
    // Not the writing but the checkpoint shall be the longest stop.
    fs::write(format!("{root}/reset"), "").map_err(|e| format!("{root}/reset: {e}"))?;
    std::thread::sleep(Duration::from_secs(2));
    Ok((pod, container))
}

/// What the application has noted: its longest stop, and its token.
fn note(container: &Container) -> Result<(f64, String), Failure> {
    let path = format!("/proc/{}/root/data/gap", container.pid()?);
    let text = fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?;
    let fields = text.split_once(' ').and_then(|(gap, life)| Some((gap.parse().ok()?, life.to_owned())));
    fields.ok_or_else(|| format!("{path}: {text:?}"))
}

fn gap(container: &Container) -> Result<(f64, String), Failure> {
    std::thread::sleep(Duration::from_millis(1500));
    note(container)
}

fn ours(mib: u32) -> Result<Sample, Failure> {
    let (pod, container) = start("cryopod", mib)?;
    let begin = Instant::now();
    let text = exec_ok(&["cryopod", "-o", "json", "checkpoint", "--mode", "full", &pod.id])?;
    let value: Value = serde_json::from_str(&text).map_err(|e| format!("cryopod checkpoint: {e}: {text}"))?;
    let id = value["id"].as_str().ok_or_else(|| format!("no id in {text}"))?.to_owned();
    let total = begin.elapsed().as_secs_f64() * 1000.0;
    exec_ok(&["cryopod", "settle", &id])?;
    let settled = begin.elapsed().as_secs_f64() * 1000.0;
    let (freeze, life) = gap(&container)?;
    pod.remove()?;
    let annotations = BTreeMap::from([("cryopod.dev/restore-from".to_owned(), id.clone())]);
    let pod = Pod::run_with("cryopod", "restored", &annotations, &json!({}))?;
    let begin = Instant::now();
    let container = pod.start(&app(mib).with(&json!({"annotations": annotations})))?;
    let restore = begin.elapsed().as_secs_f64() * 1000.0;
    alive(&container, &life)?;
    pod.remove()?;
    exec_ok(&["cryopod", "checkpoints", "delete", &id])?;
    Ok(Sample { freeze, total, settled, restore })
}

fn stock(mib: u32) -> Result<Sample, Failure> {
    let (pod, container) = start("runc-overlay", mib)?;
    let archive = "/var/tmp/cryopod-bench.tar";
    let begin = Instant::now();
    exec_ok(&["crictl", "--timeout", "1800s", "checkpoint", "--export", archive, &container.id])?;
    let total = begin.elapsed().as_secs_f64() * 1000.0;
    let (freeze, life) = gap(&container)?;
    pod.remove()?;
    let pod = Pod::run("runc-overlay", "restored")?;
    let mut spec = app(mib);
    spec.image = archive.into();
    let begin = Instant::now();
    let container = pod.start(&spec)?;
    let restore = begin.elapsed().as_secs_f64() * 1000.0;
    alive(&container, &life)?;
    pod.remove()?;
    ok(&format!("rm -f {archive}"))?;
    Ok(Sample { freeze, total, settled: total, restore })
}

/// The restored application goes on, with the memory that it had: it rewrites its note.
fn alive(container: &Container, life: &str) -> Result<(), Failure> {
    let path = format!("/proc/{}/root/data/gap", container.pid()?);
    let written = || fs::metadata(&path).and_then(|m| m.modified()).map_err(|e| format!("{path}: {e}"));
    let before = written()?;
    eventually("the restored application goes on", Duration::from_secs(20), || {
        Ok((written()? != before).then_some(()))
    })?;
    let (_, now) = note(container)?;
    ensure(now == life, || format!("the restored application has token {now}, not {life}: it began afresh"))
}
