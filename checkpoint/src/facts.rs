//! What a node is, as far as a memory image depends on it: recorded at capture, compared at restore.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// Facts of the node that captured, or of the one that is to restore.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeFacts {
    /// Host name, for people.
    pub hostname: String,
    /// Kernel release (`uname -r`).
    pub kernel: String,
    /// Machine (`uname -m`), e.g. `x86_64`.
    pub arch: String,
    /// CPU vendor (`vendor_id` of /proc/cpuinfo; `CPU implementer` on arm64).
    pub cpu_vendor: String,
    /// CPU flags (`flags`; `Features` on arm64).
    pub cpu_flags: BTreeSet<String>,
    /// CRIU version, e.g. `4.1.1`; None where it is not installed.
    pub criu: Option<String>,
}
