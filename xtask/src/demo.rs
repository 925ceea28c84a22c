//! `cargo xtask demo`: the main job on a fresh node, told by `cryopod-e2e demo`, which runs inside it.

use std::error::Error;
use std::io::{IsTerminal, stdout};
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use clap::ValueEnum;

use crate::cache::Cache;
use crate::progress::say;
use crate::session::Session;
use crate::{stream, sys};

const LONGEST: Duration = Duration::from_secs(15 * 60);

/// What to show.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Where checkpoints are kept: in ZFS, or in a directory as on a host without it.
    #[arg(long, value_enum, default_value = "zfs")]
    store: Store,
    /// The containerd that starts our shim; older ones bootstrap it in another way.
    #[arg(long, value_enum, default_value = "2.3")]
    containerd: Containerd,
    /// Leave the node running afterwards, to look around in it.
    #[arg(long)]
    keep: bool,
    /// Use this running node as it is, instead of a fresh one.
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Store {
    Zfs,
    Dir,
}

/// Versions of containerd that a node can run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Containerd {
    /// Long-term support; what a node has from the start.
    #[value(name = "2.3")]
    Current,
    /// Before the protobuf bootstrap of shims.
    #[value(name = "2.2")]
    Older,
}

/// Runs it; the exit code is the demo's.
pub(crate) fn run(options: &Options) -> Result<ExitCode, Box<dyn Error>> {
    sys::note_interrupts()?;
    let cache = Cache::from_env()?;
    let mut session = Session::new(&cache, "demo", options.node.as_deref());
    let node = session.make(&[], None)?;
    if options.containerd == Containerd::Older {
        session.verb(&["containerd", "2.2"], Instant::now() + LONGEST)?;
    }
    let store = match options.store {
        Store::Zfs => "zfs",
        Store::Dir => "dir",
    };
    let argv = ["cryopod-e2e", "demo", "--store", store];
    let end = if stdout().is_terminal() {
        // With a terminal of its own the demo may use colours.
        let mut command = node.command_with_terminal(argv);
        stream::foreground(command.stdin(Stdio::inherit()))?
    } else {
        stream::stream(node.command(argv), Instant::now() + LONGEST, |line| println!("{line}"))?
    };
    if options.keep {
        session.keep();
        say(&format!(
            "the node stays: `cargo xtask node --name {0} shell`, `… --name {0} down`",
            node.name()
        ));
    }
    Ok(if end == stream::End::Exited(0) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
