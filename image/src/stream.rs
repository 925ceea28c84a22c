//! A layer as it is read: decompressed, bounded, and hashed on both sides.
//!
//! ```text
//! blob ─ hash (digest) ─ gzip · zstd · plain ─ hash (diff_id) ─ bounds ─ tar
//! ```
//!
//! What the compression is says the blob itself, as containerd has it: media types lie, and docker-archives name none.
//! Nothing of a layer counts before [`LayerStream::finish`], which wants every byte read and both hashes right.

use std::io::{self, BufRead, BufReader, Read};

use cryopod_checkpoint::digest::{Beside, Hasher};
use cryopod_command::{Limits, Stop};
use flate2::bufread::MultiGzDecoder;

use crate::bounds::{Budget, TooMuch};
use crate::digest::Digest;

/// Larger windows than zstd's own tools accept by default are made to eat memory.
const WINDOW_LOG_MAX: u32 = 27;
const BUFFER: usize = 128 << 10;

/// Why a layer could not be read.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The source failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The compressed data is damaged.
    #[error("its compressed data is damaged or cut off: {0}")]
    Compression(#[source] io::Error),
    /// Compressed in a way that images do not use.
    #[error("it is compressed with {0}; images have plain, gzip or zstd layers")]
    Unsupported(&'static str),
    /// Too much comes out.
    #[error(transparent)]
    TooMuch(#[from] TooMuch),
    /// There is more than what was announced.
    #[error("data follows the end of its compressed stream")]
    Trailing,
    /// Not what the manifest names.
    #[error("it has digest {found}, and {expected} was expected: it was changed or damaged on its way")]
    Digest {
        /// What it should be.
        expected: Digest,
        /// What it is.
        found: Digest,
    },
    /// Not what the image's configuration names.
    #[error("unpacked it has digest {found}, and the image's configuration says {expected}")]
    DiffId {
        /// What it should be.
        expected: Digest,
        /// What it is.
        found: Digest,
    },
    /// Deadline or cancel.
    #[error("reading was stopped ({0:?})")]
    Stopped(Stop),
}

/// What a layer should be; None where nobody has said it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Expected {
    pub(crate) digest: Option<Digest>,
    pub(crate) diff_id: Option<Digest>,
}

/// A layer being read.
pub(crate) struct LayerStream<'a> {
    decoder: Decoder<'a>,
    /// Of what is unpacked: most of the bytes, so beside the unpacking.
    hasher: Beside,
    out: u64,
    budget: &'a mut Budget,
    /// The reason behind an error that went through `Read`.
    failed: Option<StreamError>,
}

enum Decoder<'a> {
    Plain(BufReader<Raw<'a>>),
    Gzip(Box<MultiGzDecoder<BufReader<Raw<'a>>>>),
    Zstd(Box<zstd::Decoder<'static, BufReader<Raw<'a>>>>),
}

/// The blob: counted and hashed, stopped by the limits.
struct Raw<'a> {
    inner: Box<dyn Read + 'a>,
    hasher: Hasher,
    count: u64,
    limits: &'a Limits,
    stopped: Option<Stop>,
}

impl Read for Raw<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Err(stop) = self.limits.check() {
            self.stopped = Some(stop);
            return Err(io::ErrorKind::TimedOut.into());
        }
        let count = self.inner.read(buffer)?;
        self.hasher.update(buffer.get(..count).unwrap_or_default());
        self.count += count as u64;
        Ok(count)
    }
}

