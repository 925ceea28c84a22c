//! The system calls that neither std nor nix wraps: extended attributes without following links, and reflinks.
//!
//! JUSTIFICATION for `unsafe`: libc calls with pointers to buffers owned by the caller; nothing is kept.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

use nix::libc;

/// A path by which the kernel finds `name` in an open directory without following `name` itself.
pub(crate) fn path_at(dir: impl AsFd, name: &CStr) -> CString {
    let mut path = format!("/proc/self/fd/{}/", dir.as_fd().as_raw_fd()).into_bytes();
    path.extend_from_slice(name.to_bytes());
    // Without interior zeros, since both parts have none.
    CString::new(path).unwrap_or_default()
}

/// Names of the extended attributes of `path` itself; none where the file system has no attributes.
pub(crate) fn list_xattrs(path: &CStr) -> io::Result<Vec<CString>> {
    let bytes = grow(|buffer| {
        // SAFETY: `path` is zero-terminated, and at most `buffer.len()` bytes are written to `buffer`.
        unsafe { libc::llistxattr(path.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) }
    });
    match bytes {
        Ok(bytes) => Ok(bytes
            .split_inclusive(|byte| *byte == 0)
            .filter_map(|name| CStr::from_bytes_with_nul(name).ok())
            .map(CStr::to_owned)
            .collect()),
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Value of an extended attribute of `path` itself.
pub(crate) fn get_xattr(path: &CStr, name: &CStr) -> io::Result<Vec<u8>> {
    grow(|buffer| {
        // SAFETY: both names are zero-terminated, and at most `buffer.len()` bytes are written to `buffer`.
        unsafe { libc::lgetxattr(path.as_ptr(), name.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) }
    })
}

/// Sets an extended attribute of `path` itself.
pub(crate) fn set_xattr(path: &CStr, name: &CStr, value: &[u8]) -> io::Result<()> {
    // SAFETY: both names are zero-terminated, and `value.len()` bytes are read from `value`.
    let result =
        unsafe { libc::lsetxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sets an extended attribute of an open file or directory.
pub(crate) fn fset_xattr(file: impl AsFd, name: &CStr, value: &[u8]) -> io::Result<()> {
    let fd = file.as_fd().as_raw_fd();
    // SAFETY: the name is zero-terminated, and `value.len()` bytes are read from `value`.
    let result = unsafe { libc::fsetxattr(fd, name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Makes `to` share the blocks of `from`; fails where the file system cannot.
pub(crate) fn reflink(from: &File, to: &File) -> io::Result<()> {
    // SAFETY: FICLONE takes a descriptor by value; both are open for the duration of the call.
    let result = unsafe { libc::ioctl(to.as_raw_fd(), libc::FICLONE, from.as_raw_fd()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Calls with a growing buffer until the answer fits; the kernel's own bound is 64 KiB.
fn grow(mut call: impl FnMut(&mut [u8]) -> libc::ssize_t) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; 256];
    loop {
        match usize::try_from(call(&mut buffer)) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(buffer);
            }
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.raw_os_error() != Some(libc::ERANGE) || buffer.len() > 1 << 20 {
                    return Err(error);
                }
                buffer = vec![0; buffer.len() * 16];
            }
        }
    }
}

/// Identity of the mount that an open file or directory is on (statx(2), STATX_MNT_ID, Linux 5.8).
pub(crate) fn mount_id(file: impl AsFd) -> io::Result<u64> {
    mount_id_at(file, c"")
}

/// Identity of the mount that shows under a name in an open directory; the name itself is not followed.
pub(crate) fn mount_id_at(dir: impl AsFd, name: &CStr) -> io::Result<u64> {
    // SAFETY: `statx` is plain data for which zeros are valid.
    let mut answer: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: the path is a C string, `answer` is writable and of the kernel's type.
    let result = unsafe {
        libc::statx(
            dir.as_fd().as_raw_fd(),
            name.as_ptr(),
            libc::AT_EMPTY_PATH | libc::AT_SYMLINK_NOFOLLOW | libc::AT_NO_AUTOMOUNT,
            libc::STATX_MNT_ID,
            &raw mut answer,
        )
    };
    if result == 0 { Ok(answer.stx_mnt_id) } else { Err(io::Error::last_os_error()) }
}
