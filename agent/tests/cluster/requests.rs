//! What the API server was asked for, by its own count.

use std::collections::BTreeMap;
use std::fmt;

use kube::Client;

/// Requests by verb and resource. Watches count when they end, so they are left out.
#[derive(Debug, Default, Clone)]
pub(crate) struct Requests(BTreeMap<(String, String), u64>);

/// What the agent asks for, and nobody else here but the test itself between two counts.
const RESOURCES: &[&str] = &[
    "podcheckpoints",
    "podrestores",
    "checkpointschedules",
    "pods",
    "nodes",
    "events",
    "runtimeclasses",
    "poddisruptionbudgets",
];

impl Requests {
    /// Until now.
    pub(crate) async fn seen(client: &Client) -> Self {
        let request = hyper::Request::get("/metrics").body(Vec::new()).unwrap();
        let text = client.request_text(request).await.unwrap();
        let mut counts = BTreeMap::new();
        for line in text.lines().filter_map(|line| line.strip_prefix("apiserver_request_total{")) {
            let Some((labels, count)) = line.rsplit_once("} ") else { continue };
            let label = |key: &str| {
                let rest = labels.split_once(&format!("{key}=\"")).map(|(_, rest)| rest)?;
                rest.split_once('"').map(|(value, _)| value.to_owned())
            };
            let (verb, resource) = (label("verb").unwrap_or_default(), label("resource").unwrap_or_default());
            if verb != "WATCH" && RESOURCES.contains(&resource.as_str()) {
                *counts.entry((verb, resource)).or_default() += count.parse::<f64>().unwrap() as u64;
            }
        }
        Self(counts)
    }

    /// Those after `before`.
    pub(crate) fn since(mut self, before: &Self) -> Self {
        for (key, count) in &mut self.0 {
            *count -= before.0.get(key).copied().unwrap_or(0);
        }
        self.0.retain(|_, count| *count > 0);
        self
    }

    /// Of one kind.
    pub(crate) fn of(&self, verb: &str, resource: &str) -> u64 {
        self.0.get(&(verb.to_owned(), resource.to_owned())).copied().unwrap_or(0)
    }

    /// Those that change something.
    pub(crate) fn writes(&self) -> u64 {
        let is_read = |verb: &str| matches!(verb, "GET" | "LIST");
        self.0.iter().filter(|((verb, _), _)| !is_read(verb)).map(|(_, count)| count).sum()
    }
}

impl fmt::Display for Requests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let one = |((verb, resource), count): (&(String, String), &u64)| format!("{count} {verb} {resource}");
        f.write_str(&self.0.iter().map(one).collect::<Vec<_>>().join(", "))
    }
}
