//! What the agent counts itself.

mod histogram;
mod operations;
pub mod scrape;
mod text;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::node::Stored;
use histogram::Histogram;
use operations::Operations;
pub use text::Text;

/// Seconds; a freeze is tens of milliseconds to some seconds.
const FREEZE: &[f64] = &[0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// Seconds; an operation is a second to some minutes.
const OPERATION: &[f64] = &[0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0];
/// Bytes; 1 MiB to 64 GiB.
const SIZE: &[f64] = &[
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
    268_435_456.0,
    1_073_741_824.0,
    4_294_967_296.0,
    17_179_869_184.0,
    68_719_476_736.0,
];

/// Counters and histograms since the agent's start.
#[derive(Debug)]
pub struct Metrics(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    operations: Operations,
    checkpoint_seconds: Histogram,
    freeze_seconds: Histogram,
    checkpoint_bytes: Histogram,
    restore_seconds: Histogram,
    criu_seconds: Histogram,
    zfs_seconds: BTreeMap<&'static str, Histogram>,
    /// How many of this node's objects have which reason.
    objects: BTreeMap<String, u64>,
    recover_failures: u64,
    began: Instant,
    /// From the start until all objects of the node were looked at once.
    synced: Option<Duration>,
    /// By namespace and name: last success and next time; known to the leader.
    schedules: BTreeMap<(String, String), (Option<Timestamp>, Option<Timestamp>)>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self(Mutex::new(Inner {
            operations: Operations::default(),
            checkpoint_seconds: Histogram::new(OPERATION),
            freeze_seconds: Histogram::new(FREEZE),
            checkpoint_bytes: Histogram::new(SIZE),
            restore_seconds: Histogram::new(OPERATION),
            criu_seconds: Histogram::new(FREEZE),
            zfs_seconds: BTreeMap::new(),
            objects: BTreeMap::new(),
            recover_failures: 0,
            began: Instant::now(),
            synced: None,
            schedules: BTreeMap::new(),
        }))
    }
}

impl Inner {
    fn zfs(&mut self, operation: &'static str, time: Duration) {
        self.zfs_seconds
            .entry(operation)
            .or_insert_with(|| Histogram::new(FREEZE))
            .observe(time.as_secs_f64());
    }
}

impl Metrics {
    /// A call of the store took so long: `list`, `read`, `delete`, each one or more calls of ZFS.
    pub fn store_call(&self, operation: &'static str, time: Duration) {
        self.with(|inner| inner.zfs(operation, time));
    }

    fn with<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// A checkpoint was committed.
    pub fn captured(&self, stored: &Stored) {
        self.with(|inner| {
            inner.operations.succeeded("checkpoint", Instant::now());
            inner.checkpoint_seconds.observe(stored.total.as_secs_f64());
            inner.freeze_seconds.observe(stored.freeze.as_secs_f64());
            for frozen in &stored.criu_frozen {
                inner.criu_seconds.observe(frozen.as_secs_f64());
            }
            for time in &stored.snapshots {
                inner.zfs("snapshot", *time);
            }
            inner.checkpoint_bytes.observe(stored.memory_bytes.saturating_add(stored.disk_bytes) as f64);
        });
    }

    /// A checkpoint was not taken.
    pub fn capture_failed(&self, reason: &str) {
        self.with(|inner| inner.operations.failed("checkpoint", reason, Instant::now()));
    }

    /// All pods of a restore run.
    pub fn restored(&self, time: Duration) {
        self.with(|inner| {
            inner.operations.succeeded("restore", Instant::now());
            inner.restore_seconds.observe(time.as_secs_f64());
        });
    }

    /// A restore did not succeed.
    pub fn restore_failed(&self, reason: &str) {
        self.with(|inner| inner.operations.failed("restore", reason, Instant::now()));
    }

    /// Something that a crash left could not be put right.
    pub fn recover_failed(&self, count: u64) {
        self.with(|inner| inner.recover_failures += count);
    }

    /// How this node's objects stand: each reason and how many have it.
    pub fn objects(&self, reasons: BTreeMap<String, u64>) {
        self.with(|inner| inner.objects = reasons);
    }

    /// All objects of the node were looked at once; how long after the start that is.
    pub fn synced(&self) -> Duration {
        self.with(|inner| *inner.synced.insert(inner.began.elapsed()))
    }

