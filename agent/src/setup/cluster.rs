//! The node's object in the cluster: readiness, handlers, labels of ours.

use std::collections::BTreeMap;
use std::path::Path;

use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde_json::json;
use tokio::runtime::Runtime;

use super::labels::Noted;
use super::observed::NodeView;
use super::{Error, HANDLER, READY};

/// The API of one node, from a thread that may block.
pub(super) struct Cluster {
    runtime: Runtime,
    nodes: Api<Node>,
    name: String,
}

/// A client by this file, else by the environment and files that each pod of the cluster has, else by ~/.kube/config.
pub(crate) async fn client(kubeconfig: Option<&Path>) -> Result<Client, Error> {
    let none = |error: &dyn std::fmt::Display| Error::NoCluster(error.to_string());
    let config = match kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(path).map_err(|error| none(&error))?;
            let made = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
            made.map_err(|error| none(&error))?
        }
        None => Config::infer().await.map_err(|error| none(&error))?,
    };
    Client::try_from(config).map_err(|error| none(&error))
}

impl Cluster {
    /// The node `name`.
    pub(super) fn new(kubeconfig: Option<&Path>, name: &str) -> Result<Self, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Error::NoCluster(error.to_string()))?;
        let client = runtime.block_on(client(kubeconfig))?;
        // The client's own workers live in the runtime.
        let nodes = runtime.block_on(async { Api::all(client) });
        Ok(Self { runtime, nodes, name: name.to_owned() })
    }

    /// What the cluster says of it.
    pub(super) fn view(&self) -> Result<NodeView, Error> {
        let node = self.runtime.block_on(self.nodes.get(&self.name));
        node.map(|node| view(&node)).map_err(|error| self.failed("look at", error))
    }

    /// Which labels of ours it has now, and which object that is; None where it has none.
    pub(super) fn noted(&self) -> Result<Option<Noted>, Error> {
        let node = self.runtime.block_on(self.nodes.get(&self.name));
        node.map(|node| Noted::of(&node)).map_err(|error| self.failed("look at", error))
    }

    /// Sets and removes labels.
    pub(super) fn label(&self, labels: &BTreeMap<String, Option<String>>) -> Result<(), Error> {
        let patch = Patch::Merge(json!({ "metadata": { "labels": labels } }));
        let done =
            self.runtime.block_on(self.nodes.patch_metadata(&self.name, &PatchParams::default(), &patch));
        done.map(|_| ()).map_err(|error| self.failed("label", error))
    }

    /// The node's name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    fn failed(&self, what: &'static str, source: kube::Error) -> Error {
        Error::Cluster { what, node: self.name.clone(), source: Box::new(source) }
    }
}

/// What of a node's object concerns us.
pub(crate) fn view(node: &Node) -> NodeView {
    let status = node.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_ref());
    let handlers = status.and_then(|status| status.runtime_handlers.as_ref());
    let labels = node.metadata.labels.iter().flatten();
    NodeView {
        ready: conditions.into_iter().flatten().any(|it| it.type_ == "Ready" && it.status == "True"),
        handlers: handlers.into_iter().flatten().filter_map(|handler| handler.name.clone()).collect(),
        labels: labels
            .filter(|(key, _)| *key == READY || key.starts_with(HANDLER))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_seen_as_kubelet_reports_it() {
        let node: Node = serde_json::from_value(json!({
            "metadata": {"name": "n", "labels": {
                "cryopod.dev/ready": "false", "cryopod.dev/handler-cryopod": "true", "kubernetes.io/os": "linux",
            }},
            "status": {
                "conditions": [{"type": "Ready", "status": "True"}, {"type": "MemoryPressure", "status": "False"}],
                "runtimeHandlers": [{"name": ""}, {"name": "cryopod", "features": {"userNamespaces": true}}],
            },
        }))
        .unwrap();
        let seen = view(&node);
        assert!(seen.ready && seen.handlers.contains("cryopod"));
        assert_eq!(seen.labels.len(), 2);
        assert_eq!(view(&Node::default()), NodeView::default());
    }
}
