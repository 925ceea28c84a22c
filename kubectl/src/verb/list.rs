//! `kubectl cryopod list`

use cryopod_agent::api::PodCheckpoint;
use cryopod_agent::api::checkpoint::Mode;
use cryopod_agent::api::condition::{READY, find};
use kube::ResourceExt;
use kube::api::ListParams;

use crate::args::{Global, ListArgs};
use crate::client::{Cluster, failed};
use crate::error::Error;
use crate::output::{self, Table, age};

/// Lists checkpoints, the newest first.
pub(crate) async fn run(cluster: &Cluster, global: &Global, args: &ListArgs) -> Result<(), Error> {
    let mut params = ListParams::default();
    params.label_selector.clone_from(&args.selector);
    params.field_selector = args.pod.as_ref().map(|pod| format!("spec.sourcePod.name={pod}"));
    let api = if args.all_namespaces { cluster.all() } else { cluster.api() };
    let listed = api.list(&params).await;
    let mut items: Vec<PodCheckpoint> =
        listed.map_err(failed("cannot list checkpoints", "podcheckpoints.cryopod.dev"))?.items;
    items.sort_by_key(|it| std::cmp::Reverse(it.metadata.creation_timestamp.clone()));
    let nothing = match args.all_namespaces {
        true => "no checkpoints in any namespace".to_owned(),
        false => format!("no checkpoints in namespace {}", cluster.namespace),
    };
    output::objects(global, &items, |wide| table(&items, args.all_namespaces, wide), &nothing)
}

fn table(items: &[PodCheckpoint], namespaces: bool, wide: bool) -> Table {
    let mut heads = vec!["NAME", "READY", "REASON", "POD", "NODE", "SIZE", "FREEZE", "AGE"];
    if namespaces {
        heads.insert(0, "NAMESPACE");
    }
    if wide {
        heads.extend(["MODE", "ID", "MESSAGE"]);
    }
    let mut table = Table::new(heads);
    for it in items {
        let status = it.status.clone().unwrap_or_default();
        let ready = find(&status.conditions, READY);
        let text = |text: Option<String>| text.unwrap_or_default();
        let mut row = vec![
            it.name_any(),
            ready.map_or_else(String::new, |ready| ready.status.clone()),
            ready.map_or_else(String::new, |ready| ready.reason.clone()),
            it.spec.source_pod.name.clone(),
            text(status.node_name),
            text(status.size),
            text(status.freeze_duration),
            age(it.metadata.creation_timestamp.as_ref().map(|time| time.0)),
        ];
        if namespaces {
            row.insert(0, it.namespace().unwrap_or_default());
        }
        if wide {
            row.push(status.mode.map(Mode::word).unwrap_or_default().to_owned());
            row.push(text(status.checkpoint_id));
            row.push(ready.map_or_else(String::new, |ready| ready.message.clone()));
        }
        table.row(row);
    }
    table
}
