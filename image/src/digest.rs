//! Digests as images write them, `sha256:<64 hexadecimal digits>`, and the identity of a chain of layers.

use std::fmt;
use std::str::FromStr;

use cryopod_checkpoint::digest::{Sha256, of};
use serde::{Deserialize, Serialize};

const PREFIX: &str = "sha256:";

/// The digest of a blob; other algorithms are not in use for images and are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(pub Sha256);

/// A text that is no digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is no digest of the form sha256:<64 lower-case hexadecimal digits>")]
pub struct NoDigest {
    /// The text.
    pub text: String,
}

impl Digest {
    /// Digest of bytes in memory.
    pub fn of(bytes: &[u8]) -> Self {
        Self(of(bytes))
    }

    /// The hexadecimal digits alone.
    pub fn hex(&self) -> String {
        self.0.to_string()
    }

    /// The identity of this chain with one more layer on it (OCI image specification, config.md "Layer ChainID").
    pub fn chained(below: Option<Self>, diff_id: Self) -> Self {
        match below {
            None => diff_id,
            Some(below) => Self::of(format!("{below} {diff_id}").as_bytes()),
        }
    }
}

/// The identities of all chains that end with one of these layers, the lowest first.
pub fn chains(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut below = None;
    diff_ids
        .iter()
        .map(|diff_id| {
            let chain = Digest::chained(below, *diff_id);
            below = Some(chain);
            chain
        })
        .collect()
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", self.0)
    }
}

impl FromStr for Digest {
    type Err = NoDigest;

    fn from_str(text: &str) -> Result<Self, NoDigest> {
        let hex = text.strip_prefix(PREFIX).and_then(|hex| Sha256::try_from(hex.to_owned()).ok());
        hex.map(Self).ok_or_else(|| NoDigest { text: text.chars().take(100).collect() })
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

impl TryFrom<String> for Digest {
    type Error = NoDigest;

    fn try_from(text: String) -> Result<Self, NoDigest> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_is_the_digest_of_the_chain_below_and_the_layer() {
        let layers = [Digest::of(b"a"), Digest::of(b"b"), Digest::of(b"c")];
        let chains = chains(&layers);
        assert_eq!(chains[0], layers[0]);
        assert_eq!(chains[1], Digest::of(format!("{} {}", layers[0], layers[1]).as_bytes()));
        assert_eq!(chains[2], Digest::of(format!("{} {}", chains[1], layers[2]).as_bytes()));
    }

    #[test]
    fn other_texts_are_no_digest() {
        let hex = "a".repeat(64);
        assert!(format!("sha256:{hex}").parse::<Digest>().is_ok());
        for bad in ["", "sha256:", &format!("sha512:{hex}"), &format!("sha256:{hex}a"), "sha256:../../x"] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }
}
