//! `stats-dump`, in which CRIU says how long the tasks were stopped and what it wrote.
//!
//! ```text
//! u32 0x55105940 (service images)  u32 0x57093306 (stats)  u32 length  protobuf stats_entry
//! stats_entry.dump (field 1): dump_stats_entry { 1 freezing_time 2 frozen_time 3 memdump_time 4 memwrite_time (µs)
//!                                                5 pages_scanned 6 pages_skipped_parent 7 pages_written … }
//! ```
//!
//! Little endian; criu `images/stats.proto`. Ten fields are read by hand instead of generating code for them.

use std::path::Path;

use cryopod_checkpoint::target::DumpStats;

use super::CriuError;

const SERVICE_MAGIC: u32 = 0x5510_5940;
const STATS_MAGIC: u32 = 0x5709_3306;
/// The message has 14 numbers; more than this is not one.
const MAX_LENGTH: u64 = 4096;

/// Name of the file, in CRIU's work directory.
pub const FILE: &str = "stats-dump";

/// Reads `stats-dump` of a directory.
pub fn read(directory: &Path) -> Result<DumpStats, CriuError> {
    let path = directory.join(FILE);
    let failed = |source| CriuError::File { action: "read", path: path.clone(), source };
    if std::fs::metadata(&path).map_err(failed)?.len() > MAX_LENGTH {
        return Err(CriuError::Stats { path });
    }
    parse(&std::fs::read(&path).map_err(failed)?).ok_or(CriuError::Stats { path })
}

fn parse(bytes: &[u8]) -> Option<DumpStats> {
    let word = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    if word(0)? != SERVICE_MAGIC || word(4)? != STATS_MAGIC {
        return None;
    }
    let length = usize::try_from(word(8)?).ok()?;
    let message = bytes.get(12..12_usize.checked_add(length)?)?;
    let mut dump = None;
    fields(message, |number, value| {
        if let (1, Value::Bytes(inner)) = (number, value) {
            dump = Some(inner);
        }
    })?;
    let mut stats = DumpStats::default();
    fields(dump?, |number, value| match (number, value) {
        (2, Value::Number(us)) => stats.frozen_us = us,
        (7, Value::Number(pages)) => stats.pages_written = stats.pages_written.saturating_add(pages),
        // Pages of shared memory are counted apart.
        (14, Value::Number(pages)) => stats.pages_written = stats.pages_written.saturating_add(pages),
        _ => {}
    })?;
    Some(stats)
}

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// Calls `each` for every field of a protobuf message; `None` when it is malformed.
fn fields<'a>(mut rest: &'a [u8], mut each: impl FnMut(u64, Value<'a>)) -> Option<()> {
    while !rest.is_empty() {
        let key = varint(&mut rest)?;
        let value = match key & 7 {
            0 => Value::Number(varint(&mut rest)?),
            1 => Value::Bytes(take(&mut rest, 8)?),
            2 => {
                let length = usize::try_from(varint(&mut rest)?).ok()?;
                Value::Bytes(take(&mut rest, length)?)
            }
            5 => Value::Bytes(take(&mut rest, 4)?),
            _ => return None,
        };
        each(key >> 3, value);
    }
    Some(())
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (head, tail) = rest.split_at_checked(length)?;
    *rest = tail;
    Some(head)
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = take(rest, 1)?.first().copied()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encode(numbers: &[(u8, u64)]) -> Vec<u8> {
        let mut inner = Vec::new();
        for (field, number) in numbers {
            inner.push(field << 3);
            let mut left = *number;
            loop {
                let byte = u8::try_from(left & 0x7f).expect("seven bits");
                left >>= 7;
                inner.push(if left == 0 { byte } else { byte | 0x80 });
                if left == 0 {
                    break;
                }
            }
        }
        let mut bytes = Vec::new();
        bytes.extend(SERVICE_MAGIC.to_le_bytes());
        bytes.extend(STATS_MAGIC.to_le_bytes());
        bytes.extend(u32::try_from(inner.len() + 2).expect("short").to_le_bytes());
        bytes.push(0x0a);
        bytes.push(u8::try_from(inner.len()).expect("short"));
        bytes.extend(inner);
        bytes
    }

    #[test]
    fn frozen_time_and_pages_are_read() {
        let bytes = encode(&[(1, 3_000), (2, 234_567), (3, 100), (5, 70_000), (7, 65_551), (9, 0), (14, 3)]);
        assert_eq!(
            parse(&bytes),
            Some(DumpStats { frozen_us: 234_567, pages_written: 65_554, connected: None })
        );
    }

    #[test]
    fn another_file_is_not_taken_for_statistics() {
        assert_eq!(parse(b""), None);
        assert_eq!(parse(b"not statistics at all"), None);
        let dir = tempfile::tempdir().expect("temporary directory");
        std::fs::write(dir.path().join(FILE), vec![0; 5000]).expect("file");
        assert!(matches!(read(dir.path()), Err(CriuError::Stats { .. })));
    }

    proptest! {
        #[test]
        fn damaged_files_never_panic(cut in 0usize..40, flip in 0usize..40, bit in 0u8..8) {
            let mut bytes = encode(&[(1, 3_000), (2, 234_567), (7, u64::MAX)]);
            if let Some(byte) = bytes.get_mut(flip) {
                *byte ^= 1 << bit;
            }
            bytes.truncate(bytes.len().saturating_sub(cut));
            let _ = parse(&bytes);
        }
    }
}
