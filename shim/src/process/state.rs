//! The states of a process and what may follow what: one enum, one function.
//!
//! ```text
//! Creating ──► Created ──► Starting ──► Running ◄──► Pausing/Paused ──► Thawed
//!                 │           │            │                │              │
//!                 │     StartingExited     └──── Exited ────┴──────────────┘
//!                 │           │                    ▼
//!                 └───────────┴───────────────► Exiting ──Drained──► Stopped ──► Deleted
//! ```
//! `StartingExited`: the process ended before its start was reported; TaskStart has to come first. `Exiting`: init
//! is dead and its execs still end; their exits come first. `Thawed`: containerd believes it paused, but the capture
//! is done and the tasks run already.

use containerd_shim_protos::types::task::Status;

use crate::exits::Exit;

/// Where a process stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The runtime makes it; nobody but Delete sees it yet.
    Creating,
    /// Made (init) or registered (exec); nothing of the workload was executed.
    Created,
    /// The runtime starts it.
    Starting,
    /// It ended while the runtime still started it.
    StartingExited(Exit),
    /// It runs.
    Running,
    /// The runtime freezes it.
    Pausing,
    /// Frozen, as containerd asked.
    Paused,
    /// Reported as paused, though it runs again: the time containerd needs for its own part of a checkpoint.
    Thawed,
    /// It ended; execs of the container have not all ended yet.
    Exiting(Exit),
    /// It ended and containerd may know.
    Stopped(Exit),
    /// Nothing is left of it.
    Deleted,
}

/// What happened to a process, or is about to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The runtime made it.
    Created,
    /// Start was asked for.
    Start,
    /// The runtime started it.
    Started,
    /// The runtime could not start it.
    StartFailed,
    /// It ended.
    Exited(Exit),
    /// Nothing of it, nor of its execs, runs any more.
    Drained,
    /// Pause was asked for.
    Pause,
    /// The runtime froze it.
    Paused,
    /// The runtime could not freeze it.
    PauseFailed,
    /// It was let run again before containerd's Resume.
    Thaw,
    /// The runtime let it run again.
    Resumed,
    /// It was removed.
    Delete,
}

/// The change does not fit the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cannot {verb} a process that is {state}", verb = .change.verb(), state = .state.name())]
pub struct Refused {
    /// The state it is in.
    pub state: State,
    /// What was to happen.
    pub change: Change,
}

impl State {
    /// The state after `change`.
    ///
    /// # Errors
    /// When the change is not allowed in this state.
    pub fn transition(self, change: Change) -> Result<State, Refused> {
        use Change as C;
        use State as S;
        Ok(match (self, change) {
            (S::Creating, C::Created) => S::Created,
            (S::Created, C::Start) => S::Starting,
            (S::Starting, C::Started) => S::Running,
            (S::Starting, C::StartFailed) => S::Created,
            (S::StartingExited(exit), C::Started | C::StartFailed) => S::Exiting(exit),
            (S::Starting, C::Exited(exit)) => S::StartingExited(exit),
            (S::Created | S::Running | S::Pausing | S::Paused | S::Thawed, C::Exited(exit)) => {
                S::Exiting(exit)
            }
            (S::Exiting(exit), C::Drained) => S::Stopped(exit),
            (S::Running, C::Pause) => S::Pausing,
            (S::Pausing, C::Paused) => S::Paused,
            (S::Pausing, C::PauseFailed) => S::Running,
            // It may end while the runtime freezes or thaws it; the end stands.
            (S::Exiting(_) | S::Stopped(_), C::Paused | C::PauseFailed | C::Resumed | C::Thaw) => self,
            (S::Paused, C::Thaw) => S::Thawed,
            (S::Paused | S::Thawed, C::Resumed) => S::Running,
            (S::Creating | S::Created | S::Stopped(_), C::Delete) => S::Deleted,
            _ => return Err(Refused { state: self, change }),
        })
    }

    /// What State reports.
    pub fn status(self) -> Status {
        match self {
            State::Creating | State::Created | State::Starting | State::StartingExited(_) => Status::CREATED,
            State::Running | State::Exiting(_) => Status::RUNNING,
            State::Pausing => Status::PAUSING,
            State::Paused | State::Thawed => Status::PAUSED,
            State::Stopped(_) | State::Deleted => Status::STOPPED,
        }
    }

