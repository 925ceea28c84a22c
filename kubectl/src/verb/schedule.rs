//! `kubectl cryopod schedule …`

use cryopod_agent::api::CheckpointSchedule;
use cryopod_agent::api::condition::{READY, find};
use cryopod_agent::api::keep::Retention;
use cryopod_agent::api::schedule::{CheckpointScheduleSpec, CheckpointTemplate, Trigger};
use cryopod_agent::schedule::times::Times;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::json;

use super::{checkpoint, dry, make};
use crate::args::{Global, ListArgs, ScheduleCreateArgs, ScheduleVerb};
use crate::client::{Cluster, failed};
use crate::error::Error;
use crate::labels;
use crate::output::{self, Table, age};

const KIND: &str = "checkpointschedules.cryopod.dev";

/// Does what is asked about schedules.
pub(crate) async fn run(cluster: &Cluster, global: &Global, verb: &ScheduleVerb) -> Result<(), Error> {
    match verb {
        ScheduleVerb::Create(args) => create(cluster, global, args).await,
        ScheduleVerb::List(args) => list(cluster, global, args).await,
        ScheduleVerb::Run(args) => {
            let token = Timestamp::now().to_string();
            change(cluster, global, &args.name, &json!({ "runNow": token }), "runs now").await
        }
        ScheduleVerb::Suspend(args) => {
            change(cluster, global, &args.name, &json!({ "suspend": true }), "suspended").await
        }
        ScheduleVerb::Resume(args) => {
            change(cluster, global, &args.name, &json!({ "suspend": false }), "resumed").await
        }
        ScheduleVerb::Delete(args) => {
            if global.dry_run.is_none() {
                let deleted =
                    cluster.api::<CheckpointSchedule>().delete(&args.name, &DeleteParams::default()).await;
                deleted.map_err(failed(format!("cannot delete schedule {}", args.name), KIND))?;
            }
            let name = &args.name;
            output::print(&format!(
                "checkpointschedule.cryopod.dev \"{name}\" deleted{}; its checkpoints stay",
                dry(global)
            ))
        }
    }
}

async fn create(cluster: &Cluster, global: &Global, args: &ScheduleCreateArgs) -> Result<(), Error> {
    if let Some(schedule) = &args.schedule {
        Times::parse(schedule, args.time_zone.as_deref()).map_err(|error| Error::Usage(error.to_string()))?;
    }
    let selector = match &args.selector {
        Some(text) => labels::parse(text).map_err(|why| Error::Usage(format!("--selector: {why}")))?,
        None => LabelSelector::default(),
    };
    let clock = args.schedule.as_ref().map(|_| Trigger::Cron);
    let drain = args.before_drain.then_some(Trigger::NodeDrain);
    let spec = CheckpointScheduleSpec {
        schedule: args.schedule.clone(),
        time_zone: args.time_zone.clone(),
        starting_deadline_seconds: None,
        concurrency_policy: Default::default(),
        suspend: false,
        selector,
        triggers: clock.into_iter().chain(drain).collect(),
        run_now: None,
        max_concurrent: args.max_concurrent,
        retention: Retention {
            keep_last: args.keep_last,
            keep_hourly: args.keep_hourly,
            keep_daily: args.keep_daily,
            keep_weekly: args.keep_weekly,
            keep_monthly: args.keep_monthly,
            keep_yearly: args.keep_yearly,
            max_total_size: args.max_total_size.clone(),
        },
        drain_failure_policy: Default::default(),
        checkpoint: CheckpointTemplate {
            mode: args.mode.map(checkpoint::mode),
            ..CheckpointTemplate::default()
        },
    };
    let mut object = CheckpointSchedule::new(&args.name, spec);
    object.metadata.namespace = Some(cluster.namespace.clone());
    let made = make(&cluster.api(), global, object, KIND).await?;
    output::object(global, &made, &format!("checkpointschedule {} made{}", args.name, dry(global)))
}

async fn list(cluster: &Cluster, global: &Global, args: &ListArgs) -> Result<(), Error> {
    let mut params = ListParams::default();
    params.label_selector.clone_from(&args.selector);
    let api = if args.all_namespaces { cluster.all() } else { cluster.api() };
    let items: Vec<CheckpointSchedule> =
        api.list(&params).await.map_err(failed("cannot list schedules", KIND))?.items;
    let nothing = format!("no schedules in namespace {}", cluster.namespace);
    output::objects(global, &items, |wide| table(&items, args.all_namespaces, wide), &nothing)
}

fn table(items: &[CheckpointSchedule], namespaces: bool, wide: bool) -> Table {
    let mut heads =
        vec!["NAME", "SCHEDULE", "SUSPEND", "ACTIVE", "LAST SUCCESS", "NEXT", "KEPT", "SIZE", "AGE"];
    if namespaces {
        heads.insert(0, "NAMESPACE");
    }
    if wide {
        heads.push("MESSAGE");
    }
    let mut table = Table::new(heads);
    for it in items {
        let status = it.status.clone().unwrap_or_default();
        let mut row = vec![
            it.name_any(),
            it.spec.schedule.clone().unwrap_or_else(|| "(before drains)".into()),
            it.spec.suspend.to_string(),
            status.active.to_string(),
            status.last_successful_time.map_or_else(|| "never".into(), |time| age(Some(time.0))),
            status.next_schedule_time.map_or_else(String::new, |time| time.0.to_string()),
            status.kept.to_string(),
            status.size.clone().unwrap_or_default(),
            age(it.metadata.creation_timestamp.as_ref().map(|time| time.0)),
        ];
        if namespaces {
            row.insert(0, it.namespace().unwrap_or_default());
        }
        if wide {
            row.push(find(&status.conditions, READY).map(|ready| ready.message.clone()).unwrap_or_default());
        }
        table.row(row);
    }
    table
}

async fn change(
    cluster: &Cluster,
    global: &Global,
    name: &str,
    spec: &serde_json::Value,
    said: &str,
) -> Result<(), Error> {
    let params = PatchParams { dry_run: global.dry_run.is_some(), ..PatchParams::default() };
    let api = cluster.api::<CheckpointSchedule>();
    let changed = api.patch(name, &params, &Patch::Merge(json!({ "spec": spec }))).await;
    let changed = changed.map_err(failed(format!("cannot change schedule {name}"), KIND))?;
    output::object(global, &changed, &format!("checkpointschedule {name} {said}{}", dry(global)))
}
