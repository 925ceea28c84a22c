//! Shell patterns, as rules have them: `*` any text, `?` one character, `[a-z]` one of these, `[!a-z]` one of all others.
//!
//! A pattern is matched against a whole value, in which `/` is a character like any other: `registry.example/*` is every
//! image of that registry. A character that means something is meant as itself in brackets: `[*]`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A pattern that was understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(glob::Pattern);

/// Why a text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// A bracket that is not closed.
    #[error(
        "'{text}' is not a pattern: {reason} at character {at}; a bracket that is meant as itself is written [[]"
    )]
    Malformed {
        /// What was written.
        text: String,
        /// What is wrong.
        reason: &'static str,
        /// Which character, the first is 1.
        at: usize,
    },
    /// In patterns for paths this crosses directories, as `*` does here.
    #[error("'{text}' is not a pattern: write * for **, it stands for any text, / included")]
    Recursive {
        /// What was written.
        text: String,
    },
}

impl Pattern {
    /// Whether it stands for the whole of `value`.
    pub fn matches(&self, value: &str) -> bool {
        self.0.matches(value)
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        if text.contains("**") {
            return Err(PatternError::Recursive { text: text.to_owned() });
        }
        glob::Pattern::new(text).map(Self).map_err(|error| PatternError::Malformed {
            text: text.to_owned(),
            reason: error.msg,
            at: error.pos + 1,
        })
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl Serialize for Pattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, value: &str) -> bool {
        pattern.parse::<Pattern>().expect("a pattern").matches(value)
    }

    #[test]
    fn a_pattern_stands_for_a_whole_value() {
        for (pattern, value, expected) in [
            ("web-*", "web-0", true),
            ("web-*", "web-", true),
            ("web-*", "my-web-0", false),
            ("web", "web-0", false),
            ("web-?", "web-10", false),
            ("web-[0-4]", "web-3", true),
            ("web-[!0-4]", "web-3", false),
            ("web-[!0-4]", "web-7", true),
            ("*", "", true),
            ("?", "", false),
            ("", "", true),
            ("", "x", false),
            ("Web", "web", false),
            ("*/nginx:*", "docker.io/library/nginx:1.27", true),
            ("docker.io/*", "docker.io/library/nginx:1.27", true),
            ("*", ".hidden/.file", true),
            ("a[*]b", "a*b", true),
            ("a[*]b", "axb", false),
            ("gr?n", "grün", true),
        ] {
            assert_eq!(matches(pattern, value), expected, "{pattern} {value}");
        }
    }

    #[test]
    fn what_is_no_pattern_says_what_and_where() {
        let error = "web-[0-".parse::<Pattern>().expect_err("not closed").to_string();
        assert!(
            error.starts_with("'web-[0-' is not a pattern: invalid range pattern at character 5"),
            "{error}"
        );
        let error = "docker.io/**".parse::<Pattern>().expect_err("for paths").to_string();
        assert!(error.contains("write * for **"), "{error}");
    }

    proptest! {
        #[test]
        fn without_a_character_that_means_something_a_pattern_matches_itself_alone(
            text in "[^*?\\[\\]]{0,20}", other in "\\PC{0,20}"
        ) {
            prop_assert!(matches(&text, &text));
            prop_assert_eq!(matches(&text, &other), text == other);
        }

        #[test]
        fn a_star_stands_for_any_text(before in "[a-z/]{0,8}", any in "\\PC{0,20}", after in "[a-z/]{0,8}") {
            prop_assert!(matches(&format!("{before}*{after}"), &format!("{before}{any}{after}")), "{}", any);
        }
    }
}