    /// How a schedule stands.
    pub fn schedule(&self, namespace: &str, name: &str, last: Option<Timestamp>, next: Option<Timestamp>) {
        let key = (namespace.to_owned(), name.to_owned());
        self.with(|inner| inner.schedules.insert(key, (last, next)));
    }

    /// Of the schedules that are known only these are left; none when another agent leads.
    pub fn keep_schedules(&self, is_there: impl Fn(&str, &str) -> bool) {
        self.with(|inner| inner.schedules.retain(|(namespace, name), _| is_there(namespace, name)));
    }

    /// All of it.
    pub fn render(&self, text: &mut Text) {
        self.with(|inner| {
            inner.operations.render(text, Instant::now());
            for (name, help, histogram) in [
                (
                    "cryopod_checkpoint_duration_seconds",
                    "From the request to the commit.",
                    &inner.checkpoint_seconds,
                ),
                (
                    "cryopod_checkpoint_freeze_seconds",
                    "Time in which no task of the pod ran.",
                    &inner.freeze_seconds,
                ),
                (
                    "cryopod_checkpoint_size_bytes",
                    "Memory and disks of a checkpoint.",
                    &inner.checkpoint_bytes,
                ),
                (
                    "cryopod_criu_frozen_seconds",
                    "CRIU's part of the freeze, of each container.",
                    &inner.criu_seconds,
                ),
                (
                    "cryopod_restore_duration_seconds",
                    "From the first pod made to the last one running.",
                    &inner.restore_seconds,
                ),
            ] {
                text.head(name, "histogram", help);
                histogram.render(text, name, &[]);
            }
            let name = "cryopod_zfs_operation_duration_seconds";
            text.head(name, "histogram", "Operations of the store on ZFS.");
            for (operation, histogram) in &inner.zfs_seconds {
                histogram.render(text, name, &[("operation", operation)]);
            }
            let name = "cryopod_podcheckpoints";
            text.head(name, "gauge", "PodCheckpoints of this node by the reason of their condition Ready.");
            for (reason, count) in &inner.objects {
                text.line(name, &[("reason", reason)], *count as f64);
            }
            if let Some(time) = inner.synced {
                let name = "cryopod_agent_initial_sync_seconds";
                let help = "From the agent's start until it had looked at all PodCheckpoints of its node.";
                text.head(name, "gauge", help);
                text.line(name, &[], time.as_secs_f64());
            }
            let name = "cryopod_schedule_last_success_timestamp_seconds";
            text.head(name, "gauge", "When a checkpoint of the schedule was last completed.");
            for ((namespace, schedule), (last, _)) in &inner.schedules {
                text.time(name, namespace, schedule, *last);
            }
            let name = "cryopod_schedule_next_timestamp_seconds";
            text.head(name, "gauge", "When the schedule is due next.");
            for ((namespace, schedule), (_, next)) in &inner.schedules {
                text.time(name, namespace, schedule, *next);
            }
            text.head(
                "cryopod_recover_failures_total",
                "counter",
                "Leftovers of a crash that could not be put right.",
            );
            text.line("cryopod_recover_failures_total", &[], inner.recover_failures as f64);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_noted_is_shown() {
        let metrics = Metrics::default();
        metrics.capture_failed("no-space");
        metrics.restored(Duration::from_secs(2));
        metrics.objects(BTreeMap::from([("CheckpointCompleted".to_owned(), 3)]));
        metrics.schedule("default", "nightly", Timestamp::from_second(7).ok(), None);
        metrics.store_call("list", Duration::from_millis(20));
        let mut text = Text::default();
        metrics.render(&mut text);
        let text = text.into_string();
        for line in [
            "cryopod_checkpoint_operations_total{result=\"failure\",reason=\"no-space\"} 0",
            "cryopod_restore_duration_seconds_count 1",
            "cryopod_podcheckpoints{reason=\"CheckpointCompleted\"} 3",
            "cryopod_schedule_last_success_timestamp_seconds{namespace=\"default\",schedule=\"nightly\"} 7",
            "cryopod_zfs_operation_duration_seconds_bucket{operation=\"list\",le=\"0.025\"} 1",
        ] {
            assert!(text.lines().any(|it| it == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("cryopod_schedule_next_timestamp_seconds{"), "it is not due");
    }
}
