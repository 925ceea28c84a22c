//! The command line: every verb and option in one place, since this is the surface that people and scripts hold on to.
//!
//! Help texts here are the source of `--help`, the man pages and the completions. What a verb does is in `verb/`.

mod audit;
mod checkpoints;
mod containers;
mod route;
mod templates;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

pub(crate) use audit::AuditVerb;
pub(crate) use checkpoints::{
    CheckpointArgs, CheckpointsVerb, DeleteCheckpointArgs, ExportArgs, HoldArgs, ImportArgs,
    ListCheckpointsArgs, ModeArg, PruneArgs, RestoreArgs, ShowArgs, TcpArg, VerifyArgs,
};
pub(crate) use containers::{
    CreateArgs, DeleteArgs, ExecArgs, FreezeArgs, IdArgs, KillArgs, ListArgs, RunArgs, SpecArgs,
};
pub(crate) use route::{ExplainArgs, RouteVerb};
pub(crate) use templates::{
    CreateTemplateArgs, ListTemplatesArgs, PruneTemplatesArgs, TemplateArgs, TemplateVerb, TemplatesArgs,
};

use crate::output::Format;

/// Where shims and the command keep their run-time state.
pub(crate) const DEFAULT_ROOT: &str = "/run/cryopod";

/// Run containers, freeze them – memory and disk, one instant – into a ZFS-backed store, and bring them back.
///
/// Works on OCI bundles without any daemon, and on running pods through their shim. `cryopod --backend lxc VERB` is an OCI
/// runtime whose containers are LXC containers (`cryopod --backend lxc --help`).
#[derive(Debug, Parser)]
#[command(name = "cryopod", version, disable_help_subcommand = true, subcommand_required = true)]
#[command(arg_required_else_help = true, max_term_width = 100)]
pub(crate) struct Cli {
    /// Options of every verb.
    #[command(flatten)]
    pub(crate) global: Global,
    /// What to do.
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// Options of every verb.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// Directory of run-time state: standalone containers, running shims, locks
    #[arg(long, global = true, value_name = "DIR", default_value = DEFAULT_ROOT)]
    pub(crate) root: PathBuf,
    /// Configuration file [default: /etc/cryopod/config.toml and conf.d beside it]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// What is logged to standard error [default: warn; with -o json: off]
    #[arg(long, global = true, value_name = "LEVEL", value_enum)]
    pub(crate) log_level: Option<LogLevel>,
    /// Form of results
    #[arg(short, long, global = true, value_name = "FORM", value_enum, default_value = "text")]
    pub(crate) output: Format,
    /// No colours (the same as NO_COLOR=1)
    #[arg(long, global = true)]
    pub(crate) no_color: bool,
    /// Look only at pods of this containerd namespace, such as k8s.io
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) namespace: Option<String>,
}

/// What is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogLevel {
    /// Nothing.
    Off,
    /// What failed.
    Error,
    /// What works, but worse than it could.
    Warn,
    /// What is done.
    Info,
    /// Every program that is run.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    /// As `tracing` names it.
    pub(crate) fn directive(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Create a container from a bundle or template, start it, and stay with it until it ends
    Run(RunArgs),
    /// Write a config.json to start from
    Spec(SpecArgs),
    /// Create a container from a bundle; `start` lets it run
    Create(CreateArgs),
    /// Let a created container run
    Start(IdArgs),
    /// Show the state of a container
    State(IdArgs),
    /// Send a signal to a container
    Kill(KillArgs),
    /// Remove a container and everything of it but its checkpoints
    Delete(DeleteArgs),
    /// List standalone containers and running pods
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Run a further process in a container
    Exec(ExecArgs),
    /// Stop all processes of a container until `resume`
    Pause(FreezeArgs),
    /// Let a paused container go on
    Resume(FreezeArgs),
    /// Capture memory and disk of a container or of a whole pod, which goes on running
    Checkpoint(CheckpointArgs),
    /// Bring a standalone container back from a checkpoint
    Restore(RestoreArgs),
    /// Look after stored checkpoints
    #[command(subcommand, visible_alias = "cp")]
    Checkpoints(CheckpointsVerb),
    /// Look after templates: images in the store, which containers are clones of
    #[command(subcommand)]
    Template(TemplateVerb),
    /// Look at the log of operations on this node
    #[command(subcommand)]
    Audit(AuditVerb),
    /// Finish or undo what a killed operation left behind
    Recover,
    /// Say what works on this node, and what to do about the rest
    Doctor,
    /// Look at the configuration
    #[command(subcommand)]
    Config(ConfigVerb),
    /// Ask the rules that give pods their runtime
    #[command(subcommand)]
    Route(RouteVerb),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
    /// Print the man page, or write all of them
    Man(ManArgs),
    /// Ship a committed checkpoint into the store (started by the shim and by `checkpoint`)
    #[command(hide = true)]
    Settle(SettleArgs),
    /// Stay with a detached container: its pipes, its exit code (started by `create` and `restore`)
    #[command(hide = true)]
    Monitor(MonitorArgs),
}

