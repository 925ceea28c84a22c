//! A tree as bytes: in export streams, and as the text whose hash identifies a copied disk.
//!
//! ```text
//! tree   := entry* 'E'                                     numbers are little-endian
//! entry  := tag:u8 path:(u16,bytes) mode:u32 uid:u32 gid:u32 mtime:(i64,u32)
//!           xattrs:u16 (name:(u8,bytes) value:(u32,bytes))* rest
//! rest   := 'd' nothing | 'f' size:u64 segment* (u64::MAX) | 'l' target:(u16,bytes) | 'h' first:(u16,bytes)
//!         | 'c','b' device:u64 | 'p','s' nothing
//! segment := offset:u64 length:u32 data
//! ```
//!
//! Bounds: path and target 4096 (PATH_MAX), 256 attributes of ≤ 64 KiB (XATTR_SIZE_MAX), segments ≤ 64 KiB at
//! multiples of 64 KiB, ascending, inside the size; `first` is the path of an entry before, of any kind but 'd' and
//! 'h'. Blocks of zeros are left out, so that a hash does not depend on where a file system puts its holes. The order
//! is that of `tree::walk`.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use cryopod_command::Limits;

use super::copy::next_data;
use super::walk::{Visitor, walk};
use super::write::{Existing, Writer};
use super::{Copied, Entry, EntryKind, MAX_PATH, MAX_XATTR_VALUE, MAX_XATTRS, TreeError};
use crate::digest::{Beside, Sha256};

/// Block by which zeros are left out, and longest segment.
const BLOCK: usize = 64 << 10;
/// Largest file that is accepted: the largest that Linux has.
const MAX_FILE: u64 = i64::MAX as u64;

struct Encoder<'a, W> {
    root: &'a Path,
    out: W,
    limits: &'a Limits,
    buffer: Vec<u8>,
    copied: Copied,
}

/// Writes the tree at `root` to `out`.
pub(crate) fn encode(root: &Path, out: impl Write, limits: &Limits) -> Result<Copied, TreeError> {
    let mut encoder = Encoder { root, out, limits, buffer: vec![0; BLOCK], copied: Copied::default() };
    walk(root, limits, &mut encoder)?;
    encoder.put(b"E")?;
    Ok(encoder.copied)
}

/// The hash of a tree's encoding.
pub(crate) fn digest(root: &Path, limits: &Limits) -> Result<(Sha256, Copied), TreeError> {
    let mut hasher = Beside::default();
    let copied = encode(root, &mut hasher, limits)?;
    let hash = hasher.finish().map_err(TreeError::io("hash", root))?;
    Ok((hash, copied))
}

impl<W: Write> Visitor for Encoder<'_, W> {
    fn entry(&mut self, entry: &Entry, file: Option<&File>) -> Result<(), TreeError> {
        self.copied.entries += 1;
        let tag = match entry.kind {
            EntryKind::Dir => b'd',
            EntryKind::File { .. } => b'f',
            EntryKind::Symlink { .. } => b'l',
            EntryKind::Hardlink { .. } => b'h',
            EntryKind::Char { .. } => b'c',
            EntryKind::Block { .. } => b'b',
            EntryKind::Fifo => b'p',
            EntryKind::Socket => b's',
        };
        let mut head = vec![tag];
        short(&mut head, &entry.path);
        head.extend_from_slice(&entry.mode.to_le_bytes());
        head.extend_from_slice(&entry.uid.to_le_bytes());
        head.extend_from_slice(&entry.gid.to_le_bytes());
        head.extend_from_slice(&entry.mtime.0.to_le_bytes());
        head.extend_from_slice(&entry.mtime.1.to_le_bytes());
        head.extend_from_slice(&u16::try_from(entry.xattrs.len()).unwrap_or(u16::MAX).to_le_bytes());
        for (name, value) in &entry.xattrs {
            head.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
            head.extend_from_slice(name);
            head.extend_from_slice(&u32::try_from(value.len()).unwrap_or(u32::MAX).to_le_bytes());
            head.extend_from_slice(value);
        }
        match &entry.kind {
            EntryKind::File { size } => head.extend_from_slice(&size.to_le_bytes()),
            EntryKind::Symlink { target: path } | EntryKind::Hardlink { first: path } => {
                short(&mut head, path);
            }
            EntryKind::Char { device } | EntryKind::Block { device } => {
                head.extend_from_slice(&device.to_le_bytes());
            }
            EntryKind::Dir | EntryKind::Fifo | EntryKind::Socket => {}
        }
        self.put(&head)?;
        if let (EntryKind::File { size }, Some(file)) = (&entry.kind, file) {
            self.data(file, *size)?;
            self.put(&u64::MAX.to_le_bytes())?;
        }
        Ok(())
    }
}

