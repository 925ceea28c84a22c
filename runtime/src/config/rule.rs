//! One `[[routing]]` rule, and where it stands. What becomes of rules is in [`crate::routing`].

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::Pattern;

/// A place in a text of the configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file, or what else the text is called.
    pub file: String,
    /// The first is 1.
    pub line: usize,
    /// In characters, the first is 1.
    pub column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// `[[routing]]`: rules that give pods another runtime than the default. The first one decides of which every pattern
/// matches; one without patterns matches every pod. [The guide](../guides/routing.md) has examples.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Kubernetes namespace of the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Pattern>,
    /// Name of the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Pattern>,
    /// Image of the first container that is made in the pod, as the pod's manifest names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Pattern>,
    /// A table from names of labels of the pod to patterns of their values; a label that is not set matches nothing.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, Pattern>,
    /// The same for annotations of the pod.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, Pattern>,
    /// The runtime: `crun`, `runc`, `lxc` or the name of a `[runtime.NAME]` section. It has to be given.
    pub backend: String,
    /// Where the rule begins.
    #[serde(skip)]
    pub(crate) place: Place,
}

impl Rule {
    /// Where it begins.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// As TOML, below a comment that says where it comes from.
    pub(super) fn dump(&self) -> Result<String, toml::ser::Error> {
        #[derive(Serialize)]
        struct One<'a> {
            routing: [&'a Rule; 1],
        }
        // The name of a file may hold anything.
        let file = self.place.file.replace(char::is_control, "?");
        let text = toml::to_string_pretty(&One { routing: [self] })?;
        Ok(format!("\n# {file}:{}\n{text}", self.place.line))
    }
}
