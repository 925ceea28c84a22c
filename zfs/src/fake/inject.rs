//! Faults on demand: the n-th call of a kind fails, hangs until its limits end it, or takes effect and fails
//! all the same (a lost reply, as when the tool is killed after its ioctl).

use std::fmt;
use std::time::{Duration, Instant};

use cryopod_command::Stop;

use super::Fake;
use crate::error::Op;
use crate::{Error, Limits};

/// What happens instead of, or besides, the call.
pub enum Fault {
    /// Nothing is done and this is the error.
    Fail(Box<dyn Fn(Op) -> Error + Send>),
    /// Nothing is done and the call blocks until its limits end it.
    Hang,
    /// The call is done and yet `Error::Unknown` comes back.
    LoseReply,
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fail(_) => "Fail",
            Self::Hang => "Hang",
            Self::LoseReply => "LoseReply",
        })
    }
}

#[derive(Debug)]
struct Planned {
    verb: Option<&'static str>,
    skip: usize,
    fault: Fault,
}

/// Planned faults and the calls made so far.
#[derive(Debug, Default)]
pub(super) struct Injector {
    planned: Vec<Planned>,
    calls: Vec<String>,
}

impl Injector {
    pub(super) fn note(&mut self, op: &Op) -> Option<Fault> {
        self.calls.push(op.to_string());
        let index =
            self.planned.iter().position(|planned| planned.verb.is_none_or(|verb| verb == op.verb))?;
        let planned = self.planned.get_mut(index)?;
        if planned.skip > 0 {
            planned.skip -= 1;
            return None;
        }
        Some(self.planned.remove(index).fault)
    }
}

impl Fake {
    /// Plans a fault for the call after the next `skip` ones with that verb (as in `Op`: "snapshot",
    /// "destroy", ..; None is any call). Each fault happens once; several are met in the order planned.
    pub fn inject(&self, verb: Option<&'static str>, skip: usize, fault: Fault) {
        self.lock_injector().planned.push(Planned { verb, skip, fault });
    }

    /// The calls made so far as "verb name", those that failed included.
    pub fn calls(&self) -> Vec<String> {
        self.lock_injector().calls.clone()
    }
}

/// Blocks until the limits end the call; without limits, for ever.
pub(super) fn hang(op: Op, limits: &Limits) -> Error {
    let started = Instant::now();
    loop {
        if let Err(stop) = limits.check() {
            return stopped(op, stop, started.elapsed());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub(super) fn stopped(op: Op, stop: Stop, after: Duration) -> Error {
    match stop {
        Stop::Deadline => Error::Deadline { op, after, lingering: false },
        Stop::Cancelled => Error::Cancelled { op },
    }
}
