//! Options of the verbs on checkpoints.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand, ValueEnum};

use super::containers::pair;

/// What is captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ModeArg {
    /// Memory and disk where possible, else disk – and it says so
    Auto,
    /// Memory and disk, or nothing
    Full,
    /// Disk only, still one instant
    Disk,
}

/// What happens to established TCP connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TcpArg {
    /// They go on where the restored container has the same address; else they are closed
    Keep,
    /// They are closed, so that clients connect again
    Close,
}

/// Options of `checkpoint`.
#[derive(Debug, Clone, Args)]
pub(crate) struct CheckpointArgs {
    /// Container, or pod by name, namespace/name or id
    #[arg(value_name = "CONTAINER|POD")]
    pub(crate) target: String,
    /// What is captured [default: as the annotation cryopod.dev/checkpoint-mode says, else as configured]
    #[arg(short, long, value_enum)]
    pub(crate) mode: Option<ModeArg>,
    /// Id of the checkpoint [default: made from name and time]
    #[arg(long)]
    pub(crate) id: Option<String>,
    /// Only this container of the pod
    #[arg(short, long, value_name = "NAME")]
    pub(crate) container: Option<String>,
    /// Leave it stopped for good once it is captured
    #[arg(long)]
    pub(crate) exit: bool,
    /// Established TCP connections [default: as configured]
    #[arg(long, value_enum)]
    pub(crate) tcp: Option<TcpArg>,
    /// Labels, shown by `checkpoints list`
    #[arg(short, long = "label", value_name = "NAME=VALUE", value_parser = pair)]
    pub(crate) labels: Vec<(String, String)>,
    /// Stay until it is settled: in the store, independent of its source
    #[arg(long)]
    pub(crate) wait: bool,
    /// Give up after this many seconds; what was frozen goes on [default: as configured]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) timeout: Option<u64>,
}

/// Options of `restore`.
#[derive(Debug, Clone, Args)]
pub(crate) struct RestoreArgs {
    /// Checkpoint, or a container whose latest checkpoint of this node is meant
    #[arg(value_name = "CHECKPOINT|CONTAINER")]
    pub(crate) source: String,
    /// Another checkpoint of that container than the latest: its id, or a unique beginning of it
    #[arg(long, value_name = "NAME")]
    pub(crate) snapshot: Option<String>,
    /// Name of the restored container [default: the name it had]
    #[arg(long, value_name = "CONTAINER")]
    pub(crate) name: Option<String>,
    /// Bundle whose config.json is used, with its volumes; its root stays as it is [default: as captured; an imported
    /// checkpoint needs one]
    #[arg(short, long, value_name = "DIR")]
    pub(crate) bundle: Option<PathBuf>,
    /// Replace what is in the volumes of the bundle
    #[arg(long, requires = "bundle")]
    pub(crate) overwrite_volumes: bool,
    /// Stay with it as `run` does
    #[arg(short, long)]
    pub(crate) attach: bool,
    /// Write the PID of the container's init there
    #[arg(long, value_name = "FILE")]
    pub(crate) pid_file: Option<PathBuf>,
    /// Established TCP connections [default: as chosen for the checkpoint]
    #[arg(long, value_enum)]
    pub(crate) tcp: Option<TcpArg>,
    /// Runtime [default: the one that ran it]
    #[arg(long, value_name = "RUNTIME")]
    pub(crate) runtime: Option<String>,
}

/// What to do with stored checkpoints.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum CheckpointsVerb {
    /// List them, newest first
    #[command(visible_alias = "ls")]
    List(ListCheckpointsArgs),
    /// Everything that is known of one: manifest, timeline, sizes, who shares its space
    Show(ShowArgs),
    /// Compare every stored byte with its hash
    Verify(VerifyArgs),
    /// Delete some; space that restored containers share is freed when the last of them goes
    #[command(visible_alias = "rm")]
    Delete(DeleteCheckpointArgs),
    /// Keep some from being pruned, until `release`
    Hold(HoldArgs),
    /// Let `prune` decide again about some that are held
    Release(HoldArgs),
    /// Delete what no rule keeps
    Prune(PruneArgs),
    /// Write one as a stream that `import` reads, on this node or another
    Export(ExportArgs),
    /// Read a stream and verify it; only then it is in the store
    Import(ImportArgs),
}

