//! CRIU's own configuration file, one per call.
//!
//! ```text
//! link-remap                      open files whose name is gone but which have another link
//! ghost-limit 268435456           bytes of an open file without any link
//! network-lock nftables           needs no iptables; one table to remove by its name
//! timeout 30                      seconds to stop all tasks
//! action-script /run/…/cryopod-hook   (dump)
//! tcp-close                       (restore at another address)
//! cgroup-root /kubepods/…         (restore)
//! ```
//!
//! Only what works here stands here: `tcp-established` is overridden by the runtime's request and belongs on its command
//! line. The parser (criu `config.c`) cuts values at `#` even inside quotes, so such values are refused.

use std::path::PathBuf;

use super::CriuError;

/// Seconds CRIU may take to stop all tasks; its default of 10 is short for a loaded node.
pub const SEIZE_TIMEOUT_SECONDS: u64 = 60;

/// What one call wants of CRIU.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// Largest deleted but open file that goes into the image, bytes.
    pub ghost_limit: Option<u64>,
    /// Called at each stage.
    pub action_script: Option<PathBuf>,
    /// Established connections are closed on restore.
    pub tcp_close: bool,
    /// Path inside the cgroup hierarchy under which the restored tasks belong.
    pub cgroup_root: Option<String>,
}

impl Settings {
    /// The text of the file.
    pub fn render(&self) -> Result<String, CriuError> {
        let mut lines = vec![
            "link-remap".to_owned(),
            "network-lock nftables".to_owned(),
            format!("timeout {SEIZE_TIMEOUT_SECONDS}"),
        ];
        if let Some(limit) = self.ghost_limit {
            lines.push(format!("ghost-limit {limit}"));
        }
        if let Some(script) = &self.action_script {
            lines.push(format!(
                "action-script {}",
                speakable("action-script", &script.display().to_string())?
            ));
        }
        if self.tcp_close {
            lines.push("tcp-close".to_owned());
        }
        if let Some(root) = &self.cgroup_root {
            lines.push(format!("cgroup-root {}", speakable("cgroup-root", root)?));
        }
        lines.push(String::new());
        Ok(lines.join("\n"))
    }
}

fn speakable<'a>(setting: &'static str, value: &'a str) -> Result<&'a str, CriuError> {
    let bad = |c: char| c.is_whitespace() || c.is_control() || "#\"".contains(c);
    if value.is_empty() || value.contains(bad) {
        return Err(CriuError::Unspeakable { setting, value: value.to_owned() });
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dump_names_hook_and_limits() {
        let settings = Settings {
            ghost_limit: Some(1 << 20),
            action_script: Some("/run/cryopod/criu/x/cryopod-hook".into()),
            ..Settings::default()
        };
        assert_eq!(
            settings.render().expect("speakable"),
            "link-remap\nnetwork-lock nftables\ntimeout 60\nghost-limit 1048576\n\
             action-script /run/cryopod/criu/x/cryopod-hook\n"
        );
    }

    #[test]
    fn a_restore_names_its_cgroup() {
        let settings =
            Settings { tcp_close: true, cgroup_root: Some("/pod/c".into()), ..Settings::default() };
        assert!(settings.render().expect("speakable").ends_with("tcp-close\ncgroup-root /pod/c\n"));
    }

    #[test]
    fn values_that_criu_would_cut_are_refused() {
        for value in ["/a b", "/a#b", "/a\"b", "", "/a\nlog-file /etc/passwd"] {
            let settings = Settings { cgroup_root: Some(value.into()), ..Settings::default() };
            assert!(matches!(settings.render(), Err(CriuError::Unspeakable { .. })), "{value:?}");
        }
    }
}
