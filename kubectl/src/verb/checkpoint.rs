//! `kubectl cryopod checkpoint POD…`

use cryopod_agent::api::checkpoint::{DeletionPolicy, Mode, PodCheckpointSpec, SourcePod};
use cryopod_agent::api::{PodCheckpoint, duration};
use futures_util::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::ListParams;

use super::{dry, make, named, signed};
use crate::args::{CheckpointArgs, Global, ModeArg};
use crate::client::Cluster;
use crate::error::Error;
use crate::follow::follow;
use crate::output;

const KIND: &str = "podcheckpoints.cryopod.dev";

/// Captures.
pub(crate) async fn run(cluster: &Cluster, global: &Global, args: &CheckpointArgs) -> Result<(), Error> {
    let pods = pods(cluster, args).await?;
    if args.name.is_some() && pods.len() != 1 {
        return Err(Error::Usage("--name goes with one pod".into()));
    }
    let now = Timestamp::now();
    let captures = pods.iter().map(|pod| one(cluster, global, args, pod, now));
    let results: Vec<Result<(), Error>> = futures_util::stream::iter(captures)
        .buffer_unordered(usize::from(args.max_concurrent))
        .collect()
        .await;
    let all = results.len();
    let mut failures: Vec<Error> = results.into_iter().filter_map(Result::err).collect();
    match failures.len() {
        0 => Ok(()),
        1 if all == 1 => Err(failures.remove(0)),
        failed => Err(Error::Some { failed, all, first: failures.remove(0).to_string() }),
    }
}

/// The pods that are meant, each with its UID, so that one that is replaced meanwhile is not taken for it.
async fn pods(cluster: &Cluster, args: &CheckpointArgs) -> Result<Vec<Pod>, Error> {
    let api = cluster.api::<Pod>();
    if let Some(selector) = &args.selector {
        let params = ListParams::default().labels(selector);
        let found = api.list(&params).await.map_err(Error::api("cannot list pods"))?;
        let phase = |pod: &Pod| pod.status.as_ref().and_then(|status| status.phase.clone());
        let running: Vec<Pod> =
            found.items.into_iter().filter(|pod| phase(pod).as_deref() == Some("Running")).collect();
        if running.is_empty() {
            return Err(Error::Usage(format!(
                "no running pod in namespace {} has the labels {selector}",
                cluster.namespace
            )));
        }
        return Ok(running);
    }
    let mut pods = Vec::new();
    for name in &args.pods {
        let name = match name.split_once('/') {
            None => name,
            Some(("pod" | "pods" | "po", name)) => name,
            Some((kind, _)) => return Err(Error::Usage(format!("{kind} cannot be captured, only pods can"))),
        };
        pods.push(api.get(name).await.map_err(Error::api(format!("cannot capture pod {name}")))?);
    }
    Ok(pods)
}

async fn one(
    cluster: &Cluster,
    global: &Global,
    args: &CheckpointArgs,
    pod: &Pod,
    now: Timestamp,
) -> Result<(), Error> {
    let pod_name = pod.name_any();
    let name = args.name.clone().unwrap_or_else(|| named(&pod_name, now));
    let seconds = |time: std::time::Duration| i64::try_from(time.as_secs().max(1)).unwrap_or(i64::MAX);
    let spec = PodCheckpointSpec {
        source_pod: SourcePod { name: pod_name.clone(), uid: pod.uid() },
        timeout_seconds: args.waiting.timeout.map(seconds),
        mode: args.mode.map(mode),
        containers: args.container.clone(),
        deletion_policy: if args.retain { DeletionPolicy::Retain } else { DeletionPolicy::Delete },
        ttl: args.ttl.clone(),
    };
    let mut object = PodCheckpoint::new(&name, spec);
    object.metadata.namespace = Some(cluster.namespace.clone());
    let api = cluster.api::<PodCheckpoint>();
    let made = make(&api, global, signed(cluster, global, object).await, KIND).await?;
    if global.dry_run.is_some() || !args.waiting.wait {
        return output::object(
            global,
            &made,
            &format!("podcheckpoint {name} of pod {pod_name} made{}", dry(global)),
        );
    }
    let done = follow(&api, &name, args.waiting.timeout).await?;
    let status = done.status.clone().unwrap_or_default();
    let total = match (&status.start_time, &status.completion_time) {
        (Some(from), Some(to)) => std::time::Duration::try_from(to.0.duration_since(from.0))
            .map(duration::format)
            .unwrap_or_default(),
        _ => String::new(),
    };
    let plain = format!(
        "{name}: pod {pod_name} captured{} in {total}, it stood still for {}; {} on node {}\n\
         bring it back with `kubectl cryopod restore {name}`",
        match status.mode {
            Some(Mode::Disk) => " without its memory",
            _ => "",
        },
        status.freeze_duration.unwrap_or_default(),
        status.size.unwrap_or_default(),
        status.node_name.unwrap_or_default(),
    );
    output::object(global, &done, &plain)
}

/// The API's word.
pub(super) fn mode(mode: ModeArg) -> Mode {
    match mode {
        ModeArg::Auto => Mode::Auto,
        ModeArg::Full => Mode::Full,
        ModeArg::Disk => Mode::Disk,
    }
}
