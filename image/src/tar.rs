//! Reads tar archives of anybody, one entry after the other, from a stream that is never trusted.
//!
//! ```text
//! 512 bytes header ─ [extension headers: x pax · g pax for all that follow · L K GNU long names]
//! data, padded to 512 ─ … ─ two blocks of zeros ─ nothing but zeros
//! ```
//!
//! Formats: v7, ustar, GNU (long names, base-256 numbers, sparse files) and pax (POSIX.1-2001; sparse files 0.0, 0.1 and 1.0;
//! `SCHILY.xattr.*`), as GNU tar, bsdtar, Go's archive/tar and everything that builds images write them. It is our own
//! because extension headers are bounded here before they are read into memory, and because an archive that merely stops
//! is told from one that has ended.

mod error;
mod header;
mod pax;
mod sparse;

use std::io::{self, Read};

pub use error::TarError;
pub(crate) use sparse::Segment;

use header::{Header, Type};
use pax::Pax;

/// Size of headers, and what data is padded to.
pub(crate) const BLOCK: usize = 512;
/// Longest extension header: 64 KiB is the longest xattr that Linux knows, and an entry has few of them.
const MAX_EXTENSION: u64 = 1 << 20;
/// Extension headers before one entry: one of each kind, and nobody writes more.
const MAX_EXTENSIONS: usize = 8;

/// What an entry makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EntryKind {
    File,
    /// Another name of an earlier file.
    Link,
    Symlink,
    Char,
    Block,
    Dir,
    Fifo,
}

/// An entry as the archive describes it; nothing in it has been judged yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) path: Vec<u8>,
    pub(crate) kind: EntryKind,
    /// Target of a symlink, earlier name for a hard link.
    pub(crate) link: Vec<u8>,
    /// Permission bits with set-id and sticky (07777).
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Modification time, seconds and nanoseconds.
    pub(crate) mtime: (i64, u32),
    /// Major and minor number of a device.
    pub(crate) device: (u32, u32),
    /// Length of the file that it makes.
    pub(crate) size: u64,
    /// Where the stored data belongs, in ascending order; None: all of it, from the start.
    pub(crate) sparse: Option<Vec<Segment>>,
    /// Extended attributes.
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// An archive being read.
pub(crate) struct Reader<R> {
    inner: R,
    /// Stored data of the current entry that was not read yet.
    left: u64,
    /// Zeros behind it, up to the next block.
    padding: u64,
    /// What a pax header has said for all that follow.
    global: Pax,
    /// Whether anything was read: an empty stream is an empty archive.
    begun: bool,
}

impl<R: Read> Reader<R> {
    /// Reads from there on.
    pub(crate) fn new(inner: R) -> Self {
        Self { inner, left: 0, padding: 0, global: Pax::default(), begun: false }
    }

    /// The stream below.
    pub(crate) fn inner(&mut self) -> &mut R {
        &mut self.inner
    }

    /// The stream, wherever it is by now.
    pub(crate) fn into_inner(self) -> R {
        self.inner
    }

