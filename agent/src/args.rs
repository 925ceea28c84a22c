//! The command line of the agent.

/// cryopod's agent: one on each node of a Kubernetes cluster.
#[derive(Debug, clap::Parser)]
#[command(name = "cryopod-agent", version, about)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Print the custom resource definitions as YAML.
    Crds,
}