/// Options of `checkpoints list`.
#[derive(Debug, Clone, Args)]
pub(crate) struct ListCheckpointsArgs {
    /// Only of this pod or container: name, namespace/name or id
    #[arg(long, value_name = "NAME")]
    pub(crate) pod: Option<String>,
    /// Ids only
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// Options of `checkpoints show`.
#[derive(Debug, Clone, Args)]
pub(crate) struct ShowArgs {
    /// Checkpoint, or a container or pod whose latest is meant
    #[arg(value_name = "CHECKPOINT")]
    pub(crate) id: String,
}

/// Options of `checkpoints verify`.
#[derive(Debug, Clone, Args)]
pub(crate) struct VerifyArgs {
    /// Checkpoints
    #[arg(value_name = "CHECKPOINT", required_unless_present = "all", conflicts_with = "all")]
    pub(crate) ids: Vec<String>,
    /// All of them
    #[arg(long)]
    pub(crate) all: bool,
}

/// Options of `checkpoints delete`.
#[derive(Debug, Clone, Args)]
pub(crate) struct DeleteCheckpointArgs {
    /// Checkpoint ids
    #[arg(value_name = "CHECKPOINT", required = true)]
    pub(crate) ids: Vec<String>,
}

/// Options of `checkpoints hold` and `checkpoints release`.
#[derive(Debug, Clone, Args)]
pub(crate) struct HoldArgs {
    /// Checkpoint ids
    #[arg(value_name = "CHECKPOINT", required = true)]
    pub(crate) ids: Vec<String>,
}

/// Options of `checkpoints prune`.
#[derive(Debug, Clone, Args)]
#[command(group = ArgGroup::new("rule").required(true).multiple(true))]
pub(crate) struct PruneArgs {
    /// Keep the newest N of each pod
    #[arg(long, value_name = "N", group = "rule")]
    pub(crate) keep_last: Option<u32>,
    /// Keep the newest of each of the last N hours that have one
    #[arg(long, value_name = "N", group = "rule")]
    pub(crate) keep_hourly: Option<u32>,
    /// … of the last N days
    #[arg(long, value_name = "N", group = "rule")]
    pub(crate) keep_daily: Option<u32>,
    /// … of the last N weeks
    #[arg(long, value_name = "N", group = "rule")]
    pub(crate) keep_weekly: Option<u32>,
    /// … of the last N months
    #[arg(long, value_name = "N", group = "rule")]
    pub(crate) keep_monthly: Option<u32>,
    /// … of the last N years
    #[arg(long, value_name = "N", group = "rule")]
    pub(crate) keep_yearly: Option<u32>,
    /// Only those of this pod or container
    #[arg(long, value_name = "NAME")]
    pub(crate) pod: Option<String>,
    /// Say what would be deleted, and delete nothing
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
}

/// Options of `checkpoints export`.
#[derive(Debug, Clone, Args)]
pub(crate) struct ExportArgs {
    /// Checkpoint
    #[arg(value_name = "CHECKPOINT")]
    pub(crate) id: String,
    /// Leave out the images' root file systems; only a node that has them can import it
    #[arg(long)]
    pub(crate) without_bases: bool,
    /// File, or - for standard output
    #[arg(default_value = "-")]
    pub(crate) file: PathBuf,
}

/// Options of `checkpoints import`.
#[derive(Debug, Clone, Args)]
pub(crate) struct ImportArgs {
    /// It comes from a node of ours: its images are shared with other checkpoints
    #[arg(long)]
    pub(crate) trusted: bool,
    /// File, or - for standard input
    #[arg(default_value = "-")]
    pub(crate) file: PathBuf,
}
