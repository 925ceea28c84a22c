//! Who decides how a capture is made: the caller, then the annotation of the container, then the configuration, whose
//! defaults are the built-in ones.
//!
//! Shims and the command ask here, so that one pod or container is captured in the same way by both.

use cryopod_checkpoint::capture::Mode;

use crate::config::CheckpointMode;
use crate::spec::annotation;

/// An annotation has a value that is no mode.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the annotation {key} is {0:?}; expected full, disk or auto", key = annotation::CHECKPOINT_MODE)]
pub struct UnknownMode(pub String);

/// The mode of a capture. `annotated` is the value of `cryopod.dev/checkpoint-mode`, which is only read where the caller
/// asks for nothing.
///
/// # Errors
/// When the annotation decides and has an unknown value.
pub fn mode(
    asked: Option<Mode>,
    annotated: Option<&str>,
    configured: CheckpointMode,
) -> Result<Mode, UnknownMode> {
    match (asked, annotated) {
        (Some(asked), _) => Ok(asked),
        (None, Some(word)) => parse_mode(word).ok_or_else(|| UnknownMode(word.to_owned())),
        (None, None) => Ok(configured.into()),
    }
}

/// The mode that a word of an annotation or a request means.
pub fn parse_mode(word: &str) -> Option<Mode> {
    match word {
        "full" => Some(Mode::Full),
        "disk" => Some(Mode::Disk),
        "auto" => Some(Mode::Auto),
        _ => None,
    }
}

impl From<CheckpointMode> for Mode {
    fn from(mode: CheckpointMode) -> Self {
        match mode {
            CheckpointMode::Auto => Mode::Auto,
            CheckpointMode::Full => Mode::Full,
            CheckpointMode::Disk => Mode::Disk,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caller_decides_before_the_annotation_and_that_before_the_configuration() {
        let configured = CheckpointMode::Disk;
        assert_eq!(mode(Some(Mode::Auto), Some("full"), configured), Ok(Mode::Auto));
        assert_eq!(mode(None, Some("full"), configured), Ok(Mode::Full));
        assert_eq!(mode(None, None, configured), Ok(Mode::Disk));
        assert_eq!(mode(None, None, CheckpointMode::default()), Ok(Mode::Auto));
    }

    #[test]
    fn an_unknown_annotation_is_an_error_only_where_it_decides() {
        let error = mode(None, Some("memory"), CheckpointMode::Auto).unwrap_err().to_string();
        assert!(error.contains("cryopod.dev/checkpoint-mode") && error.contains("memory"), "{error}");
        assert_eq!(mode(Some(Mode::Disk), Some("memory"), CheckpointMode::Auto), Ok(Mode::Disk));
    }
}
