//! The system calls that std and nix do not wrap safely: signal handlers, sizes of terminals, received descriptors.
#![allow(unsafe_code)]
// JUSTIFICATION: a handler is needed because a *blocked* signal mask (signalfd) would be inherited by the runtime
// and the container through exec, while handlers are reset there; nix has no safe sigaction and no safe ioctl.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicI32, Ordering};

use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

/// Where the handler writes signal numbers; never closed again.
static SIGNAL_PIPE: AtomicI32 = AtomicI32::new(-1);

extern "C" fn write_number(signal: libc::c_int) {
    let fd = SIGNAL_PIPE.load(Ordering::Relaxed);
    let byte = u8::try_from(signal).unwrap_or(0);
    // SAFETY: write(2) is async-signal-safe, the byte lives on this stack. errno is put back, since the
    // interrupted code may be about to read it. A full pipe loses a signal of which 64 Ki wait already.
    unsafe {
        let errno = libc::__errno_location();
        let saved = *errno;
        libc::write(fd, std::ptr::from_ref(&byte).cast(), 1);
        *errno = saved;
    }
}

/// Sets the pipe that signal numbers are written to. Once per process: the descriptor is never closed, since a
/// handler may be about to use it.
pub(crate) fn set_signal_pipe(pipe: OwnedFd) {
    SIGNAL_PIPE.store(pipe.into_raw_fd(), Ordering::SeqCst);
}

/// From now on each of `signals` arrives as one byte, its number, on the signal pipe.
pub(crate) fn catch(signals: &[Signal]) -> io::Result<()> {
    // No SA_RESTART: a blocking read of standard input is to end when the user interrupts.
    let action = SigAction::new(SigHandler::Handler(write_number), SaFlags::empty(), SigSet::empty());
    for signal in signals {
        // SAFETY: the handler does nothing but async-signal-safe calls.
        unsafe { sigaction(*signal, &action) }?;
    }
    Ok(())
}

/// Rows and columns of a terminal.
pub(crate) fn window_size(terminal: BorrowedFd<'_>) -> io::Result<libc::winsize> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCGWINSZ writes one winsize, which is what the pointer is to.
    let result = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(size) }
}

/// Gives a terminal its rows and columns.
pub(crate) fn set_window_size(terminal: BorrowedFd<'_>, size: &libc::winsize) -> io::Result<()> {
    // SAFETY: TIOCSWINSZ reads one winsize, which is what the pointer is to.
    let result = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, std::ptr::from_ref(size)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Receives one descriptor that the other side sends with SCM_RIGHTS.
pub(crate) fn receive_fd(socket: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let mut data = [0_u8; 4096];
    let mut iov = [io::IoSliceMut::new(&mut data)];
    let mut space = nix::cmsg_space!([RawFd; 1]);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut iov, Some(&mut space), flags)?;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = control
            && let Some(fd) = fds.first()
        {
            // SAFETY: the kernel has just made this descriptor for us; the space holds one, so no other is lost.
            return Ok(unsafe { OwnedFd::from_raw_fd(*fd) });
        }
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "the runtime sent no terminal"))
}

/// Sends one descriptor as a runtime does.
#[cfg(test)]
pub(crate) fn send_fd(socket: BorrowedFd<'_>, fd: BorrowedFd<'_>) -> io::Result<()> {
    use nix::sys::socket::{ControlMessage, sendmsg};
    let fds = [fd.as_raw_fd()];
    let iov = [io::IoSlice::new(b"pty")];
    sendmsg::<()>(socket.as_raw_fd(), &iov, &[ControlMessage::ScmRights(&fds)], MsgFlags::empty(), None)?;
    Ok(())
}
