//! Options of `route`.

use clap::{Args, Subcommand};

use super::containers::pair;

/// What to ask about the rules.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum RouteVerb {
    /// Say which rule of the configuration decides the runtime of a pod, and why those before it do not
    Explain(ExplainArgs),
}

/// Options of `route explain`: what a rule may ask about. What is left out matches no pattern.
#[derive(Debug, Clone, Args)]
pub(crate) struct ExplainArgs {
    // Takes the place of the global option, which is about containerd's namespaces: no pod is looked for here.
    /// Kubernetes namespace of the pod
    #[arg(long, value_name = "NAME")]
    pub(crate) namespace: Option<String>,
    /// Name of the pod
    #[arg(long, value_name = "NAME")]
    pub(crate) pod: Option<String>,
    /// Image of the pod's first container (an init container, where it has one), as the pod's manifest names it
    #[arg(long, value_name = "IMAGE")]
    pub(crate) image: Option<String>,
    /// A label of the pod
    #[arg(short, long = "label", value_name = "NAME=VALUE", value_parser = pair)]
    pub(crate) labels: Vec<(String, String)>,
    /// An annotation of the pod
    #[arg(short, long = "annotation", value_name = "NAME=VALUE", value_parser = pair)]
    pub(crate) annotations: Vec<(String, String)>,
    /// The same as --output json
    #[arg(long)]
    pub(crate) json: bool,
}