impl Verb {
    /// Whether results are JSON by an option of the verb itself.
    pub(crate) fn wants_json(&self) -> bool {
        matches!(self, Self::Route(RouteVerb::Explain(args)) if args.json)
    }
}

/// What to do with the configuration.
#[derive(Debug, Clone, Copy, Subcommand)]
pub(crate) enum ConfigVerb {
    /// Read all of it and say what is wrong
    Check,
    /// Print what is in force, defaults included
    Dump,
}

/// Options of `completions`.
#[derive(Debug, Clone, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

/// Options of `man`.
#[derive(Debug, Clone, Args)]
pub(crate) struct ManArgs {
    /// Write cryopod.1 and one page per verb into this directory
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
}

/// Options of `settle`.
#[derive(Debug, Clone, Args)]
pub(crate) struct SettleArgs {
    /// Checkpoint id
    pub(crate) id: String,
}

/// Options of `monitor`; the rest comes as JSON on standard input.
#[derive(Debug, Clone, Args)]
pub(crate) struct MonitorArgs {
    /// Container id
    pub(crate) id: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_options_stand_before_or_after_the_verb() {
        for line in ["cryopod -o json --root /x list", "cryopod list --root /x -o json"] {
            let cli = parse(line).unwrap();
            assert_eq!((cli.global.output, cli.global.root), (Format::Json, PathBuf::from("/x")));
        }
    }

    #[test]
    fn the_namespace_of_a_rule_is_that_of_the_pod() {
        let cli = parse("cryopod route explain --namespace shop").unwrap();
        let Verb::Route(RouteVerb::Explain(args)) = cli.verb else { panic!("another verb") };
        assert_eq!(args.namespace.as_deref(), Some("shop"));
        let mut command = Cli::command();
        command.build();
        let explain = command.find_subcommand("route").and_then(|route| route.find_subcommand("explain"));
        let help = explain.unwrap().get_arguments().find(|arg| arg.get_long() == Some("namespace"));
        assert!(help.and_then(clap::Arg::get_help).unwrap().to_string().contains("Kubernetes"));
    }

    #[test]
    fn every_verb_of_the_manual_parses() {
        for line in [
            "run --bundle /b web",
            "run -b /b --detach --pid-file /p web",
            "run --template alpine web",
            "run --template alpine -d web -- sh -c true",
            "template create alpine docker://alpine:3 --plain-http --auth-file /f --max-size 1GiB",
            "template create root tar:/x.tar --max-entries 5 --max-ratio 10",
            "template ls -q",
            "template show alpine",
            "template verify alpine root",
            "template rm alpine",
            "template prune --dry-run",
            "spec --bundle /b -- /bin/sh -c true",
            "create --bundle /b web",
            "start web",
            "state web",
            "kill web SIGRTMIN+3",
            "kill web 9 --all",
            "delete --force web db",
            "list -q",
            "ls --all",
            "exec -t -e A=b --cwd / --user 1:2 web -- ls -l",
            "exec web ls -l",
            "pause web",
            "pause default/web --container side",
            "resume web",
            "resume web -c side",
            "kill web -c side TERM",
            "checkpoint web --mode full --label a=b --exit --tcp close --wait",
            "restore web --snapshot ck-1 --name web2 --attach",
            "checkpoints list --pod web",
            "checkpoints show ck-1",
            "checkpoints verify ck-1",
            "checkpoints delete ck-1 ck-2",
            "checkpoints hold ck-1 ck-2",
            "checkpoints release ck-1",
            "checkpoints prune --keep-last 3 --keep-hourly 24 --keep-daily 7 --keep-weekly 4 --keep-monthly 12 \
             --keep-yearly 2 --dry-run --pod web",
            "checkpoints export ck-1 -",
            "checkpoints import /x/y.cryopod",
            "settle ck-1",
            "recover",
            "doctor",
            "config check",
            "config dump",
            "route explain",
            "route explain --namespace shop --pod web-0 --image nginx:1.27 --label app=web -l a= --annotation b=c -a d=e",
            "route explain --json",
            "completions bash",
            "man --dir /tmp",
        ] {
            parse(&format!("cryopod {line}")).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_before_anything_is_tried() {
        for line in [
            "",
            "frobnicate",
            "run",
            "checkpoint",
            "kill",
            "restore",
            "checkpoints prune",
            "checkpoints hold",
            "checkpoint web --mode memory",
            "checkpoint web --label nothing",
            "exec web",
            "run --bundle /b --detach --keep web extra",
            "run --bundle /b --template alpine web",
            "run --bundle /b web -- true",
            "template create UPPER alpine",
            "template create alpine",
            "template create alpine x --max-size much",
            "list -o yaml",
            "route",
            "route explain web",
            "route explain --label web",
        ] {
            assert!(parse(&format!("cryopod {line}")).is_err(), "accepted: {line}");
        }
    }
}
