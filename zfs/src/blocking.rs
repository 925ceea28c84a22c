//! Kernel calls made in this process, under the caller's limits.
//!
//! mount(2) and the ioctls of libzfs_core can block for good when a pool is suspended, and a thread in that
//! state cannot be killed. So each runs on a thread of its own, which is left behind when the limits end the
//! call: what it does may still take effect later, as with a killed `zfs`.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use cryopod_command::Stop;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::error::Op;
use crate::{Error, Limits};

pub(crate) fn stopped(op: &Op, stop: Stop, after: Duration, lingering: bool) -> Error {
    match stop {
        Stop::Deadline => Error::Deadline { op: op.clone(), after, lingering },
        Stop::Cancelled => Error::Cancelled { op: op.clone() },
    }
}

/// Runs `call` on a thread that shares the caller's mount namespace, and waits for it within the limits.
pub(crate) fn on_thread<T: Send + 'static>(
    op: &Op,
    limits: &Limits,
    call: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Error> {
    let started = Instant::now();
    limits.check().map_err(|stop| stopped(op, stop, started.elapsed(), false))?;
    let system = |source| Error::System { op: op.clone(), source };
    let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK);
    let done = Arc::new(event.map_err(|errno| system(errno.into()))?);
    let (sender, receiver) = mpsc::channel();
    let signal = Arc::clone(&done);
    std::thread::Builder::new()
        .name(format!("zfs-{}", op.verb.split(' ').next().unwrap_or_default()))
        .spawn(move || {
            // The receiver is gone when the limits ended the call: then nobody wants the answer.
            sender.send(call()).ok();
            signal.write(1).ok();
        })
        .map_err(system)?;
    loop {
        match receiver.try_recv() {
            Ok(answer) => return Ok(answer),
            Err(mpsc::TryRecvError::Empty) => {}
            Err(mpsc::TryRecvError::Disconnected) => {
                return Err(Error::Unknown { op: op.clone(), said: "the calling thread died".to_owned() });
            }
        }
        if let Err(stop) = limits.check() {
            return Err(stopped(op, stop, started.elapsed(), true));
        }
        let mut fds = vec![PollFd::new(done.as_fd(), PollFlags::POLLIN)];
        let cancel = limits.cancel.as_ref().and_then(|cancel| cancel.event());
        fds.extend(cancel.map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        // Bounded, for a thread that dies without a word.
        let left = limits.remaining().unwrap_or(Duration::MAX).min(Duration::from_secs(1));
        let millis = u16::try_from(left.as_millis()).unwrap_or(1000).saturating_add(1);
        match poll(&mut fds, PollTimeout::from(millis)) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(system(errno.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Cancel;

    #[test]
    fn an_answer_comes_back_at_once() {
        let op = Op::new("try", "it");
        assert_eq!(on_thread(&op, &Limits::none(), || 7).unwrap(), 7);
    }

    #[test]
    fn a_call_that_hangs_is_left_behind() {
        let op = Op::new("try", "it");
        let started = Instant::now();
        let hang = || std::thread::sleep(Duration::from_secs(30));
        let error = on_thread(&op, &Limits::within(Duration::from_millis(100)), hang).unwrap_err();
        assert!(matches!(error, Error::Deadline { lingering: true, .. }), "{error}");
        let cancel = Cancel::new();
        let limits = Limits::none().with_cancel(cancel.clone());
        let waiting = std::thread::spawn(move || on_thread(&Op::new("try", "it"), &limits, hang));
        cancel.cancel();
        assert!(matches!(waiting.join().unwrap(), Err(Error::Cancelled { .. })));
        assert!(started.elapsed() < Duration::from_secs(5));
    }
}
