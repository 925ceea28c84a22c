//! The system calls that std and rustix do not wrap.
#![allow(unsafe_code)]
// JUSTIFICATION: clone3, unshare, keyctl, signal, mount_setattr, seccomp, close_range, ioprio_set, personality, rlimits by number, sending a descriptor,
// and taking over descriptors that were inherited by number have no safe wrapper in std or rustix. The program has one
// thread, and every pointer given to the kernel is to a local value that outlives the call.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use crate::plan::{Rlimit, Seccomp};

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Takes over a descriptor that this process was started with.
///
/// # Errors
/// When it is not open.
pub fn inherited(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_GETFD only looks.
    check(libc::c_long::from(unsafe { libc::fcntl(fd, libc::F_GETFD) }))?;
    // SAFETY: it is open, and the plan names each descriptor once; nothing else in this program owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Nothing of a mount is changed.
pub const SAME: libc::mount_attr =
    libc::mount_attr { attr_set: 0, attr_clr: 0, propagation: 0, userns_fd: 0 };

/// Changes attributes, propagation or owners of a mount, or of all that is mounted below as well.
///
/// # Errors
/// What the kernel says: `EINVAL` for a file system that cannot have its owners mapped.
pub fn mount_setattr(mount: BorrowedFd<'_>, below: bool, attributes: &libc::mount_attr) -> io::Result<()> {
    let recursive = if below { libc::AT_RECURSIVE } else { 0 };
    let attributes: *const libc::mount_attr = attributes;
    // SAFETY: an empty C string, and a struct of the size that is given with it.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | recursive,
            attributes,
            size_of::<libc::mount_attr>(),
        )
    })?;
    Ok(())
}

/// Marks every descriptor from `first` on to be closed by `execve`.
///
/// # Errors
/// What the kernel says.
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: three integers.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) })?;
    Ok(())
}

/// Installs a system call filter for this process.
///
/// # Errors
/// What the kernel says; EINVAL for a filter that it does not take.
pub fn seccomp(filter: &Seccomp) -> io::Result<()> {
    let mut program: Vec<libc::sock_filter> =
        filter.program.iter().map(|&(code, jt, jf, k)| libc::sock_filter { code, jt, jf, k }).collect();
    let len = u16::try_from(program.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let program = libc::sock_fprog { len, filter: program.as_mut_ptr() };
    // SAFETY: the program and its instructions live until the call has copied them.
    check(unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, filter.flags, &raw const program)
    })?;
    Ok(())
}

/// Sets a resource limit.
///
/// # Errors
/// What the kernel says.
pub fn set_rlimit(limit: &Rlimit) -> io::Result<()> {
    let wanted = libc::rlimit { rlim_cur: limit.soft, rlim_max: limit.hard };
    // SAFETY: a local struct; an unknown resource is EINVAL.
    check(libc::c_long::from(unsafe { libc::setrlimit(limit.resource, &raw const wanted) }))?;
    Ok(())
}

/// Sets the I/O priority of this process.
///
/// # Errors
/// What the kernel says.
pub fn set_io_priority(priority: i32) -> io::Result<()> {
    const WHO_PROCESS: i32 = 1;
    // SAFETY: three integers.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, priority) })?;
    Ok(())
}

/// Sets the execution domain.
///
/// # Errors
/// What the kernel says.
pub fn set_personality(personality: u64) -> io::Result<()> {
    // SAFETY: one integer.
    check(libc::c_long::from(unsafe { libc::personality(personality) }))?;
    Ok(())
}

/// Starts a session and makes `terminal` its controlling terminal.
///
/// # Errors
/// What the kernel says.
pub fn control_terminal(terminal: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: no pointers.
    check(libc::c_long::from(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, 0) }))?;
    Ok(())
}

/// Sets the size of a terminal.
///
/// # Errors
/// What the kernel says.
pub fn set_size(terminal: BorrowedFd<'_>, columns: u16, rows: u16) -> io::Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads one winsize.
    check(libc::c_long::from(unsafe {
        libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size)
    }))?;
    Ok(())
}

/// Who one is after a fork.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fork {
    /// The new process.
    Child,
    /// The old one; PID of the new one as the old one sees it.
    Parent(u32),
}

/// Makes a second process of this one, which has one thread.
///
/// # Errors
/// What the kernel says.
pub fn fork() -> io::Result<Fork> {
    // SAFETY: no other thread exists that could hold a lock meanwhile.
    let pid = check(libc::c_long::from(unsafe { libc::fork() }))?;
    Ok(match u32::try_from(pid) {
        Ok(0) | Err(_) => Fork::Child,
        Ok(pid) => Fork::Parent(pid),
    })
}

/// Makes a second process with namespaces of its own, which is a child of this one's parent. This one has one thread.
///
/// # Errors
/// What the kernel says.
pub fn beside(namespaces: u32) -> io::Result<Fork> {
    let flags = u64::from(namespaces | libc::CLONE_PARENT.unsigned_abs());
    // SAFETY: plain numbers, all of which may be 0.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    // The signal at its end is the one that this process has.
    arguments.flags = flags;
    // SAFETY: without CLONE_VM it is fork(2): a copy of the memory, and no other thread exists that could hold a lock.
    let pid = check(unsafe {
        libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<libc::clone_args>())
    })?;
    Ok(match u32::try_from(pid) {
        Ok(0) | Err(_) => Fork::Child,
        Ok(pid) => Fork::Parent(pid),
    })
}

/// Leaves namespaces for new ones.
///
/// # Errors
/// What the kernel says.
pub fn unshare(namespaces: u32) -> io::Result<()> {
    // SAFETY: no descriptors are unshared, only namespaces.
    check(unsafe { libc::syscall(libc::SYS_unshare, namespaces) }).map(drop)
}

/// Begins a session keyring that nobody else has: the old one may hold keys of the host.
///
/// # Errors
/// What the kernel says; ENOSYS where it has no keys.
pub fn own_keyring() -> io::Result<()> {
    // SAFETY: no name.
    check(unsafe {
        libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, std::ptr::null::<libc::c_char>())
    })
    .map(drop)
}

/// Every signal does what it does by default. What is ignored stays so over `execve`: Rust's runtime ignores SIGPIPE, and a
/// caller like nohup(1) others.
pub fn default_signals() {
    // The kernel's own struct, with SIG_DFL, no flags and an empty mask. Not by the C library, which keeps two for itself.
    let default = [0_u64; 4];
    for number in 1..=64 {
        // SAFETY: a struct that is at least as long as the kernel's; SIGKILL and SIGSTOP are refused.
        unsafe {
            let none = std::ptr::null_mut::<u64>();
            libc::syscall(libc::SYS_rt_sigaction, number, default.as_ptr(), none, size_of::<u64>());
        }
    }
    // SAFETY: a local set, filled before it is used.
    unsafe {
        let mut none = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// Replaces this program. Only returns with an error.
pub fn execve(path: &CString, args: &[CString], env: &[CString]) -> io::Error {
    let pointers = |strings: &[CString]| {
        let ends = std::iter::once(std::ptr::null());
        strings.iter().map(|string| string.as_ptr()).chain(ends).collect::<Vec<_>>()
    };
    let (args, env) = (pointers(args), pointers(env));
    // SAFETY: both arrays end with a null pointer, and all strings live until the call returns, if it does.
    unsafe { libc::execve(path.as_ptr(), args.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}
