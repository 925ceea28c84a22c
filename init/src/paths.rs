//! Paths that are hidden from a container, or that it cannot write.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::mount::{self, MountFlags, OpenTreeFlags};

use crate::error::{Context, Error};
use crate::mounts::{attach, clone_flags, tree};
use crate::options::{Bind, attr};
use crate::sys;

/// Hides a path: a file behind `/dev/null`, a directory behind an empty one. One that is not there is hidden already.
///
/// # Errors
/// See [`Error`].
pub fn mask(path: &Path) -> Result<(), Error> {
    let Some(directory) = is_directory(path)? else { return Ok(()) };
    if directory {
        let flags = MountFlags::RDONLY;
        // One inode: nothing can be made in it, and it costs nothing.
        return mount::mount("tmpfs", path, "tmpfs", flags, Some(c"nr_inodes=1"))
            .or_else(|_| mount::mount("tmpfs", path, "tmpfs", flags, None))
            .on("hide", path.display());
    }
    let null = tree("/dev/null", OpenTreeFlags::OPEN_TREE_CLONE).on("hide", path.display())?;
    attach(null.as_fd(), path)
}

/// Makes a path read-only, with everything mounted below. One that is not there needs nothing.
///
/// # Errors
/// See [`Error`].
pub fn readonly(path: &Path) -> Result<(), Error> {
    if is_directory(path)?.is_none() {
        return Ok(());
    }
    let flags = OpenTreeFlags::from_bits_retain(clone_flags(Bind::Recursive));
    let copy = tree(path, flags).on("make read-only", path.display())?;
    sys::mount_setattr(copy.as_fd(), true, &libc::mount_attr { attr_set: attr::RDONLY, ..sys::SAME })
        .on("make read-only", path.display())?;
    attach(copy.as_fd(), path)
}

fn is_directory(path: &Path) -> Result<Option<bool>, Error> {
    match std::fs::metadata(path) {
        Ok(meta) => Ok(Some(meta.is_dir())),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(error).on("look at", path.display()),
    }
}
