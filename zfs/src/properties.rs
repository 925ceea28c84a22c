//! Properties: what callers set, and what ZFS says holds, with where each value comes from.
//!
//! User properties (`cryopod:*`) are how the store marks what a dataset is. They are inherited by everything
//! below, snapshots included, so a mark counts only where it was set: `EffectiveProperties::own`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// ZAP_MAXNAMELEN less its zero.
const LONGEST_KEY: usize = 255;
/// ZAP_MAXVALUELEN less its zero: the bound that every ZFS version has for user properties.
const LONGEST_VALUE: usize = 8191;

/// Properties to set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Properties(BTreeMap<String, String>);

impl Properties {
    /// No properties.
    pub fn new() -> Self {
        Self::default()
    }

    /// These and one more.
    #[must_use]
    pub fn with(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.0.insert(key.into(), value.into());
        self
    }

    /// Adds one property or replaces its value.
    pub fn set(&mut self, key: impl Into<String>, value: impl Into<String>) {
        self.0.insert(key.into(), value.into());
    }

    /// A value.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Why ZFS or a parser of its output would stumble over one of these; None when all is well.
    pub(crate) fn fault(&self) -> Option<String> {
        self.iter().find_map(|(key, value)| {
            if let Some(why) = key_fault(key) {
                Some(format!("property {key:?} {why}"))
            } else if value.len() > LONGEST_VALUE {
                Some(format!(
                    "the value of {key} has {} bytes, at most {LONGEST_VALUE} are possible",
                    value.len()
                ))
            } else if value.chars().any(char::is_control) {
                Some(format!("the value of {key} has control characters"))
            } else {
                None
            }
        })
    }
}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for Properties {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(iter: I) -> Self {
        Self(iter.into_iter().map(|(key, value)| (key.into(), value.into())).collect())
    }
}

pub(crate) fn key_fault(key: &str) -> Option<&'static str> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.:+@".contains(c);
    if key.is_empty() || key.len() > LONGEST_KEY {
        Some("must have 1 to 255 characters")
    } else if key.starts_with('-') || !key.chars().all(allowed) {
        Some("must be of lower case letters, digits and - _ . : +")
    } else {
        None
    }
}

/// Whether a key names a user property: those have a colon.
pub fn is_user_property(key: &str) -> bool {
    key.contains(':')
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// Set here.
    Local,
    /// Came with a received stream.
    Received,
    /// Set on this dataset above.
    Inherited(String),
    /// The property's default.
    Default,
    /// Set by the current mount only.
    Temporary,
    /// A fact, not a setting.
    None,
}

/// A value and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Property {
    /// The value as ZFS prints it for programs (exact numbers).
    pub value: String,
    /// Where it comes from.
    pub source: Source,
}

/// Properties as they hold, each with its source.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EffectiveProperties(BTreeMap<String, Property>);

impl EffectiveProperties {
    /// A value, wherever it comes from.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(|property| property.value.as_str())
    }

    /// A value that was set on this very dataset or snapshot, or received with it; never an inherited one.
    pub fn own(&self, key: &str) -> Option<&str> {
        self.0
            .get(key)
            .filter(|property| matches!(property.source, Source::Local | Source::Received))
            .map(|property| property.value.as_str())
    }

    /// A value with its source.
    pub fn property(&self, key: &str) -> Option<&Property> {
        self.0.get(key)
    }

    /// All of them in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Property)> {
        self.0.iter().map(|(key, property)| (key.as_str(), property))
    }

    /// The user properties that were set here and begin with `prefix`, as in "cryopod:".
    pub fn own_user(&self, prefix: &str) -> Properties {
        self.iter()
            .filter(|(key, _)| is_user_property(key) && key.starts_with(prefix))
            .filter_map(|(key, _)| self.own(key).map(|value| (key, value)))
            .collect()
    }

    pub(crate) fn insert(&mut self, key: String, property: Property) {
        self.0.insert(key, property);
    }

    pub(crate) fn take(&mut self, key: &str) -> Option<Property> {
        self.0.remove(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inherited_mark_is_not_taken_for_an_own_one() {
        let mut found = EffectiveProperties::default();
        let inherited = Source::Inherited("tank".to_owned());
        found.insert("cryopod:a".to_owned(), Property { value: "1".to_owned(), source: inherited });
        found.insert("cryopod:b".to_owned(), Property { value: "2".to_owned(), source: Source::Received });
        assert_eq!((found.get("cryopod:a"), found.own("cryopod:a")), (Some("1"), None));
        assert_eq!(found.own_user("cryopod:"), Properties::new().with("cryopod:b", "2"));
    }

    #[test]
    fn properties_that_would_break_a_command_or_a_listing_are_found() {
        let long = "x".repeat(8192);
        for (key, value) in
            [("", "x"), ("-o", "x"), ("A:b", "x"), ("a=b", "x"), ("a:b", "x\ny"), ("a:b", &long)]
        {
            assert!(Properties::new().with(key, value).fault().is_some(), "{key:?}");
        }
        assert_eq!(Properties::new().with("cryopod:id", "a b=c ü").fault(), None);
    }
}
