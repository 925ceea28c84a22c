//! Everything about CRIU that does not depend on the runtime which calls it.
//!
//! crun and runc start `criu swrk` themselves; what we want of it goes through a file of its own for each call, named
//! by `CRIU_CONFIG_FILE` (works with both, and the hook runs once; /etc/criu files and annotations do not). The facts
//! behind each setting are measured on a node with CRIU 4.1.1, crun 1.21 and runc 1.1.15; docs/ has the table.
//!
//! criu is never killed: then the network stays locked, `link_remap.*` files stay and a pause is lost. The runtime is
//! ended instead; criu notices at its next message, rolls back and ends ([`orphans`]). What a killed criu leaves is
//! cleaned by [`netlock`] and [`leftovers`].

pub mod advice;
pub mod headless;
pub mod hook;
pub mod images;
pub mod leftovers;
pub mod netlock;
pub mod operation;
pub mod orphans;
pub mod settings;
pub mod stats;
pub mod version;

use std::io;
use std::path::PathBuf;

use cryopod_checkpoint::kind::Kind;

use crate::error::{of_command, of_io};
use advice::Reason;
use version::Version;

/// What went wrong with CRIU.
#[derive(Debug, thiserror::Error)]
pub enum CriuError {
    /// It is not installed.
    #[error("criu is not installed ('{program}' not found): apt install criu")]
    Missing {
        /// As configured.
        program: String,
    },
    /// It does not know what we need.
    #[error("criu {version} is too old, {floor} or newer is needed")]
    TooOld {
        /// Installed.
        version: Version,
        /// Needed.
        floor: Version,
    },
    /// It could not be asked.
    #[error("cannot ask criu for its version: {source}")]
    Ask {
        /// Why.
        source: cryopod_command::Error,
    },
    /// It answered something else.
    #[error("'{program} --version' answered '{answer}', which holds no version")]
    NoVersion {
        /// As configured.
        program: String,
        /// What it said.
        answer: String,
    },
    /// CRIU's configuration format cannot say it.
    #[error("{setting} '{value}' holds a space, quote or '#', which CRIU's configuration cannot express")]
    Unspeakable {
        /// Name of the setting.
        setting: &'static str,
        /// The value.
        value: String,
    },
    /// A file of ours.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The dump or restore failed.
    #[error("criu {verb} failed: {said}{}{}", advised(reason.as_ref()), kept(log.as_ref()))]
    Failed {
        /// `dump`, `pre-dump` or `restore`.
        verb: &'static str,
        /// Its last error lines, or the runtime's.
        said: String,
        /// The known reason behind them.
        reason: Option<&'static Reason>,
        /// Where the whole log is kept until the next failure.
        log: Option<PathBuf>,
    },
    /// The work at the instant failed, so CRIU rolled the dump back.
    #[error("rolled back: {text}")]
    Hook {
        /// What the hook's work said.
        text: String,
    },
    /// The dump ended without calling us, so nothing was captured at its instant.
    #[error("criu dumped container {container} without calling the hook {}: is CRIU_CONFIG_FILE honoured?", hook.display())]
    HookNotCalled {
        /// Container id.
        container: String,
        /// The action script.
        hook: PathBuf,
    },
    /// The statistics file does not parse.
    #[error("{} is no CRIU statistics file", path.display())]
    Stats {
        /// The file.
        path: PathBuf,
    },
    /// The runtime was ended, and criu goes on.
    #[error("criu still works on container {container} (process {pids}); it ends by itself, do not kill it")]
    StillRunning {
        /// Container id.
        container: String,
        /// Process ids.
        pids: String,
    },
    /// The restored process is not where it belongs.
    #[error("restored process {pid} of container {container} is in {what} {found}, not in {expected}")]
    Misplaced {
        /// Container id.
        container: String,
        /// Process id on the host.
        pid: u32,
        /// `cgroup` or `network namespace`.
        what: &'static str,
        /// Where it is.
        found: String,
        /// Where it belongs.
        expected: String,
    },
    /// The network lock could not be looked for or removed.
    #[error("cannot remove CRIU's network lock from network namespace {}: {source}", netns.display())]
    NetLock {
        /// The namespace.
        netns: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

fn advised(reason: Option<&&'static Reason>) -> String {
    reason.map(|reason| format!(" [{}]; {}", reason.code, reason.advice)).unwrap_or_default()
}

fn kept(log: Option<&PathBuf>) -> String {
    log.map(|log| format!(" (log: {})", log.display())).unwrap_or_default()
}

impl CriuError {
    /// How a caller should react.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Missing { .. } | Self::TooOld { .. } => Kind::FailedPrecondition,
            Self::Ask { source } => of_command(source),
            Self::Unspeakable { .. } => Kind::InvalidArgument,
            Self::File { source, .. } | Self::NetLock { source, .. } => of_io(source),
            Self::Failed { reason, .. } => reason.map_or(Kind::Internal, |reason| reason.kind),
            Self::StillRunning { .. } => Kind::Unavailable,
            Self::NoVersion { .. }
            | Self::Hook { .. }
            | Self::HookNotCalled { .. }
            | Self::Stats { .. }
            | Self::Misplaced { .. } => Kind::Internal,
        }
    }
}
