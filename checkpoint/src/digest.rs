//! SHA-256 of files and streams, as it stands in manifests and export streams.

mod beside;

use std::fmt;
use std::io::{self, Read, Write};

use cryopod_command::{Limits, Stop};
use serde::{Deserialize, Serialize};
use sha2::Digest as _;

pub use beside::Beside;

/// Read size: large enough that hashing, not the calls, costs the time.
const BUFFER: usize = 256 << 10;

/// A SHA-256 value; text is 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Sha256(pub [u8; 32]);

/// A text that is no SHA-256 value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a SHA-256 value is 64 lower-case hexadecimal digits")]
pub struct DigestError;

/// Why hashing stopped.
#[derive(Debug, thiserror::Error)]
pub enum HashError {
    /// Reading failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Deadline or cancel.
    #[error("hashing was stopped: {0:?}")]
    Stopped(Stop),
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<Sha256> for String {
    fn from(digest: Sha256) -> Self {
        digest.to_string()
    }
}

impl TryFrom<String> for Sha256 {
    type Error = DigestError;

    fn try_from(text: String) -> Result<Self, DigestError> {
        let bytes = text.as_bytes();
        if bytes.len() != 64 {
            return Err(DigestError);
        }
        let mut digest = [0; 32];
        for (byte, pair) in digest.iter_mut().zip(bytes.chunks_exact(2)) {
            let [high, low] = pair else { return Err(DigestError) };
            *byte = nibble(*high)? << 4 | nibble(*low)?;
        }
        Ok(Self(digest))
    }
}

fn nibble(digit: u8) -> Result<u8, DigestError> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        _ => Err(DigestError),
    }
}

/// A hash that grows with what is written to it.
#[derive(Debug, Clone, Default)]
pub struct Hasher(sha2::Sha256);

impl Hasher {
    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The value of everything added so far.
    pub fn finish(self) -> Sha256 {
        Sha256(self.0.finalize().into())
    }
}

impl Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Hash of bytes in memory.
pub fn of(bytes: &[u8]) -> Sha256 {
    let mut hasher = Hasher::default();
    hasher.update(bytes);
    hasher.finish()
}

/// Hash and length of everything that `reader` gives.
pub fn of_reader(mut reader: impl Read, limits: &Limits) -> Result<(Sha256, u64), HashError> {
    let mut hasher = Hasher::default();
    let mut buffer = vec![0; BUFFER];
    let mut length = 0;
    loop {
        limits.check().map_err(HashError::Stopped)?;
        match reader.read(&mut buffer) {
            Ok(0) => return Ok((hasher.finish(), length)),
            Ok(count) => {
                hasher.update(buffer.get(..count).unwrap_or_default());
                length += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_known_value_of_abc() {
        let text = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(of(b"abc").to_string(), text);
        assert_eq!(Sha256::try_from(text.to_owned()), Ok(of(b"abc")));
        assert_eq!(of_reader(&b"abc"[..], &Limits::none()).unwrap(), (of(b"abc"), 3));
    }

    #[test]
    fn other_texts_are_no_digest() {
        for bad in ["", "ba78", &"g".repeat(64), &"A".repeat(64), &"é".repeat(32)] {
            assert_eq!(Sha256::try_from(bad.to_owned()), Err(DigestError), "{bad}");
        }
    }
}
