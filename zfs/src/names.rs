//! Names of pools, datasets, snapshots, bookmarks and holds; a value of these types is always well-formed.
//!
//! The rules are those of `zfs_namecheck.c` (module/zcommon), minus `%`, which ZFS keeps for its own temporary
//! datasets and the command line uses for ranges. So a name can never be taken for an option or for several.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// ZFS_MAX_DATASET_NAME_LEN is 256 with the terminating zero.
const LONGEST: usize = 255;

/// Why a text is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing between two separators, or nothing at all.
    #[error("'{name}' is no {kind} name: a part of it is empty")]
    Empty {
        /// What it should have been.
        kind: &'static str,
        /// The text.
        name: String,
    },
    /// A character that ZFS does not allow there.
    #[error("'{name}' is no {kind} name: {character:?} is not allowed")]
    Character {
        /// What it should have been.
        kind: &'static str,
        /// The text.
        name: String,
        /// The first such character.
        character: char,
    },
    /// More than 255 bytes.
    #[error("'{name}' is no {kind} name: {length} bytes are more than 255")]
    TooLong {
        /// What it should have been.
        kind: &'static str,
        /// The text.
        name: String,
        /// Its length in bytes.
        length: usize,
    },
    /// A pool that does not begin with a letter, a part that is `.` or `..`, a tag with a leading `-` or `.`.
    #[error("'{name}' is no {kind} name: it must not begin that way")]
    Start {
        /// What it should have been.
        kind: &'static str,
        /// The text.
        name: String,
    },
    /// No `@` where a snapshot was expected, or no `#` for a bookmark.
    #[error("'{name}' is no {kind} name: '{separator}' is missing")]
    Separator {
        /// What it should have been.
        kind: &'static str,
        /// The text.
        name: String,
        /// What is missing.
        separator: char,
    },
}

fn check(kind: &'static str, name: &str, parts: &str) -> Result<(), NameError> {
    let owned = || name.to_owned();
    if name.len() > LONGEST {
        return Err(NameError::TooLong { kind, name: owned(), length: name.len() });
    }
    for part in parts.split('/') {
        if part.is_empty() {
            return Err(NameError::Empty { kind, name: owned() });
        }
        if part == "." || part == ".." {
            return Err(NameError::Start { kind, name: owned() });
        }
        if let Some(character) = part.chars().find(|c| !c.is_ascii_alphanumeric() && !"-_.: ".contains(*c)) {
            return Err(NameError::Character { kind, name: owned(), character });
        }
    }
    Ok(())
}

fn check_dataset(kind: &'static str, name: &str, dataset: &str) -> Result<(), NameError> {
    check(kind, name, dataset)?;
    if dataset.starts_with(|c: char| c.is_ascii_alphabetic()) {
        Ok(())
    } else {
        Err(NameError::Start { kind, name: name.to_owned() })
    }
}

macro_rules! text_type {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl AsRef<std::ffi::OsStr> for $type {
            fn as_ref(&self) -> &std::ffi::OsStr {
                self.0.as_ref()
            }
        }

        impl TryFrom<String> for $type {
            type Error = NameError;
            fn try_from(name: String) -> Result<Self, NameError> {
                name.parse()
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> Self {
                name.0
            }
        }
    };
}

text_type! {
    /// A pool, `tank`.
    PoolName
}
text_type! {
    /// A file system or volume, `tank/a/b`; a pool's root dataset has the pool's name.
    DatasetName
}
text_type! {
    /// A snapshot, `tank/a@x`.
    SnapshotName
}
text_type! {
    /// A bookmark, `tank/a#x`.
    BookmarkName
}
text_type! {
    /// The tag of a hold; it says whose the hold is.
    HoldTag
}

impl FromStr for PoolName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        if name.contains('/') {
            return Err(NameError::Character { kind: "pool", name: name.to_owned(), character: '/' });
        }
        check_dataset("pool", name, name)?;
        Ok(Self(name.to_owned()))
    }
}

impl FromStr for DatasetName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        check_dataset("dataset", name, name)?;
        Ok(Self(name.to_owned()))
    }
}

impl FromStr for SnapshotName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        split("snapshot", '@', name).map(Self)
    }
}

impl FromStr for BookmarkName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        split("bookmark", '#', name).map(Self)
    }
}

impl FromStr for HoldTag {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        let kind = "hold";
        if name.starts_with(['-', '.']) {
            return Err(NameError::Start { kind, name: name.to_owned() });
        }
        // A tag may hold more, but then it could not be told from its neighbours in `zfs holds`.
        check(kind, name, name)?;
        if let Some(character) = name.chars().find(|c| "/ ".contains(*c)) {
            return Err(NameError::Character { kind, name: name.to_owned(), character });
        }
        Ok(Self(name.to_owned()))
    }
}

fn split(kind: &'static str, separator: char, name: &str) -> Result<String, NameError> {
    let Some((dataset, last)) = name.split_once(separator) else {
        return Err(NameError::Separator { kind, name: name.to_owned(), separator });
    };
    check_dataset(kind, name, dataset)?;
    if last.contains('/') {
        return Err(NameError::Character { kind, name: name.to_owned(), character: '/' });
    }
    check(kind, name, last)?;
    Ok(name.to_owned())
}

impl PoolName {
    /// The pool's root dataset.
    pub fn root(&self) -> DatasetName {
        DatasetName(self.0.clone())
    }
}

impl DatasetName {
    /// The pool it is in.
    pub fn pool(&self) -> PoolName {
        PoolName(self.0.split('/').next().unwrap_or_default().to_owned())
    }

