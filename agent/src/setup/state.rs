//! The marker: what setup did to this node, so that it can be taken back, and so that an interrupted one goes on.
//!
//! ```text
//! /var/lib/cryopod/setup.json
//! {"version": 1, "handlers": ["cryopod"], "main": "imported", "changed": {"boot": "…", "atUs": 81230000}}
//! ```
//!
//! `changed` is written before a file of containerd is touched, without `atUs`, and after it, with: containerd has read the
//! change if its unit was started later than `atUs`, or the machine was.

use serde::{Deserialize, Serialize};

/// The only version.
pub(super) const VERSION: u32 = 1;

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct State {
    /// Of this format.
    pub version: u32,
    /// Handlers of the drop-in.
    pub handlers: Vec<String>,
    /// What became of containerd's main configuration.
    pub main: Main,
    /// The last change.
    pub changed: Option<Change>,
}

/// What became of containerd's main configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Main {
    /// It imports drop-ins by itself.
    Left,
    /// There was none.
    Created,
    /// Our import was added.
    Imported,
}

/// A change of containerd's configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Change {
    /// In which boot.
    pub boot: String,
    /// When it was complete, in microseconds of the monotonic clock; none while it is being made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_us: Option<u64>,
}

impl State {
    /// One without a change.
    pub(super) fn new(handlers: &[String], main: Main) -> Self {
        Self { version: VERSION, handlers: handlers.to_vec(), main, changed: None }
    }
}

impl Change {
    /// Whether containerd has read it.
    pub(super) fn is_loaded(&self, boot: &str, unit_since_us: Option<u64>) -> bool {
        self.boot != boot || matches!((self.at_us, unit_since_us), (Some(at), Some(since)) if since > at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_read_by_what_starts_after_it() {
        let change = |at_us| Change { boot: "b".into(), at_us };
        for (at, boot, since, loaded) in [
            (Some(5), "b", Some(6), true),
            (Some(5), "b", Some(5), false),
            (Some(5), "b", Some(4), false),
            (Some(5), "b", None, false),
            // Not complete: whoever started in between may have read half of it.
            (None, "b", Some(9), false),
            // The machine itself was started since.
            (None, "c", Some(1), true),
        ] {
            assert_eq!(change(at).is_loaded(boot, since), loaded, "{at:?} {boot} {since:?}");
        }
    }

    #[test]
    fn the_format_stays_readable() {
        let text =
            r#"{"version":1,"handlers":["cryopod"],"main":"imported","changed":{"boot":"b","atUs":7}}"#;
        let state: State = serde_json::from_str(text).unwrap();
        assert_eq!(state.changed, Some(Change { boot: "b".into(), at_us: Some(7) }));
        assert_eq!(serde_json::to_string(&state).unwrap(), text);
    }
}
