//! Finds directories below a root that the kernel lets nobody leave: openat2(2) with `RESOLVE_BENEATH`.
//!
//! Links in the middle of a path are followed as a process in the container would see them: a later layer writes to
//! `lib/x` where an earlier one has made `lib` a link to `usr/lib` or to `/usr/lib`. One that climbs above the root means
//! nothing to a container and everything to an attacker, so it is refused. The walk that tells these apart decides
//! nothing alone: each directory it names is opened again without any links, beneath the root.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, mkdirat, openat2, readlinkat, statat};
use rustix::io::Errno;

use super::path::Path;
use super::{Problem, Refusal};

/// As the kernel has it (MAXSYMLINKS).
const MAX_LINKS: usize = 40;
/// openat2 gives up when something is renamed meanwhile; nothing is here, and nobody else should write.
const TRIES: usize = 16;
/// What a directory gets that no layer describes (as containerd makes it).
const IMPLICIT: u32 = 0o755;

/// The directory that everything stays in.
pub(super) struct Root(OwnedFd);

/// A directory that was found.
pub(super) struct Found {
    pub(super) dir: OwnedFd,
    /// Directories that were missing and are made now: inode of the one above, name, own inode.
    pub(super) made: Vec<(u64, Vec<u8>, u64)>,
}

impl Root {
    /// Opens it.
    pub(super) fn open(path: &std::path::Path) -> Result<Self, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(path, flags, Mode::empty()).map(Self)
    }

    /// The root itself.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Where it is.
    pub(super) fn location(&self) -> Result<PathBuf, Errno> {
        location(self.fd())
    }

    /// The directory at `path`, made where it is missing.
    pub(super) fn directory(&self, path: &Path) -> Result<Found, Problem> {
        match self.beneath(&path.joined(), ResolveFlags::NO_MAGICLINKS) {
            Ok(dir) => Ok(Found { dir, made: Vec::new() }),
            Err(Errno::NOENT | Errno::XDEV | Errno::LOOP | Errno::NOTDIR) => {
                self.walk(path, true)?.ok_or(Problem::Io("find", Errno::NOENT))
            }
            Err(errno) => Err(Problem::Io("find the directory of", errno)),
        }
    }

    /// The directory at `path`, if it is there.
    pub(super) fn existing(&self, path: &Path) -> Result<Option<OwnedFd>, Problem> {
        match self.beneath(&path.joined(), ResolveFlags::NO_MAGICLINKS) {
            Ok(dir) => Ok(Some(dir)),
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::XDEV | Errno::LOOP | Errno::NOTDIR) => {
                Ok(self.walk(path, false)?.map(|found| found.dir))
            }
            Err(errno) => Err(Problem::Io("find the directory of", errno)),
        }
    }

    /// The directory at a path without links, as [`location`] gives it.
    pub(super) fn plain(&self, path: &std::path::Path) -> Result<OwnedFd, Errno> {
        let path = if path.as_os_str().is_empty() { std::path::Path::new(".") } else { path };
        self.beneath(path, ResolveFlags::NO_SYMLINKS)
    }

    fn beneath(&self, path: &std::path::Path, how: ResolveFlags) -> Result<OwnedFd, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = how | ResolveFlags::BENEATH | ResolveFlags::NO_XDEV;
        let mut tries = 0;
        loop {
            match openat2(&self.0, path, flags, Mode::empty(), resolve) {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) if tries < TRIES => tries += 1,
                other => return other,
            }
        }
    }

    /// Goes name by name, following links by hand; None where something is missing and may not be made.
    fn walk(&self, path: &Path, make: bool) -> Result<Option<Found>, Problem> {
        let mut todo: VecDeque<Vec<u8>> = path.names().iter().cloned().collect();
        let (mut done, mut links, mut made) = (Vec::<Vec<u8>>::new(), 0, Vec::new());
        let mut here = self.at(&done)?;
        while let Some(name) = todo.pop_front() {
            if name == b".." {
                // Only links have it; above the root is nothing.
                done.pop().ok_or(Refusal::LinkClimbs)?;
                here = self.at(&done)?;
                continue;
            }
            let leaf = OsStr::from_bytes(&name);
            let kind = match statat(&here, leaf, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => FileType::from_raw_mode(stat.st_mode),
                Err(Errno::NOENT) if make => {
                    let above = inode(&here)?;
                    mkdirat(&here, leaf, Mode::from_raw_mode(IMPLICIT))
                        .map_err(Problem::io("make the directory of"))?;
                    done.push(name.clone());
                    here = self.at(&done)?;
                    made.push((above, name, inode(&here)?));
                    continue;
                }
                Err(Errno::NOENT) => return Ok(None),
                Err(errno) => return Err(Problem::Io("find the directory of", errno)),
            };
            match kind {
                FileType::Directory => {
                    done.push(name);
                    here = self.at(&done)?;
                }
                FileType::Symlink => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Refusal::LinkLoop.into());
                    }
                    let target =
                        readlinkat(&here, leaf, Vec::new()).map_err(Problem::io("read a link above"))?;
                    let target = target.to_bytes();
                    if target.starts_with(b"/") {
                        done.clear();
                        here = self.at(&done)?;
                    }
                    let names =
                        target.split(|byte| *byte == b'/').filter(|name| !matches!(*name, b"" | b"."));
                    for name in names.rev() {
                        todo.push_front(name.to_vec());
                    }
                }
                _ => return Err(Refusal::NotADirectory.into()),
            }
        }
        Ok(Some(Found { dir: here, made }))
    }

    fn at(&self, names: &[Vec<u8>]) -> Result<OwnedFd, Problem> {
        let path: PathBuf = names.iter().map(|name| OsStr::from_bytes(name)).collect();
        self.plain(&path).map_err(Problem::io("find the directory of"))
    }
}

/// Inode of an open file or directory.
pub(super) fn inode(file: impl AsFd) -> Result<u64, Problem> {
    rustix::fs::fstat(file).map(|stat| stat.st_ino).map_err(Problem::io("look at the directory of"))
}

/// Where the kernel says that something open is.
pub(super) fn location(file: impl AsFd) -> Result<PathBuf, Errno> {
    use std::os::fd::AsRawFd as _;
    let link = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
    let path = rustix::fs::readlink(link, Vec::new())?;
    Ok(PathBuf::from(OsStr::from_bytes(path.to_bytes())))
}
