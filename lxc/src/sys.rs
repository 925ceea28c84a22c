//! C libraries, opened when they are needed, and signals with any number.
#![allow(unsafe_code)]
// JUSTIFICATION: rustix has no constructor for real-time signals that is safe; the kernel checks the number.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

pub(crate) mod bpf;
pub(crate) mod idmap;
pub(crate) mod seccomp;
pub(crate) mod spawn;

/// Takes a copy of the mount namespace for this process, which has one thread.
pub(crate) fn own_mounts() -> io::Result<()> {
    // SAFETY: one flag.
    if unsafe { libc::unshare(libc::CLONE_NEWNS) } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sends a signal to exactly the process that the descriptor was opened for.
pub(crate) fn signal(process: &OwnedFd, number: i32) -> io::Result<()> {
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: an open descriptor; a null siginfo means "as kill(2)".
    let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, process.as_raw_fd(), number, none, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sends a signal to a process by its PID.
pub(crate) fn signal_pid(pid: i32, number: i32) -> io::Result<()> {
    // SAFETY: two integers.
    if unsafe { libc::kill(pid, number) } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The `CLONE_NEW…` flag of the namespace that a file is; an error for any other file.
pub(crate) fn namespace_type(file: &std::fs::File) -> io::Result<i32> {
    // SAFETY: an open descriptor; the request has no argument.
    let kind = unsafe { libc::ioctl(file.as_raw_fd(), libc::NS_GET_NSTYPE) };
    if kind < 0 { Err(io::Error::last_os_error()) } else { Ok(kind) }
}
