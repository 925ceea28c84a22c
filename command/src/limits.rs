//! How long a call may take and who may end it early.
//!
//! `Limits` is handed down through every blocking call of the zfs, checkpoint and runtime crates; each level
//! may narrow it (`at_most`), none may widen it.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::eventfd::{EfdFlags, EventFd};

/// A switch that, once thrown, ends every call that was given it; clones share the switch.
#[derive(Debug, Clone)]
pub struct Cancel(Arc<Switch>);

#[derive(Debug)]
struct Switch {
    thrown: AtomicBool,
    // None when the process is out of file descriptors; waiters then look at `thrown` every POLL_WITHOUT_FD.
    event: Option<EventFd>,
}

/// How often a waiter looks at a switch that could not get an eventfd.
pub(crate) const POLL_WITHOUT_FD: Duration = Duration::from_millis(20);

impl Cancel {
    /// A new switch, not thrown.
    pub fn new() -> Self {
        let event = EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).ok();
        Self(Arc::new(Switch { thrown: AtomicBool::new(false), event }))
    }

    /// Throws the switch and wakes every waiter at once; further calls change nothing.
    pub fn cancel(&self) {
        if !self.0.thrown.swap(true, Ordering::SeqCst)
            && let Some(event) = &self.0.event
        {
            // Never read, so the fd stays readable; only a full counter refuses, and this is the one write.
            event.write(1).ok();
        }
    }

    /// Whether the switch was thrown.
    pub fn is_cancelled(&self) -> bool {
        self.0.thrown.load(Ordering::SeqCst)
    }

    /// A descriptor that is readable once the switch was thrown, to be polled next to others; never read it.
    pub fn event(&self) -> Option<BorrowedFd<'_>> {
        self.0.event.as_ref().map(AsFd::as_fd)
    }
}

impl Default for Cancel {
    fn default() -> Self {
        Self::new()
    }
}

/// Why a call was stopped by its limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// The deadline has passed.
    Deadline,
    /// The switch was thrown.
    Cancelled,
}

/// The deadline and the cancel switch of a call; the default is neither.
#[derive(Debug, Clone, Default)]
pub struct Limits {
    /// The instant by which the call must have ended.
    pub deadline: Option<Instant>,
    /// The switch that ends the call early.
    pub cancel: Option<Cancel>,
}

impl Limits {
    /// Neither deadline nor switch.
    pub fn none() -> Self {
        Self::default()
    }

    /// A deadline that far from now.
    pub fn within(duration: Duration) -> Self {
        Self { deadline: Instant::now().checked_add(duration), cancel: None }
    }

    /// The same deadline, ended early by `cancel`.
    pub fn with_cancel(self, cancel: Cancel) -> Self {
        Self { cancel: Some(cancel), ..self }
    }

    /// The same switch, and a deadline no later than `duration` from now.
    pub fn at_most(&self, duration: Duration) -> Self {
        let own = Instant::now().checked_add(duration);
        let deadline = match (self.deadline, own) {
            (Some(outer), Some(own)) => Some(outer.min(own)),
            (outer, own) => outer.or(own),
        };
        Self { deadline, cancel: self.cancel.clone() }
    }

    /// The time left: zero when the deadline has passed, None when there is none.
    pub fn remaining(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// Whether a call under these limits may go on. Between steps that do not run a program, ask here.
    pub fn check(&self) -> Result<(), Stop> {
        if self.cancel.as_ref().is_some_and(Cancel::is_cancelled) {
            return Err(Stop::Cancelled);
        }
        match self.remaining() {
            Some(Duration::ZERO) => Err(Stop::Deadline),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_narrower_limit_never_outlasts_the_outer_one() {
        let outer = Limits::within(Duration::from_millis(50));
        assert!(outer.at_most(Duration::from_secs(60)).deadline <= outer.deadline);
        let inner = Limits::none().at_most(Duration::from_millis(50));
        assert!(inner.remaining().is_some_and(|left| left <= Duration::from_millis(50)));
    }

    #[test]
    fn a_thrown_switch_stops_every_clone() {
        let cancel = Cancel::new();
        let limits = Limits::none().with_cancel(cancel.clone());
        assert_eq!(limits.check(), Ok(()));
        cancel.cancel();
        assert_eq!(limits.clone().check(), Err(Stop::Cancelled));
    }

    #[test]
    fn a_passed_deadline_stops() {
        assert_eq!(Limits::within(Duration::ZERO).check(), Err(Stop::Deadline));
    }
}