    /// Its name for people.
    pub fn name(self) -> &'static str {
        match self {
            State::Creating => "being created",
            State::Created => "created",
            State::Starting | State::StartingExited(_) => "starting",
            State::Running => "running",
            State::Pausing => "being paused",
            State::Paused | State::Thawed => "paused",
            State::Exiting(_) => "exiting",
            State::Stopped(_) => "stopped",
            State::Deleted => "deleted",
        }
    }

    /// Whether a process of the workload may run.
    pub fn is_live(self) -> bool {
        matches!(
            self,
            State::Starting
                | State::StartingExited(_)
                | State::Running
                | State::Pausing
                | State::Paused
                | State::Thawed
        )
    }

    /// How it ended, once it did, published or not.
    pub fn ended(self) -> Option<Exit> {
        match self {
            State::StartingExited(exit) | State::Exiting(exit) | State::Stopped(exit) => Some(exit),
            _ => None,
        }
    }
}

impl Change {
    fn verb(self) -> &'static str {
        match self {
            Change::Created => "create",
            Change::Start | Change::Started | Change::StartFailed => "start",
            Change::Exited(_) => "note the end of",
            Change::Drained => "finish",
            Change::Pause | Change::Paused | Change::PauseFailed => "pause",
            Change::Thaw => "thaw",
            Change::Resumed => "resume",
            Change::Delete => "delete",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::Change as C;
    use super::State as S;
    use super::*;

    const EXIT: Exit = Exit { status: 7, at: SystemTime::UNIX_EPOCH };
    const OTHER: Exit = Exit { status: 9, at: SystemTime::UNIX_EPOCH };

    const STATES: [S; 11] = [
        S::Creating,
        S::Created,
        S::Starting,
        S::StartingExited(EXIT),
        S::Running,
        S::Pausing,
        S::Paused,
        S::Thawed,
        S::Exiting(EXIT),
        S::Stopped(EXIT),
        S::Deleted,
    ];
    const CHANGES: [C; 12] = [
        C::Created,
        C::Start,
        C::Started,
        C::StartFailed,
        C::Exited(OTHER),
        C::Drained,
        C::Pause,
        C::Paused,
        C::PauseFailed,
        C::Thaw,
        C::Resumed,
        C::Delete,
    ];

    /// One row per state, one letter per change in the order of `CHANGES`: the state that follows, `.` for refused.
    const TABLE: [&str; 11] = [
        // created start started startfailed exited drained pause paused pausefailed thaw resumed delete
        "C..........D", // Creating
        ".S..X......D", // Created
        "..RCY.......", // Starting
        "..XX........", // StartingExited
        "....X.P.....", // Running
        "....X..FR...", // Pausing
        "....X....TR.", // Paused
        "....X.....R.", // Thawed
        ".....E.xxxx.", // Exiting
        ".......eeeeD", // Stopped
        "............", // Deleted
    ];

    fn meaning(letter: char) -> Option<S> {
        Some(match letter {
            'C' => S::Created,
            'S' => S::Starting,
            'R' => S::Running,
            'P' => S::Pausing,
            'F' => S::Paused,
            'T' => S::Thawed,
            'Y' => S::StartingExited(OTHER),
            'X' => S::Exiting(OTHER),
            'x' => S::Exiting(EXIT),
            'E' | 'e' => S::Stopped(EXIT),
            'D' => S::Deleted,
            _ => return None,
        })
    }

    #[test]
    fn every_pair_of_state_and_change_does_what_the_table_says() {
        for (state, row) in STATES.iter().zip(TABLE) {
            for (change, letter) in CHANGES.iter().zip(row.chars()) {
                let mut expected = meaning(letter);
                if matches!((state, letter), (S::StartingExited(_), 'X')) {
                    expected = Some(S::Exiting(EXIT));
                }
                assert_eq!(state.transition(*change).ok(), expected, "{state:?} + {change:?}");
            }
        }
    }

    #[test]
    fn a_refusal_says_what_cannot_be_done_and_why() {
        let refused = S::Stopped(EXIT).transition(C::Pause).unwrap_err();
        assert_eq!(refused.to_string(), "cannot pause a process that is stopped");
    }

    #[test]
    fn an_early_end_is_not_shown_before_the_start() {
        assert_eq!(S::StartingExited(EXIT).status(), Status::CREATED);
        assert_eq!(S::Exiting(EXIT).status(), Status::RUNNING);
        assert_eq!(S::Thawed.status(), Status::PAUSED);
    }
}
