//! A tar archive whose members are read in any order: it is gone through once, and where each member is is kept.
//!
//! A compressed one is unpacked first, into a file without a name that goes with the process.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use cryopod_command::Limits;

use super::SourceError;
use crate::bounds::{Bounds, Budget};
use crate::stream::{LayerStream, StreamError};
use crate::tar::{EntryKind, Reader, TarError};

/// Members of an archive of images: blobs, and little else. A root file system that is looked at for its kind has more,
/// which are not kept.
const MAX_MEMBERS: usize = 100_000;

/// An archive.
pub(super) struct Archive {
    path: PathBuf,
    file: File,
    members: BTreeMap<String, Member>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Member {
    File {
        at: u64,
        size: u64,
    },
    /// To another member, by its name.
    Link(String),
    Other,
}

/// Counts what was read.
struct Counted<R> {
    inner: R,
    at: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.at += count as u64;
        Ok(count)
    }
}

impl Archive {
    /// Opens an archive and finds its members; `most` bounds what a compressed one unpacks to, into `scratch`.
    pub(super) fn open(path: &Path, scratch: &Path, most: u64, limits: &Limits) -> Result<Self, SourceError> {
        let file = File::open(path).map_err(SourceError::io("open", path))?;
        let file = plain(file, path, scratch, most, limits)?;
        let failed = |source: TarError| SourceError::Archive { path: path.to_owned(), source };
        let mut members = BTreeMap::new();
        let mut reader = Reader::new(Counted { inner: BufReader::with_capacity(1 << 20, &file), at: 0 });
        while let Some(entry) = reader.next_entry().map_err(failed)? {
            limits.check().map_err(SourceError::Stopped)?;
            let Some(name) = member_name(&entry.path) else { continue };
            let at = reader.inner().at;
            let member = match entry.kind {
                EntryKind::File if entry.sparse.is_none() => Member::File { at, size: entry.size },
                EntryKind::Symlink | EntryKind::Link => linked(&name, &entry.link, entry.kind),
                _ => Member::Other,
            };
            let again = members.insert(name.clone(), member).is_some_and(|before| before != Member::Other);
            if again {
                let reason = format!("member {name} is in it twice");
                return Err(SourceError::Odd { path: path.to_owned(), reason });
            }
            if members.len() > MAX_MEMBERS {
                // No archive of images; what there is tells a root file system.
                break;
            }
        }
        drop(reader);
        Ok(Self { path: path.to_owned(), file, members })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it has a member of that name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.members.contains_key(name)
    }

    /// Begins to read a member; None where it has none of that name.
    pub(super) fn member(&self, name: &str) -> Result<Option<Box<dyn Read + '_>>, SourceError> {
        // One link after the other means nothing in an archive of images.
        let found = match self.members.get(name) {
            Some(Member::Link(to)) => self.members.get(to),
            other => other,
        };
        match found {
            Some(Member::File { at, size }) => {
                let part = Part { file: &self.file, at: *at, left: *size };
                Ok(Some(Box::new(BufReader::with_capacity(256 << 10, part))))
            }
            _ => Ok(None),
        }
    }
}

/// A part of a file; several are read at once, so none moves the file's own position.
struct Part<'a> {
    file: &'a File,
    at: u64,
    left: u64,
}

impl Read for Part<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        use std::os::unix::fs::FileExt as _;
        let want = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.file.read_at(buffer.get_mut(..want).unwrap_or_default(), self.at)?;
        self.at += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}

/// The file itself, or what it unpacks to.
fn plain(
    mut file: File,
    path: &Path,
    scratch: &Path,
    most: u64,
    limits: &Limits,
) -> Result<File, SourceError> {
    let failed = |source: StreamError| SourceError::Stream { path: path.to_owned(), source };
    let mut head = [0; 4];
    let count = file.read(&mut head).map_err(SourceError::io("read", path))?;
    file.rewind().map_err(SourceError::io("read", path))?;
    // A tar archive begins with a name, and none of these is one.
    if !matches!(
        head.get(..count),
        Some([0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd] | [0xfd, b'7', b'z', b'X'] | [b'B', b'Z', b'h', _])
    ) {
        return Ok(file);
    }
    let flags = rustix::fs::OFlags::TMPFILE | rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC;
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    let made = rustix::fs::open(scratch, flags, mode).map_err(std::io::Error::from);
    let mut unpacked = File::from(made.map_err(SourceError::io("make a file in", scratch))?);
    let mut budget = Budget::new(Bounds { unpacked: most, ..Bounds::default() });
    let mut stream = LayerStream::open(Box::new(file), &mut budget, limits).map_err(failed)?;
    if let Err(error) = std::io::copy(&mut stream, &mut unpacked) {
        let reason = stream.reason();
        return Err(reason.map_or_else(|| SourceError::io("unpack to", scratch)(error), failed));
    }
    stream.finish(crate::stream::Expected::default()).map_err(failed)?;
    unpacked.seek(SeekFrom::Start(0)).map_err(SourceError::io("read", scratch))?;
    Ok(unpacked)
}

/// `./a//b` is `a/b`; none for what leads out, which nobody asks for.
fn member_name(path: &[u8]) -> Option<String> {
    let path = std::str::from_utf8(path).ok()?;
    let names: Vec<&str> = path.split('/').filter(|name| !matches!(*name, "" | ".")).collect();
    if names.is_empty() || names.contains(&"..") { None } else { Some(names.join("/")) }
}

/// Where a link of a member leads: old docker has `A/layer.tar -> ../B/layer.tar` where layers are the same.
fn linked(name: &str, target: &[u8], kind: EntryKind) -> Member {
    let Ok(target) = std::str::from_utf8(target) else { return Member::Other };
    let mut names: Vec<&str> =
        if kind == EntryKind::Symlink { name.split('/').collect() } else { Vec::new() };
    names.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                if names.pop().is_none() {
                    return Member::Other;
                }
            }
            part => names.push(part),
        }
    }
    Member::Link(names.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{self, gzip};

    #[test]
    fn members_are_read_by_name_also_of_a_compressed_archive() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.tar");
        let archive =
            testing::Archive::new().file("./a/x", b"one").symlink("b/y", "../a/x").file("z", b"").finish();
        for bytes in [archive.clone(), gzip(&archive)] {
            std::fs::write(&path, bytes).unwrap();
            let archive = Archive::open(&path, dir.path(), 1 << 20, &Limits::none()).unwrap();
            for name in ["a/x", "b/y"] {
                let mut text = String::new();
                archive.member(name).unwrap().unwrap().read_to_string(&mut text).unwrap();
                assert_eq!(text, "one");
            }
            assert!(archive.member("nothing").unwrap().is_none());
        }
        let twice = testing::Archive::new().file("a", b"1").file("./a", b"2").finish();
        std::fs::write(&path, twice).unwrap();
        let error = Archive::open(&path, dir.path(), 1 << 20, &Limits::none()).map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("member a is in it twice"), "{error}");
    }
}