    /// The next entry; what was not read of the last one is skipped. None at the end, once all that follows has been read
    /// and found to be zeros.
    pub(crate) fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        self.skip_data()?;
        let mut pax = Pax::default();
        let (mut long_name, mut long_link) = (None, None);
        for _ in 0..=MAX_EXTENSIONS {
            let Some(header) = self.header()? else { return Ok(None) };
            match header.kind()? {
                Type::Pax => pax = Pax::parse(&self.extension(&header)?, &header.name())?,
                Type::PaxGlobal => {
                    let global = Pax::parse(&self.extension(&header)?, &header.name())?;
                    self.global = global;
                }
                Type::LongName => long_name = Some(trimmed(self.extension(&header)?)),
                Type::LongLink => long_link = Some(trimmed(self.extension(&header)?)),
                Type::Entry(kind) => {
                    return self.entry(&header, kind, &pax, long_name, long_link).map(Some);
                }
            }
        }
        Err(TarError::TooManyExtensions)
    }

    /// Reads stored data of the current entry; 0 at its end.
    pub(crate) fn read_data(&mut self, buffer: &mut [u8]) -> Result<usize, TarError> {
        let want = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let Some(buffer) = buffer.get_mut(..want).filter(|buffer| !buffer.is_empty()) else { return Ok(0) };
        let count = read_some(&mut self.inner, buffer)?;
        if count == 0 {
            return Err(TarError::Truncated);
        }
        self.left -= count as u64;
        Ok(count)
    }

    fn entry(
        &mut self,
        header: &Header,
        kind: EntryKind,
        pax: &Pax,
        long_name: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
    ) -> Result<Entry, TarError> {
        let pax = self.global.overlaid(pax);
        let path = pax.path.clone().or(long_name).unwrap_or_else(|| header.name());
        let shown = String::from_utf8_lossy(&path).into_owned();
        // Nothing but files has data, whatever a header says (as Go's archive/tar has it).
        let stored =
            if kind == EntryKind::File { pax.size.map_or_else(|| header.size(&shown), Ok)? } else { 0 };
        self.left = stored;
        self.padding = stored.next_multiple_of(BLOCK as u64) - stored;
        let mut size = stored;
        let mut sparse = None;
        if header.is_gnu_sparse() {
            let (real, map) = sparse::of_gnu(header, &mut self.inner, stored, &shown)?;
            (size, sparse) = (real, Some(map));
        } else if let Some((real, map)) = pax.sparse(self, &shown)? {
            (size, sparse) = (real, Some(map));
        }
        // In v7 a directory is a file whose name ends with a slash.
        let kind = if kind == EntryKind::File && path.ends_with(b"/") { EntryKind::Dir } else { kind };
        Ok(Entry {
            kind,
            link: pax.link.clone().or(long_link).unwrap_or_else(|| header.link()),
            mode: header.mode(&shown)?,
            uid: pax.uid.map_or_else(|| header.uid(&shown), Ok)?,
            gid: pax.gid.map_or_else(|| header.gid(&shown), Ok)?,
            mtime: pax.mtime.map_or_else(|| header.mtime(&shown), Ok)?,
            device: if matches!(kind, EntryKind::Char | EntryKind::Block) {
                header.device(&shown)?
            } else {
                (0, 0)
            },
            size,
            sparse,
            xattrs: pax.xattrs,
            path,
        })
    }

    /// The next header; None at the end of the archive.
    fn header(&mut self) -> Result<Option<Header>, TarError> {
        let Some(block) = self.block()? else {
            return if self.begun { Err(TarError::Truncated) } else { Ok(None) };
        };
        self.begun = true;
        if block.iter().any(|byte| *byte != 0) {
            return Header::new(block).map(Some);
        }
        match self.block()? {
            None => return Err(TarError::Truncated),
            Some(second) if second.iter().any(|byte| *byte != 0) => return Err(TarError::Trailing),
            Some(_) => {}
        }
        // Archives are padded to the size of a tape's record; anything else would be seen by some readers and not by others.
        while let Some(block) = self.rest()? {
            if block.iter().any(|byte| *byte != 0) {
                return Err(TarError::Trailing);
            }
        }
        Ok(None)
    }

    /// Contents of an extension header.
    fn extension(&mut self, header: &Header) -> Result<Vec<u8>, TarError> {
        let size = header.size("an extension header")?;
        if size > MAX_EXTENSION {
            return Err(TarError::LongExtension { size, limit: MAX_EXTENSION });
        }
        let mut contents = vec![0; usize::try_from(size).unwrap_or(0)];
        read_all(&mut self.inner, &mut contents)?;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
        self.skip_data()?;
        Ok(contents)
    }

    fn skip_data(&mut self) -> Result<(), TarError> {
        let mut buffer = [0; 16 << 10];
        while self.read_data(&mut buffer)? > 0 {}
        let padding = usize::try_from(self.padding).unwrap_or(0).min(BLOCK);
        self.padding = 0;
        match buffer.get_mut(..padding) {
            Some(rest) => read_all(&mut self.inner, rest),
            None => Ok(()),
        }
    }

    /// A whole block, or None where the stream ends before it.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, TarError> {
        let mut block = [0; BLOCK];
        match fill(&mut self.inner, &mut block)? {
            0 => Ok(None),
            BLOCK => Ok(Some(block)),
            _ => Err(TarError::Truncated),
        }
    }

    /// What is left of the stream, in pieces.
    fn rest(&mut self) -> Result<Option<Vec<u8>>, TarError> {
        let mut buffer = vec![0; 32 << 10];
        let count = read_some(&mut self.inner, &mut buffer)?;
        buffer.truncate(count);
        Ok(if count == 0 { None } else { Some(buffer) })
    }
}

fn trimmed(mut text: Vec<u8>) -> Vec<u8> {
    text.truncate(text.iter().position(|byte| *byte == 0).unwrap_or(text.len()));
    text
}

fn read_some(reader: &mut impl Read, buffer: &mut [u8]) -> Result<usize, TarError> {
    loop {
        match reader.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return Ok(other?),
        }
    }
}

/// Reads until the buffer is full or the stream ends; how much it was.
fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> Result<usize, TarError> {
    let mut done = 0;
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match read_some(reader, rest)? {
            0 => break,
            count => done += count,
        }
    }
    Ok(done)
}

fn read_all(reader: &mut impl Read, buffer: &mut [u8]) -> Result<(), TarError> {
    if fill(reader, buffer)? == buffer.len() { Ok(()) } else { Err(TarError::Truncated) }
}

#[cfg(test)]
mod tests;
