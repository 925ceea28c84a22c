//! The labels that setup has given the node, noted on the node, and put back by the agent on a Node object that was made
//! anew: kubelet that registers again brings its own labels alone, and pods of our RuntimeClasses would find no node.
//!
//! ```text
//! /var/lib/cryopod/node-labels.json
//! {"version": 1, "uid": "…", "labels": {"cryopod.dev/ready": "true", "cryopod.dev/handler-cryopod": "true"}}
//! ```
//! Invariants: an object that setup itself has labelled is left alone, so that a label that somebody took off stays off;
//! `ready` is put back only while kubelet sees the handlers, as setup does it; nothing is touched while setup is at work.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::cluster::view;
use super::files::{read, write};
use super::node::LOCK;
use super::observed::NodeView;
use super::{HANDLER, READY};
use crate::context::{Context, Error, optional};

/// Where they are noted.
pub(super) const FILE: &str = "/var/lib/cryopod/node-labels.json";
/// The only version.
const VERSION: u32 = 1;
/// How often the node's object is looked at, by its metadata alone: each node of the cluster does it.
const EVERY: Duration = Duration::from_secs(60);

/// Labels of ours, and the Node object that has them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Noted {
    version: u32,
    uid: String,
    labels: BTreeMap<String, String>,
}

impl Noted {
    /// Of this object; None where it has none.
    pub(super) fn of(node: &Node) -> Option<Self> {
        let labels = view(node).labels;
        (!labels.is_empty()).then(|| Self { version: VERSION, uid: node.uid().unwrap_or_default(), labels })
    }

    /// What is written down.
    pub(super) fn text(&self) -> String {
        // Numbers and texts always serialise.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// What was written down; None for another version, which the next setup writes anew.
    fn parse(text: &str) -> Option<Self> {
        serde_json::from_str::<Self>(text).ok().filter(|noted| noted.version == VERSION)
    }
}

/// What to do about the node's object.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    /// Leave it.
    Leave,
    /// It does not see this yet.
    Wait(String),
    /// Give it the noted labels.
    PutBack,
}

/// Decides. Pure.
fn plan(noted: &Noted, uid: &str, node: &NodeView) -> Step {
    if noted.uid == uid || !node.labels.is_empty() {
        return Step::Leave;
    }
    if noted.labels.get(READY).map(String::as_str) != Some("true") {
        // Setup had not ended well; it is for setup to say that the node is ready.
        return Step::Leave;
    }
    if !node.ready {
        return Step::Wait("the node is not Ready".to_owned());
    }
    let handlers = noted.labels.keys().filter_map(|label| label.strip_prefix(HANDLER));
    let missing: Vec<&str> = handlers.filter(|name| !node.handlers.contains(*name)).collect();
    if missing.is_empty() {
        return Step::PutBack;
    }
    Step::Wait(format!("kubelet does not see {}", missing.join(", ")))
}

/// Looks now and then, for as long as the process runs.
pub(crate) async fn run(context: Arc<Context>) {
    loop {
        match keep(&context, Path::new(FILE), Path::new(LOCK)).await {
            Ok(true) => tracing::info!(node = context.node, "labels were put back on the node's new object"),
            Ok(false) => {}
            Err(error) => tracing::warn!(node = context.node, error, "labels of the node"),
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// One look; whether labels were put back.
async fn keep(context: &Context, file: &Path, lock: &Path) -> Result<bool, String> {
    let Some(noted) = read(file).map_err(|error| error.to_string())?.as_deref().and_then(Noted::parse) else {
        return Ok(false);
    };
    let nodes: Api<Node> = Api::all(context.client.clone());
    let found = nodes.get_metadata_opt(&context.node).await.map_err(Error::api("look at the node"));
    let Some(now) = found.map_err(|error| error.to_string())? else { return Ok(false) };
    if now.metadata.uid.as_deref().unwrap_or_default() == noted.uid {
        return Ok(false);
    }
    // Setup labels the node as well, and knows better; its next end is noted.
    let lock = File::create(lock).map_err(|error| format!("cannot create {}: {error}", lock.display()))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(false),
        Err(TryLockError::Error(error)) => {
            return Err(format!("cannot lock the setup of this node: {error}"));
        }
    }
    let found = optional(nodes.get(&context.node).await.map_err(Error::api("look at the node")));
    let Some(node) = found.map_err(|error| error.to_string())? else { return Ok(false) };
    match plan(&noted, node.metadata.uid.as_deref().unwrap_or_default(), &view(&node)) {
        Step::Leave => return Ok(false),
        Step::Wait(why) => {
            tracing::info!(node = context.node, why, "labels are put back later");
            return Ok(false);
        }
        Step::PutBack => {}
    }
    let patch = json!({ "metadata": { "uid": node.uid(), "labels": noted.labels } });
    let patched = nodes.patch_metadata(&context.node, &PatchParams::default(), &Patch::Merge(&patch)).await;
    let patched = patched.map_err(Error::api("label the node")).map_err(|error| error.to_string())?;
    let uid = patched.metadata.uid.unwrap_or_default();
    write(file, &Noted { uid, ..noted }.text(), 0o600).map_err(|error| error.to_string())?;
    Ok(true)
}

#[cfg(test)]
mod tests;
