//! What a caller may choose about a capture.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::facts::NodeFacts;
use crate::id::CheckpointId;
use crate::progress::Progress;
use crate::refusal::Refusal;
use crate::target::TcpPolicy;

/// What is to be captured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Memory and disk, or a refusal.
    Full,
    /// Disk alone.
    Disk,
    /// Memory and disk where memory is possible, else disk alone with the reason in the manifest.
    #[default]
    Auto,
}

/// Memory rounds before the freeze.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PreDump {
    /// Up to two for members with at least [`CaptureOptions::pre_dump_min_rss`] of memory.
    #[default]
    Auto,
    /// None.
    Never,
}

/// Bytes that are copied inside a freeze unless the configuration says otherwise: about a second on a slow disk.
pub const DEFAULT_COPY_LIMIT: u64 = 256 << 20;

/// Memory from which a pre-dump round saves more than it costs, unless the configuration says otherwise (experiments.md
/// E5: the freeze is five times shorter at 256 MiB, not shorter at 16 MiB).
pub const DEFAULT_PRE_DUMP_MIN_RSS: u64 = 64 << 20;

/// Options of one capture.
#[derive(Clone)]
pub struct CaptureOptions<'a> {
    /// Its id; None generates one from the pod's name.
    pub id: Option<CheckpointId>,
    /// What is captured.
    pub mode: Mode,
    /// Leave the pod stopped for good once the checkpoint is committed. Until then any failure thaws it.
    pub exit: bool,
    /// Established TCP connections.
    pub tcp: TcpPolicy,
    /// Memory rounds before the freeze.
    pub pre_dump: PreDump,
    /// Resident memory in bytes from which a member has rounds; a round that wrote less is the last.
    pub pre_dump_min_rss: u64,
    /// All images of a member in one directory without parents, as the CRI archive needs it: no pre-dump rounds.
    pub flat: bool,
    /// Free text of the caller, kept in the manifest.
    pub labels: BTreeMap<String, String>,
    /// Who asked a cluster for it, for the audit log.
    pub requested_by: Option<String>,
    /// Who listens.
    pub progress: &'a dyn Progress,
    /// Why memory is impossible, from the runtime's preflight.
    pub memory_preflight: Result<(), Refusal>,
    /// The capturing node.
    pub node: NodeFacts,
    /// Bytes that may be copied inside the freeze.
    pub copy_limit: u64,
}

impl<'a> CaptureOptions<'a> {
    /// Defaults: mode `auto`, memory possible, nobody stops.
    pub fn new(node: NodeFacts, progress: &'a dyn Progress) -> Self {
        Self {
            id: None,
            mode: Mode::default(),
            exit: false,
            tcp: TcpPolicy::default(),
            pre_dump: PreDump::default(),
            pre_dump_min_rss: DEFAULT_PRE_DUMP_MIN_RSS,
            flat: false,
            labels: BTreeMap::new(),
            requested_by: None,
            progress,
            memory_preflight: Ok(()),
            node,
            copy_limit: DEFAULT_COPY_LIMIT,
        }
    }
}
