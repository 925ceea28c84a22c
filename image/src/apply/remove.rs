//! Removes what a layer replaces or whites out; never follows a link, never leaves the directory it was given.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, openat, statat, unlinkat};
use rustix::io::Errno;

use super::made::Made;
use super::write::os;
use super::{Problem, root};

/// Removes a name with everything below it, whoever made it.
pub(super) fn all(made: &mut Made, dir: BorrowedFd<'_>, name: &[u8]) -> Result<(), Problem> {
    remove(made, dir, name, &|_, _, _| false).map(drop)
}

/// Removes what lower layers have under a name; what this layer has made there stays.
pub(super) fn lower_name(made: &mut Made, dir: BorrowedFd<'_>, name: &[u8]) -> Result<(), Problem> {
    remove(made, dir, name, &Made::has).map(drop)
}

/// Removes all that lower layers have in a directory, which stays.
pub(super) fn lower(made: &mut Made, dir: BorrowedFd<'_>) -> Result<(), Problem> {
    contents(made, dir, &Made::has).map(drop)
}

/// Whether something stays.
type Keeps = dyn Fn(&Made, u64, &[u8]) -> bool;

/// Removes a name; true when it stays, because it is kept or something below it is.
fn remove(made: &mut Made, dir: BorrowedFd<'_>, name: &[u8], keeps: &Keeps) -> Result<bool, Problem> {
    let stat = match statat(dir, os(name), AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(false),
        other => other.map_err(Problem::io("look at what is in the place of"))?,
    };
    let above = root::inode(dir)?;
    let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    let mut stays = keeps(made, above, name);
    if is_dir {
        let below = open(dir, name)?;
        stays |= contents(made, below.as_fd(), keeps)?;
    }
    if stays {
        return Ok(true);
    }
    let flags = if is_dir { AtFlags::REMOVEDIR } else { AtFlags::empty() };
    unlinkat(dir, os(name), flags).map_err(Problem::io("remove what is in the place of"))?;
    made.remove(above, name);
    if is_dir {
        made.remove_dir(stat.st_ino);
    }
    Ok(false)
}

/// The same for everything in a directory.
fn contents(made: &mut Made, dir: BorrowedFd<'_>, keeps: &Keeps) -> Result<bool, Problem> {
    let mut stays = false;
    for name in names(dir)? {
        stays |= remove(made, dir, &name, keeps)?;
    }
    Ok(stays)
}

fn open(dir: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Problem> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    openat(dir, os(name), flags, Mode::empty()).map_err(Problem::io("open what is in the place of"))
}

/// Read to the end before anything is removed, which would disturb the reading.
fn names(dir: BorrowedFd<'_>) -> Result<Vec<Vec<u8>>, Problem> {
    let failed = Problem::io("list what is in the place of");
    let read = || -> Result<Vec<Vec<u8>>, Errno> {
        let mut names = Vec::new();
        for item in Dir::read_from(dir)? {
            let item = item?;
            let name: &CStr = item.file_name();
            if !matches!(name.to_bytes(), b"." | b"..") {
                names.push(name.to_bytes().to_vec());
            }
        }
        Ok(names)
    };
    // Opened through O_PATH it cannot be read.
    match read() {
        Err(Errno::BADF) => names(open(dir, b".")?.as_fd()),
        other => other.map_err(failed),
    }
}
