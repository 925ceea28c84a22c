//! Progress of long work on standard error: a spinner with the phase, or a bar where the size is known.
//!
//! Drawn only on a terminal and never in JSON; dropped, it leaves no trace on the screen.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cryopod_checkpoint::progress::Progress as Listener;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{Output, printable};

/// Moving progress, or nothing.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
    /// Whether a bar is drawn now, and not a spinner.
    measured: AtomicBool,
}

/// Redraws often enough to look alive, seldom enough to cost nothing.
const TICK: Duration = Duration::from_millis(120);
const SPINNER: &str = "{spinner:.cyan} {msg}  {elapsed:.dim}";
const BAR: &str = "{spinner:.cyan} {msg}  {bar:24.cyan/dim}  {binary_bytes}/{binary_total_bytes}  {eta:.dim}";

impl Progress {
    /// Work of which nothing is known yet but its name.
    pub(crate) fn begin(output: &Output, what: &str) -> Self {
        let target =
            if output.shows_progress() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(None, target);
        let progress = Self { bar, measured: AtomicBool::new(false) };
        progress.draw_as(SPINNER);
        progress.bar.set_message(printable(what));
        if output.shows_progress() {
            progress.bar.enable_steady_tick(TICK);
        }
        progress
    }

    fn draw_as(&self, template: &str) {
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style);
        }
    }
}

impl Listener for Progress {
    fn step(&self, name: &str) {
        if self.measured.swap(false, Ordering::Relaxed) {
            self.draw_as(SPINNER);
        }
        self.bar.set_message(printable(name));
    }

    fn bytes(&self, done: u64, total: Option<u64>) {
        if let Some(total) = total {
            self.bar.set_length(total);
            if !self.measured.swap(true, Ordering::Relaxed) {
                self.draw_as(BAR);
            }
        }
        self.bar.set_position(done);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
