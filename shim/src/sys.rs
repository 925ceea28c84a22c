//! The system calls that std and nix do not wrap safely.
//!
//! Everything else in this crate is safe Rust. Each function here checks its result and owns what it returns.
#![allow(unsafe_code)]
// JUSTIFICATION: pidfds, raw wait statuses (nix refuses real-time signals), terminal sizes, allocator settings and
// descriptors handed to a child between fork and exec have no safe wrapper in std or nix.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Registers an owned descriptor with the event loop; must be called inside the tokio runtime.
pub(crate) fn async_fd(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd stays open and keeps its number for as long as the AsyncFd owns it, and is never replaced.
    unsafe { AsyncFd::register_with_interest(fd, interest) }.map_err(io::Error::from)
}

/// How a child ended, as in `siginfo_t`: an exit code, or the number of the signal that killed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// `exit(2)` with this code.
    Code(i32),
    /// Killed by this signal, real-time signals included.
    Signal(i32),
}

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Opens a pidfd; works for zombies that were not reaped yet.
pub(crate) fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    let pid = libc::pid_t::try_from(pid).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: two integers, no memory.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, libc::PIDFD_NONBLOCK) })?;
    let fd = RawFd::try_from(fd).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    // SAFETY: the kernel just made this descriptor for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sends a raw signal number to exactly the process behind `pidfd`; ESRCH when it is gone.
pub(crate) fn pidfd_send_signal(pidfd: impl AsFd, signal: i32) -> io::Result<()> {
    let info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a null siginfo means "as kill(2) does"; the descriptor outlives the call.
    check(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_fd().as_raw_fd(), signal, info, 0) })?;
    Ok(())
}

fn waitid(kind: libc::idtype_t, id: libc::id_t) -> io::Result<Option<Ended>> {
    // SAFETY: siginfo_t is plain data for which all zeroes is a valid value.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: `info` is a valid siginfo_t for the kernel to fill.
    let result = unsafe { libc::waitid(kind, id, &raw mut info, libc::WEXITED | libc::WNOHANG) };
    check(libc::c_long::from(result))?;
    // SAFETY: after WEXITED the SIGCHLD fields of the union are those that are set (zero if nothing ended).
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    if pid == 0 {
        return Ok(None);
    }
    Ok(Some(if info.si_code == libc::CLD_EXITED { Ended::Code(status) } else { Ended::Signal(status) }))
}

/// Reaps the child behind `pidfd` if it has ended; ECHILD when it is not our child.
pub(crate) fn wait_pidfd(pidfd: BorrowedFd<'_>) -> io::Result<Option<Ended>> {
    let id =
        libc::id_t::try_from(pidfd.as_raw_fd()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    waitid(libc::P_PIDFD, id)
}

/// Reaps the child `pid` if it has ended.
pub(crate) fn wait_pid(pid: u32) -> io::Result<Option<Ended>> {
    waitid(libc::P_PID, pid)
}

/// Reaps any one child that has ended; for PID 1 of a pod only.
pub(crate) fn wait_any() -> io::Result<Option<Ended>> {
    waitid(libc::P_ALL, 0)
}

/// One malloc arena and a low trim threshold: the shim allocates little, from several short-lived threads, and
/// each further arena costs resident memory per pod.
pub(crate) fn tune_allocator() {
    #[cfg(target_env = "gnu")]
    // SAFETY: called before any thread exists; the parameters are those of mallopt(3).
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 64 * 1024);
        libc::mallopt(libc::M_MMAP_THRESHOLD, 64 * 1024);
    }
}

/// Gives free heap pages back to the kernel.
pub(crate) fn trim_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim may be called at any time from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// The user namespace that owns a namespace (ioctl_ns(2)).
pub fn owning_user_namespace(namespace: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // _IO(0xb7, 0x1), which the libc crate does not have for every target.
    const NS_GET_USERNS: libc::Ioctl = 0xb701;
    // SAFETY: the descriptor is open for the length of the call, which takes no further argument.
    let fd = unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_USERNS) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has made this descriptor for us, and nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sets the size of the terminal behind `master`.
pub(crate) fn set_terminal_size(master: impl AsFd, columns: u16, rows: u16) -> io::Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads one winsize.
    let result = unsafe { libc::ioctl(master.as_fd().as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
    check(libc::c_long::from(result))?;
    Ok(())
}

/// What the child of [`prepare_child`] gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Session {
    /// A session of its own, so that no terminal or process group of the caller reaches it.
    Own,
    /// The caller's.
    Same,
}

/// Makes `command` start with `fds` as descriptors 3, 4, … and, if wanted, in its own session.
///
/// The descriptors must stay open until the child was spawned.
pub(crate) fn prepare_child(command: &mut Command, fds: &[BorrowedFd<'_>], session: Session) {
    let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let hook = move || {
        if session == Session::Own {
            // SAFETY: setsid takes nothing and is async-signal-safe.
            unsafe { libc::setsid() };
        }
        // First out of the way of the targets, then into place; dup2 clears close-on-exec.
        let mut high = [0 as RawFd; 8];
        for (slot, fd) in high.iter_mut().zip(&raw) {
            // SAFETY: fcntl on an open descriptor, async-signal-safe.
            *slot = unsafe { libc::fcntl(*fd, libc::F_DUPFD_CLOEXEC, 64) };
            if *slot < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        for (slot, target) in high.iter().take(raw.len()).zip(3..) {
            // SAFETY: dup2 on an open descriptor, async-signal-safe; nothing of ours lives at the target in the child.
            if unsafe { libc::dup2(*slot, target) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: the hook makes only async-signal-safe calls and allocates nothing.
    unsafe { command.pre_exec(hook) };
}

/// Forks; the child's PID in the parent, `None` in the child. For a process with one thread only.
pub(crate) fn fork() -> io::Result<Option<u32>> {
    // SAFETY: the only caller is the namespace holder, which never has a second thread.
    let pid = check(libc::c_long::from(unsafe { libc::fork() }))?;
    Ok(u32::try_from(pid).ok().filter(|pid| *pid != 0))
}

/// Takes ownership of a descriptor that was inherited at a known number, e.g. 3.
///
/// Fails when it is not open. Call once per number, before anything else may have opened it.
pub(crate) fn inherited_fd(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_GETFD on any number is harmless.
    check(libc::c_long::from(unsafe { libc::fcntl(number, libc::F_GETFD) }))?;
    // SAFETY: it is open, it was handed to us, and by contract this is the only place that takes it.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    // SAFETY: as above; keeps it from leaking into runtimes.
    check(libc::c_long::from(unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) }))?;
    Ok(fd)
}

/// Takes ownership of a descriptor that a message of another process carried.
pub(crate) fn received_fd(fd: RawFd) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::ErrorKind::InvalidData.into());
    }
    // SAFETY: recvmsg has just installed it in this process, and nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