impl<'a> LayerStream<'a> {
    /// Begins to read a blob.
    pub(crate) fn open(
        blob: Box<dyn Read + 'a>,
        budget: &'a mut Budget,
        limits: &'a Limits,
    ) -> Result<Self, StreamError> {
        let raw = Raw { inner: blob, hasher: Hasher::default(), count: 0, limits, stopped: None };
        let mut raw = BufReader::with_capacity(BUFFER, raw);
        // The first read may give less than four bytes; a pipe or socket that does so is asked again below.
        let head = match raw.fill_buf() {
            Ok(head) => head.to_vec(),
            Err(error) => {
                return Err(raw.get_ref().stopped.map_or(StreamError::Io(error), StreamError::Stopped));
            }
        };
        let decoder = match head.as_slice() {
            [0x1f, 0x8b, ..] => Decoder::Gzip(Box::new(MultiGzDecoder::new(raw))),
            // A frame, or one that is to be skipped and stands before the first.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
                let mut decoder = zstd::Decoder::with_buffer(raw)?;
                decoder.window_log_max(WINDOW_LOG_MAX)?;
                Decoder::Zstd(Box::new(decoder))
            }
            [0xfd, b'7', b'z', b'X', b'Z', ..] => return Err(StreamError::Unsupported("xz")),
            [b'B', b'Z', b'h', ..] => return Err(StreamError::Unsupported("bzip2")),
            _ => Decoder::Plain(raw),
        };
        Ok(Self { decoder, hasher: Beside::default(), out: 0, budget, failed: None })
    }

    /// The budget, for what the bytes mean.
    pub(crate) fn budget(&mut self) -> &mut Budget {
        self.budget
    }

    /// The reason for an error that a reader of this has met.
    pub(crate) fn reason(&mut self) -> Option<StreamError> {
        if let Some(stop) = self.raw().get_ref().stopped {
            return Some(StreamError::Stopped(stop));
        }
        self.failed.take()
    }

    /// Reads to the end and compares; returns digest and diff_id.
    pub(crate) fn finish(mut self, expected: Expected) -> Result<(Digest, Digest), StreamError> {
        let mut buffer = vec![0; BUFFER];
        loop {
            match self.read(&mut buffer) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => return Err(self.reason().unwrap_or(StreamError::Io(error))),
            }
        }
        let raw = self.raw();
        match raw.read(&mut buffer) {
            Ok(0) => {}
            Ok(_) => return Err(StreamError::Trailing),
            Err(error) => {
                return Err(raw.get_ref().stopped.map_or(StreamError::Io(error), StreamError::Stopped));
            }
        }
        let digest = Digest(std::mem::take(&mut raw.get_mut().hasher).finish());
        let diff_id = Digest(self.hasher.finish()?);
        match expected {
            Expected { digest: Some(expected), .. } if expected != digest => {
                Err(StreamError::Digest { expected, found: digest })
            }
            Expected { diff_id: Some(expected), .. } if expected != diff_id => {
                Err(StreamError::DiffId { expected, found: diff_id })
            }
            _ => Ok((digest, diff_id)),
        }
    }

    fn raw(&mut self) -> &mut BufReader<Raw<'a>> {
        match &mut self.decoder {
            Decoder::Plain(raw) => raw,
            Decoder::Gzip(decoder) => decoder.get_mut(),
            Decoder::Zstd(decoder) => decoder.get_mut(),
        }
    }
}

impl Read for LayerStream<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (result, compressed) = match &mut self.decoder {
            Decoder::Plain(raw) => (raw.read(buffer), false),
            Decoder::Gzip(decoder) => (decoder.read(buffer), true),
            Decoder::Zstd(decoder) => (decoder.read(buffer), true),
        };
        let count = match result {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
            Err(error) => {
                let kind = error.kind();
                self.failed =
                    Some(if compressed { StreamError::Compression(error) } else { StreamError::Io(error) });
                return Err(kind.into());
            }
        };
        self.hasher.update(buffer.get(..count).unwrap_or_default());
        self.out += count as u64;
        let read = self.raw().get_ref().count;
        let checked =
            self.budget.take_bytes(count as u64).and_then(|()| self.budget.check_ratio(self.out, read));
        match checked {
            Ok(()) => Ok(count),
            Err(too_much) => {
                self.failed = Some(too_much.into());
                Err(io::ErrorKind::FileTooLarge.into())
            }
        }
    }
}
