//! The command line.

use std::error::Error;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::cache::Cache;
use crate::image::Image;
use crate::machine::{Machine, Shape};
use crate::node::Node;
use crate::{agent_image, bench, cluster, deb, demo, deploy, docs, exchange, krew, test};

/// Everything that is done with this repository besides plain cargo.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask")]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// The disposable virtual machine that tests run on: Debian 13, ZFS, containerd, CRIU.
    ///
    /// It is built from Debian packages and pinned Go modules into the cache ($CRYOPOD_CACHE, else
    /// $XDG_CACHE_HOME/cryopod, else ~/.cache/cryopod), and runs under KVM where that works, else emulated.
    Node {
        /// Which node; several can run at once, at 10.77.0.1, 10.77.0.2 and so on.
        #[arg(long, default_value = "node", global = true)]
        name: String,
        #[command(subcommand)]
        verb: NodeVerb,
    },
    /// A Kubernetes cluster: the control plane on this host, kubelets in running nodes.
    ///
    /// `eval "$(cargo xtask cluster env)"` lets kubectl and helm find it.
    Cluster {
        #[command(subcommand)]
        verb: cluster::Verb,
    },
    /// Run the tests; ends with `N passed, N failed`.
    ///
    /// Suites of the host need Rust only; those of the node build and boot one (root, about 12 GB of disk).
    Test(test::Options),
    /// The reference pages that are made from the code.
    Docs(docs::Options),
    /// The Debian packages.
    Deb(deb::Options),
    /// The kubectl plugin for krew: archives and manifest.
    Krew(krew::Options),
    /// The image of the agent's DaemonSet, as an archive.
    AgentImage(agent_image::Options),
    /// A running pod is frozen, deleted and brought back, on a fresh node; ends with `demo: ok`.
    Demo(demo::Options),
    /// cryopod beside containerd's own shim, on a fresh node: starts, memory, freeze, checkpoint, restore.
    Bench(bench::Options),
}

#[derive(Debug, clap::Args)]
struct ShapeArgs {
    /// Virtual processors.
    #[arg(long, default_value_t = 2)]
    cpus: u8,
    /// Memory in MiB.
    #[arg(long, default_value_t = 5120)]
    memory: u32,
    /// Write through to the disk files, so that `cut-power` loses what a power cut loses; slower.
    #[arg(long)]
    power_cut: bool,
}

impl From<&ShapeArgs> for Shape {
    fn from(args: &ShapeArgs) -> Self {
        Self { cpus: args.cpus, memory_mib: args.memory, power_cut: args.power_cut }
    }
}

#[derive(Debug, Subcommand)]
enum NodeVerb {
    /// Build the image, or say that it is there.
    Build,
    /// Boot the node; does nothing when it runs.
    Up(ShapeArgs),
    /// Run a command in the node: streams and exit code are the command's.
    Run {
        /// Program and arguments, passed on as they are; `sh -c '…'` for a script.
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Copy a file or folder: the side in the node is written `node:/path`.
    Copy {
        /// From where.
        source: String,
        /// To where.
        destination: String,
    },
    /// Open a shell in the node.
    Shell,
    /// Build cryopod and install it in the node, if it changed.
    Deploy {
        /// Built as it is installed and benchmarked: smaller, takes longer.
        #[arg(long)]
        dist: bool,
    },
    /// Give the node another containerd.
    Containerd {
        /// Which one.
        #[arg(value_enum)]
        version: demo::Containerd,
    },
    /// Shut the node down; its disks stay.
    Down {
        /// All nodes.
        #[arg(long)]
        all: bool,
    },
    /// End the node's machine at once; its disks stay as they are at that moment.
    CutPower,
    /// Throw the node's disks away and boot a fresh one.
    Reset(ShapeArgs),
    /// Throw the node away.
    Remove,
    /// The nodes of this cache.
    List,
}

impl Args {
    /// Does what was asked; the exit code is that of a command run in the node, if there was one.
    pub(crate) fn run(self) -> Result<ExitCode, Box<dyn Error>> {
        match self.verb {
            Verb::Node { name, verb } => node(&name, verb),
            Verb::Test(options) => test::run(&options),
            Verb::Cluster { verb } => {
                cluster::run(&Cache::from_env()?, &verb)?;
                Ok(ExitCode::SUCCESS)
            }
            Verb::Docs(options) => docs::run(&options).map(|()| ExitCode::SUCCESS),
            Verb::Deb(options) => Ok(deb::run(&options).map(|()| ExitCode::SUCCESS)?),
            Verb::Krew(options) => Ok(krew::run(&options).map(|()| ExitCode::SUCCESS)?),
            Verb::AgentImage(options) => Ok(agent_image::run(&options).map(|()| ExitCode::SUCCESS)?),
            Verb::Demo(options) => demo::run(&options),
            Verb::Bench(options) => bench::run(&options),
        }
    }
}

fn node(name: &str, verb: NodeVerb) -> Result<ExitCode, Box<dyn Error>> {
    let cache = Cache::from_env()?;
    match verb {
        NodeVerb::Build => println!("image {} is in {}", Image::build(&cache)?.key, cache.root().display()),
        NodeVerb::Up(shape) => told(&Machine::new(&cache, name)?.up(&Shape::from(&shape))?),
        NodeVerb::Reset(shape) => told(&Machine::new(&cache, name)?.reset(&Shape::from(&shape))?),
        NodeVerb::Run { command } => return Err(Node::find(&cache, name)?.command(command).exec().into()),
        NodeVerb::Shell => return Err(Node::find(&cache, name)?.shell().exec().into()),
        NodeVerb::Copy { source, destination } => {
            let node = Node::find(&cache, name)?;
            match (source.strip_prefix("node:"), destination.strip_prefix("node:")) {
                (None, Some(remote)) => node.copy_in(Path::new(&source), remote)?,
                (Some(remote), None) => node.copy_out(remote, Path::new(&destination))?,
                _ => {
                    return Err(
                        "exactly one of SOURCE and DESTINATION is in the node: write it `node:/path`".into(),
                    );
                }
            }
        }
        NodeVerb::Deploy { dist } => {
            let profile = if dist { deploy::Profile::Dist } else { deploy::Profile::Release };
            deploy::deploy(&Node::find(&cache, name)?, profile)?;
        }
        NodeVerb::Containerd { version } => {
            exchange::exchange(&cache, &Node::find(&cache, name)?, version)?;
        }
        NodeVerb::Down { all: true } => {
            for name in Machine::names(&cache) {
                Machine::new(&cache, &name)?.down()?;
            }
        }
        NodeVerb::Down { all: false } => Machine::new(&cache, name)?.down()?,
        NodeVerb::CutPower => Machine::new(&cache, name)?.cut_power()?,
        NodeVerb::Remove => Machine::new(&cache, name)?.remove()?,
        NodeVerb::List => {
            for name in Machine::names(&cache) {
                match Node::find(&cache, &name) {
                    Ok(node) => told(&node),
                    Err(error) => println!("{error}"),
                }
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn told(node: &Node) {
    let state = node.state();
    println!(
        "node '{}' runs: {}, {} processors, {} MiB, {} on the nodes' network, ssh on 127.0.0.1:{}",
        node.name(),
        state.accelerator,
        state.cpus,
        state.memory_mib,
        node.address(),
        state.ssh_port
    );
}
