//! Makes one entry in an open directory, under a name that is free: contents first, then owner, mode, attributes and
//! time, in this order, since each of them would undo a later one (a change of owner takes set-id bits and file
//! capabilities away, writing changes the time).

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Uid, XattrFlags, chmodat, chownat, fsetxattr, futimens, lsetxattr,
    mkdirat, mknodat, openat, symlinkat, utimensat,
};
use rustix::io::Errno;

use super::{Problem, times};
use crate::stream::LayerStream;
use crate::tar::{Entry, EntryKind, Reader, Segment};

/// Nobody but us until the owner is right.
const PRIVATE: u32 = 0o600;
const BUFFER: usize = 256 << 10;
/// Instructions to an overlayfs of the host, which an image must not give.
const OVERLAY: [&[u8]; 2] = [b"trusted.overlay.", b"user.overlay."];

/// A name as the kernel takes it.
pub(super) fn os(name: &[u8]) -> &OsStr {
    OsStr::from_bytes(name)
}

/// A file with its contents.
pub(super) fn file(
    dir: BorrowedFd<'_>,
    name: &[u8],
    entry: &Entry,
    reader: &mut Reader<LayerStream<'_>>,
) -> Result<(), Problem> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = openat(dir, os(name), flags, Mode::from_raw_mode(PRIVATE)).map_err(Problem::io("create"))?;
    let mut file = File::from(fd);
    let whole = [Segment { offset: 0, length: entry.size }];
    let mut buffer = vec![0; BUFFER.min(usize::try_from(entry.size).unwrap_or(BUFFER).max(1))];
    for segment in entry.sparse.as_deref().unwrap_or(&whole) {
        file.seek(SeekFrom::Start(segment.offset)).map_err(io("write"))?;
        let mut left = segment.length;
        while left > 0 {
            let want = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            let count = reader.read_data(buffer.get_mut(..want).unwrap_or_default())?;
            if count == 0 {
                return Err(crate::tar::TarError::Truncated.into());
            }
            file.write_all(buffer.get(..count).unwrap_or_default()).map_err(io("write"))?;
            left -= count as u64;
        }
    }
    if entry.sparse.is_some() {
        file.set_len(entry.size).map_err(io("write"))?;
    }
    describe_open(file.as_fd(), entry)
}

/// A directory, which may be there already.
pub(super) fn directory(dir: BorrowedFd<'_>, name: &[u8], entry: &Entry) -> Result<OwnedFd, Problem> {
    match mkdirat(dir, os(name), Mode::from_raw_mode(0o700)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(Problem::Io("create", errno)),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = openat(dir, os(name), flags, Mode::empty()).map_err(Problem::io("open"))?;
    describe_open(made.as_fd(), entry)?;
    Ok(made)
}

/// A link, device or named pipe.
pub(super) fn special(dir: BorrowedFd<'_>, name: &[u8], entry: &Entry) -> Result<(), Problem> {
    let create = Problem::io("create");
    let kind = match entry.kind {
        EntryKind::Char => FileType::CharacterDevice,
        EntryKind::Block => FileType::BlockDevice,
        EntryKind::Symlink => FileType::Symlink,
        _ => FileType::Fifo,
    };
    if kind == FileType::Symlink {
        symlinkat(os(&entry.link), dir, os(name)).map_err(create)?;
    } else {
        let device = rustix::fs::makedev(entry.device.0, entry.device.1);
        mknodat(dir, os(name), kind, Mode::from_raw_mode(PRIVATE), device).map_err(create)?;
    }
    let owner = (Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)));
    chownat(dir, os(name), owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(Problem::io("set the owner of"))?;
    if kind != FileType::Symlink {
        // The name is ours and new, so it is no link.
        chmodat(dir, os(name), Mode::from_raw_mode(entry.mode), AtFlags::empty())
            .map_err(Problem::io("set the mode of"))?;
    }
    let path = [format!("/proc/self/fd/{}/", dir.as_raw_fd()).as_bytes(), name].concat();
    for (attribute, value) in attributes(entry) {
        judge(attribute, lsetxattr(os(&path), os(attribute), value, XattrFlags::empty()))?;
    }
    utimensat(dir, os(name), &times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(Problem::io("set the time of"))
}

/// Owner, mode, attributes and time of what is open.
pub(super) fn describe_open(file: BorrowedFd<'_>, entry: &Entry) -> Result<(), Problem> {
    let owner = (Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)));
    rustix::fs::fchown(file, owner.0, owner.1).map_err(Problem::io("set the owner of"))?;
    rustix::fs::fchmod(file, Mode::from_raw_mode(entry.mode)).map_err(Problem::io("set the mode of"))?;
    for (attribute, value) in attributes(entry) {
        judge(attribute, fsetxattr(file, os(attribute), value, XattrFlags::empty()))?;
    }
    futimens(file, &times(entry.mtime)).map_err(Problem::io("set the time of"))
}

fn attributes(entry: &Entry) -> impl Iterator<Item = (&[u8], &[u8])> {
    let all = entry.xattrs.iter().map(|(name, value)| (name.as_slice(), value.as_slice()));
    all.filter(|(name, _)| !OVERLAY.iter().any(|prefix| name.starts_with(prefix)))
}

/// What this file system or kernel does not have is left out, as every runtime does: labels of SELinux where there is none,
/// `user.*` on links. File capabilities and ACLs are never among these.
fn judge(attribute: &[u8], result: Result<(), Errno>) -> Result<(), Problem> {
    let may_lack = attribute == b"security.selinux" || attribute.starts_with(b"user.");
    match result {
        Err(Errno::OPNOTSUPP | Errno::PERM) if may_lack => {
            tracing::debug!(attribute = %String::from_utf8_lossy(attribute), "not supported here, left out");
            Ok(())
        }
        other => other.map_err(Problem::io("set an extended attribute of")),
    }
}

fn io(action: &'static str) -> impl FnOnce(std::io::Error) -> Problem {
    move |error| Problem::Io(action, Errno::from_io_error(&error).unwrap_or(Errno::IO))
}
