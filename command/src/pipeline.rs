//! Two programs with a pipe between them, as in `zfs send | zfs receive`, ended and reaped together.
//!
//! When one side fails the other usually fails too (a broken pipe, a truncated stream); the error names the
//! side that failed first, because that is the one to look at.

use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::sys::signal::Signal;
use nix::unistd::pipe2;

use crate::pump::{self, Halt};
use crate::{Command, Error, Limits, Output, Running, Stdin, Stdout, Stop};

/// How long a producer may go on after its consumer has failed: its next write fails, unless it waits for
/// something else.
const PRODUCER_GRACE: Duration = Duration::from_secs(10);

/// One end of a pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The program that writes.
    Producer,
    /// The program that reads.
    Consumer,
    /// Both at once: a limit ended the pipeline.
    Both,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Producer => "the sending side",
            Self::Consumer => "the receiving side",
            Self::Both => "both sides",
        })
    }
}

/// Why a pipeline failed: the side to look at, what it said, and what the other said.
#[derive(Debug, thiserror::Error)]
#[error("{side}: {error}{}", other.as_ref().map(|other| format!("; the other side: {other}")).unwrap_or_default())]
pub struct PipelineError {
    /// The side that failed first.
    pub side: Side,
    /// What that side said; the producer's words when the side is both.
    pub error: Box<Error>,
    /// What the other side said, when it failed as well.
    pub other: Option<Box<Error>>,
}

impl PipelineError {
    fn one(side: Side, error: Error) -> Self {
        Self { side, error: Box::new(error), other: None }
    }

    fn two(side: Side, error: Error, other: Error) -> Self {
        Self { side, error: Box::new(error), other: Some(Box::new(other)) }
    }

    /// The errors of both sides as (producer, consumer).
    pub fn sides(&self) -> (Option<&Error>, Option<&Error>) {
        let (first, other) = (Some(&*self.error), self.other.as_deref());
        if self.side == Side::Consumer { (other, first) } else { (first, other) }
    }
}

/// Runs `producer | consumer` until both have ended; their stdout and stdin are replaced by the pipe.
pub fn pipeline(
    producer: Command,
    consumer: Command,
    limits: &Limits,
) -> Result<(Output, Output), PipelineError> {
    producer.may_start(limits).map_err(|error| PipelineError::one(Side::Both, error))?;
    let (read, write) = pipe2(OFlag::O_CLOEXEC).map_err(|errno| {
        let error = Error::Spawn { argv: producer.argv(), source: errno.into() };
        PipelineError::one(Side::Producer, error)
    })?;
    // The reader first: a missing `zfs receive` must not start a send.
    let mut consumer = consumer
        .stdin(Stdin::File(read))
        .spawn()
        .map_err(|error| PipelineError::one(Side::Consumer, error))?;
    let mut producer = producer
        .stdout(Stdout::File(write))
        .spawn()
        .map_err(|error| PipelineError::one(Side::Producer, error))?;

    let mut first_failed = None;
    let mut producer_ends_by = None;
    loop {
        let before = (producer.status(), consumer.status());
        if let (Some(sent), Some(received)) = before {
            return finish(&mut producer, sent, &mut consumer, received, first_failed);
        }
        if let Err(halt) = pump::turn(&mut [&mut producer, &mut consumer], limits, producer_ends_by) {
            return Err(stop(&mut producer, &mut consumer, halt));
        }
        let newly = |before: Option<ExitStatus>, now: Option<ExitStatus>| match (before, now) {
            (None, Some(status)) => (!status.success()).then_some(status),
            _ => None,
        };
        let sent = newly(before.0, producer.status());
        let received = newly(before.1, consumer.status());
        first_failed = first_failed.or(match (sent, received) {
            (Some(status), Some(_)) if status.signal() == Some(Signal::SIGPIPE as i32) => {
                Some(Side::Consumer)
            }
            (Some(_), _) => Some(Side::Producer),
            (None, Some(_)) => Some(Side::Consumer),
            (None, None) => None,
        });
        if received.is_some() && producer_ends_by.is_none() {
            producer_ends_by = Some(Instant::now() + PRODUCER_GRACE);
        }
        if producer.status().is_none() && producer_ends_by.is_some_and(|by| by <= Instant::now()) {
            producer.kill();
        }
    }
}

fn finish(
    producer: &mut Running,
    sent: ExitStatus,
    consumer: &mut Running,
    received: ExitStatus,
    first_failed: Option<Side>,
) -> Result<(Output, Output), PipelineError> {
    match (producer.outcome(sent), consumer.outcome(received)) {
        (Ok(sent), Ok(received)) => Ok((sent, received)),
        (Err(error), Ok(_)) => Err(PipelineError::one(Side::Producer, error)),
        (Ok(_), Err(error)) => Err(PipelineError::one(Side::Consumer, error)),
        (Err(sent), Err(received)) if first_failed == Some(Side::Consumer) => {
            Err(PipelineError::two(Side::Consumer, received, sent))
        }
        (Err(sent), Err(received)) => Err(PipelineError::two(Side::Producer, sent, received)),
    }
}

fn stop(producer: &mut Running, consumer: &mut Running, halt: Halt) -> PipelineError {
    let again = match &halt {
        Halt::Limit(stop) => Halt::Limit(*stop),
        // The other side is ended because this one was.
        Halt::TooMuchOutput | Halt::Io(..) => Halt::Limit(Stop::Cancelled),
    };
    // Both before either is waited for: one may be stuck until the other has let go of the pipe.
    producer.strike_first();
    consumer.strike_first();
    let sent = producer.halted(halt);
    let received = consumer.halted(again);
    PipelineError::two(Side::Both, sent, received)
}
