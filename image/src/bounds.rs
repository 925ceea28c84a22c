//! How much an image may be: the guard against archives that unpack to more than anybody wants.

use serde::{Deserialize, Serialize};

/// Below this a ratio says nothing: a log full of blanks is no attack.
const RATIO_FROM: u64 = 256 << 20;

/// Bounds of one image, over all of its layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounds {
    /// Bytes after unpacking, headers included, holes of sparse files too.
    pub unpacked: u64,
    /// Entries of all layers, whiteouts included.
    pub entries: u64,
    /// How many times larger a layer may be than what was read of it, once it has more than 256 MiB.
    pub ratio: u64,
}

impl Default for Bounds {
    /// The largest images in the field (machine learning, 30 GiB) have room; gzip's own limit is 1032 to 1, and real
    /// layers stay below 20.
    fn default() -> Self {
        Self { unpacked: 64 << 30, entries: 4_000_000, ratio: 200 }
    }
}

/// Something is beyond a bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TooMuch {
    /// Size.
    #[error("it unpacks to more than {limit} bytes")]
    Unpacked {
        /// The bound.
        limit: u64,
    },
    /// Entries.
    #[error("it has more than {limit} entries")]
    Entries {
        /// The bound.
        limit: u64,
    },
    /// Ratio.
    #[error("a layer unpacks to more than {limit} times its size, as only a bomb does")]
    Ratio {
        /// The bound.
        limit: u64,
    },
}

/// What is left of the bounds while an image is unpacked.
#[derive(Debug)]
pub(crate) struct Budget {
    bounds: Bounds,
    unpacked: u64,
    entries: u64,
}

impl Budget {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self { bounds, unpacked: 0, entries: 0 }
    }

    /// Takes bytes for what was unpacked.
    pub(crate) fn take_bytes(&mut self, bytes: u64) -> Result<(), TooMuch> {
        self.unpacked = self.unpacked.saturating_add(bytes);
        let limit = self.bounds.unpacked;
        if self.unpacked > limit { Err(TooMuch::Unpacked { limit }) } else { Ok(()) }
    }

    /// Takes an entry.
    pub(crate) fn take_entry(&mut self) -> Result<(), TooMuch> {
        self.entries += 1;
        let limit = self.bounds.entries;
        if self.entries > limit { Err(TooMuch::Entries { limit }) } else { Ok(()) }
    }

    /// Looks at what came out of a layer, and what was read for it.
    pub(crate) fn check_ratio(&self, out: u64, read: u64) -> Result<(), TooMuch> {
        let limit = self.bounds.ratio;
        if out > RATIO_FROM && out > read.saturating_mul(limit) {
            Err(TooMuch::Ratio { limit })
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_hold_over_all_layers_together() {
        let mut budget = Budget::new(Bounds { unpacked: 10, entries: 1, ratio: 2 });
        assert_eq!(budget.take_bytes(10), Ok(()));
        assert_eq!(budget.take_bytes(1), Err(TooMuch::Unpacked { limit: 10 }));
        assert_eq!(budget.take_entry(), Ok(()));
        assert_eq!(budget.take_entry(), Err(TooMuch::Entries { limit: 1 }));
        assert_eq!(budget.check_ratio(RATIO_FROM, 1), Ok(()));
        assert_eq!(budget.check_ratio(RATIO_FROM + 1, 1), Err(TooMuch::Ratio { limit: 2 }));
    }
}
