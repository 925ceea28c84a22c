//! The framing of the stream: sections of chunks, each section with its hash, the whole with its own.

use std::io::{self, Read, Write};

use cryopod_command::Limits;

use super::ShipError;
use crate::digest::{Hasher, Sha256};

pub(super) const MAGIC: &[u8; 16] = b"CRYOPOD-EXPORT\n\0";
pub(super) const VERSION: u32 = 1;
/// Longest chunk: what is held in memory at once.
pub(super) const MAX_CHUNK: usize = 1 << 20;
/// Longest section name: member, round and file name of at most 80 characters each.
const MAX_NAME: usize = 512;

/// What a section holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tag {
    Manifest,
    Image,
    Tree,
    Base,
    Disk,
    End,
}

impl Tag {
    fn byte(self) -> u8 {
        match self {
            Self::Manifest => b'M',
            Self::Image => b'I',
            Self::Tree => b'T',
            Self::Base => b'B',
            Self::Disk => b'Z',
            Self::End => b'E',
        }
    }

    fn of(byte: u8) -> Option<Self> {
        [Self::Manifest, Self::Image, Self::Tree, Self::Base, Self::Disk, Self::End]
            .into_iter()
            .find(|tag| tag.byte() == byte)
    }
}

/// Writes the framing.
pub(super) struct Writer<'a> {
    out: &'a mut dyn Write,
    hasher: Hasher,
    pub(super) bytes: u64,
    /// Why the reader could not be written to; whoever fills a section sees only that it failed.
    failure: Option<ShipError>,
}

impl<'a> Writer<'a> {
    pub(super) fn new(out: &'a mut dyn Write) -> Result<Self, ShipError> {
        let mut writer = Self { out, hasher: Hasher::default(), bytes: 0, failure: None };
        writer.put(MAGIC)?;
        writer.put(&VERSION.to_le_bytes())?;
        Ok(writer)
    }

    /// One section; `fill` writes its data.
    pub(super) fn section<T, E: From<ShipError>>(
        &mut self,
        tag: Tag,
        name: &str,
        fill: impl FnOnce(&mut Section<'_, 'a>) -> Result<T, E>,
    ) -> Result<T, E> {
        let length = u16::try_from(name.len()).map_err(|_| ShipError::Damaged("a name is too long"))?;
        self.put(&[tag.byte()])?;
        self.put(&length.to_le_bytes())?;
        self.put(name.as_bytes())?;
        let mut section = Section { writer: self, hasher: Hasher::default() };
        let result = fill(&mut section);
        let hash = section.hasher.finish();
        if let Some(failure) = self.failure.take() {
            return Err(failure.into());
        }
        let result = result?;
        self.put(&0u32.to_le_bytes())?;
        self.put(&hash.0)?;
        Ok(result)
    }

    /// The end mark; without it no reader accepts the stream.
    pub(super) fn finish(mut self) -> Result<u64, ShipError> {
        self.put(&[Tag::End.byte()])?;
        let hash = self.hasher.clone().finish();
        self.put(&hash.0)?;
        self.out.flush().map_err(write_error)?;
        Ok(self.bytes)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), ShipError> {
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
        self.out.write_all(bytes).map_err(write_error)
    }
}

/// The data of one section.
pub(super) struct Section<'s, 'a> {
    writer: &'s mut Writer<'a>,
    hasher: Hasher,
}

impl Section<'_, '_> {
    /// Hash of the data so far.
    pub(super) fn hash(&self) -> Sha256 {
        self.hasher.clone().finish()
    }
}

impl Write for Section<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for chunk in bytes.chunks(MAX_CHUNK) {
            self.hasher.update(chunk);
            let length = u32::try_from(chunk.len()).unwrap_or(0);
            let put = self.writer.put(&length.to_le_bytes()).and_then(|()| self.writer.put(chunk));
            if let Err(failure) = put {
                self.writer.failure = Some(failure);
                return Err(io::ErrorKind::BrokenPipe.into());
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.out.flush()
    }
}

/// Reads the framing of a stream that may be hostile.
pub(super) struct Reader<'a> {
    input: &'a mut dyn Read,
    hasher: Hasher,
    limits: &'a Limits,
}

