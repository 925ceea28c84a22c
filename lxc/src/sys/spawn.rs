//! The first process of a container: a copy of this one, made in the container's cgroup and new namespaces by one call,
//! that becomes `cryopod-init` at once.
#![allow(unsafe_code)]
// JUSTIFICATION: clone3(2) and execveat(2) have no safe wrapper. This program has one thread when it makes a container (see
// `command::create`), so the copy meets no lock that somebody else holds; every pointer is to a value that outlives its call.

use std::ffi::{CStr, CString, c_char};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::FdFlags;
use rustix::process::{Pid, WaitOptions, WaitStatus, waitpid};

/// What becomes of it.
pub(crate) struct Program<'a> {
    /// Its file.
    pub(crate) file: BorrowedFd<'a>,
    /// With its name at first.
    pub(crate) arguments: &'a [CString],
    /// What it gets besides the standard streams, by the same numbers.
    pub(crate) kept: &'a [BorrowedFd<'a>],
}

/// Makes the process; `cgroup` is the directory of its group. Moving it there afterwards would wait for a grace period of
/// RCU, tens of milliseconds. `failed` is called in the copy when it cannot become the program.
///
/// # Errors
/// What the kernel says: `ENOMEM` also for a PID namespace whose first process has ended.
pub(crate) fn spawn(
    namespaces: u32,
    cgroup: BorrowedFd<'_>,
    program: &Program<'_>,
    failed: impl FnOnce(io::Error),
) -> io::Result<Pid> {
    // SAFETY: plain numbers, all of which may be 0.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = u64::from(namespaces) | INTO_CGROUP;
    arguments.exit_signal = u64::from(libc::SIGCHLD.unsigned_abs());
    arguments.cgroup = u64::try_from(cgroup.as_raw_fd()).unwrap_or(u64::MAX);
    // SAFETY: without CLONE_VM it is fork(2), and there is one thread, see above.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<libc::clone_args>()) };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        return Ok(pid);
    }
    // Nothing of the original's is dropped or unwound in the copy.
    failed(match keep(program.kept) {
        Ok(()) => execute(program),
        Err(error) => error,
    });
    // SAFETY: an integer.
    unsafe { libc::_exit(127) }
}

/// Linux, include/uapi/linux/sched.h: beyond what the C library has as an int.
const INTO_CGROUP: u64 = 0x2_0000_0000;

/// Becomes the program, with no environment. Only returns with an error.
fn execute(program: &Program<'_>) -> io::Error {
    let ends = [std::ptr::null::<c_char>()];
    let arguments: Vec<*const c_char> =
        program.arguments.iter().map(|argument| argument.as_ptr()).chain(ends).collect();
    let empty: &CStr = c"";
    // SAFETY: both lists end with a null pointer, and everything lives until the call returns, if it does.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            program.file.as_raw_fd(),
            empty.as_ptr(),
            arguments.as_ptr(),
            ends.as_ptr(),
            libc::AT_EMPTY_PATH,
        );
    }
    io::Error::last_os_error()
}

/// Lets the descriptors outlive `execveat`. All others are closed by it.
fn keep(kept: &[BorrowedFd<'_>]) -> io::Result<()> {
    // SAFETY: three integers; what others have opened without the flag (a caller of ours) is none of the container's business.
    if unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    for fd in kept {
        rustix::io::fcntl_setfd(fd, FdFlags::empty())?;
    }
    Ok(())
}

/// How a child has ended, if it has.
pub(crate) fn ended(pid: Pid) -> Option<WaitStatus> {
    loop {
        match waitpid(Some(pid), WaitOptions::NOHANG) {
            Ok(found) => return found.map(|(_, status)| status),
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return None,
        }
    }
}
