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
const PROG_DETACH: libc::c_int = 9;
const PROG_GET_FD_BY_ID: libc::c_int = 13;
const PROG_QUERY: libc::c_int = 16;
const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
/// Programs of groups above hold too.
const ALLOW_MULTI: u32 = 2;
/// Nobody but us attaches any to a container's group; the kernel takes 64.
const MOST: usize = 64;
/// The verifier gives up with EAGAIN when a signal is there, such as that a child has ended (libbpf tries five times).
const ATTEMPTS: usize = 10;

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

#[repr(C)]
struct Query {
    target: u32,
    kind: u32,
    query_flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    padding: u32,
}

#[repr(C)]
struct ById {
    id: u32,
    next: u32,
    flags: u32,
}

/// A filter of devices in the kernel.
#[derive(Debug)]
pub(crate) struct DeviceFilter(OwnedFd);

impl DeviceFilter {
    /// Hands a program to the kernel, which verifies it.
    ///
    /// # Errors
    /// What the kernel says.
    pub(crate) fn load(program: &[u64]) -> io::Result<Self> {
        let mut load = Load {
            kind: PROG_TYPE_CGROUP_DEVICE,
            count: u32::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
            instructions: program.as_ptr() as u64,
            license: c"Apache-2.0".as_ptr() as u64,
            log_level: 0,
            log_size: 0,
            log: 0,
            kernel_version: 0,
            flags: 0,
        };
        // SAFETY: program and licence live until the call returns.
        let loaded = unsafe { bpf(PROG_LOAD, &mut load) }?;
        // SAFETY: a new descriptor that nobody else has.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(loaded) }))
    }

    /// Attaches it to a cgroup, in the place of those that this has. It lives as long as the group.
    ///
    /// # Errors
    /// What the kernel says.
    pub(crate) fn attach(&self, cgroup: &Path) -> io::Result<()> {
        let group = File::open(cgroup)?;
        let before = attached(&group)?;
        let with = |program: &OwnedFd, flags: u32| -> io::Result<Attach> {
            Ok(Attach {
                target: number(&group)?,
                program: number(program)?,
                kind: ATTACH_CGROUP_DEVICE,
                flags,
            })
        };
        // SAFETY: four integers.
        unsafe { bpf(PROG_ATTACH, &mut with(&self.0, ALLOW_MULTI)?) }?;
        // All attached programs have to allow a device, so there is no moment without a filter.
        for old in before {
            // SAFETY: four integers.
            unsafe { bpf(PROG_DETACH, &mut with(&old, 0)?) }?;
        }
        Ok(())
    }
}

fn number(fd: &impl AsRawFd) -> io::Result<u32> {
    u32::try_from(fd.as_raw_fd()).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// The filters of exactly this group.
fn attached(group: &File) -> io::Result<Vec<OwnedFd>> {
    let mut ids = [0_u32; MOST];
    let mut query = Query {
        target: number(group)?,
        kind: ATTACH_CGROUP_DEVICE,
        query_flags: 0,
        attach_flags: 0,
        ids: ids.as_mut_ptr() as u64,
        count: u32::try_from(MOST).unwrap_or_default(),
        padding: 0,
    };
    // SAFETY: the kernel writes at most `count` numbers to `ids`, which lives until the call returns.
    unsafe { bpf(PROG_QUERY, &mut query) }?;
    let known = ids.into_iter().take_while(|id| *id != 0);
    known
        .map(|id| {
            // SAFETY: three integers; the answer is a new descriptor that nobody else has.
            unsafe {
                bpf(PROG_GET_FD_BY_ID, &mut ById { id, next: 0, flags: 0 }).map(|fd| OwnedFd::from_raw_fd(fd))
            }
        })
        .collect()
}

/// # Safety
/// `attributes` is what `command` reads, and pointers in it are valid.
unsafe fn bpf<T>(command: libc::c_int, attributes: &mut T) -> io::Result<libc::c_int> {
    let pointer: *mut T = attributes;
    for _ in 0..ATTEMPTS {
        // SAFETY: by the caller.
        let result = unsafe { libc::syscall(libc::SYS_bpf, command, pointer, size_of::<T>()) };
        let error = match libc::c_int::try_from(result) {
            Ok(result) if result >= 0 => return Ok(result),
            _ => io::Error::last_os_error(),
        };
        if error.kind() != io::ErrorKind::WouldBlock {
            return Err(error);
        }
    }
    Err(io::ErrorKind::WouldBlock.into())
}
