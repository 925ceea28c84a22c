//! `kubectl cryopod doctor`: what works in this cluster for this user, and what to do about the rest.

use cryopod_agent::api::PodCheckpoint;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::node::v1::RuntimeClass;
use kube::ResourceExt;
use kube::api::{ListParams, PostParams};

use crate::args::{Format, Global};
use crate::client::Cluster;
use crate::error::Error;
use crate::output;

/// Handlers of cryopod begin with it.
const HANDLERS: &str = "cryopod";

/// One thing that was looked at.
#[derive(Debug, serde::Serialize)]
struct Check {
    name: String,
    ok: bool,
    /// What was found, and what to do if that is not good.
    found: String,
}

/// Looks at everything.
pub(crate) async fn run(cluster: &Cluster, global: &Global) -> Result<(), Error> {
    let mut checks = vec![definitions(cluster).await];
    let nodes = nodes(cluster).await;
    checks.extend(nodes);
    checks.push(classes(cluster).await);
    for (verb, why) in
        [("create", "take checkpoints"), ("restore", "bring them back"), ("delete", "delete them")]
    {
        checks.push(right(cluster, verb, why).await);
    }
    let text = match global.output {
        Some(Format::Json) => {
            serde_json::to_string_pretty(&checks).map_err(|error| Error::Output(error.to_string()))?
        }
        Some(Format::Yaml) => {
            serde_saphyr::to_string(&checks).map_err(|error| Error::Output(error.to_string()))?
        }
        _ => {
            let line = |check: &Check| {
                format!("{}  {}: {}", if check.ok { "ok  " } else { "FAIL" }, check.name, check.found)
            };
            checks.iter().map(line).collect::<Vec<_>>().join("\n")
        }
    };
    output::print(&text)?;
    match checks.iter().filter(|check| !check.ok).count() {
        0 => Ok(()),
        bad => Err(Error::Unhealthy(bad)),
    }
}

async fn definitions(cluster: &Cluster) -> Check {
    let listed = cluster.api::<PodCheckpoint>().list(&ListParams::default().limit(1)).await;
    let (ok, found) = match listed {
        Ok(_) => (true, "installed".to_owned()),
        Err(kube::Error::Api(status)) if status.code == 403 => {
            (true, "installed (you may not list them)".to_owned())
        }
        Err(kube::Error::Api(status)) if status.code == 404 => {
            (false, "not installed: `helm install cryopod …`".to_owned())
        }
        Err(error) => (false, error.to_string()),
    };
    Check { name: "definitions".into(), ok, found }
}

/// A node with one of our handlers, as kubelet says.
async fn nodes(cluster: &Cluster) -> Vec<Check> {
    let nodes = match cluster.all::<Node>().list(&ListParams::default()).await {
        Ok(nodes) => nodes.items,
        Err(error) => {
            let found = format!("cannot be looked at: {error}");
            return vec![Check { name: "nodes".into(), ok: false, found }];
        }
    };
    let handlers = |node: &Node| -> Vec<String> {
        let known =
            node.status.as_ref().and_then(|status| status.runtime_handlers.clone()).unwrap_or_default();
        known.into_iter().filter_map(|it| it.name).filter(|name| name.starts_with(HANDLERS)).collect()
    };
    let mut checks: Vec<Check> = nodes
        .iter()
        .filter(|node| !handlers(node).is_empty())
        .map(|node| {
            let conditions =
                node.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
            let ok = conditions.iter().any(|it| it.type_ == "Ready" && it.status == "True");
            let state = if ok { "Ready" } else { "not Ready" };
            Check {
                name: format!("node {}", node.name_any()),
                ok,
                found: format!("{state}, handlers {}", handlers(node).join(" ")),
            }
        })
        .collect();
    if checks.is_empty() {
        let found = format!(
            "none of {} has a handler of cryopod in .status.runtimeHandlers: install cryopod on a node, and restart its containerd",
            nodes.len()
        );
        checks.push(Check { name: "nodes".into(), ok: false, found });
    }
    checks
}

async fn classes(cluster: &Cluster) -> Check {
    let name = "RuntimeClasses".to_owned();
    match cluster.all::<RuntimeClass>().list(&ListParams::default()).await {
        Ok(found) => {
            let ours: Vec<String> = found
                .items
                .iter()
                .filter(|class| class.handler.starts_with(HANDLERS))
                .map(|class| format!("{} ({})", class.name_any(), class.handler))
                .collect();
            match ours.is_empty() {
                false => Check { name, ok: true, found: ours.join(", ") },
                true => Check {
                    name,
                    ok: false,
                    found: "none has a handler of cryopod; the chart makes them".into(),
                },
            }
        }
        Err(error) => Check { name, ok: false, found: error.to_string() },
    }
}

async fn right(cluster: &Cluster, verb: &str, why: &str) -> Check {
    let attributes = ResourceAttributes {
        group: Some("cryopod.dev".into()),
        resource: Some("podcheckpoints".into()),
        verb: Some(verb.to_owned()),
        namespace: Some(cluster.namespace.clone()),
        ..ResourceAttributes::default()
    };
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..Default::default() },
        ..Default::default()
    };
    let asked = cluster.all::<SelfSubjectAccessReview>().create(&PostParams::default(), &review).await;
    let name = format!("may you {why} in namespace {}", cluster.namespace);
    match asked {
        Ok(review) if review.status.as_ref().is_some_and(|status| status.allowed) => {
            Check { name, ok: true, found: "yes".into() }
        }
        Ok(_) => {
            let found = format!(
                "no: you lack the verb {verb} on podcheckpoints.cryopod.dev (ClusterRole cryopod-editor has it)"
            );
            Check { name, ok: false, found }
        }
        Err(error) => Check { name, ok: false, found: error.to_string() },
    }
}