impl<W: Write> Encoder<'_, W> {
    fn data(&mut self, file: &File, size: u64) -> Result<(), TreeError> {
        let block = BLOCK as u64;
        let mut at = 0;
        while let Some((start, end)) = next_data(file, at, size) {
            // Whole blocks of the file, wherever the extents begin and end.
            at = start / block * block;
            while at < end {
                self.limits.check().map_err(TreeError::Stopped)?;
                let want = usize::try_from((size - at).min(block)).unwrap_or(BLOCK);
                let mut buffer = std::mem::take(&mut self.buffer);
                let got = fill(file, buffer.get_mut(..want).unwrap_or_default(), at)
                    .map_err(TreeError::io("read a file in", self.root));
                let result = got.and_then(|got| {
                    let data = buffer.get(..got).unwrap_or_default();
                    if data.iter().all(|byte| *byte == 0) {
                        return Ok(());
                    }
                    self.copied.bytes += got as u64;
                    self.put(&at.to_le_bytes())?;
                    self.put(&u32::try_from(got).unwrap_or(0).to_le_bytes())?;
                    self.put(data)
                });
                self.buffer = buffer;
                result?;
                at += block;
            }
        }
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), TreeError> {
        self.out.write_all(bytes).map_err(TreeError::io("write the encoding of", self.root))
    }
}

