//! `kubectl cryopod describe`

use std::fmt::Write;

use cryopod_agent::api::condition::{READY, find};
use cryopod_agent::api::{PodCheckpoint, PodRestore};
use k8s_openapi::api::core::v1::Event;
use kube::ResourceExt;
use kube::api::ListParams;

use crate::args::DescribeArgs;
use crate::client::{Cluster, failed};
use crate::error::Error;
use crate::output::{self, Table, age};

/// All about one checkpoint or restore.
pub(crate) async fn run(cluster: &Cluster, args: &DescribeArgs) -> Result<(), Error> {
    let kind = "podcheckpoints.cryopod.dev";
    let found = cluster.api::<PodCheckpoint>().get_opt(&args.name).await;
    let (text, uid) = match found.map_err(failed(format!("cannot read checkpoint {}", args.name), kind))? {
        Some(it) => (checkpoint(&it), it.uid()),
        None => {
            let found = cluster.api::<PodRestore>().get_opt(&args.name).await;
            let action = format!("cannot read restore {}", args.name);
            match found.map_err(failed(action, "podrestores.cryopod.dev"))? {
                Some(it) => (restore(&it), it.uid()),
                None => {
                    return Err(Error::Usage(format!(
                        "namespace {} has neither a checkpoint nor a restore {}; see `kubectl cryopod list`",
                        cluster.namespace, args.name
                    )));
                }
            }
        }
    };
    let events = events(cluster, uid.as_deref().unwrap_or_default()).await;
    output::print(&format!("{text}\n{events}"))
}

fn checkpoint(it: &PodCheckpoint) -> String {
    let status = it.status.clone().unwrap_or_default();
    let mut fields = vec![
        ("Name", it.name_any()),
        ("Namespace", it.namespace().unwrap_or_default()),
        ("Pod", it.spec.source_pod.name.clone()),
        ("Pod UID", status.source_pod_uid.or(it.spec.source_pod.uid.clone()).unwrap_or_default()),
        ("Node", status.node_name.unwrap_or_default()),
        ("ID", status.checkpoint_id.unwrap_or_default()),
        ("Mode", status.mode.map(|mode| format!("{mode:?}")).unwrap_or_default()),
        ("Size", status.size.unwrap_or_default()),
        ("Stood still", status.freeze_duration.unwrap_or_default()),
        ("Completed", status.completion_time.map(|time| time.0.to_string()).unwrap_or_default()),
        ("Deletion policy", format!("{:?}", it.spec.deletion_policy)),
        ("Time to live", it.spec.ttl.clone().unwrap_or_default()),
    ];
    let location = status.checkpoint_location.and_then(|location| location.node_local);
    fields.push(("Path", location.map(|local| local.path).unwrap_or_default()));
    let containers = status.containers.iter().map(|container| {
        let memory = if container.memory { "with memory" } else { "disk alone" };
        format!("{} ({}, {memory})", container.name, container.image.as_deref().unwrap_or("?"))
    });
    fields.push(("Containers", containers.collect::<Vec<_>>().join(", ")));
    let ready = find(&status.conditions, READY);
    fields.push(("Ready", ready.map(|it| format!("{}, {}", it.status, it.reason)).unwrap_or_default()));
    fields.push(("", ready.map(|it| it.message.clone()).unwrap_or_default()));
    render(&fields)
}

fn restore(it: &PodRestore) -> String {
    let status = it.status.clone().unwrap_or_default();
    let ready = find(&status.conditions, READY);
    let mut fields = vec![
        ("Name", it.name_any()),
        ("Namespace", it.namespace().unwrap_or_default()),
        ("Checkpoint", it.spec.checkpoint_name.clone()),
        ("Node", status.node_name.unwrap_or_default()),
        ("Pods", format!("{} of {} run", status.ready_pods, it.spec.count)),
    ];
    for pod in &status.pods {
        let state = if pod.running { "runs".to_owned() } else { pod.message.clone().unwrap_or_default() };
        fields.push(("", format!("{}: {state}", pod.name)));
    }
    fields.push(("Ready", ready.map(|it| format!("{}, {}", it.status, it.reason)).unwrap_or_default()));
    fields.push(("", ready.map(|it| it.message.clone()).unwrap_or_default()));
    render(&fields)
}

fn render(fields: &[(&str, String)]) -> String {
    let mut text = String::new();
    for (name, value) in fields.iter().filter(|(_, value)| !value.is_empty()) {
        let name = if name.is_empty() { String::new() } else { format!("{name}:") };
        // Writing to a String cannot fail.
        writeln!(text, "{name:<17}{value}").ok();
    }
    text
}

async fn events(cluster: &Cluster, uid: &str) -> String {
    let params = ListParams::default().fields(&format!("involvedObject.uid={uid}"));
    // Whoever may not read events still gets the rest.
    let Ok(found) = cluster.api::<Event>().list(&params).await else { return String::new() };
    if found.items.is_empty() {
        return "Events: none".into();
    }
    let mut items = found.items;
    items.sort_by_key(|event| event.event_time.clone().map(|time| time.0));
    let mut table = Table::new(["Events:  TYPE", "REASON", "AGE", "MESSAGE"]);
    for event in &items {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let at = event.event_time.as_ref().map(|time| time.0);
        table.row([
            format!("         {}", text(&event.type_)),
            text(&event.reason),
            age(at.or(event.metadata.creation_timestamp.as_ref().map(|time| time.0))),
            text(&event.message),
        ]);
    }
    table.render()
}
