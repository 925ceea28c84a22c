//! The system calls that std and nix do not wrap: pidfds, and handing descriptors to a child.
#![allow(unsafe_code)]
// JUSTIFICATION: pidfd_open and pidfd_send_signal have no safe wrapper in std or nix, and a descriptor gets a
// chosen number in the child only by dup2 between fork and exec, after which std's own exec is not safe (below).

use std::ffi::{CString, OsString};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::unistd::pipe2;

/// A pidfd of a child that was not reaped yet; close-on-exec, as every pidfd.
pub(crate) fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    let pid = libc::pid_t::try_from(pid).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: the call takes two integers and touches no memory.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = RawFd::try_from(fd).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sends `signal` to exactly that process, however long it has been dead.
pub(crate) fn pidfd_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: the descriptor is open for the length of the borrow; a null siginfo means "as kill(2)".
    let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, none, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// What a child that gets descriptors executes; made before the fork, since nothing may be allocated after it.
#[derive(Debug)]
pub(crate) struct Image {
    path: CString,
    argv: Pointers,
    environment: Pointers,
}

/// Strings and the null-terminated array of pointers to them that execve takes.
#[derive(Debug)]
struct Pointers {
    pointers: Vec<*const libc::c_char>,
    _strings: Vec<CString>,
}

// SAFETY: the pointers lead into `_strings`, whose heap buffers move with it and are never changed.
unsafe impl Send for Pointers {}
// SAFETY: as above; there is no interior mutability.
unsafe impl Sync for Pointers {}

impl Pointers {
    fn new(strings: Vec<CString>) -> Self {
        let pointers = strings.iter().map(|s| s.as_ptr()).chain(std::iter::once(std::ptr::null())).collect();
        Self { pointers, _strings: strings }
    }
}

impl Image {
    /// `argv` begins with the program's name as it was given.
    pub(crate) fn new(
        path: &Path,
        argv: impl Iterator<Item = OsString>,
        environment: impl Iterator<Item = (OsString, OsString)>,
    ) -> io::Result<Self> {
        let path = CString::new(path.as_os_str().as_bytes())?;
        let argv = argv.map(|word| CString::new(word.into_vec())).collect::<Result<_, _>>()?;
        let assignments = environment.map(|(mut key, value)| {
            key.push("=");
            key.push(value);
            CString::new(key.into_vec())
        });
        let environment = assignments.collect::<Result<_, _>>()?;
        Ok(Self { path, argv: Pointers::new(argv), environment: Pointers::new(environment) })
    }

    /// Becomes the program; returns only if that failed, with errno set.
    fn execute(&self) {
        let (argv, environment) = (self.argv.pointers.as_ptr(), self.environment.pointers.as_ptr());
        // SAFETY: execve is async-signal-safe; path and arrays are null-terminated and live as long as self.
        unsafe { libc::execve(self.path.as_ptr(), argv, environment) };
    }
}

/// The parent's end of the pipe that says whether the exec of such a child failed.
#[derive(Debug)]
pub(crate) struct Handover(OwnedFd);

/// Arranges that `command` starts `image` with `fds` at their target numbers.
///
/// The exec is done here and not by std, because the pipe by which std learns of a failed exec may sit at one
/// of the target numbers, and would be replaced by a caller's descriptor without anyone noticing.
pub(crate) fn hand_over(
    command: &mut std::process::Command,
    image: Image,
    fds: Vec<(OwnedFd, i32)>,
) -> io::Result<Handover> {
    if fds.iter().any(|(_, target)| *target < 3) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "numbers 0 to 2 belong to the standard streams",
        ));
    }
    // Above every target, so that no dup2 overwrites what is still needed.
    let above = fds.iter().map(|(_, target)| target.saturating_add(1)).max().unwrap_or(3);
    let moved = fds
        .into_iter()
        .map(|(fd, target)| Ok((duplicate(fd.as_fd(), above)?, target)))
        .collect::<io::Result<Vec<_>>>()?;
    let (verdict, report) = pipe2(OFlag::O_CLOEXEC)?;
    let report = duplicate(report.as_fd(), above)?;
    let exec = move || -> io::Result<()> {
        for (fd, target) in &moved {
            // SAFETY: dup2 is async-signal-safe; the source is open in the forked child, and whatever is at
            // the target is close-on-exec or was meant to be replaced.
            if unsafe { libc::dup2(fd.as_raw_fd(), *target) } < 0 {
                give_up(&report);
            }
        }
        image.execute();
        give_up(&report)
    };
    // SAFETY: `exec` makes async-signal-safe calls only and allocates nothing.
    unsafe { command.pre_exec(exec) };
    Ok(Handover(verdict))
}

/// In the forked child: reports errno to the parent and ends, past std, which might report to a stranger's fd.
fn give_up(report: &OwnedFd) -> ! {
    let errno = Errno::last_raw().to_ne_bytes();
    // SAFETY: write and _exit are async-signal-safe; the buffer is on the stack.
    unsafe {
        libc::write(report.as_raw_fd(), errno.as_ptr().cast(), errno.len());
        libc::_exit(127)
    }
}

impl Handover {
    /// Waits until the child has executed its image, or returns why it could not. The `Command` must have
    /// been dropped, since it holds the other end.
    pub(crate) fn verdict(self) -> io::Result<()> {
        let mut errno = [0u8; 4];
        match std::fs::File::from(self.0).read_exact(&mut errno) {
            Ok(()) => Err(io::Error::from_raw_os_error(i32::from_ne_bytes(errno))),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn duplicate(fd: BorrowedFd<'_>, at_least: i32) -> io::Result<OwnedFd> {
    let raw = fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(at_least))?;
    // SAFETY: F_DUPFD_CLOEXEC returns a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}
