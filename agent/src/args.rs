//! The command line of the agent.

use std::net::SocketAddr;
use std::path::PathBuf;

/// cryopod's agent: one on each node of a Kubernetes cluster.
#[derive(Debug, clap::Parser)]
#[command(name = "cryopod-agent", version, about)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Take checkpoints of this node's pods for the cluster's objects, and serve metrics.
    Run(RunArgs),
    Setup(cryopod_agent::setup::Options),
    Await(cryopod_agent::waiting::Options),
    Host(cryopod_agent::host::Options),
    /// Print the custom resource definitions as YAML.
    Crds(CrdsArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct CrdsArgs {
    /// Print what the documentation says of them instead.
    #[arg(long, hide = true)]
    pub(crate) markdown: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    /// Name of this node in the cluster; the host's name if not given.
    #[arg(long, value_name = "NAME", env = "NODE_NAME")]
    pub(crate) node_name: Option<String>,
    /// Address of /metrics, /healthz and /readyz.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9464", env = "CRYOPOD_LISTEN")]
    pub(crate) listen: SocketAddr,
    /// How to reach the cluster; without it, the service account of the pod that it runs in, else metrics and recovery only.
    #[arg(long, value_name = "FILE", env = "KUBECONFIG")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Namespace of the lease by which one agent leads.
    #[arg(long, value_name = "NAMESPACE", default_value = "cryopod-system", env = "POD_NAMESPACE")]
    pub(crate) namespace: String,
    /// Configuration file of cryopod instead of /etc/cryopod/config.toml and conf.d.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}
