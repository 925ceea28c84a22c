//! Errors where callers of OCI runtimes look for them.

use std::fs::OpenOptions;
use std::io::Write;

use super::args::{Global, LogFormat};

/// Says it on standard error, and in the file that the caller has named.
pub(super) fn failure(global: &Global, error: &dyn std::error::Error) {
    eprintln!("cryopod-lxc: {error}");
    let Some(path) = &global.log else { return };
    let line = match global.log_format {
        LogFormat::Text => format!("level=error msg={:?}\n", error.to_string()),
        LogFormat::Json => {
            let now = jiff::Timestamp::now().to_string();
            let entry = serde_json::json!({ "level": "error", "msg": error.to_string(), "time": now });
            format!("{entry}\n")
        }
    };
    // Whoever cannot read it there has it on standard error.
    OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)
        .and_then(|mut file| file.write_all(line.as_bytes()))
        .ok();
}
