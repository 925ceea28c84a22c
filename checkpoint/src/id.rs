//! Names that people type and that become dataset and directory names: checkpoint ids, member and disk names.
//!
//! They come from the command line, from annotations and from foreign export streams, so they are checked where
//! they enter: no slash, no `..`, nothing that ZFS or a path treats specially.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Longest checkpoint id: it is a dataset component below `<root>/checkpoints`, part of snapshot names, and a
/// Kubernetes label value (63).
pub const MAX_ID: usize = 63;
/// Longest member or disk name: container ids of containerd have up to 76 characters.
pub const MAX_NAME: usize = 80;
/// How much of a pod's name goes into a generated id.
const MAX_SLUG: usize = 40;

/// A name that is not acceptable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Checkpoint ids are narrower than member names, since they are typed and become Kubernetes names.
    #[error(
        "'{0}' is no checkpoint id: 1 to {MAX_ID} characters a-z, 0-9, '-', beginning and ending with a letter or digit"
    )]
    Id(String),
    /// Member or disk name.
    #[error(
        "'{0}' is no usable name: 1 to {MAX_NAME} characters A-Z, a-z, 0-9, '_', '.', '-', beginning with a letter or \
         digit, without '..'"
    )]
    Component(String),
}

/// Identifies a checkpoint in its store.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CheckpointId(String);

impl CheckpointId {
    /// A new id that tells people what it is: `<name>-<date>-<time>-<random>`, UTC.
    pub fn generate(name: &str, now: Timestamp) -> Self {
        let mut slug: String = name
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' })
            .take(MAX_SLUG)
            .collect();
        slug = slug.trim_matches('-').to_owned();
        if slug.is_empty() {
            "pod".clone_into(&mut slug);
        }
        let random = RandomState::new().build_hasher().finish() & 0xffff;
        Self(format!("{slug}-{}-{random:04x}", now.strftime("%Y%m%d-%H%M%S")))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for CheckpointId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let fine = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let bytes = text.as_bytes();
        let ends = bytes.first().copied().is_some_and(fine) && bytes.last().copied().is_some_and(fine);
        if ends && bytes.len() <= MAX_ID && bytes.iter().all(|&b| fine(b) || b == b'-') {
            Ok(Self(text.to_owned()))
        } else {
            Err(NameError::Id(shown(text)))
        }
    }
}

impl TryFrom<String> for CheckpointId {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<CheckpointId> for String {
    fn from(id: CheckpointId) -> Self {
        id.0
    }
}

impl fmt::Display for CheckpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Checks a member or disk name, which becomes a directory and part of a dataset name.
pub fn check_component(name: &str) -> Result<(), NameError> {
    let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    let starts = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    if starts && name.len() <= MAX_NAME && name.bytes().all(fine) && !name.contains("..") {
        Ok(())
    } else {
        Err(NameError::Component(shown(name)))
    }
}

/// Hostile names are repeated in messages, so they are cut and their control characters escaped.
fn shown(name: &str) -> String {
    name.chars().take(MAX_NAME + 1).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_generated_id_is_valid_and_tells_what_and_when() {
        let now: Timestamp = "2026-03-04T05:06:07Z".parse().unwrap();
        let id = CheckpointId::generate("Web_Front.End", now);
        assert!(id.as_str().starts_with("web-front-end-20260304-050607-"), "{id}");
        assert_eq!(id.as_str().parse::<CheckpointId>(), Ok(id));
    }

    #[test]
    fn names_with_paths_or_zfs_meaning_are_refused() {
        for bad in ["", "-a", "a-", "a/b", "..", "a@b", "A", "a b", "a\n", "a#b", "a%b", &"x".repeat(64)] {
            assert!(bad.parse::<CheckpointId>().is_err(), "{bad:?} was accepted");
        }
        for bad in ["", ".", "..", ".a", "a..b", "a/b", "a\0", "-x", &"x".repeat(81)] {
            assert!(check_component(bad).is_err(), "{bad:?} was accepted");
        }
    }

    proptest! {
        #[test]
        fn every_generated_id_parses(name in ".{0,80}") {
            let id = CheckpointId::generate(&name, Timestamp::UNIX_EPOCH);
            prop_assert!(id.as_str().parse::<CheckpointId>().is_ok());
        }

        #[test]
        fn an_accepted_name_is_one_plain_path_component(name in ".{0,90}") {
            if check_component(&name).is_ok() {
                let path = std::path::Path::new(&name);
                prop_assert_eq!(path.components().count(), 1);
                prop_assert!(matches!(path.components().next(), Some(std::path::Component::Normal(_))));
            }
        }
    }
}
