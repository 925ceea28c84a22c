//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::values::{Signal, duration, signal, user};

/// An OCI runtime whose containers are LXC containers.
#[derive(Debug, Parser)]
#[command(name = "cryopod-lxc", version, about, max_term_width = 100)]
pub(super) struct Cli {
    #[command(flatten)]
    pub(super) global: Global,
    #[command(subcommand)]
    pub(super) verb: Verb,
}

#[derive(Debug, Args)]
pub(super) struct Global {
    /// Directory of the containers: `lxcpath` of the LXC tools, which look there if nobody says otherwise
    #[arg(long, default_value = "/var/lib/lxc", value_name = "DIR")]
    pub(super) root: PathBuf,
    /// File for errors, besides standard error
    #[arg(long, value_name = "FILE")]
    pub(super) log: Option<PathBuf>,
    /// How they are written there
    #[arg(long, value_enum, default_value_t = LogFormat::Text, value_name = "FORMAT")]
    pub(super) log_format: LogFormat,
    /// For callers that say it; there is nothing more to be said
    #[arg(long, hide = true)]
    pub(super) debug: bool,
    /// cgroups are made by systemd, by a path of the form slice:prefix:name
    #[arg(long)]
    pub(super) systemd_cgroup: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    Table,
    Json,
}

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Make a container that waits to be started
    Create(CreateArgs),
    /// Make a container, start it and stay until it has ended
    Run(CreateArgs),
    /// Let a container that waits run
    Start {
        /// Name of the container
        id: String,
    },
    /// Show a container as the OCI runtime spec has it
    State {
        /// Name of the container
        id: String,
    },
    /// Send a signal to the first process of a container
    Kill {
        /// To all processes of it
        #[arg(short, long)]
        all: bool,
        /// Name of the container
        id: String,
        /// Number or name
        #[arg(default_value = "TERM", value_parser = signal)]
        signal: Signal,
    },
    /// Remove what is left of a container
    Delete {
        /// Kill it first if it runs; no error if it is not there
        #[arg(short, long)]
        force: bool,
        /// Name of the container
        id: String,
    },
    /// Run a further process in a container
    Exec(ExecArgs),
    /// Write the memory of a container into images, by CRIU
    Checkpoint(CheckpointArgs),
    /// Bring a container back from images
    Restore(RestoreArgs),
    /// Freeze all processes of a container
    Pause {
        /// Name of the container
        id: String,
    },
    /// Let a frozen container go on
    Resume {
        /// Name of the container
        id: String,
    },
    /// Change the limits of a container
    Update {
        /// File with OCI resources as JSON; `-` is standard input
        #[arg(short, long, value_name = "FILE")]
        resources: String,
        /// Name of the container
        id: String,
    },
    /// Show the processes of a container
    Ps {
        /// How
        #[arg(short, long, value_enum, default_value_t = Format::Table)]
        format: Format,
        /// Name of the container
        id: String,
    },
    /// Show all containers
    List {
        /// How
        #[arg(short, long, value_enum, default_value_t = Format::Table)]
        format: Format,
        /// Their names only
        #[arg(short, long)]
        quiet: bool,
    },
    /// Show figures of a container, and when it lacks memory, as lines of JSON
    Events(EventsArgs),
    /// Write a config.json to start from
    Spec {
        /// Directory for it
        #[arg(short, long, default_value = ".", value_name = "DIR")]
        bundle: PathBuf,
    },
    /// Show what this runtime understands (OCI runtime spec, "Features")
    Features,
    /// Remove what was left half-made, or by a power cut
    #[command(hide = true)]
    Sweep,
    /// Keep a scope of systemd until standard input ends
    #[command(hide = true)]
    Wait,
}

#[derive(Debug, Args)]
pub(super) struct CreateArgs {
    /// Directory with config.json
    #[arg(short, long, default_value = ".", value_name = "DIR")]
    pub(super) bundle: PathBuf,
    /// Unix socket that gets the terminal's master
    #[arg(long, value_name = "SOCKET")]
    pub(super) console_socket: Option<PathBuf>,
    /// File for the PID of the first process
    #[arg(long, value_name = "FILE")]
    pub(super) pid_file: Option<PathBuf>,
    /// Leave the container the session keyring of the caller
    #[arg(long)]
    pub(super) no_new_keyring: bool,
    /// `run` does not stay
    #[arg(short, long)]
    pub(super) detach: bool,
    /// `run` leaves the container after it has ended
    #[arg(long)]
    pub(super) keep: bool,
    /// Name of the container
    pub(super) id: String,
}

