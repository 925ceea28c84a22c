//! What a runtime said when it failed, from its JSON log or from stderr, and what that means to a caller.
//!
//! Runtimes report through words alone. This is the one place that reads them; what is not recognised is `Internal`,
//! never "absent".

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use cryopod_checkpoint::kind::Kind;
use serde::Deserialize;

/// The most of a log's end that is read.
const TAIL: u64 = 32 << 10;
/// The longest message that is passed on.
const LONGEST: usize = 2000;

#[derive(Deserialize)]
struct Line {
    #[serde(default)]
    level: String,
    #[serde(default)]
    msg: String,
}

/// The last words of a log file; empty when there are none.
pub(super) fn in_log(path: &Path) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = std::fs::File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
        let mut bytes = Vec::new();
        file.take(TAIL).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    read().map(|text| last_error(&text)).unwrap_or_default()
}

/// The last error of a text of JSON lines, logrus lines or plain lines; empty when there is none.
pub(super) fn last_error(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let errors = lines.iter().rev().filter_map(|line| {
        let parsed: Line = serde_json::from_str(line).ok()?;
        let serious = matches!(parsed.level.as_str(), "error" | "fatal" | "panic");
        (serious && !parsed.msg.is_empty()).then_some(parsed.msg)
    });
    // CRIU excerpts come after the error in crun, before it in runc; they are read from CRIU's own log.
    let error = errors
        .clone()
        .find(|message| !message.starts_with("---"))
        .or_else(|| lines.iter().rev().find(|line| !line.starts_with('{')).map(|line| (*line).to_owned()));
    error.unwrap_or_default().chars().take(LONGEST).collect()
}

/// What a message means to a caller.
pub(super) fn kind(message: &str) -> Kind {
    const TABLE: &[(&str, Kind)] = &[
        ("container does not exist", Kind::NotFound),
        ("does not exist", Kind::NotFound),
        ("process already finished", Kind::NotFound),
        ("No such process", Kind::NotFound),
        ("no such process", Kind::NotFound),
        ("already exists", Kind::AlreadyExists),
        ("is not running", Kind::FailedPrecondition),
        ("container not running", Kind::FailedPrecondition),
        ("is not paused", Kind::FailedPrecondition),
        ("stopped container", Kind::FailedPrecondition),
        ("container is stopped", Kind::FailedPrecondition),
        ("cannot start a container", Kind::FailedPrecondition),
        ("No space left on device", Kind::ResourceExhausted),
        ("no space left on device", Kind::ResourceExhausted),
        ("Disk quota exceeded", Kind::ResourceExhausted),
        ("unknown command", Kind::Unimplemented),
    ];
    // `open ...: No such file or directory` is about some file, not about the container.
    TABLE.iter().find(|(text, _)| message.contains(text)).map_or(Kind::Internal, |(_, kind)| *kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_error_of_a_json_log_counts() {
        let text = r#"{"msg":"cgroup: skipping","level":"warning","time":"t"}
{"msg":"container `c1` does not exist","level":"error","time":"t"}
{"msg":"bye","level":"debug","time":"t"}
"#;
        assert_eq!(last_error(text), "container `c1` does not exist");
        assert_eq!(kind(&last_error(text)), Kind::NotFound);
    }

    #[test]
    fn plain_text_is_understood_too() {
        assert_eq!(last_error("\nruntime: unknown flag\n\n"), "runtime: unknown flag");
        assert_eq!(last_error(""), "");
    }

    #[test]
    fn messages_of_both_runtimes_have_their_kind() {
        for (message, expected) in [
            ("container with given ID already exists", Kind::AlreadyExists),
            ("container `c1` already exists", Kind::AlreadyExists),
            ("container does not exist", Kind::NotFound),
            ("cannot exec in a stopped container", Kind::FailedPrecondition),
            ("the container `c1` is not running", Kind::FailedPrecondition),
            ("write /x: no space left on device", Kind::ResourceExhausted),
            ("open `/bin/app`: No such file or directory", Kind::Internal),
        ] {
            assert_eq!(kind(message), expected, "{message}");
        }
    }
}
