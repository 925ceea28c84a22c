//! `cryopod-agent setup`: makes a node ready for pods of our handlers, or puts it back.
//!
//! [`plan`](plan::plan) decides from what was seen, [`Node`](node::Node) does it, and [`drive`] repeats both until nothing is
//! left to do. Invariants: the label `cryopod.dev/ready: "true"` is on the node only while kubelet sees our handlers there;
//! containerd is never restarted on a configuration that it cannot read, nor when nothing has changed; being killed between
//! any two steps changes nothing but the time it takes, since each call begins with looking; what a running pod needs is
//! never taken away.

mod action;
mod bundles;
pub(crate) mod cluster;
mod containerd;
mod files;
mod imports;
pub(crate) mod labels;
mod look;
mod node;
mod observed;
mod plan;
mod state;

use std::process::ExitCode;
use std::time::Duration;

pub use action::{Action, Refusal};
pub use containerd::Distribution;
pub(crate) use containerd::is_handler;
pub use observed::{NodeView, Observed};
pub use plan::Wanted;
pub use state::State;

/// The label that pods of our RuntimeClasses are scheduled by. `false` while setup or removal is at work.
pub const READY: &str = "cryopod.dev/ready";
/// What the labels of single handlers begin with; the handler follows.
pub const HANDLER: &str = "cryopod.dev/handler-";
/// How often a plan may change what is seen before something else must be at work on the same node.
const ROUNDS: usize = 4;

/// Makes the node ready for pods: containerd's drop-in, restart if that changed, wait, label.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Put the node back instead; refused while pods of the handlers run here.
    #[arg(long)]
    remove: bool,
    /// Only print what would be done; exit code 1 if there is anything.
    #[arg(long, conflicts_with = "remove")]
    check: bool,
    /// Handlers to offer, with commas.
    #[arg(long, value_delimiter = ',', default_value = "cryopod,cryopod-lxc", value_name = "NAME")]
    handlers: Vec<String>,
    /// What runs containerd.
    #[arg(long, value_enum, default_value = "auto")]
    distribution: containerd::Choice,
    /// Snapshotter of the handlers: `auto`, `default` or a name.
    #[arg(long, default_value = "auto", value_name = "NAME")]
    snapshotter: String,
    /// Who holds a pod's namespaces: `shim` or `podsandbox`.
    #[arg(long, default_value = "shim", value_name = "NAME")]
    sandboxer: String,
    /// Leave the restart of containerd to somebody else, and end with an error until it has happened.
    #[arg(long)]
    no_restart: bool,
    /// How long the node may take to be Ready with the handlers, in seconds.
    #[arg(long, default_value_t = 300, value_name = "N")]
    timeout_seconds: u64,
    /// Name of the node in the cluster.
    #[arg(long, env = "NODE_NAME", value_name = "NAME")]
    node_name: Option<String>,
    /// How to reach the cluster; else as a pod of it does.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<std::path::PathBuf>,
    /// Do not touch the cluster: no wait, no label.
    #[arg(long)]
    no_cluster: bool,
}

/// Why the node is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The plan refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A file of the node.
    #[error("cannot {what} {}: {source}", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: std::path::PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The marker of an earlier setup.
    #[error("{}: not a state that this version knows ({why}); look at what is configured and remove the file", path.display())]
    State {
        /// The marker.
        path: std::path::PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A program of the node.
    #[error(transparent)]
    Program(#[from] cryopod_command::Error),
    /// containerd would not come up, or not with our handlers.
    #[error(
        "containerd would not offer {missing} after this change, so it was not restarted and the change is taken back: {said}"
    )]
    Config {
        /// Handlers that are not in the configuration that containerd would load.
        missing: String,
        /// What containerd said.
        said: String,
    },
    /// The API server.
    #[error("cannot {what} node {node}: {source}")]
    Cluster {
        /// What was tried.
        what: &'static str,
        /// On which node.
        node: String,
        /// What it said.
        source: Box<kube::Error>,
    },
    /// There is no way to the API server.
    #[error(
        "no way to the cluster: {0}; name a file with --kubeconfig, or leave the cluster out with --no-cluster"
    )]
    NoCluster(String),
    /// A name is missing.
    #[error("which node is this? Give --node-name or NODE_NAME")]
    NoName,
    /// It takes too long.
    #[error(
        "node {node} is {seen} after {after:?}; `kubectl describe node {node}` and the journals of {unit} and kubelet say why"
    )]
    NotInTime {
        /// The node.
        node: String,
        /// What is missing.
        seen: String,
        /// How long was waited.
        after: Duration,
        /// The unit that runs containerd.
        unit: String,
    },
    /// Restarting is somebody else's.
    #[error(
        "the configuration of containerd has changed: restart {unit} (running pods go on), then try again"
    )]
    RestartNeeded {
        /// The unit that runs containerd.
        unit: String,
    },
    /// Pods came while the node was being put back.
    #[error(
        "pods of {0} have started here meanwhile; the node takes no new ones now, try again when they have ended"
    )]
    CameInUse(String),
    /// Two at work on one node.
    #[error("after {ROUNDS} rounds there is still to do: {0}; is something else changing this node?")]
    NeverDone(String),
}

/// What a plan is carried out on.
pub trait Edge {
    /// What is there now.
    fn observe(&mut self) -> Result<Observed, Error>;
    /// Does one thing.
    fn perform(&mut self, action: &Action) -> Result<(), Error>;
}

/// Looks, plans and acts until there is nothing left to do.
pub fn drive(edge: &mut impl Edge, wanted: &Wanted, mut said: impl FnMut(&str)) -> Result<(), Error> {
    let mut left = String::new();
    for _ in 0..ROUNDS {
        let observed = edge.observe()?;
        for warning in plan::warnings(wanted, &observed) {
            said(&format!("note: {warning}"));
        }
        let actions = plan::plan(wanted, &observed)?;
        if actions.is_empty() {
            return Ok(());
        }
        for action in &actions {
            said(&action.to_string());
            edge.perform(action)?;
        }
        left = actions.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    }
    Err(Error::NeverDone(left))
}

/// The verb.
pub fn run(options: &Options) -> ExitCode {
    match execute(options) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("cryopod-agent setup: {error}");
            ExitCode::FAILURE
        }
    }
}

fn execute(options: &Options) -> Result<ExitCode, Error> {
    let wanted = Wanted {
        present: !options.remove,
        handlers: options.handlers.iter().filter(|name| !name.is_empty()).cloned().collect(),
        snapshotter: options.snapshotter.clone(),
        sandboxer: options.sandboxer.clone(),
        restart: !options.no_restart,
        cluster: !options.no_cluster,
    };
    let mut node = node::Node::new(options)?;
    if options.check {
        let observed = node.observe()?;
        let actions = plan::plan(&wanted, &observed)?;
        for warning in plan::warnings(&wanted, &observed) {
            println!("note: {warning}");
        }
        for action in &actions {
            println!("would {action}");
        }
        return Ok(if actions.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    // One at a time: an old release's pod may still be at work when the new one's begins.
    let _lock = node.lock()?;
    drive(&mut node, &wanted, |line| println!("{line}"))?;
    node.note_labels()?;
    println!("{}", if wanted.present { "the node is ready" } else { "the node is as it was before" });
    Ok(ExitCode::SUCCESS)
}
