//! Kernel calls that may never come back, under the caller's limits.
//!
//! What touches a suspended pool or a network file system whose server is gone sleeps in the kernel, where no signal
//! reaches it. Inside a freeze that would hold the pod beyond every deadline. So such calls run on a thread of their own,
//! which is left behind when the limits end the wait; what it does may still take effect later.

use std::io;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use cryopod_command::{Limits, Stop};

/// How often a waiter looks at the cancel switch; an answer wakes it at once.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// No answer.
#[derive(Debug)]
pub(crate) enum NoAnswer {
    /// Deadline or cancel; the call may still be going on.
    Stopped(Stop),
    /// The thread could not be made, or died.
    Thread(io::Error),
}

/// Runs `call` on a thread that shares the caller's mount namespace, and waits for it within the limits.
pub(crate) fn on_thread<T: Send + 'static>(
    limits: &Limits,
    call: impl FnOnce() -> T + Send + 'static,
) -> Result<T, NoAnswer> {
    limits.check().map_err(NoAnswer::Stopped)?;
    let (sender, receiver) = mpsc::channel();
    thread::Builder::new()
        .name("capture-disk".to_owned())
        .spawn(move || {
            // The receiver is gone when the limits ended the wait: then nobody wants the answer.
            sender.send(call()).ok();
        })
        .map_err(NoAnswer::Thread)?;
    loop {
        let patience = limits.remaining().unwrap_or(LOOK_EVERY).min(LOOK_EVERY);
        match receiver.recv_timeout(patience) {
            Ok(answer) => return Ok(answer),
            Err(RecvTimeoutError::Timeout) => limits.check().map_err(NoAnswer::Stopped)?,
            Err(RecvTimeoutError::Disconnected) => {
                return Err(NoAnswer::Thread(io::Error::other("the thread of the call died")));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use cryopod_command::Cancel;

    use super::*;

    #[test]
    fn an_answer_comes_back_and_a_thread_that_dies_is_said() {
        assert_eq!(on_thread(&Limits::none(), || 7).unwrap(), 7);
        let died = on_thread(&Limits::none(), || panic!("planned"));
        assert!(matches!(died, Err::<(), _>(NoAnswer::Thread(_))), "{died:?}");
    }

    #[test]
    fn a_call_that_hangs_is_left_behind_at_the_deadline_and_by_a_cancel() {
        let hang = || thread::sleep(Duration::from_secs(30));
        let began = Instant::now();
        let answer = on_thread(&Limits::within(Duration::from_millis(50)), hang);
        assert!(matches!(answer, Err(NoAnswer::Stopped(Stop::Deadline))), "{answer:?}");
        let cancel = Cancel::new();
        let limits = Limits::none().with_cancel(cancel.clone());
        let waiting = thread::spawn(move || on_thread(&limits, hang));
        cancel.cancel();
        assert!(matches!(waiting.join().unwrap(), Err(NoAnswer::Stopped(Stop::Cancelled))));
        assert!(began.elapsed() < Duration::from_secs(10));
    }
}
