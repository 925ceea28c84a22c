//! Mounts whose files have other owners than on disk: a user namespace says which, and mount_setattr(2) takes it.
#![allow(unsafe_code)]
// JUSTIFICATION: fork and unshare of a user namespace have no safe wrapper in the libraries that we use. The child makes
// system calls only.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, BorrowedFd};

use cryopod_init::sys::{SAME, mount_setattr};

/// What a mount's ids are on disk, what they become, and how many.
pub(crate) type Mapping = (u32, u32, u32);

/// A user namespace with nobody in it.
///
/// # Errors
/// What the kernel says, e.g. when namespaces are switched off, or mappings overlap.
pub(crate) fn user_namespace(users: &[Mapping], groups: &[Mapping]) -> io::Result<File> {
    let (ready, theirs) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let (wait, ours) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    // SAFETY: the child calls nothing but the kernel until it exits.
    let child = unsafe { libc::fork() };
    if child < 0 {
        return Err(io::Error::last_os_error());
    }
    if child == 0 {
        // SAFETY: descriptors of ours, one byte of the stack; it ends when we close our end, or are gone.
        unsafe {
            libc::close(ours.as_raw_fd());
            let made = libc::unshare(libc::CLONE_NEWUSER) == 0;
            let mut byte = u8::from(made);
            libc::write(theirs.as_raw_fd(), (&raw const byte).cast(), 1);
            libc::read(wait.as_raw_fd(), (&raw mut byte).cast(), 1);
            libc::_exit(0);
        }
    }
    drop((theirs, wait));
    let made = mapped(child, File::from(ready), users, groups);
    drop(ours);
    // SAFETY: our child, which ends by itself.
    unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
    made
}

fn mapped(child: i32, mut ready: File, users: &[Mapping], groups: &[Mapping]) -> io::Result<File> {
    let mut byte = [0];
    ready.read_exact(&mut byte)?;
    if byte != [1] {
        return Err(io::Error::other("a user namespace cannot be made (user.max_user_namespaces?)"));
    }
    for (file, mappings) in [("uid_map", users), ("gid_map", groups)] {
        let lines: Vec<String> =
            mappings.iter().map(|(inside, outside, count)| format!("{inside} {outside} {count}")).collect();
        fs::write(format!("/proc/{child}/{file}"), lines.join("\n"))?;
    }
    File::open(format!("/proc/{child}/ns/user"))
}

/// Gives the files of a detached mount the owners that a user namespace says, also in what is mounted below.
///
/// # Errors
/// `EINVAL` for a file system that cannot do it.
pub(crate) fn map(mount: BorrowedFd<'_>, below: bool, users: &File) -> io::Result<()> {
    let userns_fd = u64::try_from(users.as_raw_fd()).unwrap_or_default();
    mount_setattr(mount, below, &libc::mount_attr { attr_set: libc::MOUNT_ATTR_IDMAP, userns_fd, ..SAME })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_has_its_mappings() {
        let own = fs::metadata("/proc/self/ns/user").unwrap();
        let made = user_namespace(&[(0, 100_000, 65_536)], &[(0, 200_000, 10)]).unwrap();
        use std::os::unix::fs::MetadataExt;
        assert_ne!(made.metadata().unwrap().ino(), own.ino());
        assert!(user_namespace(&[(0, 1, 10), (5, 100, 10)], &[(0, 1, 1)]).is_err(), "overlapping mappings");
    }
}
