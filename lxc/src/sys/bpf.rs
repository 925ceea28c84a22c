//! bpf(2), for the one kind of program that cgroup v2 needs.
#![allow(unsafe_code)]
// JUSTIFICATION: there is no safe call for bpf(2) in the libraries that we use. The structures are those of linux/bpf.h as far
// as these two commands read them; the kernel checks size and content, and verifies the program before it runs it.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
/// Programs of groups above hold too.
const ALLOW_MULTI: u32 = 2;

#[repr(C)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

#[repr(C)]
struct Attach {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

/// Attaches a device filter to a cgroup. It lives as long as the group.
///
/// # Errors
/// What the kernel says.
pub(crate) fn attach_device_filter(cgroup: &Path, program: &[u64]) -> io::Result<()> {
    let group = File::open(cgroup)?;
    let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
    let load = Load {
        kind: PROG_TYPE_CGROUP_DEVICE,
        count: u32::try_from(program.len()).map_err(|_| invalid())?,
        instructions: program.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
    };
    // SAFETY: program and licence live until the call returns.
    let loaded = unsafe { bpf(PROG_LOAD, &load) }?;
    // SAFETY: a new descriptor that nobody else has.
    let loaded = unsafe { OwnedFd::from_raw_fd(loaded) };
    let number = |fd: libc::c_int| u32::try_from(fd).map_err(|_| invalid());
    let attach = Attach {
        target: number(group.as_raw_fd())?,
        program: number(loaded.as_raw_fd())?,
        kind: ATTACH_CGROUP_DEVICE,
        flags: ALLOW_MULTI,
    };
    // SAFETY: four integers.
    unsafe { bpf(PROG_ATTACH, &attach) }.map(drop)
}

/// # Safety
/// `attributes` is what `command` reads, and pointers in it are valid.
unsafe fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<libc::c_int> {
    let pointer: *const T = attributes;
    // SAFETY: by the caller.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, pointer, size_of::<T>()) };
    match libc::c_int::try_from(result) {
        Ok(result) if result >= 0 => Ok(result),
        _ => Err(io::Error::last_os_error()),
    }
}
