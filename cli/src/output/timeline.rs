//! The timeline of a capture: one line per phase, a bar where it lay in the whole, the freeze window in brackets.
//!
//! ```text
//!     PHASE       START    TOOK
//!     pre-dump     2 ms  330 ms  ▪▪▪▪▪▪▪▪
//!   ┌ freeze     332 ms    8 ms          ■
//!   │ dump app   340 ms  180 ms          ■■■■■
//!   └ thaw       520 ms    6 ms              ■
//! ```

use std::time::Duration;

use super::printable;
use super::style::{Palette, Style};
use super::units;

/// One phase, its start counted from the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Phase {
    /// What was done.
    pub(crate) name: String,
    /// Since the operation began.
    pub(crate) start: Duration,
    /// How long.
    pub(crate) took: Duration,
}

impl Phase {
    fn end(&self) -> Duration {
        self.start.saturating_add(self.took)
    }
}

/// The time in which nothing ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Freeze {
    /// Everything ran on.
    Never,
    /// From here, that long.
    For(Duration, Duration),
    /// From here; it was to stay stopped.
    ForGood(Duration),
}

impl Freeze {
    fn holds_at(self, instant: Duration) -> bool {
        match self {
            Self::Never => false,
            Self::For(start, length) => {
                instant >= start && instant < start.saturating_add(length.max(Duration::from_micros(1)))
            }
            Self::ForGood(start) => instant >= start,
        }
    }
}

/// A whole operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct View {
    /// In the order of their start.
    pub(crate) phases: Vec<Phase>,
    /// The time in which nothing ran.
    pub(crate) freeze: Freeze,
    /// From request to commit.
    pub(crate) total: Duration,
}

/// Columns of the bars; with names and figures this stays below 80.
const BAR: usize = 32;
const RUNNING: char = '▪';
const STOPPED: char = '■';

/// The phases as lines.
pub(crate) fn render(view: &View, palette: Palette) -> String {
    let ends = view.phases.iter().map(Phase::end);
    let total = ends.chain([view.total]).max().unwrap_or_default();
    let names = view.phases.iter().map(|phase| phase.name.chars().count()).chain([5]).max().unwrap_or(5);
    let mut text =
        palette.paint(Style::Dim, &format!("    {:names$}  {:>8}  {:>8}", "PHASE", "START", "TOOK"));
    text.push('\n');
    let inside: Vec<bool> = view.phases.iter().map(|phase| view.freeze.holds_at(phase.start)).collect();
    let first = inside.iter().position(|frozen| *frozen);
    let last = inside.iter().rposition(|frozen| *frozen);
    for (index, phase) in view.phases.iter().enumerate() {
        let frozen = inside.get(index).copied().unwrap_or(false);
        let bracket = match frozen {
            false => " ",
            true if first == last => "╶",
            true if first == Some(index) => "┌",
            true if last == Some(index) => "└",
            true => "│",
        };
        let style = if frozen { Style::Frozen } else { Style::Dim };
        let figures = format!(
            "{:names$}  {:>8}  {:>8}",
            printable(&phase.name),
            units::duration(phase.start),
            units::duration(phase.took)
        );
        let (lead, marks) = bar(phase, total, if frozen { STOPPED } else { RUNNING });
        let bar = format!("{}{}", " ".repeat(lead), palette.paint(style, &marks));
        text.push_str(&format!("  {} {figures}  {bar}\n", palette.paint(Style::Frozen, bracket)));
    }
    text
}

/// `frozen 241 ms of 1.24 s (19 %)`.
pub(crate) fn summary(view: &View, palette: Palette) -> String {
    let total = units::duration(view.total);
    let frozen = match view.freeze {
        Freeze::Never => return format!("{total}, never frozen"),
        Freeze::ForGood(start) => {
            let stopped = palette.paint(Style::Frozen, "stopped for good");
            return format!("{stopped} after {} of {total}", units::duration(start));
        }
        Freeze::For(_, frozen) => frozen,
    };
    let share = match view.total.as_micros() {
        0 => String::new(),
        whole => format!(" ({} %)", frozen.as_micros().saturating_mul(100) / whole),
    };
    let frozen = palette.paint(Style::Frozen, &format!("frozen {}", units::duration(frozen)));
    format!("{frozen} of {total}{share}")
}

/// Blanks before the bar, and the bar: at least one mark, never beyond the last column.
fn bar(phase: &Phase, total: Duration, mark: char) -> (usize, String) {
    let whole = total.as_micros().max(1);
    let columns = |at: Duration| {
        let column = at.as_micros().saturating_mul(BAR as u128) / whole;
        usize::try_from(column).unwrap_or(BAR).min(BAR)
    };
    let lead = columns(phase.start).min(BAR - 1);
    let length = columns(phase.end()).saturating_sub(lead).max(1);
    (lead, std::iter::repeat_n(mark, length).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phase(name: &str, start: u64, took: u64) -> Phase {
        Phase { name: name.into(), start: Duration::from_millis(start), took: Duration::from_millis(took) }
    }

    fn view() -> View {
        View {
            phases: vec![
                phase("prepare", 0, 2),
                phase("pre-dump app", 2, 330),
                phase("freeze", 332, 8),
                phase("dump app", 340, 180),
                phase("thaw", 520, 6),
                phase("commit", 526, 114),
            ],
            freeze: Freeze::For(Duration::from_millis(332), Duration::from_millis(194)),
            total: Duration::from_millis(640),
        }
    }

    #[test]
    fn the_freeze_window_stands_in_brackets_and_bars_follow_time() {
        let expected = [
            "    PHASE            START      TOOK",
            "    prepare           0 ms    2.0 ms  ▪",
            "    pre-dump app    2.0 ms    330 ms  ▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪",
            "  ┌ freeze          332 ms    8.0 ms                  ■",
            "  │ dump app        340 ms    180 ms                   ■■■■■■■■■",
            "  └ thaw            520 ms    6.0 ms                            ■",
            "    commit          526 ms    114 ms                            ▪▪▪▪▪▪",
        ];
        let shown = render(&view(), Palette::new(false));
        let shown: Vec<&str> = shown.lines().collect();
        assert_eq!(shown, expected);
    }

    #[test]
    fn the_summary_says_how_long_nothing_ran() {
        assert_eq!(summary(&view(), Palette::new(false)), "frozen 194 ms of 640 ms (30 %)");
        let with = |freeze| summary(&View { freeze, ..view() }, Palette::new(false));
        assert_eq!(with(Freeze::Never), "640 ms, never frozen");
        let stopped = Freeze::ForGood(Duration::from_millis(332));
        assert_eq!(with(stopped), "stopped for good after 332 ms of 640 ms");
    }

    #[test]
    fn a_timeline_without_time_is_drawn_all_the_same() {
        let empty = View { phases: vec![phase("x", 0, 0)], freeze: Freeze::Never, total: Duration::ZERO };
        assert!(render(&empty, Palette::new(false)).contains('▪'));
    }
}
