//! The command line.

use std::path::Path;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Freeze running pods into checkpoints and bring them back.
#[derive(Debug, Parser)]
#[command(name = "kubectl cryopod", bin_name = "kubectl cryopod", version, about)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// Flags of every verb, as kubectl has them.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// Namespace; that of the context if not given.
    #[arg(short, long, global = true)]
    pub(crate) namespace: Option<String>,
    /// Context of the kubeconfig.
    #[arg(long, global = true)]
    pub(crate) context: Option<String>,
    /// The kubeconfig; KUBECONFIG or ~/.kube/config if not given.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) kubeconfig: Option<std::path::PathBuf>,
    /// Act as this user.
    #[arg(long = "as", global = true, value_name = "USER")]
    pub(crate) impersonate: Option<String>,
    /// Output.
    #[arg(short, long, global = true, value_enum)]
    pub(crate) output: Option<Format>,
    /// Only say what would be made: `client` without asking the server, `server` with all its checks.
    #[arg(long, global = true, value_enum, num_args = 0..=1, default_missing_value = "client", require_equals = true)]
    pub(crate) dry_run: Option<DryRun>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Json,
    Yaml,
    Wide,
    Name,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DryRun {
    Client,
    Server,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Capture running pods, memory and disk at one instant.
    Checkpoint(CheckpointArgs),
    /// Bring a captured pod back, on the node that has the checkpoint.
    Restore(RestoreArgs),
    /// Make several pods from a checkpoint, each continuing where the captured one was.
    Clone(CloneArgs),
    /// Checkpoints, and what became of them.
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// All about one checkpoint, with its events.
    Describe(DescribeArgs),
    /// Delete checkpoints and their data.
    Delete(DeleteArgs),
    /// Checkpoints by the clock, and before a node is drained.
    Schedule(ScheduleArgs),
    /// Whether cluster and nodes can do all this, and what to do about it if not.
    Doctor,
    /// Completions of a shell.
    Completion(CompletionArgs),
}

#[derive(Debug, Args)]
pub(crate) struct Waiting {
    /// Wait until it is complete; `--wait=false` returns at once.
    #[arg(long, num_args = 0..=1, default_value_t = true, default_missing_value = "true", require_equals = true, action = clap::ArgAction::Set)]
    pub(crate) wait: bool,
    /// Longest wait, e.g. 5m; and longest capture or restore.
    #[arg(long, value_parser = duration, value_name = "DURATION")]
    pub(crate) timeout: Option<std::time::Duration>,
}

#[derive(Debug, Args)]
pub(crate) struct CheckpointArgs {
    /// Pods, as NAME or pod/NAME.
    #[arg(required_unless_present = "selector")]
    pub(crate) pods: Vec<String>,
    /// Pods with these labels instead.
    #[arg(short = 'l', long, conflicts_with = "pods")]
    pub(crate) selector: Option<String>,
    /// How many at the same time.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000), value_name = "N")]
    pub(crate) max_concurrent: u16,
    /// Name of the checkpoint, for one pod; made of pod and time if not given.
    #[arg(long, conflicts_with = "selector")]
    pub(crate) name: Option<String>,
    /// Memory and disk (full), disk alone (disk), or whichever is possible (auto).
    #[arg(long, value_enum)]
    pub(crate) mode: Option<ModeArg>,
    /// These containers instead of the whole pod, with commas or given several times.
    #[arg(short, long, value_delimiter = ',', value_name = "NAME")]
    pub(crate) container: Vec<String>,
    /// Delete the checkpoint so long after it was taken, e.g. 720h.
    #[arg(long, value_parser = duration_text, value_name = "DURATION")]
    pub(crate) ttl: Option<String>,
    /// Keep the data on its node when the object is deleted.
    #[arg(long)]
    pub(crate) retain: bool,
    #[command(flatten)]
    pub(crate) waiting: Waiting,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ModeArg {
    Auto,
    Full,
    Disk,
}

#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// The checkpoint.
    pub(crate) checkpoint: String,
    /// Name of the new pod; that of the captured one if not given.
    #[arg(long = "as-pod", value_name = "NAME")]
    pub(crate) pod: Option<String>,
    /// Name of the restore; made of checkpoint and time if not given.
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Change the pod by a JSON merge patch on {"metadata": …, "spec": …}.
    #[arg(short, long, value_name = "JSON")]
    pub(crate) patch: Vec<String>,
    #[command(flatten)]
    pub(crate) waiting: Waiting,
}

#[derive(Debug, Args)]
pub(crate) struct CloneArgs {
    /// The checkpoint.
    pub(crate) checkpoint: String,
    /// How many.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..=100))]
    pub(crate) count: i32,
    /// Name of the restore, which the pods are named after; made of checkpoint and time if not given.
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Change the pods by a JSON merge patch on {"metadata": …, "spec": …}.
    #[arg(short, long, value_name = "JSON")]
    pub(crate) patch: Vec<String>,
    #[command(flatten)]
    pub(crate) waiting: Waiting,
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Of all namespaces.
    #[arg(short = 'A', long)]
    pub(crate) all_namespaces: bool,
    /// With these labels.
    #[arg(short = 'l', long)]
    pub(crate) selector: Option<String>,
    /// Of this pod.
    #[arg(long)]
    pub(crate) pod: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct DescribeArgs {
    /// The checkpoint or restore.
    pub(crate) name: String,
}

#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    /// Checkpoints.
    #[arg(required_unless_present = "selector")]
    pub(crate) names: Vec<String>,
    /// Checkpoints with these labels instead.
    #[arg(short = 'l', long, conflicts_with = "names")]
    pub(crate) selector: Option<String>,
    #[command(flatten)]
    pub(crate) waiting: Waiting,
}

