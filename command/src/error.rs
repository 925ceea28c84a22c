//! What can go wrong with a program, worded for the person who must act: what was run, what it said, how long.

use std::fmt;
use std::io;
use std::process::ExitStatus;
use std::time::Duration;

use crate::Argv;

/// How many of the last stderr lines a message repeats; the error's `stderr` field holds more.
const SHOWN_LINES: usize = 6;

/// Why a program did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The program is not installed, or not in PATH.
    #[error("program '{program}' not found: install it or put its directory in PATH")]
    NotFound {
        /// The program as it was asked for.
        program: String,
    },
    /// The program exists and could not be started.
    #[error("cannot start `{argv}`: {source}")]
    Spawn {
        /// What was to be run.
        argv: Argv,
        /// What the kernel said.
        source: io::Error,
    },
    /// The program ended with another status than 0.
    #[error("`{argv}` {} after {}{}", ended(*status), Took(*duration), said(stderr))]
    Failed {
        /// What was run.
        argv: Argv,
        /// How it ended.
        status: ExitStatus,
        /// The tail of what it wrote to stderr.
        stderr: String,
        /// How long it ran.
        duration: Duration,
    },
    /// The deadline passed; the program was killed.
    #[error("`{argv}` was stopped at its deadline after {}{}{}", Took(*after), lingers(*lingering), said(stderr))]
    Deadline {
        /// What was run.
        argv: Argv,
        /// How long it had run.
        after: Duration,
        /// The tail of what it wrote to stderr.
        stderr: String,
        /// True when the kernel would not end it at once (state D, as on a suspended pool); a thread reaps it later.
        lingering: bool,
    },
    /// The caller's switch was thrown; the program was killed.
    #[error("`{argv}` was cancelled{}", lingers(*lingering))]
    Cancelled {
        /// What was run.
        argv: Argv,
        /// As in `Deadline`.
        lingering: bool,
    },
    /// The program wrote more to stdout than its caller accepts; it was killed.
    #[error("`{argv}` wrote more than {limit} bytes to its standard output")]
    TooMuchOutput {
        /// What was run.
        argv: Argv,
        /// The bound, in bytes.
        limit: usize,
    },
    /// Talking to the program failed; it was killed.
    #[error("cannot {action} `{argv}`: {source}")]
    Io {
        /// What was run.
        argv: Argv,
        /// What was tried, as in "read from".
        action: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl Error {
    /// The tail of what the program wrote to stderr, empty where there is none.
    pub fn stderr(&self) -> &str {
        match self {
            Self::Failed { stderr, .. } | Self::Deadline { stderr, .. } => stderr,
            _ => "",
        }
    }

    /// Whether the caller's limits ended the program, not the program itself.
    pub fn is_stopped(&self) -> bool {
        matches!(self, Self::Deadline { .. } | Self::Cancelled { .. })
    }
}

fn ended(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with status {code}"),
        (None, Some(signal)) => match nix::sys::signal::Signal::try_from(signal) {
            Ok(name) => format!("was killed by {name}"),
            Err(_) => format!("was killed by signal {signal}"),
        },
        (None, None) => format!("ended with {status}"),
    }
}

fn lingers(lingering: bool) -> &'static str {
    if lingering { " (killed, but the kernel still holds it: a disk or pool may be suspended)" } else { "" }
}

/// `: last lines`, or nothing when the program said nothing.
fn said(stderr: &str) -> String {
    let lines: Vec<&str> = stderr.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    if lines.is_empty() {
        return String::new();
    }
    let first = lines.len().saturating_sub(SHOWN_LINES);
    format!(": {}", lines.get(first..).unwrap_or_default().join("; "))
}

/// A duration with the precision that a reader needs.
struct Took(Duration);

impl fmt::Display for Took {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < Duration::from_secs(1) {
            write!(f, "{} ms", self.0.as_millis())
        } else {
            write!(f, "{:.1} s", self.0.as_secs_f64())
        }
    }
}
