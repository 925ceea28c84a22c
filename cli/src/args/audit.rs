//! Options of `audit`.

use clap::{Args, Subcommand};

/// What to do with the log of operations.
#[derive(Debug, Clone, Copy, Subcommand)]
pub(crate) enum AuditVerb {
    /// Show the last operations on checkpoints: who, what, when, and how it ended
    List(AuditListArgs),
    /// Read the whole log and say whether a line was changed or taken out
    Verify,
}

/// Options of `audit list`.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct AuditListArgs {
    /// How many
    #[arg(short = 'n', long, value_name = "N", default_value_t = 20)]
    pub(crate) lines: usize,
}
