//! Options of the verbs on containers.

use std::path::PathBuf;

use clap::Args;
use cryopod_image::TemplateName;

/// Options of `run`.
#[derive(Debug, Clone, Args)]
pub(crate) struct RunArgs {
    /// What to create.
    #[command(flatten)]
    pub(crate) create: CreateArgs,
    /// Template whose clone is its root, instead of a bundle; it runs what the image says
    #[arg(short, long, value_name = "TEMPLATE", conflicts_with = "bundle")]
    pub(crate) template: Option<TemplateName>,
    /// Return as soon as it runs; its output goes to a log file, `state` tells its exit code
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Keep the stopped container instead of deleting it
    #[arg(long, conflicts_with = "detach")]
    pub(crate) keep: bool,
    /// Arguments in the place of the image's own command; its entrypoint stays
    #[arg(last = true, value_name = "ARGUMENT", requires = "template", conflicts_with = "bundle")]
    pub(crate) arguments: Vec<String>,
}

/// Options of `create`.
#[derive(Debug, Clone, Args)]
pub(crate) struct CreateArgs {
    /// Bundle: the directory with config.json and the root file system
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub(crate) bundle: PathBuf,
    /// Write the PID of the container's init there
    #[arg(long, value_name = "FILE")]
    pub(crate) pid_file: Option<PathBuf>,
    /// Runtime: crun, runc, or the path of another OCI runtime [default: from the configuration]
    #[arg(long, value_name = "RUNTIME")]
    pub(crate) runtime: Option<String>,
    /// Name of the new container
    #[arg(value_name = "CONTAINER")]
    pub(crate) id: String,
}

/// A verb that needs nothing but a container.
#[derive(Debug, Clone, Args)]
pub(crate) struct IdArgs {
    /// Container
    #[arg(value_name = "CONTAINER")]
    pub(crate) id: String,
}

/// Options of `pause` and `resume`.
#[derive(Debug, Clone, Args)]
pub(crate) struct FreezeArgs {
    /// Container, or pod by name, namespace/name or id
    #[arg(value_name = "CONTAINER|POD")]
    pub(crate) id: String,
    /// Only this container of the pod
    #[arg(short, long, value_name = "NAME")]
    pub(crate) container: Option<String>,
}

/// Options of `spec`.
#[derive(Debug, Clone, Args)]
pub(crate) struct SpecArgs {
    /// Directory to write config.json into
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub(crate) bundle: PathBuf,
    /// Print it instead
    #[arg(long)]
    pub(crate) print: bool,
    /// Replace a config.json that is there
    #[arg(long)]
    pub(crate) force: bool,
    /// The process gets a terminal (which CRIU restores less often than pipes)
    #[arg(short, long)]
    pub(crate) terminal: bool,
    /// Command of the container [default: sh]
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}

/// Options of `kill`.
#[derive(Debug, Clone, Args)]
pub(crate) struct KillArgs {
    /// Container, or pod by name, namespace/name or id
    #[arg(value_name = "CONTAINER|POD")]
    pub(crate) id: String,
    /// Signal: TERM, SIGUSR1, RTMIN+3 or a number
    #[arg(default_value = "TERM")]
    pub(crate) signal: String,
    /// To every process of it, not to its init alone
    #[arg(short, long)]
    pub(crate) all: bool,
    /// This container of the pod, where it has several
    #[arg(short, long, value_name = "NAME")]
    pub(crate) container: Option<String>,
}

/// Options of `delete`.
#[derive(Debug, Clone, Args)]
pub(crate) struct DeleteArgs {
    /// Containers
    #[arg(value_name = "CONTAINER", required = true)]
    pub(crate) ids: Vec<String>,
    /// Kill what still runs; a container that does not exist is no error
    #[arg(short, long)]
    pub(crate) force: bool,
}

/// Options of `list`.
#[derive(Debug, Clone, Args)]
pub(crate) struct ListArgs {
    /// Also standalone containers that have stopped
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Names only
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// Options of `exec`.
#[derive(Debug, Clone, Args)]
pub(crate) struct ExecArgs {
    /// Container, or pod by name, namespace/name or id
    #[arg(value_name = "CONTAINER|POD")]
    pub(crate) id: String,
    /// This container of the pod, where it has several
    #[arg(short, long, value_name = "NAME")]
    pub(crate) container: Option<String>,
    /// Give the process a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Environment, beside the container's own
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = pair)]
    pub(crate) env: Vec<(String, String)>,
    /// Working directory in the container [default: the container's own]
    #[arg(long, value_name = "DIR")]
    pub(crate) cwd: Option<PathBuf>,
    /// Numeric user and group in the container
    #[arg(short, long, value_name = "UID[:GID]", value_parser = user)]
    pub(crate) user: Option<(u32, Option<u32>)>,
    /// Return as soon as it runs
    #[arg(short, long, conflicts_with = "tty")]
    pub(crate) detach: bool,
    /// Command and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<String>,
}

/// `NAME=VALUE`.
pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

fn user(text: &str) -> Result<(u32, Option<u32>), String> {
    let number = |part: &str| part.parse().map_err(|_| format!("`{part}` is not a number"));
    match text.split_once(':') {
        Some((uid, gid)) => Ok((number(uid)?, Some(number(gid)?))),
        None => Ok((number(text)?, None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_a_number_or_two() {
        assert_eq!(user("0"), Ok((0, None)));
        assert_eq!(user("1000:7"), Ok((1000, Some(7))));
        assert!(user("root").is_err());
    }

    #[test]
    fn a_pair_needs_a_name() {
        assert_eq!(pair("A=b=c"), Ok(("A".into(), "b=c".into())));
        assert!(pair("=b").is_err());
    }
}
