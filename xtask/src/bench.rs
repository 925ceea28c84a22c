//! `cargo xtask bench`: cryopod beside containerd's own shim on one fresh node in one run, by `cryopod-e2e bench`.
//!
//! With `--json` standard output is the JSON and nothing else; it is kept in `target/bench.json` too.

use std::error::Error;
use std::fs;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::cache::Cache;
use crate::progress::say;
use crate::session::Session;
use crate::{repository, stream, sys};

/// Two stock checkpoints of 1 GiB take most of it on an emulated node.
const LONGEST: Duration = Duration::from_secs(3 * 60 * 60);

/// What to compare.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Few runs at small sizes: to try the bench itself, not to quote.
    #[arg(long)]
    quick: bool,
    /// Use this running node as it is, instead of a fresh one.
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// Groups of figures, such as `starts`; all by default.
    group: Vec<String>,
}

/// Runs it; the exit code is the bench's.
pub(crate) fn run(options: &Options) -> Result<ExitCode, Box<dyn Error>> {
    sys::note_interrupts()?;
    let cache = Cache::from_env()?;
    let mut session = Session::new(&cache, "bench", options.node.as_deref());
    let node = session.make(&["--dist"], None)?;
    let mut argv = vec!["cryopod-e2e", "bench"];
    argv.extend(options.json.then_some("--json"));
    argv.extend(options.quick.then_some("--quick"));
    argv.extend(options.group.iter().map(String::as_str));
    let until = Instant::now() + LONGEST;
    let mut kept = String::new();
    let end = if options.json {
        stream::stream_stdout(node.command(argv), until, |line| {
            println!("{line}");
            kept.push_str(line);
            kept.push('\n');
        })?
    } else {
        stream::stream(node.command(argv), until, |line| println!("{line}"))?
    };
    if options.json {
        let path = repository::target().join("bench.json");
        fs::write(&path, kept)?;
        say(&format!("kept in {}", path.display()));
    }
    Ok(if end == stream::End::Exited(0) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