#[derive(Debug, Args)]
pub(super) struct EventsArgs {
    /// Time between two lines with figures, as 5s, 500ms or 2m
    #[arg(long, default_value = "5s", value_name = "TIME", value_parser = duration)]
    pub(super) interval: std::time::Duration,
    /// The figures of now only
    #[arg(long)]
    pub(super) stats: bool,
    /// Name of the container
    pub(super) id: String,
}

/// What CRIU is told, in both directions.
#[derive(Debug, Args)]
pub(super) struct CriuArgs {
    /// Directory of the images
    #[arg(long, default_value = "checkpoint", value_name = "DIR")]
    pub(super) image_path: PathBuf,
    /// Directory for logs and statistics; that of the images if not set
    #[arg(long, value_name = "DIR")]
    pub(super) work_path: Option<PathBuf>,
    /// Established TCP connections go along
    #[arg(long)]
    pub(super) tcp_established: bool,
    /// Unix sockets may have a peer outside
    #[arg(long)]
    pub(super) ext_unix_sk: bool,
    /// The leader of the session may be outside
    #[arg(long)]
    pub(super) shell_job: bool,
    /// File locks go along
    #[arg(long)]
    pub(super) file_locks: bool,
}

#[derive(Debug, Args)]
pub(super) struct CheckpointArgs {
    #[command(flatten)]
    pub(super) criu: CriuArgs,
    /// Images of the round before, relative to the images
    #[arg(long, value_name = "DIR")]
    pub(super) parent_path: Option<PathBuf>,
    /// Let the container live on
    #[arg(long)]
    pub(super) leave_running: bool,
    /// Only what memory has changed, while the container runs on
    #[arg(long)]
    pub(super) pre_dump: bool,
    /// Name of the container
    pub(super) id: String,
}

#[derive(Debug, Args)]
pub(super) struct RestoreArgs {
    #[command(flatten)]
    pub(super) criu: CriuArgs,
    /// Directory with config.json
    #[arg(short, long, default_value = ".", value_name = "DIR")]
    pub(super) bundle: PathBuf,
    /// Unix socket that gets the terminal's master
    #[arg(long, value_name = "SOCKET")]
    pub(super) console_socket: Option<PathBuf>,
    /// File for the PID of the first process
    #[arg(long, value_name = "FILE")]
    pub(super) pid_file: Option<PathBuf>,
    /// Do not stay
    #[arg(short, long)]
    pub(super) detach: bool,
    /// For callers that say it: a restored process has the keyring that CRIU gives it
    #[arg(long, hide = true)]
    pub(super) no_new_keyring: bool,
    /// Name of the container
    pub(super) id: String,
}

#[derive(Debug, Args)]
pub(super) struct ExecArgs {
    /// OCI process as JSON, instead of a command
    #[arg(short, long, value_name = "FILE")]
    pub(super) process: Option<PathBuf>,
    /// Unix socket that gets the terminal's master
    #[arg(long, value_name = "SOCKET")]
    pub(super) console_socket: Option<PathBuf>,
    /// File for its PID
    #[arg(long, value_name = "FILE")]
    pub(super) pid_file: Option<PathBuf>,
    /// With a terminal
    #[arg(short, long)]
    pub(super) tty: bool,
    /// Do not stay
    #[arg(short, long)]
    pub(super) detach: bool,
    /// NAME=value, besides the container's
    #[arg(short, long, value_name = "VARIABLE")]
    pub(super) env: Vec<String>,
    /// Directory in the container
    #[arg(long, value_name = "DIR")]
    pub(super) cwd: Option<PathBuf>,
    /// UID, or UID:GID
    #[arg(short, long, value_name = "USER", value_parser = user)]
    pub(super) user: Option<(u32, Option<u32>)>,
    /// Name of the container
    pub(super) id: String,
    /// Command and arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(super) command: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn what_containerd_calls_is_understood() {
        let words = "cryopod-lxc --root /run/r --log /x/log.json --log-format json --systemd-cgroup create \
                     --bundle /b --pid-file /b/init.pid --console-socket /tmp/pty --no-new-keyring c1";
        assert!(Cli::try_parse_from(words.split_whitespace()).is_ok());
        let words = "cryopod-lxc exec --process /tmp/p --detach --pid-file /b/x.pid c1";
        assert!(Cli::try_parse_from(words.split_whitespace()).is_ok());
        let words = "cryopod-lxc kill --all c1 9";
        assert!(Cli::try_parse_from(words.split_whitespace()).is_ok());
        let Cli { verb: Verb::Exec(exec), .. } =
            Cli::try_parse_from("x exec -u 5:6 c1 ls -l".split(' ')).unwrap()
        else {
            panic!("no exec")
        };
        assert_eq!((exec.user, exec.command), (Some((5, Some(6))), vec!["ls".to_owned(), "-l".to_owned()]));
    }
}