impl<'a> Reader<'a> {
    pub(super) fn new(input: &'a mut dyn Read, limits: &'a Limits) -> Result<Self, ShipError> {
        let mut reader = Self { input, hasher: Hasher::default(), limits };
        if &reader.get::<16>()? != MAGIC {
            return Err(ShipError::Damaged("it does not begin as an export of cryopod does"));
        }
        let version = u32::from_le_bytes(reader.get()?);
        if version != VERSION {
            return Err(ShipError::Version(version));
        }
        Ok(reader)
    }

    /// The next section's tag and name; for the end mark, which is checked, the name is empty.
    pub(super) fn next(&mut self) -> Result<(Tag, String), ShipError> {
        let tag =
            Tag::of(u8::from_le_bytes(self.get()?)).ok_or(ShipError::Damaged("a section of unknown kind"))?;
        if tag == Tag::End {
            let hash = self.hasher.clone().finish();
            return if Sha256(self.get()?) == hash {
                Ok((tag, String::new()))
            } else {
                Err(ShipError::Damaged("its hash is another"))
            };
        }
        let length = usize::from(u16::from_le_bytes(self.get()?));
        if length > MAX_NAME {
            return Err(ShipError::Damaged("a name is too long"));
        }
        let mut name = vec![0; length];
        self.fill(&mut name)?;
        let name = String::from_utf8(name).map_err(|_| ShipError::Damaged("a name is not text"))?;
        Ok((tag, name))
    }

    /// The data of the section whose head was read last. It must be read to its end with [`Data::finish`].
    pub(super) fn data(&mut self) -> Data<'_, 'a> {
        Data {
            reader: self,
            hasher: Hasher::default(),
            chunk: Vec::new(),
            at: 0,
            ended: false,
            failure: None,
        }
    }

    fn get<const N: usize>(&mut self) -> Result<[u8; N], ShipError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), ShipError> {
        self.limits.check().map_err(ShipError::Stopped)?;
        self.input.read_exact(bytes).map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => ShipError::Truncated,
            _ => ShipError::Io { action: "read", source },
        })?;
        self.hasher.update(bytes);
        Ok(())
    }
}

/// The data of one section, as a reader.
pub(super) struct Data<'r, 'a> {
    reader: &'r mut Reader<'a>,
    hasher: Hasher,
    chunk: Vec<u8>,
    at: usize,
    ended: bool,
    failure: Option<ShipError>,
}

impl Data<'_, '_> {
    /// Whatever is left must be nothing, and the hash must be right.
    pub(super) fn finish(mut self) -> Result<(), ShipError> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        if !self.ended && (self.at < self.chunk.len() || self.next_chunk()?) {
            return Err(ShipError::Damaged("a section is longer than it says"));
        }
        let hash = self.hasher.clone().finish();
        if Sha256(self.reader.get()?) == hash {
            Ok(())
        } else {
            Err(ShipError::Damaged("the hash of a section is another"))
        }
    }

    /// Reads and forgets the rest.
    pub(super) fn skip(mut self) -> Result<(), ShipError> {
        while self.next_chunk()? {}
        self.finish()
    }

    /// What stopped the reading, if it was the stream.
    pub(super) fn failure(&mut self) -> Option<ShipError> {
        self.failure.take()
    }

    /// False at the end of the section.
    fn next_chunk(&mut self) -> Result<bool, ShipError> {
        if self.ended {
            return Ok(false);
        }
        let length = u32::from_le_bytes(self.reader.get()?) as usize;
        self.at = 0;
        self.chunk.clear();
        if length == 0 {
            self.ended = true;
            return Ok(false);
        }
        if length > MAX_CHUNK {
            return Err(ShipError::Damaged("a chunk is too long"));
        }
        self.chunk.resize(length, 0);
        let mut chunk = std::mem::take(&mut self.chunk);
        let filled = self.reader.fill(&mut chunk);
        self.chunk = chunk;
        filled?;
        self.hasher.update(&self.chunk);
        Ok(true)
    }
}

impl Read for Data<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.chunk.len() {
            match self.next_chunk() {
                Ok(true) => {}
                Ok(false) => return Ok(0),
                Err(error) => {
                    let text = error.to_string();
                    self.failure = Some(error);
                    return Err(io::Error::other(text));
                }
            }
        }
        let rest = self.chunk.get(self.at..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..count), rest.get(..count)) {
            to.copy_from_slice(from);
        }
        self.at += count;
        Ok(count)
    }
}

fn write_error(source: io::Error) -> ShipError {
    ShipError::Io { action: "write", source }
}
