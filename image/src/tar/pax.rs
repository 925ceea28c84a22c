//! Extended headers (POSIX.1-2001): `LENGTH KEY=VALUE\n`, as often as it fits.

use std::io::Read;

use super::sparse::{self, Segment};
use super::{Reader, TarError};

/// Extended attributes that one entry may have, and the length of a value (XATTR_SIZE_MAX of Linux).
const MAX_XATTRS: usize = 256;
const MAX_XATTR_VALUE: usize = 64 << 10;
const XATTR: &[u8] = b"SCHILY.xattr.";

/// What extended headers say of an entry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) mtime: Option<(i64, u32)>,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    sparse: Sparse,
}

/// `GNU.sparse.*` in its three versions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Sparse {
    version: (u64, u64),
    name: Option<Vec<u8>>,
    real: Option<u64>,
    map: Vec<u64>,
}

impl Pax {
    /// Reads the contents of an extended header; keys that nobody needs here are passed over.
    pub(super) fn parse(contents: &[u8], header: &[u8]) -> Result<Self, TarError> {
        let bad =
            |reason| TarError::Extension { entry: String::from_utf8_lossy(header).into_owned(), reason };
        let mut pax = Self::default();
        let mut rest = contents;
        while !rest.is_empty() {
            // GNU tar pads with zeros where it has reserved too much.
            if rest.iter().all(|byte| *byte == 0) {
                break;
            }
            let blank =
                rest.iter().take(20).position(|byte| *byte == b' ').ok_or(bad("a length is missing"))?;
            let length = rest.get(..blank).and_then(decimal).and_then(|length| usize::try_from(length).ok());
            let length = length.ok_or(bad("a length cannot be read"))?;
            let record = rest.get(blank + 1..length).ok_or(bad("a length is wrong"))?;
            let record = record.strip_suffix(b"\n").ok_or(bad("a record has no end"))?;
            let equals = record.iter().position(|byte| *byte == b'=').ok_or(bad("a record has no value"))?;
            let (key, value) =
                (record.get(..equals).unwrap_or_default(), record.get(equals + 1..).unwrap_or_default());
            pax.set(key, value).ok_or(bad("a value cannot be read"))?;
            rest = rest.get(length..).unwrap_or_default();
        }
        Ok(pax)
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        match key {
            b"path" => self.path = Some(no_zero(value)?),
            b"linkpath" => self.link = Some(no_zero(value)?),
            b"size" => self.size = Some(decimal(value).filter(|size| *size <= 1 << 62)?),
            b"uid" => self.uid = Some(u32::try_from(decimal(value)?).ok()?),
            b"gid" => self.gid = Some(u32::try_from(decimal(value)?).ok()?),
            b"mtime" => self.mtime = Some(time(value)?),
            b"GNU.sparse.major" => self.sparse.version.0 = decimal(value)?,
            b"GNU.sparse.minor" => self.sparse.version.1 = decimal(value)?,
            b"GNU.sparse.name" => self.sparse.name = Some(no_zero(value)?),
            b"GNU.sparse.realsize" | b"GNU.sparse.size" => self.sparse.real = Some(decimal(value)?),
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => self.sparse.map.push(decimal(value)?),
            b"GNU.sparse.map" => {
                let numbers: Option<Vec<u64>> = value.split(|byte| *byte == b',').map(decimal).collect();
                self.sparse.map = if value.is_empty() { Vec::new() } else { numbers? };
            }
            _ => {
                if let Some(name) = key.strip_prefix(XATTR) {
                    let fits = self.xattrs.len() < MAX_XATTRS && value.len() <= MAX_XATTR_VALUE;
                    self.xattrs.push((
                        Some(no_zero(name)?).filter(|name| fits && !name.is_empty())?,
                        value.to_vec(),
                    ));
                }
            }
        }
        Some(())
    }

    /// These values, and for what they do not say, those of `self`.
    pub(super) fn overlaid(&self, own: &Self) -> Self {
        let mut xattrs = self.xattrs.clone();
        xattrs.extend(own.xattrs.iter().cloned());
        let sparse = own.sparse.clone();
        Self {
            path: sparse.name.clone().or_else(|| own.path.clone()).or_else(|| self.path.clone()),
            link: own.link.clone().or_else(|| self.link.clone()),
            size: own.size.or(self.size),
            uid: own.uid.or(self.uid),
            gid: own.gid.or(self.gid),
            mtime: own.mtime.or(self.mtime),
            xattrs,
            sparse,
        }
    }

    /// Length and map of a sparse file, where this describes one; version 1.0 has its map before the data.
    pub(super) fn sparse<R: Read>(
        &self,
        reader: &mut Reader<R>,
        entry: &str,
    ) -> Result<Option<(u64, Vec<Segment>)>, TarError> {
        let Some(real) = self.sparse.real else { return Ok(None) };
        let numbers = match self.sparse.version {
            (1, 0) => sparse::numbers_before_data(reader, entry)?,
            (0, _) => self.sparse.map.clone(),
            _ => return Err(TarError::Sparse { entry: entry.to_owned(), reason: "has an unknown version" }),
        };
        sparse::checked(&numbers, real, reader.left, entry).map(|map| Some((real, map)))
    }
}

/// Paths and names end at a zero for the kernel, so none may hide behind one.
fn no_zero(value: &[u8]) -> Option<Vec<u8>> {
    (!value.contains(&0)).then(|| value.to_vec())
}

/// Decimal digits.
pub(super) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |value, digit| match digit {
        b'0'..=b'9' => value.checked_mul(10)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })
}

/// Seconds since 1970 with a fraction, possibly before 1970.
fn time(text: &[u8]) -> Option<(i64, u32)> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut parts = text.splitn(2, |byte| *byte == b'.');
    let seconds = i64::try_from(decimal(parts.next()?)?).ok()?;
    let mut nanos = 0u32;
    let mut digits = parts.next().unwrap_or_default().iter();
    for _ in 0..9 {
        let digit = digits.next().copied().unwrap_or(b'0');
        nanos = nanos * 10 + u32::from(digit.checked_sub(b'0').filter(|digit| *digit < 10)?);
    }
    match (negative, nanos) {
        (false, _) => Some((seconds, nanos)),
        (true, 0) => Some((-seconds, 0)),
        // -1.25 is 0.75 after -2.
        (true, nanos) => Some((-seconds - 1, 1_000_000_000 - nanos)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_fractions_and_may_lie_before_1970() {
        assert_eq!(time(b"1700000000.5"), Some((1_700_000_000, 500_000_000)));
        assert_eq!(time(b"-1.25"), Some((-2, 750_000_000)));
        assert_eq!(time(b"7"), Some((7, 0)));
        assert_eq!(time(b"7.x"), None);
    }

    #[test]
    fn a_record_whose_length_is_wrong_is_refused() {
        let parse = |text: &[u8]| Pax::parse(text, b"h");
        assert_eq!(parse(b"11 path=ab\n").unwrap().path.as_deref(), Some(&b"ab"[..]));
        for bad in
            [&b"12 path=ab\n"[..], b"10 path=ab\n", b"path=ab\n", b"99999999999999999999 a=b\n", b"5 a=\0"]
        {
            assert!(parse(bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
        assert!(parse(b"13 path=ab\0c\n").is_err());
    }
}
