//! Copies a tree: shared blocks where the file system can, else the data between holes.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use cryopod_command::Limits;
use nix::errno::Errno;
use nix::libc;
use nix::sys::statfs::{FsType, fstatfs};
use nix::unistd::{Whence, lseek};

use super::walk::{Visitor, failed, walk};
use super::write::{Existing, Writer};
use super::{Entry, EntryKind, TreeError};
use crate::sys;

/// Read size.
const BUFFER: usize = 1 << 20;
/// ZFS_SUPER_MAGIC. Block cloning there waits for a transaction of the pool when the source is dirty
/// (zfs_bclone_wait_dirty), inside the freeze of all places.
const ZFS_MAGIC: libc::c_long = 0x2fc1_2fc1;

/// What was copied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Copied {
    /// Sum of the file contents, holes left out.
    pub(crate) bytes: u64,
    /// Entries of every kind.
    pub(crate) entries: u64,
    /// Files whose blocks are shared with the source.
    pub(crate) reflinked: u64,
}

struct Copier<'a> {
    from: PathBuf,
    limit: u64,
    limits: &'a Limits,
    writer: Writer,
    /// Whether sharing blocks is worth a try.
    reflink: bool,
    buffer: Vec<u8>,
    copied: Copied,
}

/// Copies `from` over the existing directory `to`, which is empty with [`Existing::Refuse`]. More than `limit` bytes
/// of data are an error. The result is on disk when this returns.
pub(crate) fn copy(
    from: &Path,
    to: &Path,
    existing: Existing,
    limit: u64,
    limits: &Limits,
) -> Result<Copied, TreeError> {
    let target = File::open(to).map_err(TreeError::io("open", to))?;
    let zfs = fstatfs(&target).is_ok_and(|stat| stat.filesystem_type() == FsType(ZFS_MAGIC as _));
    let mut copier = Copier {
        from: from.to_owned(),
        limit,
        limits,
        writer: Writer::new(to, existing),
        reflink: !zfs,
        buffer: vec![0; BUFFER],
        copied: Copied::default(),
    };
    walk(from, limits, &mut copier)?;
    let copied = copier.copied;
    copier.writer.finish()?;
    nix::unistd::syncfs(&target).map_err(|e| failed("sync", to, e))?;
    Ok(copied)
}

impl Visitor for Copier<'_> {
    fn entry(&mut self, entry: &Entry, file: Option<&File>) -> Result<(), TreeError> {
        self.copied.entries += 1;
        let (Some(target), Some(source)) = (self.writer.add(entry)?, file) else { return Ok(()) };
        self.data(entry, source, &target)?;
        self.writer.filled(entry, &target)
    }
}

impl Copier<'_> {
    fn data(&mut self, entry: &Entry, source: &File, target: &File) -> Result<(), TreeError> {
        let EntryKind::File { size } = entry.kind else { return Ok(()) };
        if size == 0 {
            return Ok(());
        }
        if self.reflink {
            match sys::reflink(source, target) {
                Ok(()) => {
                    self.copied.reflinked += 1;
                    return self.count(data_bytes(source, size));
                }
                // Not on this file system or not between these two: no need to ask again for each file.
                Err(_) => self.reflink = false,
            }
        }
        target.set_len(size).map_err(TreeError::io("size a copy of", &self.from))?;
        let mut at = 0;
        while let Some((start, end)) = next_data(source, at, size) {
            let mut offset = start;
            while offset < end {
                self.limits.check().map_err(TreeError::Stopped)?;
                let want = usize::try_from(end - offset).unwrap_or(BUFFER).min(BUFFER);
                let Some(buffer) = self.buffer.get_mut(..want) else { break };
                let got = match source.read_at(buffer, offset) {
                    // Shrunk under us, as files outside of the pod may be.
                    Ok(0) => return Ok(()),
                    Ok(got) => got,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => return Err(TreeError::io("read", &self.shown(entry))(error)),
                };
                let data = self.buffer.get(..got).unwrap_or_default();
                target
                    .write_all_at(data, offset)
                    .map_err(TreeError::io("write a copy of", &self.shown(entry)))?;
                offset += got as u64;
                self.count(got as u64)?;
            }
            at = end;
        }
        Ok(())
    }

    fn count(&mut self, bytes: u64) -> Result<(), TreeError> {
        self.copied.bytes += bytes;
        if self.copied.bytes > self.limit {
            return Err(TreeError::TooLarge { path: self.from.clone(), limit: self.limit });
        }
        Ok(())
    }

    fn shown(&self, entry: &Entry) -> PathBuf {
        use std::os::unix::ffi::OsStrExt;
        self.from.join(std::ffi::OsStr::from_bytes(&entry.path))
    }
}

/// The next range of data at or after `at`; the whole rest where holes cannot be asked for.
pub(super) fn next_data(file: impl AsFd, at: u64, size: u64) -> Option<(u64, u64)> {
    if at >= size {
        return None;
    }
    let seek = |offset: u64, whence| {
        let offset = libc::off_t::try_from(offset).map_err(|_| Errno::EOVERFLOW)?;
        lseek(&file, offset, whence).map(|found| u64::try_from(found).unwrap_or(0))
    };
    match seek(at, Whence::SeekData) {
        Ok(start) => {
            let end = seek(start, Whence::SeekHole).unwrap_or(size).min(size);
            (start < end).then_some((start, end))
        }
        Err(Errno::ENXIO) => None,
        Err(_) => Some((at, size)),
    }
}

fn data_bytes(file: &File, size: u64) -> u64 {
    let (mut at, mut sum) = (0, 0);
    while let Some((start, end)) = next_data(file, at, size) {
        sum += end - start;
        at = end;
    }
    sum
}
