//! What is known of a template, as JSON, and the names that templates may have.
//!
//! On ZFS the JSON stands in user properties of the snapshot that makes the template whole, so both exist in one
//! transaction and travel together; in a directory it is `template.json`. Version 1; at most 256 KiB.

use std::fmt;
use std::str::FromStr;

use cryopod_checkpoint::digest::Sha256;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::config::RunConfig;
use crate::digest::Digest;

/// The version that is written.
pub(crate) const VERSION: u32 = 1;
/// Labels of images are the only thing without a bound of their own; a node with thousands of templates reads them all.
pub(crate) const MAX_RECORD: usize = 256 << 10;
/// It becomes a dataset.
const LONGEST: usize = 64;

/// The name of a template.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TemplateName(String);

/// A text that is no name of a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{text}' is no template name: 1 to 64 characters a-z, 0-9, '.', '_', '-', beginning with a letter or digit"
)]
pub struct BadName {
    /// The text.
    pub text: String,
}

/// A template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Template {
    /// Format of this record.
    pub version: u32,
    /// Its name.
    pub name: TemplateName,
    /// The image as it was asked for.
    pub image: String,
    /// Digest of the image's manifest; of its configuration or archive where it has none.
    pub digest: Digest,
    /// When it was made.
    pub created: Timestamp,
    /// What its containers run.
    pub config: RunConfig,
    /// Digests of its layers after unpacking, the lowest first.
    pub layers: Vec<Digest>,
    /// Hash of the whole tree: names, contents, owners, modes, times, attributes.
    pub tree: Sha256,
    /// Entries of the tree.
    pub entries: u64,
    /// Sum of the file contents.
    pub bytes: u64,
}

impl TemplateName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TemplateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for TemplateName {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
        let begins = text.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
        if begins && text.len() <= LONGEST && text.chars().all(fine) {
            return Ok(Self(text.to_owned()));
        }
        Err(BadName { text: text.chars().take(LONGEST).flat_map(char::escape_debug).collect() })
    }
}

impl TryFrom<String> for TemplateName {
    type Error = BadName;

    fn try_from(text: String) -> Result<Self, BadName> {
        text.parse()
    }
}

impl From<TemplateName> for String {
    fn from(name: TemplateName) -> Self {
        name.0
    }
}

impl Template {
    /// As JSON of printable ASCII alone, which every property and every terminal takes.
    pub(crate) fn to_json(&self) -> Result<String, serde_json::Error> {
        let json = serde_json::to_string(self)?;
        let mut text = String::with_capacity(json.len());
        for c in json.chars() {
            if c.is_ascii() && !c.is_ascii_control() {
                text.push(c);
                continue;
            }
            // Only strings have such characters.
            for unit in c.encode_utf16(&mut [0; 2]) {
                text.push_str(&format!("\\u{unit:04x}"));
            }
        }
        Ok(text)
    }

    /// Reads what [`Self::to_json`] wrote.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let template: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if template.version == VERSION {
            return Ok(template);
        }
        Err(format!("version {}, this cryopod reads {VERSION}", template.version))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn sample(name: &str) -> Template {
        Template {
            version: VERSION,
            name: name.parse().unwrap(),
            image: "r.example/app:1".into(),
            digest: Digest::of(b"manifest"),
            created: Timestamp::from_second(1_700_000_000).unwrap(),
            config: RunConfig {
                labels: [("größe".into(), "a\tb\u{7f}\u{1f680}".into())].into(),
                ..RunConfig::default()
            },
            layers: vec![Digest::of(b"layer")],
            tree: Digest::of(b"tree").0,
            entries: 2,
            bytes: 3,
        }
    }

    #[test]
    fn a_record_is_printable_and_reads_back() {
        let text = sample("web").to_json().unwrap();
        assert!(text.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{text}");
        assert_eq!(Template::parse(&text).unwrap(), sample("web"));
        let newer = text.replace("\"version\":1", "\"version\":2");
        assert!(Template::parse(&newer).unwrap_err().contains("version 2"));
    }

    /// The record of version 1 as the first release wrote it.
    #[test]
    fn the_record_of_version_1_is_read_for_ever() {
        let zeros = "0".repeat(64);
        let text = format!(
            r#"{{"version":1,"name":"web","image":"x","digest":"sha256:{zeros}","created":"2026-01-01T00:00:00Z",
            "config":{{"entrypoint":["/e"],"command":[],"env":[],"user":"","working_dir":"","stop_signal":"","volumes":[],
            "labels":{{}}}},"layers":["sha256:{zeros}"],"tree":"{zeros}","entries":1,"bytes":2}}"#
        );
        assert_eq!(Template::parse(&text).unwrap().config.entrypoint, ["/e"]);
    }

    #[test]
    fn a_name_is_never_a_path_or_an_option() {
        for bad in ["", ".", "..", "a/b", "-x", "A", "a@b", "a b", &"x".repeat(65)] {
            assert!(bad.parse::<TemplateName>().is_err(), "{bad:?}");
        }
        for good in ["web", "alpine-3.20", "0", &"x".repeat(64)] {
            assert!(good.parse::<TemplateName>().is_ok(), "{good:?}");
        }
    }
}
