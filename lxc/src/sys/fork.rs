//! A copy of this process, for work that needs a process of its own and no other program: a program would have to be loaded
//! and to read its command line first, which is a good part of the time that a small container takes to start.
#![allow(unsafe_code)]
// JUSTIFICATION: fork(2) has no safe wrapper. The copy has one thread, whatever the original has; what could hang it is a lock
// that another thread holds at that moment. Other threads of this program only wait in the kernel by then (see
// `cgroup::announce_move`), or were joined; the lock of the allocator is the C library's own care.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use rustix::io::FdFlags;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

/// A copy that was made; killed when it is dropped.
pub(crate) struct Copy {
    pid: Pid,
    ended: bool,
}

/// Runs `work` in a copy, which has the name `name`, standard streams and the descriptors `kept`, passes these on to every
/// program, and ends with the work.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn copy(name: &CStr, kept: &[BorrowedFd<'_>], work: impl FnOnce()) -> io::Result<Copy> {
    // SAFETY: no other thread holds a lock, see above.
    let pid = unsafe { libc::fork() };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    if let Some(pid) = Pid::from_raw(pid) {
        return Ok(Copy { pid, ended: false });
    }
    // Nothing of the caller's is dropped or unwound in the copy: all of it belongs to the original.
    let done = catch_unwind(AssertUnwindSafe(|| {
        rustix::thread::set_name(name).ok();
        if keep(kept).is_ok() {
            work();
        }
    }));
    // SAFETY: an integer.
    unsafe { libc::_exit(if done.is_ok() { 0 } else { 1 }) }
}

/// Closes all others but the standard streams: an end of a pipe that nobody knows of keeps the other from ending.
fn keep(kept: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut numbers = Vec::with_capacity(kept.len());
    for fd in kept {
        rustix::io::fcntl_setfd(fd, FdFlags::empty())?;
        numbers.push(fd.as_raw_fd().unsigned_abs());
    }
    numbers.sort_unstable();
    let mut first = 3;
    for number in numbers.into_iter().chain([u32::MAX]) {
        if number > first {
            let last = if number == u32::MAX { number } else { number - 1 };
            // SAFETY: three integers. What is closed belongs to the original, whose values are never used again here.
            if unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        first = first.max(number.saturating_add(1));
    }
    Ok(())
}

impl Copy {
    pub(crate) fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Kills it, and does not wait.
    pub(crate) fn kill(&mut self) {
        if !self.ended {
            kill_process(self.pid, Signal::KILL).ok();
        }
    }

    /// Kills it, and waits until nothing of it is left.
    pub(crate) fn end(&mut self) {
        if self.ended {
            return;
        }
        self.kill();
        self.ended = true;
        while matches!(waitpid(Some(self.pid), WaitOptions::empty()), Err(rustix::io::Errno::INTR)) {}
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_copy_has_what_it_is_given_and_nothing_else() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let other = fs::File::open("/dev/null").unwrap();
        let given = [theirs.as_raw_fd(), 0, 1, 2];
        let kept = theirs.try_clone().unwrap();
        let mut copy = copy(c"a-copy", &[theirs.as_fd()], || {
            let open = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
            let mut open: Vec<i32> =
                open.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
            // The directory itself was open while it was read.
            open.retain(|fd| {
                !given.contains(fd) && fs::exists(format!("/proc/self/fd/{fd}")).unwrap_or(true)
            });
            let name = fs::read_to_string("/proc/self/comm").unwrap_or_default();
            (&theirs).write_all(format!("{} {open:?}", name.trim()).as_bytes()).ok();
        })
        .unwrap();
        drop((kept, theirs));
        let mut said = String::new();
        ours.read_to_string(&mut said).unwrap();
        assert_eq!(said, "a-copy []");
        assert_ne!(copy.pid(), std::process::id());
        copy.end();
        assert!(!fs::exists(format!("/proc/{}", copy.pid())).unwrap(), "it was not waited for");
        drop(other);
    }

    #[test]
    fn a_copy_that_is_dropped_has_ended() {
        let forever = || loop {
            std::thread::sleep(std::time::Duration::from_secs(1000));
        };
        let pid = copy(c"a-copy", &[], forever).unwrap().pid();
        assert!(!fs::exists(format!("/proc/{pid}")).unwrap());
    }
}
