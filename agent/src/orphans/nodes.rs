//! Which nodes there are, for a leader that asks for each checkpoint of the cluster.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Node;
use kube::api::ListParams;
use kube::{Api, ResourceExt};

use crate::context::{Context, Error};

/// How old the list may be by which a node is held to be there: its checkpoints are looked at every five minutes anyway.
const AGE: Duration = Duration::from_secs(60);
const PAGE: u32 = 500;

/// Their names, listed when somebody asks.
#[derive(Default)]
pub(super) struct Nodes(tokio::sync::Mutex<Option<(Instant, BTreeSet<String>)>>);

impl Nodes {
    /// Whether there is a node of this name. That there is none is never an old list's word.
    pub(super) async fn has(&self, context: &Context, name: &str) -> Result<bool, Error> {
        let api: Api<Node> = Api::all(context.client.clone());
        // Locked while it is being listed, so that everybody else waits for that list.
        let mut known = self.0.lock().await;
        if known.as_ref().is_none_or(|(at, _)| at.elapsed() > AGE) {
            *known = Some((Instant::now(), list(&api).await?));
        }
        if known.as_ref().is_some_and(|(_, names)| names.contains(name)) {
            return Ok(true);
        }
        drop(known);
        let found = api.get_metadata_opt(name).await.map_err(Error::api("read a node"))?;
        Ok(found.is_some())
    }
}

async fn list(api: &Api<Node>) -> Result<BTreeSet<String>, Error> {
    let (mut names, mut params) = (BTreeSet::new(), ListParams::default().limit(PAGE));
    loop {
        let page = api.list_metadata(&params).await.map_err(Error::api("list the nodes"))?;
        names.extend(page.items.iter().map(ResourceExt::name_any));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params.continue_token = Some(token),
            None => return Ok(names),
        }
    }
}
