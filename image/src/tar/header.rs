//! One header block: fields, numbers, checksum (POSIX.1-2001 ustar, and GNU's additions to it).

use super::{BLOCK, EntryKind, TarError};

/// A header whose checksum is right.
pub(super) struct Header([u8; BLOCK]);

/// Offsets and lengths.
pub(super) type Pairs = Vec<(u64, u64)>;

/// What a header announces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    Entry(EntryKind),
    Pax,
    PaxGlobal,
    LongName,
    LongLink,
}

impl Header {
    pub(super) fn new(block: [u8; BLOCK]) -> Result<Self, TarError> {
        let header = Self(block);
        let found = number(&header.0[148..156]).ok_or(TarError::Checksum)?;
        // The field itself counts as blanks; old programs added signed bytes.
        let bytes = || {
            header.0.iter().enumerate().map(|(at, byte)| if (148..156).contains(&at) { b' ' } else { *byte })
        };
        let unsigned: i64 = bytes().map(i64::from).sum();
        let signed: i64 = bytes().map(|byte| i64::from(byte.cast_signed())).sum();
        if found == unsigned || found == signed { Ok(header) } else { Err(TarError::Checksum) }
    }

    pub(super) fn kind(&self) -> Result<Type, TarError> {
        Ok(Type::Entry(match self.0[156] {
            b'0' | 0 | b'7' | b'S' => EntryKind::File,
            b'1' => EntryKind::Link,
            b'2' => EntryKind::Symlink,
            b'3' => EntryKind::Char,
            b'4' => EntryKind::Block,
            b'5' => EntryKind::Dir,
            b'6' => EntryKind::Fifo,
            b'x' => return Ok(Type::Pax),
            b'g' => return Ok(Type::PaxGlobal),
            b'L' => return Ok(Type::LongName),
            b'K' => return Ok(Type::LongLink),
            other => {
                let entry = String::from_utf8_lossy(&self.name()).into_owned();
                return Err(TarError::Kind { entry, kind: char::from(other) });
            }
        }))
    }

    pub(super) fn is_gnu_sparse(&self) -> bool {
        self.0[156] == b'S'
    }

    /// The path, with ustar's prefix.
    pub(super) fn name(&self) -> Vec<u8> {
        let name = text(&self.0[..100]);
        let prefix = text(&self.0[345..500]);
        // GNU has other things where ustar has the prefix.
        if &self.0[257..263] != b"ustar\0" || prefix.is_empty() {
            return name.to_vec();
        }
        [prefix, b"/", name].concat()
    }

    pub(super) fn link(&self) -> Vec<u8> {
        text(&self.0[157..257]).to_vec()
    }

    pub(super) fn size(&self, entry: &str) -> Result<u64, TarError> {
        let size = self.field(124..136, entry, "size")?;
        // So that rounding up to a block never overflows.
        u64::try_from(size).ok().filter(|size| *size <= 1 << 62).ok_or_else(|| bad(entry, "size"))
    }

    pub(super) fn mode(&self, entry: &str) -> Result<u32, TarError> {
        // Above the permission bits some programs write the type.
        let mode = self.field(100..108, entry, "mode")?;
        Ok(u32::try_from(mode & 0o7777).unwrap_or(0))
    }

    pub(super) fn uid(&self, entry: &str) -> Result<u32, TarError> {
        self.small(108..116, entry, "user")
    }

    pub(super) fn gid(&self, entry: &str) -> Result<u32, TarError> {
        self.small(116..124, entry, "group")
    }

    pub(super) fn mtime(&self, entry: &str) -> Result<(i64, u32), TarError> {
        Ok((self.field(136..148, entry, "time")?, 0))
    }

    pub(super) fn device(&self, entry: &str) -> Result<(u32, u32), TarError> {
        Ok((self.small(329..337, entry, "device")?, self.small(337..345, entry, "device")?))
    }

    /// Pairs of offset and length in GNU's sparse header, whether more follow, and the length of the file.
    pub(super) fn sparse(&self, entry: &str) -> Result<(Pairs, bool, u64), TarError> {
        let real = number(&self.0[483..495]).and_then(|real| u64::try_from(real).ok());
        let real = real.ok_or_else(|| bad(entry, "length"))?;
        Ok((pairs(&self.0[386..482], entry)?, self.0[482] != 0, real))
    }

    fn small(&self, range: std::ops::Range<usize>, entry: &str, what: &'static str) -> Result<u32, TarError> {
        // An empty field is zero for every program that reads archives.
        u32::try_from(self.field(range, entry, what)?).map_err(|_| bad(entry, what))
    }

    fn field(&self, range: std::ops::Range<usize>, entry: &str, what: &'static str) -> Result<i64, TarError> {
        self.0.get(range).and_then(number).ok_or_else(|| bad(entry, what))
    }
}

/// Pairs of numbers of 12 bytes each; empty ones end the list.
pub(super) fn pairs(bytes: &[u8], entry: &str) -> Result<Pairs, TarError> {
    let mut pairs = Vec::new();
    for pair in bytes.chunks_exact(24) {
        let (offset, length) = pair.split_at(12);
        if offset.iter().all(|byte| *byte == 0) {
            break;
        }
        let read = |bytes| number(bytes).and_then(|number| u64::try_from(number).ok());
        match (read(offset), read(length)) {
            (Some(offset), Some(length)) => pairs.push((offset, length)),
            _ => return Err(bad(entry, "map")),
        }
    }
    Ok(pairs)
}

fn bad(entry: &str, field: &'static str) -> TarError {
    TarError::Field { entry: entry.to_owned(), field }
}

/// Up to the first zero.
fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Octal digits between blanks and zeros, or a signed binary number where the first bit is set.
fn number(field: &[u8]) -> Option<i64> {
    let (&first, rest) = field.split_first()?;
    if first & 0x80 != 0 {
        let sign = if first & 0x40 == 0 { i128::from(first & 0x3f) } else { i128::from(first) - 256 };
        let mut value = sign;
        for byte in rest {
            value = value.checked_mul(256)?.checked_add(i128::from(*byte))?;
        }
        return i64::try_from(value).ok();
    }
    let digits = field.trim_ascii_start();
    let digits = digits.split(|byte| matches!(byte, 0 | b' ')).next().unwrap_or_default();
    digits.iter().try_fold(0i64, |value, digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(digit - b'0')),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn numbers_are_octal_or_binary() {
        let cases: [(&[u8], Option<i64>); 9] = [
            (b"0000644\0", Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"\0\0\0\0", Some(0)),
            (b"        ", Some(0)),
            (b"0000648\0", None),
            (b"\x80\0\0\x01\0", Some(256)),
            (b"\xff\xff\xff\xff", Some(-1)),
            (b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
            (b"77777777777\0", Some(0o77777777777)),
        ];
        for (field, expected) in cases {
            assert_eq!(number(field), expected, "{field:?}");
        }
    }
}
