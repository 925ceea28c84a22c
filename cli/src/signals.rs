//! What signals mean to `cryopod`: until a process runs in the foreground, SIGINT, SIGTERM and SIGHUP cancel the
//! present work through [`Cancel`], so that it is undone and nothing stays frozen; afterwards every signal goes to
//! that process, and a change of the window size to its terminal.
//!
//! Handlers write to a pipe, one thread reads it. Signals are not blocked, since a blocked mask would be inherited
//! by the runtime and by the container.

use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use cryopod_command::{Cancel, Limits};
use cryopod_shim::control::client::exec::Input;
use nix::fcntl::OFlag;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, pipe2};
use tokio::sync::mpsc::UnboundedSender;

use crate::error::Error;
use crate::sys;

const CANCELLING: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];
/// Those that a foreground process gets too. Stops and continues stay with the shell's job control.
const FORWARDED: [Signal; 5] =
    [Signal::SIGQUIT, Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGWINCH, Signal::SIGALRM];

/// Where signals go now.
#[derive(Debug, Default)]
enum Target {
    /// They cancel the present work.
    #[default]
    Work,
    /// To a child of ours.
    Process {
        pid: Pid,
        /// Master side of the process's terminal.
        terminal: Option<OwnedFd>,
    },
    /// To a process that a shim runs, by whoever attends it.
    Remote { attendant: UnboundedSender<Input>, terminal: bool },
}

/// Receives the signals of this process.
#[derive(Debug, Clone)]
pub(crate) struct Signals {
    cancel: Cancel,
    target: Arc<Mutex<Target>>,
}

impl Signals {
    /// Takes over the cancelling signals. Once per process, before anything that must be undone.
    pub(crate) fn install() -> Result<Self, Error> {
        let failed = |source| Error::System { action: "set up signal handling", source };
        let (reader, writer) = pipe2(OFlag::O_CLOEXEC).map_err(io::Error::from).map_err(failed)?;
        nonblocking(&writer).map_err(failed)?;
        let signals = Self { cancel: Cancel::new(), target: Arc::default() };
        let receiver = signals.clone();
        let thread = std::thread::Builder::new().name("signals".into());
        thread.spawn(move || receiver.receive(reader)).map_err(failed)?;
        sys::set_signal_pipe(writer);
        sys::catch(&CANCELLING).map_err(failed)?;
        Ok(signals)
    }

    /// The switch that SIGINT throws.
    pub(crate) fn cancel(&self) -> Cancel {
        self.cancel.clone()
    }

    /// Limits that SIGINT ends early.
    pub(crate) fn limits(&self, longest: std::time::Duration) -> Limits {
        Limits::within(longest).with_cancel(self.cancel())
    }

    /// From now on signals go to `process`, which the caller must not have reaped, and window sizes to `terminal`.
    pub(crate) fn forward_to(&self, process: Pid, terminal: Option<OwnedFd>) -> Result<(), Error> {
        self.redirect(Target::Process { pid: process, terminal })
    }

    /// From now on signals go to whoever attends a process of a shim, and window sizes too if it has a terminal.
    pub(crate) fn pass_to(&self, attendant: UnboundedSender<Input>, terminal: bool) -> Result<(), Error> {
        self.redirect(Target::Remote { attendant, terminal })
    }

    fn redirect(&self, to: Target) -> Result<(), Error> {
        *self.target.lock().unwrap_or_else(PoisonError::into_inner) = to;
        // It came while the process was started, after the last look at the switch.
        if self.cancel.is_cancelled() {
            self.deliver(Signal::SIGTERM as i32);
        }
        self.resize();
        sys::catch(&FORWARDED).map_err(|source| Error::System { action: "forward signals", source })
    }

    /// The process is about to be reaped: its number may belong to another soon.
    pub(crate) fn forget(&self) {
        *self.target.lock().unwrap_or_else(PoisonError::into_inner) = Target::default();
    }

    fn receive(&self, pipe: OwnedFd) {
        let mut pipe = std::fs::File::from(pipe);
        let mut byte = [0_u8; 1];
        loop {
            match pipe.read(&mut byte) {
                Ok(1) => self.deliver(i32::from(byte[0])),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                _ => return,
            }
        }
    }

    fn deliver(&self, number: i32) {
        let Ok(signal) = Signal::try_from(number) else { return };
        if signal == Signal::SIGWINCH {
            return self.resize();
        }
        let target = self.target.lock().unwrap_or_else(PoisonError::into_inner);
        match &*target {
            // An error means that it has ended, which its waiter is about to see.
            Target::Process { pid, .. } => {
                kill(*pid, signal).ok();
            }
            Target::Remote { attendant, .. } => {
                attendant.send(Input::Signal(number.unsigned_abs())).ok();
            }
            Target::Work if CANCELLING.contains(&signal) => self.cancel.cancel(),
            Target::Work => {}
        }
    }

    /// Copies the size of our terminal to the process's.
    fn resize(&self) {
        use std::os::fd::AsFd;
        let target = self.target.lock().unwrap_or_else(PoisonError::into_inner);
        let Ok(size) = sys::window_size(io::stdout().as_fd()) else { return };
        match &*target {
            // A terminal without a size works, only uglier.
            Target::Process { terminal: Some(terminal), .. } => {
                drop(sys::set_window_size(terminal.as_fd(), &size));
            }
            Target::Remote { attendant, terminal: true } => {
                attendant.send(Input::Resized(size.ws_col, size.ws_row)).ok();
            }
            _ => {}
        }
    }
}

fn nonblocking(fd: &OwnedFd) -> io::Result<()> {
    nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    use tokio::sync::mpsc::unbounded_channel;

    use super::*;

    fn interrupted() -> Signals {
        let signals = Signals { cancel: Cancel::new(), target: Arc::default() };
        signals.deliver(Signal::SIGINT as i32);
        assert!(signals.cancel.is_cancelled());
        signals
    }

    #[test]
    fn a_signal_during_the_start_of_a_process_reaches_whoever_attends_it() {
        let (sender, mut inputs) = unbounded_channel();
        interrupted().pass_to(sender, false).unwrap();
        assert_eq!(inputs.try_recv().unwrap(), Input::Signal(15));
    }

    #[test]
    fn a_signal_during_the_start_of_a_child_reaches_it() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
        interrupted().forward_to(pid, None).unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(15));
    }
}
