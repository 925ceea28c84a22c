//! An error as people and programs get it: what to do about it, and a refusal with its code.

use cryopod_checkpoint::kind::Kind;
use cryopod_checkpoint::recover::TurnError;
use cryopod_checkpoint::refusal::Refusal;
use cryopod_image::{LayerError, StreamError, TemplateError};
use cryopod_shim::control::client::ClientError;

use super::Error;
use crate::output::FailureReport;

impl Error {
    /// What to do, where we know it.
    pub(crate) fn advice(&self) -> Option<String> {
        if let Some(refusal) = self.refusal() {
            return Some(refusal.advice.clone());
        }
        let text = match self {
            Self::SpecExists { .. } => "--force replaces it, --print shows what would be written",
            Self::NoBundle { .. } => {
                "--bundle DIR names a directory with config.json; `cryopod spec` writes one"
            }
            Self::NoContainer { .. } | Self::NoTarget { .. } => "`cryopod list --all` shows what there is",
            Self::RestoresAsPod { id } => return Some(pod_advice(id.as_str())),
            Self::NeedsBundle { id } => {
                return Some(format!(
                    "--bundle DIR with a config.json of your own; `cryopod checkpoints show {id} -o json` has the captured one"
                ));
            }
            Self::RecordedRuntime { .. } => "--runtime says which runs it: one of these, or an absolute path",
            Self::VolumeInUse { .. } => {
                "--bundle DIR with volumes of its own; or --overwrite-volumes, if nothing else uses it"
            }
            Self::FileExists { .. } => "choose another name, or remove it first",
            Self::ContainerExists { id } => {
                return Some(format!("`cryopod delete {id}` removes it; or choose another name"));
            }
            Self::ContainerState { advice, .. } => return Some(advice.clone()),
            Self::PodState { pod, .. } | Self::NoSuchContainer { pod, .. } => {
                return Some(format!("`cryopod state {pod}` shows its containers"));
            }
            Self::WhichContainer { .. } => "--container NAME says which",
            Self::IsPod { instead, .. } => return Some(instead.clone()),
            Self::NoRuntime { .. } => "name one of these, an absolute path, or add a [runtime.NAME] section",
            Self::NoCommand { .. } => "name one: `cryopod run --template TEMPLATE CONTAINER -- COMMAND`",
            Self::Template(TemplateError::NotFound { .. }) => "`cryopod template list` shows what there is",
            Self::Template(TemplateError::Exists { name, .. }) => {
                return Some(format!("`cryopod template delete {name}` removes it; or choose another name"));
            }
            Self::Template(TemplateError::InUse { .. }) => {
                "`cryopod delete CONTAINER` and `cryopod checkpoints delete ID` remove what lives on it"
            }
            Self::Template(TemplateError::Layer {
                source: LayerError::Stream(StreamError::TooMuch(_)) | LayerError::TooMuch { .. },
                ..
            }) => "if it is meant to be that large: --max-size, --max-entries, --max-ratio",
            Self::BadSignal { .. } => "TERM, SIGUSR1, RTMIN+3 or a number from 1 to 64",
            Self::Ambiguous { .. } | Self::OnlyImported { .. } => "give the whole id",
            Self::NoCheckpoint { .. } => "`cryopod checkpoints list` shows what there is",
            Self::BinaryToTerminal => "`cryopod checkpoints export ID FILE`, or pipe it into something",
            Self::ImportFromTerminal => "`cryopod checkpoints import FILE`, or pipe an export into it",
            Self::NotRoot { .. } => "run it as root, or through sudo",
            Self::Turn(TurnError::Left { .. }) => "`cryopod recover` tries again",
            Self::Relayed { advice, .. } => return advice.clone(),
            Self::Config(_) => "`cryopod config dump` shows every key with its default",
            _ => return None,
        };
        Some(text.to_owned())
    }

    /// The refusal with its three parts, where this is one.
    fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Capture(error) => error.refusal(),
            Self::Runtime(error) => error.refusal(),
            Self::Shim(ClientError::Refused { refusal, .. }) => refusal.as_deref(),
            _ => None,
        }
    }

    /// As programs and people get it.
    pub(crate) fn report(&self) -> FailureReport {
        let refusal = self.refusal();
        let said = self.to_string();
        FailureReport {
            kind: kind_name(self.kind()),
            code: refusal.map(|refusal| refusal.code.clone()),
            message: match refusal {
                // The advice stands by itself.
                Some(it) if it.to_string() == said => format!("{} [{}]", it.text, it.code),
                _ => said,
            },
            advice: self.advice(),
        }
    }
}

/// What brings a checkpoint of a pod back.
pub(crate) fn pod_advice(id: &str) -> String {
    format!("create a pod with the annotation cryopod.dev/restore-from: {id}")
}

/// The word for a kind that stands in JSON and in the documentation.
fn kind_name(kind: Kind) -> String {
    match serde_json::to_value(kind) {
        Ok(serde_json::Value::String(name)) => name,
        _ => "internal".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cryopod_checkpoint::capture::CaptureError;
    use cryopod_checkpoint::target::TargetError;

    #[test]
    fn a_refusal_keeps_its_code_and_its_advice_apart_from_its_text() {
        let refusal = Refusal::new("io-uring", "process 7 uses io_uring", "checkpoint the disk only");
        let report = Error::Capture(CaptureError::Refused(refusal)).report();
        assert_eq!(report.kind, "failed-precondition");
        assert_eq!(report.code.as_deref(), Some("io-uring"));
        assert_eq!(report.message, "process 7 uses io_uring [io-uring]");
        assert_eq!(report.advice.as_deref(), Some("checkpoint the disk only"));
    }

    #[test]
    fn a_refusal_by_a_shim_is_the_same_as_one_of_our_own() {
        let refusal = Refusal::new("io-uring", "process 7 uses io_uring", "checkpoint the disk only");
        let own = Error::Capture(CaptureError::Refused(refusal.clone())).report();
        let kind = Kind::FailedPrecondition;
        let message = refusal.to_string();
        let shim = ClientError::Refused { kind, message, refusal: Some(Box::new(refusal)) };
        assert_eq!(Error::Shim(shim).report(), own);
        let older = ClientError::Refused { kind, message: "no [io-uring]".to_owned(), refusal: None };
        assert_eq!(Error::Shim(older).report().code, None);
    }

    #[test]
    fn a_refusal_by_the_dump_keeps_what_was_said_and_has_its_code() {
        let refusal = Refusal::new("io-uring", "criu cannot dump web", "checkpoint the disk only");
        let error = TargetError {
            step: "dump",
            container: "web".to_owned(),
            kind: Kind::FailedPrecondition,
            refused: Some(Box::new(refusal)),
            source: "criu failed; its log: /x".into(),
        };
        let report = Error::Capture(CaptureError::Target(error)).report();
        assert_eq!(report.message, "dump of container web: criu failed; its log: /x");
        assert_eq!(report.code.as_deref(), Some("io-uring"));
        assert_eq!(report.advice.as_deref(), Some("checkpoint the disk only"));
    }
}
