//! What went wrong, for the person at the keyboard.

use std::io;

/// Exit code of a wait whose time is over; what was waited for goes on.
const TIME_OVER: u8 = 4;
/// Exit code of a checkpoint or restore that failed.
const FAILED: u8 = 3;

/// Why a verb did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{action}: {source}")]
    System { action: &'static str, source: io::Error },
    #[error("cannot use the kubeconfig: {0}; see `kubectl config view`")]
    Config(String),
    #[error("{action}: {}", said(source))]
    Api { action: String, source: Box<kube::Error> },
    #[error(
        "the cluster does not know {0}: cryopod's definitions are not installed (`helm install cryopod …`, or `cryopod-agent crds | kubectl apply --server-side -f -`)"
    )]
    NotInstalled(&'static str),
    #[error("{0}")]
    Usage(String),
    #[error("{what} {name} failed: {message} [{reason}]")]
    Failed { what: &'static str, name: String, reason: String, message: String },
    #[error("{failed} of {all} failed; the first: {first}")]
    Some { failed: usize, all: usize, first: String },
    #[error("{what} {name} is not complete after {time}; it goes on: `kubectl cryopod describe {name}`")]
    TimeOver { what: &'static str, name: String, time: String },
    #[error(
        "no longer waiting for {what} {name}, which goes on: `kubectl cryopod describe {name}` says how far it is"
    )]
    Detached { what: &'static str, name: String },
    #[error("cannot write the answer: {0}")]
    Output(String),
    #[error("{0} of the checks failed; what to do is above")]
    Unhealthy(usize),
}

impl Error {
    /// For `map_err` of a call to the API server.
    pub(crate) fn api(action: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let action = action.into();
        move |source| Self::Api { action, source: Box::new(source) }
    }

    /// Exit code.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Failed { .. } | Self::Some { .. } | Self::Unhealthy(_) => FAILED,
            Self::TimeOver { .. } => TIME_OVER,
            Self::Detached { .. } => 130,
            Self::Usage(_) => 2,
            _ => 1,
        }
    }
}

/// What the API server said, without our library's words around it.
fn said(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        kube::Error::HyperError(_) | kube::Error::Service(_) => {
            format!("the API server cannot be reached: {error}")
        }
        other => other.to_string(),
    }
}