#[derive(Debug, Args)]
pub(crate) struct ScheduleArgs {
    #[command(subcommand)]
    pub(crate) verb: ScheduleVerb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ScheduleVerb {
    /// Make a schedule.
    Create(Box<ScheduleCreateArgs>),
    /// Schedules and when they are due.
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Take its checkpoints now.
    Run(NameArgs),
    /// Take none until it is resumed.
    Suspend(NameArgs),
    /// Take them again.
    Resume(NameArgs),
    /// Delete it; its checkpoints stay.
    Delete(NameArgs),
}

#[derive(Debug, Args)]
pub(crate) struct NameArgs {
    /// The schedule.
    pub(crate) name: String,
}

#[derive(Debug, Args)]
pub(crate) struct ScheduleCreateArgs {
    /// Its name.
    pub(crate) name: String,
    /// Times in cron's five fields, e.g. "0 3 * * *".
    #[arg(long, required_unless_present = "before_drain")]
    pub(crate) schedule: Option<String>,
    /// IANA time zone of the times.
    #[arg(long)]
    pub(crate) time_zone: Option<String>,
    /// The pods, by their labels.
    #[arg(short = 'l', long)]
    pub(crate) selector: Option<String>,
    /// Capture the pods of a node that is drained before they are evicted.
    #[arg(long)]
    pub(crate) before_drain: bool,
    /// What is captured.
    #[arg(long, value_enum)]
    pub(crate) mode: Option<ModeArg>,
    /// How many at the same time.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..=1000), value_name = "N")]
    pub(crate) max_concurrent: i32,
    /// Keep the newest N of each pod.
    #[arg(long, value_name = "N")]
    pub(crate) keep_last: Option<u32>,
    /// Keep one of each of the last N hours.
    #[arg(long, value_name = "N")]
    pub(crate) keep_hourly: Option<u32>,
    /// Keep one of each of the last N days.
    #[arg(long, value_name = "N")]
    pub(crate) keep_daily: Option<u32>,
    /// Keep one of each of the last N weeks.
    #[arg(long, value_name = "N")]
    pub(crate) keep_weekly: Option<u32>,
    /// Keep one of each of the last N months.
    #[arg(long, value_name = "N")]
    pub(crate) keep_monthly: Option<u32>,
    /// Keep one of each of the last N years.
    #[arg(long, value_name = "N")]
    pub(crate) keep_yearly: Option<u32>,
    /// Keep no more than this in all, e.g. 20Gi.
    #[arg(long, value_name = "SIZE")]
    pub(crate) max_total_size: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct CompletionArgs {
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

/// `kubectl-checkpoint` and `kubectl-restore` are links to this program, whose name is the verb.
pub(crate) fn with_verb_of_name(mut argv: Vec<String>) -> Vec<String> {
    let name = argv.first().map(|path| Path::new(path).file_name().unwrap_or_default().to_owned());
    let verb = match name.as_ref().and_then(|name| name.to_str()) {
        Some("kubectl-checkpoint") => "checkpoint",
        Some("kubectl-restore") => "restore",
        _ => return argv,
    };
    argv.insert(1, verb.to_owned());
    argv
}

fn duration(text: &str) -> Result<std::time::Duration, String> {
    cryopod_agent::api::duration::parse(text).map_err(|error| error.to_string())
}

fn duration_text(text: &str) -> Result<String, String> {
    duration(text).map(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn argv(line: &str) -> Vec<String> {
        with_verb_of_name(line.split(' ').map(str::to_owned).collect())
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_link_is_its_verb() {
        assert_eq!(argv("/usr/bin/kubectl-checkpoint web")[1..], ["checkpoint", "web"]);
        assert_eq!(argv("kubectl-restore cp -n x")[1..], ["restore", "cp", "-n", "x"]);
        assert_eq!(argv("kubectl-cryopod list")[1..], ["list"]);
    }

    #[test]
    fn what_kubectl_users_write_is_understood() {
        let cli =
            Cli::try_parse_from(argv("k checkpoint pod/web -n x --wait=false --dry-run=server -o name"))
                .unwrap();
        assert_eq!(cli.global.dry_run, Some(DryRun::Server));
        let Verb::Checkpoint(args) = cli.verb else { panic!() };
        assert!(!args.waiting.wait);
        let cli = Cli::try_parse_from(argv("k checkpoint web --dry-run --timeout 5m")).unwrap();
        assert_eq!(cli.global.dry_run, Some(DryRun::Client));
        for bad in [
            "k checkpoint",
            "k checkpoint web -l a=b",
            "k checkpoint web --ttl soon",
            "k clone cp --count 0",
            "k schedule create x",
        ] {
            assert!(Cli::try_parse_from(argv(bad)).is_err(), "{bad}");
        }
    }
}
