//! The verbs.

pub(crate) mod checkpoint;
pub(crate) mod delete;
pub(crate) mod describe;
pub(crate) mod doctor;
pub(crate) mod list;
pub(crate) mod restore;
pub(crate) mod schedule;

use cryopod_agent::api::REQUESTED_BY;
use jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::args::{DryRun, Global};
use crate::client::{Cluster, failed};
use crate::error::Error;

/// Longest name of an object.
const MAX_NAME: usize = 253;

/// A name of an object that says what of and when: `web-20261122-081500`.
fn named(base: &str, now: Timestamp) -> String {
    let mut base = base.to_owned();
    base.truncate(MAX_NAME - 16);
    format!("{}-{}", base.trim_end_matches(['-', '.']), now.strftime("%Y%m%d-%H%M%S"))
}

/// Says who asks: the node's audit log names them. The API server holds it to be true, or sets it itself.
async fn signed<K: Resource<DynamicType = ()>>(cluster: &Cluster, global: &Global, mut object: K) -> K {
    if global.dry_run != Some(DryRun::Client)
        && let Some(user) = cluster.user().await
    {
        object.annotations_mut().insert(REQUESTED_BY.to_owned(), user);
    }
    object
}

/// Makes the object, or only says so.
async fn make<K>(api: &Api<K>, global: &Global, object: K, kind: &'static str) -> Result<K, Error>
where
    K: Resource<DynamicType = ()> + Serialize + DeserializeOwned + Clone + std::fmt::Debug,
{
    if global.dry_run == Some(DryRun::Client) {
        return Ok(object);
    }
    let params = PostParams { dry_run: global.dry_run == Some(DryRun::Server), ..PostParams::default() };
    let action = format!("cannot make {} {}", kind, object.name_any());
    api.create(&params, &object).await.map_err(failed(action, kind))
}

/// What is added to a line about an object that was not made.
fn dry(global: &Global) -> &'static str {
    match global.dry_run {
        None => "",
        Some(DryRun::Client) => " (dry run)",
        Some(DryRun::Server) => " (server dry run)",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_what_and_when_and_is_never_too_long() {
        let now: Timestamp = "2026-11-22T08:15:00Z".parse().unwrap();
        assert_eq!(named("web", now), "web-20261122-081500");
        assert!(named(&"x.".repeat(200), now).len() <= 253);
    }
}
