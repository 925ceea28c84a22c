//! The stream of the fake: enough of a send stream to be cut, damaged, resumed and refused like a real one.
//!
//! ```text
//! "cryopod-fake-stream\n"   magic
//! u32 length, JSON          Header (at most MAX_HEADER bytes)
//! payload[offset..]         records of tree.rs, from `offset` on
//! u64                       checksum of the whole payload
//! ```

use std::hash::{DefaultHasher, Hasher};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use cryopod_command::Stop;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::{Deserialize, Serialize};

use crate::Limits;

const MAGIC: &[u8] = b"cryopod-fake-stream\n";
const MAX_HEADER: usize = 64 << 10;
/// PIPE_BUF: a pipe that is ready takes this much without blocking.
const CHUNK: usize = 4096;

/// What a stream says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Header {
    pub(super) snapshot: String,
    pub(super) guid: u64,
    /// The guid of the base of an increment.
    pub(super) from: Option<u64>,
    /// Whether the base is the origin of the dataset, so that the stream makes a clone.
    pub(super) clone: bool,
    /// The cipher of a raw stream of an encrypted dataset.
    pub(super) encryption: Option<String>,
    pub(super) payload: u64,
    pub(super) offset: u64,
}

pub(super) fn encode(header: &Header, payload: &[u8]) -> Vec<u8> {
    let json = serde_json::to_vec(header).unwrap_or_default();
    let mut out = MAGIC.to_vec();
    out.extend(u32::try_from(json.len()).unwrap_or_default().to_le_bytes());
    out.extend(json);
    let offset = usize::try_from(header.offset).unwrap_or(usize::MAX);
    out.extend(payload.get(offset..).unwrap_or_default());
    out.extend(checksum(payload).to_le_bytes());
    out
}

pub(super) fn checksum(payload: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(payload);
    hasher.finish()
}

/// A stream as far as it could be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decoded {
    /// The header and what follows it up to the end: payload, then checksum if it is `whole`.
    Stream { header: Header, payload: Vec<u8>, checksum: Option<u64> },
    /// It ends before its header does.
    NoHeader,
    /// It is no stream.
    Corrupt,
}

pub(super) fn decode(bytes: &[u8]) -> Decoded {
    let Some(rest) = bytes.strip_prefix(MAGIC) else {
        return if MAGIC.starts_with(bytes) { Decoded::NoHeader } else { Decoded::Corrupt };
    };
    let Some((length, rest)) = rest.split_first_chunk::<4>() else { return Decoded::NoHeader };
    let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
    if length > MAX_HEADER {
        return Decoded::Corrupt;
    }
    let Some((json, rest)) = rest.split_at_checked(length) else { return Decoded::NoHeader };
    let Ok(header) = serde_json::from_slice::<Header>(json) else { return Decoded::Corrupt };
    let expected = usize::try_from(header.payload.saturating_sub(header.offset)).unwrap_or(usize::MAX);
    match rest.split_at_checked(expected) {
        None => Decoded::Stream { header, payload: rest.to_vec(), checksum: None },
        Some((payload, tail)) => {
            let checksum = tail.first_chunk::<8>().map(|sum| u64::from_le_bytes(*sum));
            Decoded::Stream { header, payload: payload.to_vec(), checksum }
        }
    }
}

/// Why moving bytes ended early.
#[derive(Debug)]
pub(super) enum Broken {
    Stop(Stop),
    Io(Errno),
}

/// Writes all of `bytes`, within the limits.
pub(super) fn write(to: &OwnedFd, bytes: &[u8], limits: &Limits) -> Result<(), Broken> {
    let mut left = bytes;
    while !left.is_empty() {
        wait(to, PollFlags::POLLOUT, limits)?;
        let chunk = left.get(..CHUNK).unwrap_or(left);
        match nix::unistd::write(to, chunk) {
            Ok(count) => left = left.get(count..).unwrap_or_default(),
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(errno) => return Err(Broken::Io(errno)),
        }
    }
    Ok(())
}

/// Reads to the end, within the limits; `bytes` has what was read before an error, too.
pub(super) fn read(from: &OwnedFd, bytes: &mut Vec<u8>, limits: &Limits) -> Result<(), Broken> {
    let mut buffer = [0; 64 << 10];
    loop {
        wait(from, PollFlags::POLLIN, limits)?;
        match nix::unistd::read(from, &mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => bytes.extend(buffer.get(..count).unwrap_or_default()),
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(errno) => return Err(Broken::Io(errno)),
        }
    }
}

fn wait(fd: &OwnedFd, flags: PollFlags, limits: &Limits) -> Result<(), Broken> {
    loop {
        limits.check().map_err(Broken::Stop)?;
        let mut fds = vec![PollFd::new(fd.as_fd(), flags)];
        fds.extend(
            limits.cancel.as_ref().and_then(|c| c.event()).map(|fd| PollFd::new(fd, PollFlags::POLLIN)),
        );
        let left = limits.remaining().unwrap_or(Duration::MAX).min(Duration::from_secs(1));
        let millis = u16::try_from(left.as_millis()).unwrap_or(1000).saturating_add(1);
        match poll(&mut fds, PollTimeout::from(millis)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(Broken::Io(errno)),
        }
        if fds.first().and_then(PollFd::any).unwrap_or(true) {
            return Ok(());
        }
    }
}
