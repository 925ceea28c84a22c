//! Names that people type and that become dataset and directory names: checkpoint ids, member and disk names.
//!
//! They come from the command line, from annotations and from foreign export streams, so they are checked where
//! they enter: no slash, no `..`, nothing that ZFS or a path treats specially.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::Digest;

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
    /// What a pod is restored from.
    #[error(
        "'{0}' names no checkpoint: it is the name of a PodCheckpoint in the pod's namespace, or an id of \
         `cryopod checkpoints list`"
    )]
    Reference(String),
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

    /// The id of the checkpoint that a Kubernetes object of this namespace and name stands for: the same for all time, so
    /// that an agent that was killed finds again what it has begun, and a pod finds what it is restored from by the
    /// object's name. `<name>-<8 hexadecimal digits of SHA-256(namespace/name)>`.
    pub fn of_object(namespace: &str, name: &str) -> Self {
        let hash = sha2::Sha256::digest(format!("{namespace}/{name}"));
        let mut slug: String = name
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' })
            .take(MAX_ID - 9)
            .collect();
        slug = slug.trim_matches('-').to_owned();
        if slug.is_empty() {
            "checkpoint".clone_into(&mut slug);
        }
        let digits: String = hash.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        Self(format!("{slug}-{digits}"))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// How a pod says what it is restored from: the name of a Kubernetes object in its namespace, or an id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference(String);

/// Longest name of a Kubernetes object.
const MAX_OBJECT: usize = 253;

impl Reference {
    /// The ids that it may mean to a pod of this namespace (empty outside of Kubernetes), the likelier one first.
    pub fn candidates(&self, namespace: &str) -> Vec<CheckpointId> {
        let object = (!namespace.is_empty()).then(|| CheckpointId::of_object(namespace, &self.0));
        object.into_iter().chain(self.0.parse().ok()).collect()
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<CheckpointId> for Reference {
    fn from(id: CheckpointId) -> Self {
        Self(id.0)
    }
}

impl FromStr for Reference {
    type Err = NameError;

    /// Names of objects are made like ids, may be longer, and may have dots (RFC 1123).
    fn from_str(text: &str) -> Result<Self, NameError> {
        let fine = |label: &str| {
            let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
            label.bytes().all(inner) && !label.is_empty() && !label.starts_with('-') && !label.ends_with('-')
        };
        if text.len() <= MAX_OBJECT && text.split('.').all(fine) {
            Ok(Self(text.to_owned()))
        } else {
            Err(NameError::Reference(shown(text)))
        }
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

    #[test]
    fn an_object_has_one_id_and_a_pod_of_another_namespace_does_not_find_it() {
        let id = CheckpointId::of_object("default", "web");
        assert_eq!(id.as_str(), "web-82b3ade9");
        assert_ne!(id, CheckpointId::of_object("other", "web"));
        let web: Reference = "web".parse().unwrap();
        assert_eq!(web.candidates("default"), [id, "web".parse().unwrap()]);
        assert_eq!(
            web.candidates(""),
            ["web".parse().unwrap()],
            "outside of Kubernetes there are no objects"
        );
        let dotted: Reference = "web.v1.2".parse().unwrap();
        assert_eq!(dotted.candidates("default"), [CheckpointId::of_object("default", "web.v1.2")]);
        for bad in ["", "..", "a/b", "a..b", "-a", "a.", "A", "a b", &"x".repeat(254)] {
            assert!(bad.parse::<Reference>().is_err(), "{bad:?} was accepted");
        }
    }

    proptest! {
        #[test]
        fn every_object_has_a_valid_id(namespace in ".{0,80}", name in ".{0,300}") {
            let id = CheckpointId::of_object(&namespace, &name);
            prop_assert_eq!(id.as_str().parse::<CheckpointId>(), Ok(id.clone()));
        }

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
