//! A capture that is not possible, said before anything is touched: a stable code, the reason, what to do.

use serde::{Deserialize, Serialize};

/// Why something was refused. The codes are documented in docs/reference and never change their meaning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{text} [{code}]; {advice}")]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    /// Stable code, e.g. `no-space`, `io-uring`, `criu-too-old`.
    pub code: String,
    /// What is in the way, with the container, file or volume named.
    pub text: String,
    /// What the person can do about it.
    pub advice: String,
}

impl Refusal {
    /// A refusal from its three parts.
    pub fn new(code: &str, text: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { code: code.to_owned(), text: text.into(), advice: advice.into() }
    }
}

/// Code and meaning of the refusals of this crate; they depend on sizes, files and other captures, not on what runs in the pod.
pub const CODES: &[(&str, &str)] = &[
    (BUSY, "another checkpoint of the same pod is being taken"),
    (NO_SPACE, "the store lacks the space for the checkpoint"),
    (COPY_TOO_LARGE, "a volume that is not on ZFS is larger than what may be copied inside the freeze"),
    (COPY_UNREADABLE, "a volume that is not on ZFS cannot be read"),
    (
        SHARED_UNLINKED,
        "a deleted file of a volume shared with an earlier container is open and still has another name",
    ),
];

/// Only one capture of a pod at a time: the only refusal that passes by itself.
pub const BUSY: &str = "busy";
/// The store has not enough room for the memory images.
pub const NO_SPACE: &str = "no-space";
/// A volume or layer that must be copied inside the freeze is larger than the bound for that.
pub const COPY_TOO_LARGE: &str = "copy-too-large";
/// A tree that must be copied is nested too deeply or cannot be read.
pub const COPY_UNREADABLE: &str = "copy-unreadable";
/// A container has a file of a shared volume open whose name is gone but not its last link, and the volume was captured
/// with another container in a way that cannot hold that file's link.
pub const SHARED_UNLINKED: &str = "shared-unlinked-file";
