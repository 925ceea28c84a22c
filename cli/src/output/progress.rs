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
    templates: Templates,
    /// Whether a bar is drawn now, and not a spinner.
    measured: AtomicBool,
}

/// Redraws often enough to look alive, seldom enough to cost nothing.
const TICK: Duration = Duration::from_millis(120);

/// What is drawn.
#[derive(Debug, Clone, Copy)]
struct Templates {
    spinner: &'static str,
    bar: &'static str,
}

const COLOURED: Templates = Templates {
    spinner: "{spinner:.cyan} {msg}  {elapsed:.dim}",
    bar: "{spinner:.cyan} {msg}  {bar:24.cyan/dim}  {binary_bytes}/{binary_total_bytes}  {eta:.dim}",
};
const PLAIN: Templates = Templates {
    spinner: "{spinner} {msg}  {elapsed}",
    bar: "{spinner} {msg}  {bar:24}  {binary_bytes}/{binary_total_bytes}  {eta}",
};

impl Progress {
    /// Work of which nothing is known yet but its name.
    pub(crate) fn begin(output: &Output, what: &str) -> Self {
        let target =
            if output.shows_progress() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(None, target);
        let templates = if output.colours_progress() { COLOURED } else { PLAIN };
        let progress = Self { bar, templates, measured: AtomicBool::new(false) };
        progress.draw_as(templates.spinner);
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
            self.draw_as(self.templates.spinner);
        }
        self.bar.set_message(printable(name));
    }

    fn bytes(&self, done: u64, total: Option<u64>) {
        if let Some(total) = total {
            self.bar.set_length(total);
            if !self.measured.swap(true, Ordering::Relaxed) {
                self.draw_as(self.templates.bar);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_template_is_one_that_indicatif_reads() {
        for template in [COLOURED.spinner, COLOURED.bar, PLAIN.spinner, PLAIN.bar] {
            ProgressStyle::with_template(template).unwrap();
        }
    }
}
