//! Waiting for one descriptor under [`Limits`]: `poll(2)` together with the caller's cancel switch.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use cryopod_command::{Limits, Stop};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Why a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Woken {
    /// The descriptor has what was asked for, or an error to be read from it.
    Ready,
    /// The limits came first.
    Stopped(Stop),
}

/// How often a cancel switch without a descriptor is looked at.
const BLIND: Duration = Duration::from_millis(20);

/// Blocks until `fd` has one of `flags`.
pub(crate) fn readable(fd: BorrowedFd<'_>, flags: PollFlags, limits: &Limits) -> io::Result<Woken> {
    loop {
        if let Err(stop) = limits.check() {
            return Ok(Woken::Stopped(stop));
        }
        let mut fds = vec![PollFd::new(fd, flags)];
        let mut longest = limits.remaining();
        if let Some(cancel) = &limits.cancel {
            match cancel.event() {
                Some(event) => fds.push(PollFd::new(event, PollFlags::POLLIN)),
                None => longest = Some(longest.map_or(BLIND, |left| left.min(BLIND))),
            }
        }
        match poll(&mut fds, timeout(longest)) {
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => {
                if fds.first().and_then(PollFd::any).unwrap_or(false) {
                    return Ok(Woken::Ready);
                }
            }
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Rounded up, so that the deadline has passed when the wait ends by it.
fn timeout(longest: Option<Duration>) -> PollTimeout {
    let Some(longest) = longest else { return PollTimeout::NONE };
    let millis = longest.as_micros().div_ceil(1000);
    PollTimeout::try_from(i32::try_from(millis).unwrap_or(i32::MAX)).unwrap_or(PollTimeout::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cryopod_command::Cancel;
    use std::os::fd::AsFd;

    #[test]
    fn a_wait_ends_by_data_by_deadline_and_by_cancel() {
        let (read, write) = nix::unistd::pipe().expect("pipe");
        let soon = Limits::within(Duration::from_millis(5));
        let woken = readable(read.as_fd(), PollFlags::POLLIN, &soon).expect("poll");
        assert_eq!(woken, Woken::Stopped(Stop::Deadline));

        let cancel = Cancel::new();
        cancel.cancel();
        let cancelled = Limits::none().with_cancel(cancel);
        let woken = readable(read.as_fd(), PollFlags::POLLIN, &cancelled).expect("poll");
        assert_eq!(woken, Woken::Stopped(Stop::Cancelled));

        drop(write);
        assert_eq!(readable(read.as_fd(), PollFlags::POLLIN, &Limits::none()).expect("poll"), Woken::Ready);
    }
}
