//! `events`: figures of a container, and what happens to it, as lines of JSON that have runc's form (runc `types/events.go`).

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use serde_json::{Value, json};

use super::Failure;
use super::args::EventsArgs;
use crate::state::Container;

/// How soon an event is told: the kernel has no file to wait for that says which one it was.
const LOOK_EVERY: Duration = Duration::from_millis(200);

pub(super) fn events(container: &Container, args: &EventsArgs) -> Result<(), Failure> {
    let group = &container.record.cgroup;
    if args.stats {
        return say(container, "stats", &figures(group)).map(drop);
    }
    if args.interval.is_zero() {
        return Err("--interval: is 0, which is no time between two lines".into());
    }
    let process = container.process().ok_or("the container does not run")?;
    let mut killed = count(group, "memory.events", "oom_kill");
    let mut next = Instant::now() + args.interval;
    loop {
        let timeout = LOOK_EVERY.min(next.saturating_duration_since(Instant::now())).try_into().ok();
        let ended = match poll(&mut [PollFd::new(&process, PollFlags::IN)], timeout.as_ref()) {
            Ok(ended) => ended > 0,
            Err(rustix::io::Errno::INTR) => false,
            Err(error) => return Err(error.into()),
        };
        let now = count(group, "memory.events", "oom_kill");
        if now > killed && !say(container, "oom", &Value::Null)? {
            return Ok(());
        }
        killed = now;
        if ended {
            return Ok(());
        }
        if Instant::now() >= next {
            if !say(container, "stats", &figures(group))? {
                return Ok(());
            }
            next = Instant::now() + args.interval;
        }
    }
}

/// Answers whether anybody still reads.
fn say(container: &Container, kind: &str, data: &Value) -> Result<bool, Failure> {
    let mut line = json!({ "type": kind, "id": container.record.id });
    if !data.is_null() {
        line["data"] = data.clone();
    }
    match writeln!(std::io::stdout().lock(), "{line}") {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        result => Ok(result.map(|()| true)?),
    }
}

/// `name value` lines.
fn flat(group: &Path, file: &str) -> BTreeMap<String, u64> {
    let text = fs::read_to_string(group.join(file)).unwrap_or_default();
    let pairs = text.lines().filter_map(|line| line.split_once(' '));
    pairs.filter_map(|(name, value)| Some((name.to_owned(), value.trim().parse().ok()?))).collect()
}

fn count(group: &Path, file: &str, name: &str) -> u64 {
    flat(group, file).get(name).copied().unwrap_or(0)
}

/// A file with one number; `max` is none.
fn single(group: &Path, file: &str) -> Option<u64> {
    fs::read_to_string(group.join(file)).ok()?.trim().parse().ok()
}

fn figures(group: &Path) -> Value {
    let cpu = flat(group, "cpu.stat");
    let of = |name: &str| cpu.get(name).copied().unwrap_or(0);
    // The kernel counts microseconds, runc says nanoseconds.
    let nanoseconds = |name: &str| of(name).saturating_mul(1000);
    let memory = flat(group, "memory.stat");
    let usage = |current: &str, most: &str, peak: &str| {
        json!({
            "usage": single(group, current).unwrap_or(0),
            "limit": single(group, most).unwrap_or(u64::MAX),
            "max": single(group, peak).unwrap_or(0),
            "failcnt": count(group, "memory.events", "max"),
        })
    };
    json!({
        "cpu": {
            "usage": {
                "total": nanoseconds("usage_usec"),
                "kernel": nanoseconds("system_usec"),
                "user": nanoseconds("user_usec"),
            },
            "throttling": {
                "periods": of("nr_periods"),
                "throttledPeriods": of("nr_throttled"),
                "throttledTime": nanoseconds("throttled_usec"),
            },
        },
        "memory": {
            "cache": memory.get("file").copied().unwrap_or(0),
            "usage": usage("memory.current", "memory.max", "memory.peak"),
            "swap": usage("memory.swap.current", "memory.swap.max", "memory.swap.peak"),
            "raw": memory,
        },
        "pids": {
            "current": single(group, "pids.current").unwrap_or(0),
            "limit": single(group, "pids.max").unwrap_or(0),
        },
        "blkio": { "ioServiceBytesRecursive": io(group, [("rbytes", "Read"), ("wbytes", "Write")]),
                   "ioServicedRecursive": io(group, [("rios", "Read"), ("wios", "Write")]) },
    })
}

/// `io.stat`: `8:0 rbytes=1 wbytes=2 …`.
fn io(group: &Path, wanted: [(&str, &str); 2]) -> Vec<Value> {
    let text = fs::read_to_string(group.join("io.stat")).unwrap_or_default();
    let mut entries = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let Some((major, minor)) = words.next().and_then(|device| device.split_once(':')) else { continue };
        let (Ok(major), Ok(minor)) = (major.parse::<u64>(), minor.parse::<u64>()) else { continue };
        for (name, value) in words.filter_map(|word| word.split_once('=')) {
            if let (Some((_, op)), Ok(value)) =
                (wanted.iter().find(|(key, _)| *key == name), value.parse::<u64>())
            {
                entries.push(json!({ "major": major, "minor": minor, "op": op, "value": value }));
            }
        }
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_a_group_become_runcs_figures() {
        let dir = tempfile::tempdir().unwrap();
        for (file, text) in [
            ("cpu.stat", "usage_usec 5\nuser_usec 3\nsystem_usec 2\nnr_throttled 1\n"),
            ("memory.current", "4096\n"),
            ("memory.max", "max\n"),
            ("memory.stat", "anon 1\nfile 7\n"),
            ("pids.current", "2\n"),
            ("pids.max", "100\n"),
            ("io.stat", "8:16 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n"),
        ] {
            fs::write(dir.path().join(file), text).unwrap();
        }
        let figures = figures(dir.path());
        assert_eq!(figures["cpu"]["usage"]["total"], 5000);
        assert_eq!(figures["cpu"]["throttling"]["throttledPeriods"], 1);
        assert_eq!(figures["memory"]["usage"]["usage"], 4096);
        assert_eq!(figures["memory"]["usage"]["limit"], u64::MAX);
        assert_eq!((&figures["memory"]["cache"], &figures["pids"]["limit"]), (&json!(7), &json!(100)));
        assert_eq!(
            figures["blkio"]["ioServiceBytesRecursive"][1],
            json!({ "major": 8, "minor": 16, "op": "Write", "value": 20 })
        );
    }
}
