//! `kubectl cryopod delete`

use std::time::{Duration, Instant};

use cryopod_agent::api::PodCheckpoint;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams};

use super::dry;
use crate::args::{DeleteArgs, DryRun, Global};
use crate::client::{Cluster, failed};
use crate::error::Error;
use crate::output;

/// Between two looks whether an object is gone.
const LOOK: Duration = Duration::from_millis(300);

/// Deletes checkpoints, and waits until their data is gone.
pub(crate) async fn run(cluster: &Cluster, global: &Global, args: &DeleteArgs) -> Result<(), Error> {
    let (api, kind) = (cluster.api::<PodCheckpoint>(), "podcheckpoints.cryopod.dev");
    let names = match &args.selector {
        None => args.names.clone(),
        Some(selector) => {
            let found = api.list(&ListParams::default().labels(selector)).await;
            let found = found.map_err(failed("cannot list checkpoints", kind))?;
            found.items.iter().map(ResourceExt::name_any).collect()
        }
    };
    if names.is_empty() {
        output::note("no checkpoint has these labels");
        return Ok(());
    }
    let params = DeleteParams { dry_run: global.dry_run == Some(DryRun::Server), ..DeleteParams::default() };
    for name in &names {
        if global.dry_run != Some(DryRun::Client) {
            let deleted = api.delete(name, &params).await;
            deleted.map_err(failed(format!("cannot delete checkpoint {name}"), kind))?;
        }
    }
    let begun = Instant::now();
    for name in &names {
        if global.dry_run.is_none() && args.waiting.wait {
            while api.get_opt(name).await.map_err(Error::api("cannot look whether it is gone"))?.is_some() {
                if args.waiting.timeout.is_some_and(|most| begun.elapsed() > most) {
                    let time = cryopod_agent::api::duration::format(begun.elapsed());
                    return Err(Error::TimeOver {
                        what: "the deletion of checkpoint",
                        name: name.clone(),
                        time,
                    });
                }
                tokio::select! {
                    () = tokio::time::sleep(LOOK) => {}
                    _ = tokio::signal::ctrl_c() => {
                        return Err(Error::Detached { what: "the deletion of checkpoint", name: name.clone() });
                    }
                }
            }
        }
        output::print(&format!("podcheckpoint.cryopod.dev \"{name}\" deleted{}", dry(global)))?;
    }
    Ok(())
}
