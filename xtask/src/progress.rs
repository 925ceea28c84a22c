//! Progress of long work: a spinner with the time on a terminal, plain lines otherwise. All of it on stderr, since
//! stdout belongs to the commands that are run in a node.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// A step that is under way; ends with [`Step::done`], or as given up when dropped.
pub(crate) struct Step {
    name: String,
    started: Instant,
    bar: Option<ProgressBar>,
    finished: bool,
}

/// One line for the person.
pub(crate) fn say(line: &str) {
    eprintln!("  {line}");
}

impl Step {
    /// Begins a step; `expected` is shown so that nobody thinks it hangs.
    pub(crate) fn begin(name: impl Into<String>, expected: Option<&str>) -> Self {
        let name = name.into();
        let text = expected.map_or_else(|| name.clone(), |time| format!("{name} (about {time})"));
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner().with_message(text.clone());
            if let Ok(style) = ProgressStyle::with_template("  {spinner} {msg} {elapsed:.dim} {prefix:.dim}")
            {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        if bar.is_none() {
            say(&format!("{text} ..."));
        }
        Self { name, started: Instant::now(), bar, finished: false }
    }

    /// What is going on inside the step; only on a terminal.
    pub(crate) fn detail(&self, text: &str) {
        if let Some(bar) = &self.bar {
            let short: String = text.trim().chars().filter(|c| !c.is_control()).take(70).collect();
            bar.set_prefix(short);
        }
    }

    /// The step succeeded.
    pub(crate) fn done(mut self) {
        self.finished = true;
        let line = format!("{}: {:.1} s", self.name, self.started.elapsed().as_secs_f64());
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        say(&line);
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if !self.finished
            && let Some(bar) = &self.bar
        {
            bar.finish_and_clear();
        }
    }
}
