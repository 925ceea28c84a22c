//! Sparse files: which parts of a file are stored.

use std::io::Read;

use super::header::{Header, pairs};
use super::pax::decimal;
use super::{BLOCK, Reader, TarError, read_all};

/// Parts of one file: a map of 1 Mi parts is 24 MiB in an archive, and no file system makes more of a root's file.
const MAX_SEGMENTS: usize = 1 << 20;

/// A part of a file that is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Where it is in the file.
    pub(crate) offset: u64,
    /// How long it is.
    pub(crate) length: u64,
}

/// GNU's old format: the map is in the header and in blocks behind it.
pub(super) fn of_gnu(
    header: &Header,
    reader: &mut impl Read,
    stored: u64,
    entry: &str,
) -> Result<(u64, Vec<Segment>), TarError> {
    let (mut found, mut more, real) = header.sparse(entry)?;
    while more {
        let mut block = [0; BLOCK];
        read_all(reader, &mut block)?;
        found.extend(pairs(&block[..504], entry)?);
        more = block[504] != 0;
        if found.len() > MAX_SEGMENTS {
            return Err(too_long(entry));
        }
    }
    let numbers: Vec<u64> = found.into_iter().flat_map(|(offset, length)| [offset, length]).collect();
    Ok((real, checked(&numbers, real, stored, entry)?))
}

/// pax 1.0: decimal numbers, one per line, padded to a block; the first says how many pairs there are.
pub(super) fn numbers_before_data<R: Read>(
    reader: &mut Reader<R>,
    entry: &str,
) -> Result<Vec<u64>, TarError> {
    let bad = |reason| TarError::Sparse { entry: entry.to_owned(), reason };
    let (mut numbers, mut wanted, mut digits) = (Vec::new(), None, Vec::new());
    while wanted != Some(numbers.len()) {
        let mut block = [0; BLOCK];
        let mut done = 0;
        while done < BLOCK {
            match reader.read_data(block.get_mut(done..).unwrap_or_default())? {
                0 => return Err(bad("is cut off")),
                count => done += count,
            }
        }
        for byte in block {
            match (byte, wanted) {
                _ if wanted == Some(numbers.len()) => break,
                (b'\n', None) => {
                    let count = decimal(&digits).and_then(|count| usize::try_from(count).ok());
                    let count =
                        count.filter(|count| *count <= MAX_SEGMENTS).ok_or_else(|| too_long(entry))?;
                    (wanted, digits) = (Some(2 * count), Vec::new());
                }
                (b'\n', Some(_)) => {
                    numbers.push(decimal(&digits).ok_or(bad("cannot be read"))?);
                    digits.clear();
                }
                (byte, _) if digits.len() < 20 => digits.push(byte),
                _ => return Err(bad("cannot be read")),
            }
        }
    }
    Ok(numbers)
}

/// The map, if it is ascending, within the file, and says as much as is stored.
pub(super) fn checked(
    numbers: &[u64],
    real: u64,
    stored: u64,
    entry: &str,
) -> Result<Vec<Segment>, TarError> {
    let bad = |reason| TarError::Sparse { entry: entry.to_owned(), reason };
    if !numbers.len().is_multiple_of(2) || real > 1 << 62 {
        return Err(bad("cannot be read"));
    }
    let (mut map, mut end, mut total) = (Vec::new(), 0u64, 0u64);
    for pair in numbers.chunks_exact(2) {
        let [offset, length] = *pair else { continue };
        let next = offset.checked_add(length).filter(|next| offset >= end && *next <= real);
        end = next.ok_or(bad("overlaps itself or leaves the file"))?;
        total += length;
        if length > 0 {
            map.push(Segment { offset, length });
        }
    }
    if total == stored { Ok(map) } else { Err(bad("does not fit what is stored")) }
}

fn too_long(entry: &str) -> TarError {
    TarError::Sparse { entry: entry.to_owned(), reason: "has too many parts" }
}
