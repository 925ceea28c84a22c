//! Where the time of a capture went: named phases with start and duration, and the freeze window.
//!
//! It stands in the manifest, is printed by the command and compared by the benchmark, so it is plain numbers in
//! microseconds since the capture began.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// More phases than any capture has: four per member and a few around them.
pub const MAX_PHASES: usize = 4096;

/// One named span of a capture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Phase {
    /// What was done, e.g. `dump web`.
    pub name: String,
    /// Start after the beginning of the capture.
    pub start_us: u64,
    /// How long it took.
    pub duration_us: u64,
}

/// The phases of a capture in the order in which they began.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timeline {
    /// Phases, by start.
    pub phases: Vec<Phase>,
    /// From the first freeze to the thaw of the last member: the time in which the pod did not run. That of a dump that
    /// was refused, before the disks were captured alone, is inside its own phase.
    pub freeze_us: u64,
    /// From the beginning to the commit marker.
    pub total_us: u64,
    /// Bytes of memory images.
    pub memory_bytes: u64,
    /// Bytes of files copied while frozen (disks that are not on ZFS).
    pub copied_bytes: u64,
}

impl Timeline {
    /// The freeze window.
    pub fn freeze(&self) -> Duration {
        Duration::from_micros(self.freeze_us)
    }

    /// Everything up to the commit marker.
    pub fn total(&self) -> Duration {
        Duration::from_micros(self.total_us)
    }
}

/// Writes a [`Timeline`] while the capture goes on.
#[derive(Debug)]
pub struct Recorder {
    began: Instant,
    frozen: Option<Instant>,
    timeline: Timeline,
}

impl Recorder {
    /// Begins now.
    pub fn start() -> Self {
        Self { began: Instant::now(), frozen: None, timeline: Timeline::default() }
    }

    /// Runs `work` as a named phase; the phase is recorded whether it works or fails.
    pub fn phase<T>(&mut self, name: impl Into<String>, work: impl FnOnce(&mut Self) -> T) -> T {
        let start = Instant::now();
        let slot = self.timeline.phases.len();
        self.timeline.phases.push(Phase {
            name: name.into(),
            start_us: micros(start.duration_since(self.began)),
            duration_us: 0,
        });
        let result = work(self);
        if let Some(phase) = self.timeline.phases.get_mut(slot) {
            phase.duration_us = micros(start.elapsed());
        }
        result
    }

    /// Records a phase that was measured elsewhere.
    pub fn add(&mut self, name: impl Into<String>, start: Instant, duration: Duration) {
        self.timeline.phases.push(Phase {
            name: name.into(),
            start_us: micros(start.saturating_duration_since(self.began)),
            duration_us: micros(duration),
        });
    }

    /// Everything so far was for nothing: one phase of this name stands for it, and the freeze window will be a new one.
    pub fn begin_again(&mut self, name: impl Into<String>) {
        let spent = Phase { name: name.into(), start_us: 0, duration_us: micros(self.began.elapsed()) };
        self.timeline = Timeline { phases: vec![spent], ..Timeline::default() };
        self.frozen = None;
    }

    /// The first task is about to stop.
    pub fn freezing(&mut self) {
        self.frozen.get_or_insert_with(Instant::now);
    }

    /// The last member runs again.
    pub fn thawed(&mut self) {
        if let Some(since) = self.frozen.take() {
            self.timeline.freeze_us += micros(since.elapsed());
        }
    }

    /// Adds to the bytes of memory images.
    pub fn memory(&mut self, bytes: u64) {
        self.timeline.memory_bytes += bytes;
    }

    /// Adds to the bytes copied while frozen.
    pub fn copied(&mut self, bytes: u64) {
        self.timeline.copied_bytes += bytes;
    }

    /// The timeline so far; the total ends now.
    pub fn snapshot(&self) -> Timeline {
        let mut timeline = self.timeline.clone();
        timeline.total_us = micros(self.began.elapsed());
        timeline
    }
}

/// Microseconds; half a million years fit.
fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_stand_in_the_order_in_which_they_began_and_the_freeze_is_inside_the_total() {
        let mut recorder = Recorder::start();
        recorder.phase("outer", |recorder| {
            recorder.freezing();
            recorder.phase("inner", |_| std::thread::sleep(Duration::from_millis(2)));
            recorder.thawed();
        });
        let timeline = recorder.snapshot();
        let names: Vec<&str> = timeline.phases.iter().map(|phase| phase.name.as_str()).collect();
        assert_eq!(names, ["outer", "inner"]);
        assert!(timeline.freeze() >= Duration::from_millis(2));
        assert!(timeline.total() >= timeline.freeze());
        assert!(timeline.phases[0].duration_us >= timeline.phases[1].duration_us);
    }

    #[test]
    fn a_second_attempt_has_a_freeze_window_of_its_own_and_the_total_holds_both() {
        let mut recorder = Recorder::start();
        recorder.freezing();
        recorder.phase("freeze", |_| std::thread::sleep(Duration::from_millis(20)));
        recorder.thawed();
        recorder.begin_again("refused");
        recorder.freezing();
        recorder.phase("freeze", |_| ());
        recorder.thawed();
        let timeline = recorder.snapshot();
        let names: Vec<&str> = timeline.phases.iter().map(|phase| phase.name.as_str()).collect();
        assert_eq!(names, ["refused", "freeze"]);
        assert!(
            timeline.freeze() < Duration::from_millis(20) && timeline.total() >= Duration::from_millis(20)
        );
        assert!(timeline.phases[1].start_us >= timeline.phases[0].duration_us);
    }
}
