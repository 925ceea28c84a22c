//! Sizes and durations as people write them: `256 MiB`, `90s`, or a plain number of bytes or seconds.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A size in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

/// A duration of whole seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seconds(pub u64);

/// Why a text is no size or duration.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// Not a number followed by a known unit.
    #[error("'{text}' is not {expected}")]
    Malformed {
        /// What was written.
        text: String,
        /// What was expected.
        expected: &'static str,
    },
    /// More than fits.
    #[error("'{text}' is too large")]
    TooLarge {
        /// What was written.
        text: String,
    },
}

const SIZES: &[(&str, u64)] = &[
    ("", 1),
    ("b", 1),
    ("kib", 1 << 10),
    ("k", 1 << 10),
    ("mib", 1 << 20),
    ("m", 1 << 20),
    ("gib", 1 << 30),
    ("g", 1 << 30),
    ("tib", 1 << 40),
    ("t", 1 << 40),
];
const DURATIONS: &[(&str, u64)] = &[("", 1), ("s", 1), ("sec", 1), ("m", 60), ("min", 60), ("h", 3600)];
const SIZE: &str = "a size such as 1048576, 64MiB or 1GiB";
const DURATION: &str = "a duration such as 90, 90s or 5m";

fn parse(text: &str, units: &[(&str, u64)], expected: &'static str) -> Result<u64, UnitError> {
    let malformed = || UnitError::Malformed { text: text.to_owned(), expected };
    let trimmed = text.trim();
    let end = trimmed.find(|c: char| !c.is_ascii_digit()).unwrap_or(trimmed.len());
    let (digits, unit) = trimmed.split_at(end);
    let unit = unit.trim().to_ascii_lowercase();
    let factor =
        units.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor).ok_or_else(malformed)?;
    if digits.is_empty() {
        return Err(malformed());
    }
    let too_large = || UnitError::TooLarge { text: text.to_owned() };
    digits.parse::<u64>().ok().and_then(|number| number.checked_mul(factor)).ok_or_else(too_large)
}

impl FromStr for Bytes {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        parse(text, SIZES, SIZE).map(Self)
    }
}

impl FromStr for Seconds {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        parse(text, DURATIONS, DURATION).map(Self)
    }
}

impl From<Seconds> for Duration {
    fn from(seconds: Seconds) -> Self {
        Self::from_secs(seconds.0)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)]
            .into_iter()
            .find(|(_, factor)| self.0 != 0 && self.0.is_multiple_of(*factor));
        match exact {
            Some((unit, factor)) => write!(f, "{}{unit}", self.0 / factor),
            None => write!(f, "{}", self.0),
        }
    }
}

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}s", self.0)
    }
}

struct Either<T>(&'static str, fn(u64) -> T);

impl<T: FromStr<Err = UnitError>> Visitor<'_> for Either<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        u64::try_from(number).map(self.1).map_err(|_| E::invalid_value(de::Unexpected::Signed(number), &self))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        Ok((self.1)(number))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Either(SIZE, Self))
    }
}

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Either(DURATION, Self))
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Seconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_people_write_them() {
        for (text, bytes) in
            [("0", 0), ("1048576", 1 << 20), ("64MiB", 64 << 20), ("64 mib", 64 << 20), ("1G", 1 << 30)]
        {
            assert_eq!(text.parse(), Ok(Bytes(bytes)), "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused_with_an_example() {
        for text in ["", "MiB", "12 parsecs", "-1", "99999999999999999999", "18446744073709551615G"] {
            assert!(text.parse::<Bytes>().is_err(), "{text}");
        }
        let error = "soon".parse::<Seconds>().expect_err("no duration");
        assert_eq!(error.to_string(), "'soon' is not a duration such as 90, 90s or 5m");
    }

    #[test]
    fn what_is_printed_reads_back_as_the_same() {
        for bytes in [0, 1, 1023, 1 << 10, 3 << 20, 5 << 30, (1 << 20) + 1] {
            assert_eq!(Bytes(bytes).to_string().parse(), Ok(Bytes(bytes)));
        }
    }
}