    /// Whether it is the root dataset of its pool.
    pub fn is_pool_root(&self) -> bool {
        !self.0.contains('/')
    }

    /// The dataset above; None for a pool's root.
    pub fn parent(&self) -> Option<Self> {
        self.0.rsplit_once('/').map(|(parent, _)| Self(parent.to_owned()))
    }

    /// The last part of the name.
    pub fn leaf(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }

    /// The dataset `below` this one; `below` may have several parts.
    pub fn child(&self, below: &str) -> Result<Self, NameError> {
        format!("{}/{below}", self.0).parse()
    }

    /// The snapshot of this dataset with that name after the `@`.
    pub fn snapshot(&self, name: &str) -> Result<SnapshotName, NameError> {
        format!("{}@{name}", self.0).parse()
    }

    /// The bookmark of this dataset with that name after the `#`.
    pub fn bookmark(&self, name: &str) -> Result<BookmarkName, NameError> {
        format!("{}#{name}", self.0).parse()
    }

    /// Whether this is `other` or below it.
    pub fn is_within(&self, other: &Self) -> bool {
        self.0.strip_prefix(&other.0).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

macro_rules! parts {
    ($type:ident, $separator:literal) => {
        impl $type {
            /// The dataset it belongs to.
            pub fn dataset(&self) -> DatasetName {
                DatasetName(self.0.split($separator).next().unwrap_or_default().to_owned())
            }

            /// The part after the separator.
            pub fn leaf(&self) -> &str {
                self.0.split_once($separator).map_or("", |(_, leaf)| leaf)
            }
        }
    };
}
parts!(SnapshotName, '@');
parts!(BookmarkName, '#');

/// The name of anything that has properties.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Name {
    /// A file system or volume.
    Dataset(DatasetName),
    /// A snapshot.
    Snapshot(SnapshotName),
    /// A bookmark.
    Bookmark(BookmarkName),
}

impl Name {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Dataset(name) => name.as_str(),
            Self::Snapshot(name) => name.as_str(),
            Self::Bookmark(name) => name.as_str(),
        }
    }

    /// The dataset it is or belongs to.
    pub fn dataset(&self) -> DatasetName {
        match self {
            Self::Dataset(name) => name.clone(),
            Self::Snapshot(name) => name.dataset(),
            Self::Bookmark(name) => name.dataset(),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        if name.contains('@') {
            name.parse().map(Self::Snapshot)
        } else if name.contains('#') {
            name.parse().map(Self::Bookmark)
        } else {
            name.parse().map(Self::Dataset)
        }
    }
}

impl From<&DatasetName> for Name {
    fn from(name: &DatasetName) -> Self {
        Self::Dataset(name.clone())
    }
}

impl From<&SnapshotName> for Name {
    fn from(name: &SnapshotName) -> Self {
        Self::Snapshot(name.clone())
    }
}

impl From<&BookmarkName> for Name {
    fn from(name: &BookmarkName) -> Self {
        Self::Bookmark(name.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_zfs_accepts_are_accepted() {
        for name in
            ["tank", "tank/a", "tank/a b", "rpool/data/subvol-100-disk-0", "t/a.b_c:d-e", "t/-x", "t/1"]
        {
            assert_eq!(name.parse::<DatasetName>().map(|n| n.to_string()), Ok(name.to_owned()));
        }
        for name in ["tank@a", "tank/a@2026-01-01_00:00", "tank/a@-x"] {
            name.parse::<SnapshotName>().unwrap();
        }
    }

    #[test]
    fn names_that_could_mean_something_else_are_refused() {
        let long = format!("tank/{}", "a".repeat(251));
        let bad = [
            "",
            "/",
            "-r",
            "1tank",
            "tank/",
            "/tank",
            "tank//a",
            "tank/..",
            "tank/.",
            "tank/a@",
            "tank/%recv",
            "a,b",
            "tank/ä",
            "tank/a\n",
            "tank/a\0",
            &long,
        ];
        for name in bad {
            assert!(name.parse::<DatasetName>().is_err(), "{name:?}");
        }
        for name in
            ["tank", "tank@", "@a", "tank@a@b", "tank@a/b", "tank@a%b", "tank@a,b", "tank#a@b", "-t@a"]
        {
            assert!(name.parse::<SnapshotName>().is_err(), "{name:?}");
        }
        for tag in ["", "-r", ".send-1", "a b", "a\tb", "a/b"] {
            assert!(tag.parse::<HoldTag>().is_err(), "{tag:?}");
        }
    }

    #[test]
    fn parts_of_a_name_are_found() {
        let name: SnapshotName = "tank/a/b@x".parse().unwrap();
        assert_eq!((name.dataset().as_str(), name.leaf()), ("tank/a/b", "x"));
        assert_eq!(name.dataset().pool().as_str(), "tank");
        assert_eq!(name.dataset().parent().unwrap().as_str(), "tank/a");
        let (a, ab): (DatasetName, DatasetName) = ("tank/a".parse().unwrap(), "tank/ab".parse().unwrap());
        assert!(!ab.is_within(&a) && name.dataset().is_within(&a) && a.is_within(&a));
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_refused_or_survives_unchanged(text in ".{0,300}") {
            if let Ok(name) = text.parse::<Name>() {
                proptest::prop_assert_eq!(name.as_str(), &text);
                proptest::prop_assert!(!text.starts_with('-') && text.len() < 256);
            }
        }
    }
}
