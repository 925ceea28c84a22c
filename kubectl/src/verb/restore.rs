//! `kubectl cryopod restore` and `clone`: both make a `PodRestore`.

use cryopod_agent::api::PodRestore;
use cryopod_agent::api::restore::{PodRestoreSpec, TemplatePatch};
use jiff::Timestamp;

use super::{dry, make, named, signed};
use crate::args::{CloneArgs, Global, RestoreArgs, Waiting};
use crate::client::Cluster;
use crate::error::Error;
use crate::follow::follow;
use crate::output;

const KIND: &str = "podrestores.cryopod.dev";

/// One pod that continues the captured one.
pub(crate) async fn run(cluster: &Cluster, global: &Global, args: &RestoreArgs) -> Result<(), Error> {
    let name = args.name.clone().unwrap_or_else(|| named(&args.checkpoint, Timestamp::now()));
    let spec = PodRestoreSpec {
        checkpoint_name: args.checkpoint.clone(),
        count: 1,
        pod_name: args.pod.clone(),
        patches: patches(&args.patch)?,
        timeout_seconds: seconds(&args.waiting),
    };
    bring_back(cluster, global, &name, spec, &args.waiting).await
}

/// Several pods with fresh names.
pub(crate) async fn clone(cluster: &Cluster, global: &Global, args: &CloneArgs) -> Result<(), Error> {
    let name = args.name.clone().unwrap_or_else(|| named(&args.checkpoint, Timestamp::now()));
    let spec = PodRestoreSpec {
        checkpoint_name: args.checkpoint.clone(),
        count: args.count,
        // One clone is named as the first of several would be.
        pod_name: (args.count == 1).then(|| format!("{name}-0")),
        patches: patches(&args.patch)?,
        timeout_seconds: seconds(&args.waiting),
    };
    bring_back(cluster, global, &name, spec, &args.waiting).await
}

async fn bring_back(
    cluster: &Cluster,
    global: &Global,
    name: &str,
    spec: PodRestoreSpec,
    waiting: &Waiting,
) -> Result<(), Error> {
    let mut object = PodRestore::new(name, spec);
    object.metadata.namespace = Some(cluster.namespace.clone());
    let api = cluster.api::<PodRestore>();
    let made = make(&api, global, signed(cluster, global, object).await, KIND).await?;
    if global.dry_run.is_some() || !waiting.wait {
        return output::object(global, &made, &format!("podrestore {name} made{}", dry(global)));
    }
    let done = follow(&api, name, waiting.timeout).await?;
    let status = done.status.clone().unwrap_or_default();
    let pods: Vec<String> = status.pods.iter().map(|pod| pod.name.clone()).collect();
    let plain = format!("{}: running on node {}", pods.join(" "), status.node_name.unwrap_or_default());
    output::object(global, &done, &plain)
}

fn seconds(waiting: &Waiting) -> Option<i64> {
    waiting.timeout.map(|time| i64::try_from(time.as_secs().max(1)).unwrap_or(i64::MAX))
}

fn patches(texts: &[String]) -> Result<Vec<TemplatePatch>, Error> {
    let one = |text: &String| match serde_json::from_str::<serde_json::Value>(text) {
        Ok(merge) if merge.is_object() => Ok(TemplatePatch { merge }),
        Ok(_) => {
            Err(Error::Usage(format!("--patch {text}: not an object like {{\"metadata\": …, \"spec\": …}}")))
        }
        Err(error) => Err(Error::Usage(format!("--patch {text}: {error}"))),
    };
    texts.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_is_an_object() {
        assert_eq!(patches(&[r#"{"metadata":{"labels":{"a":"b"}}}"#.into()]).unwrap().len(), 1);
        for bad in ["[]", "{", "7", "metadata: {}"] {
            let error = patches(&[bad.into()]).unwrap_err();
            assert!(error.to_string().contains(bad), "{error}");
        }
    }
}