/// Reads until the buffer is full or the file ends.
fn fill(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, at + done as u64) {
            Ok(0) => break,
            Ok(got) => done += got,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

fn short(out: &mut Vec<u8>, bytes: &[u8]) {
    // The walker has bounded it to MAX_PATH.
    out.extend_from_slice(&u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_le_bytes());
    out.extend_from_slice(bytes);
}

/// Reads a tree from `input`, which may be hostile, into the existing empty directory `root`; at most `limit` bytes
/// of contents and as many entries as that would need if each were empty.
pub(crate) fn decode(
    mut input: impl Read,
    root: &Path,
    limit: u64,
    limits: &Limits,
) -> Result<Copied, TreeError> {
    let mut writer = Writer::new(root, Existing::Refuse);
    let mut copied = Copied::default();
    let mut buffer = vec![0; BLOCK];
    // An empty file costs an inode: half a kilobyte on the file systems at hand.
    let most_entries = (limit / 512).saturating_add(1_000_000);
    while let Some((entry, tag)) = read_entry(&mut input)? {
        limits.check().map_err(TreeError::Stopped)?;
        copied.entries += 1;
        if copied.entries > most_entries {
            return Err(TreeError::Encoding("too many entries"));
        }
        let file = writer.add(&entry)?;
        if tag != b'f' {
            continue;
        }
        let (Some(file), EntryKind::File { size }) = (file, &entry.kind) else { continue };
        file.set_len(*size).map_err(TreeError::io("size a file in", root))?;
        let mut least = 0;
        loop {
            let offset = u64::from_le_bytes(bytes(&mut input)?);
            if offset == u64::MAX {
                break;
            }
            let length = u32::from_le_bytes(bytes(&mut input)?) as usize;
            let end = offset.checked_add(length as u64).filter(|end| end <= size);
            let aligned = offset.is_multiple_of(BLOCK as u64) && offset >= least;
            let (Some(end), true, Some(data)) = (end, aligned && length > 0, buffer.get_mut(..length)) else {
                return Err(TreeError::Encoding("a segment lies outside of its place"));
            };
            input.read_exact(data).map_err(|_| TreeError::Encoding("it ends early"))?;
            copied.bytes += length as u64;
            if copied.bytes > limit {
                return Err(TreeError::TooLarge { path: root.to_owned(), limit });
            }
            file.write_all_at(data, offset).map_err(TreeError::io("write a file in", root))?;
            least = end;
        }
        writer.filled(&entry, &file)?;
    }
    if copied.entries == 0 {
        return Err(TreeError::Encoding("it has no root"));
    }
    writer.finish()?;
    Ok(copied)
}

fn read_entry(input: &mut impl Read) -> Result<Option<(Entry, u8)>, TreeError> {
    let [tag] = bytes(input)?;
    if tag == b'E' {
        return Ok(None);
    }
    let path = path(input)?;
    let mode = u32::from_le_bytes(bytes(input)?) & 0o7777;
    let uid = u32::from_le_bytes(bytes(input)?);
    let gid = u32::from_le_bytes(bytes(input)?);
    let mtime = (i64::from_le_bytes(bytes(input)?), u32::from_le_bytes(bytes(input)?));
    if mtime.1 >= 1_000_000_000 || uid == u32::MAX || gid == u32::MAX {
        return Err(TreeError::Encoding("a time or an owner is out of range"));
    }
    let count = usize::from(u16::from_le_bytes(bytes(input)?));
    if count > MAX_XATTRS {
        return Err(TreeError::Encoding("too many attributes"));
    }
    let mut xattrs = Vec::new();
    for _ in 0..count {
        let [length] = bytes(input)?;
        let name = some(input, usize::from(length))?;
        let length = u32::from_le_bytes(bytes(input)?) as usize;
        if length > MAX_XATTR_VALUE {
            return Err(TreeError::Encoding("an attribute is too long"));
        }
        xattrs.push((name, some(input, length)?));
    }
    let kind = match tag {
        b'd' => EntryKind::Dir,
        b'f' => {
            let size = u64::from_le_bytes(bytes(input)?);
            if size > MAX_FILE {
                return Err(TreeError::Encoding("a file is too large"));
            }
            EntryKind::File { size }
        }
        b'l' => EntryKind::Symlink { target: path_of_link(input)? },
        b'h' => EntryKind::Hardlink { first: self::path(input)? },
        b'c' => EntryKind::Char { device: u64::from_le_bytes(bytes(input)?) },
        b'b' => EntryKind::Block { device: u64::from_le_bytes(bytes(input)?) },
        b'p' => EntryKind::Fifo,
        b's' => EntryKind::Socket,
        _ => return Err(TreeError::Encoding("an entry of unknown kind")),
    };
    Ok(Some((Entry { path, kind, mode, uid, gid, mtime, xattrs }, tag)))
}

fn path(input: &mut impl Read) -> Result<Vec<u8>, TreeError> {
    let length = usize::from(u16::from_le_bytes(bytes(input)?));
    if length > MAX_PATH {
        return Err(TreeError::Encoding("a path is too long"));
    }
    some(input, length)
}

fn path_of_link(input: &mut impl Read) -> Result<Vec<u8>, TreeError> {
    let target = path(input)?;
    if target.is_empty() || target.contains(&0) {
        return Err(TreeError::Encoding("a symlink to nothing"));
    }
    Ok(target)
}

fn bytes<const N: usize>(input: &mut impl Read) -> Result<[u8; N], TreeError> {
    let mut buffer = [0; N];
    input.read_exact(&mut buffer).map_err(|_| TreeError::Encoding("it ends early"))?;
    Ok(buffer)
}

fn some(input: &mut impl Read, length: usize) -> Result<Vec<u8>, TreeError> {
    let mut buffer = vec![0; length];
    input.read_exact(&mut buffer).map_err(|_| TreeError::Encoding("it ends early"))?;
    Ok(buffer)
}
