//! The actions of a `CheckpointSchedule`, done.

mod pods;
#[cfg(test)]
mod requests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod as CorePod};
use k8s_openapi::api::node::v1::RuntimeClass;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{
    LabelSelector, LabelSelectorRequirement, OwnerReference,
};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::core::Selector;
use kube::runtime::controller::Action as Next;
use kube::{Api, Resource, ResourceExt};
use serde_json::json;

use super::plan::{Action, Pod, Seen, plan};
use crate::api::checkpoint::{PodCheckpointSpec, SourcePod};
use crate::api::condition::{self, Verdict};
use crate::api::schedule::{INVALID, Trigger};
use crate::api::{
    CORDONED, CheckpointSchedule, DRAIN, EVICTABLE, MANAGER, PodCheckpoint, PodRestore, SCHEDULED_BY, SERIES,
};
use crate::context::{Context, Error, optional};
use crate::template::label_value;
use pods::summary;

/// Handlers of cryopod begin with it.
const HANDLERS: &str = "cryopod";
/// Pods are not watched, since that costs memory for each pod of the cluster; what changes among them is seen within this.
const PODS_EVERY: Duration = Duration::from_secs(30);
/// While a node is cordoned, somebody waits.
const DRAINS_EVERY: Duration = Duration::from_secs(2);
/// Larger than any set of pods that one list should bring at once.
const PAGE: u32 = 500;
/// More healthy pods than there can be, so that the budget allows no disruption whoever owns the pods.
const NEVER: i32 = i32::MAX;

/// Looks, decides, does, and says so.
pub(super) async fn reconcile(object: Arc<CheckpointSchedule>, context: Arc<Context>) -> Result<Next, Error> {
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let api: Api<CheckpointSchedule> = Api::namespaced(context.client.clone(), &namespace);
    // The watch may be behind our own last status.
    let Some(object) = optional(api.get(&name).await.map_err(Error::api("read a schedule")))? else {
        return Ok(Next::await_change());
    };
    // Its budget and its checkpoints' labels go with it or stay; nothing is to be done.
    if object.metadata.deletion_timestamp.is_some() {
        return Ok(Next::await_change());
    }
    let work = Work { context: &context, object: &object, namespace: &namespace };
    let seen = match work.look().await? {
        Ok(seen) => seen,
        Err(verdict) => {
            let mut status = object.status.clone().unwrap_or_default();
            let generation = object.metadata.generation;
            condition::set_ready(&mut status.conditions, &verdict, generation, context.now());
            work.write(&api, &status).await?;
            return Ok(Next::await_change());
        }
    };
    let planned = plan(&seen);
    for action in &planned.actions {
        work.act(action).await?;
    }
    // Only now: a kill before it does the same actions again, which changes nothing.
    work.write(&api, &planned.status).await?;
    let next = planned.status.next_schedule_time.as_ref().map(|time| time.0);
    context.metrics.schedule(
        &namespace,
        &name,
        planned.status.last_successful_time.as_ref().map(|it| it.0),
        next,
    );
    let until = planned.again.map(|at| at.duration_since(context.now()));
    let until = until.map(|left| Duration::try_from(left).unwrap_or_default() + Duration::from_millis(50));
    let waits = object.spec.triggers.contains(&Trigger::NodeDrain);
    let look = match (waits, seen.cordoned.is_empty()) {
        (true, false) => DRAINS_EVERY,
        (true, true) => PODS_EVERY,
        (false, _) => PODS_EVERY * 10,
    };
    Ok(Next::requeue(until.map_or(look, |until| until.min(look))))
}

struct Work<'a> {
    context: &'a Arc<Context>,
    object: &'a CheckpointSchedule,
    namespace: &'a str,
}

impl Work<'_> {
    async fn look(&self) -> Result<Result<Seen<'_>, Verdict>, Error> {
        let client = &self.context.client;
        let selector = match Selector::try_from(self.object.spec.selector.clone()) {
            Ok(selector) => selector,
            Err(error) => return Ok(Err(Verdict::no(INVALID, format!("selector: {error}")))),
        };
        let handlers = self.handlers().await?;
        let pods = self.pods(&selector, &handlers).await?;
        let mine =
            ListParams::default().labels(&format!("{SCHEDULED_BY}={}", label_value(&self.object.name_any())));
        let checkpoints: Api<PodCheckpoint> = Api::namespaced(client.clone(), self.namespace);
        let listed = checkpoints.list(&mine).await.map_err(Error::api("list checkpoints of a schedule"))?;
        let needed = self.needed().await?;
        let checkpoints = listed.items.iter().map(|it| super::plan::checkpoint(it, &needed)).collect();
        let drains = self.object.spec.triggers.contains(&Trigger::NodeDrain);
        let cordoned = if drains { self.cordoned().await? } else { BTreeMap::new() };
        let budgets: Api<PodDisruptionBudget> = Api::namespaced(client.clone(), self.namespace);
        let budget = budgets.get_metadata_opt(&self.budget_name()).await;
        let guarded = budget.map_err(Error::api("read a disruption budget"))?.is_some();
        let now = self.context.now();
        Ok(Ok(Seen { object: self.object, pods, checkpoints, cordoned, guarded, now }))
    }

    /// RuntimeClasses whose handler is one of ours.
    async fn handlers(&self) -> Result<BTreeSet<String>, Error> {
        let api: Api<RuntimeClass> = Api::all(self.context.client.clone());
        let classes = api.list(&ListParams::default()).await.map_err(Error::api("list RuntimeClasses"))?;
        let ours = classes.items.iter().filter(|class| class.handler.starts_with(HANDLERS));
        Ok(ours.map(ResourceExt::name_any).collect())
    }

    async fn pods(&self, selector: &Selector, handlers: &BTreeSet<String>) -> Result<Vec<Pod>, Error> {
        let api: Api<CorePod> = Api::namespaced(self.context.client.clone(), self.namespace);
        let mut pods = Vec::new();
        let mut params = ListParams::default().limit(PAGE).labels_from(selector);
        loop {
            let page = api.list(&params).await.map_err(Error::api("list the pods of a schedule"))?;
            pods.extend(page.items.iter().map(|pod| summary(pod, handlers)));
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params.continue_token = Some(token),
                None => return Ok(pods),
            }
        }
    }

    /// Checkpoints that a restore is about to read.
    async fn needed(&self) -> Result<BTreeSet<String>, Error> {
        let api: Api<PodRestore> = Api::namespaced(self.context.client.clone(), self.namespace);
        let restores = api.list(&ListParams::default()).await.map_err(Error::api("list restores"))?;
        let is_open = |restore: &&PodRestore| {
            let status = restore.status.clone().unwrap_or_default();
            let reason = condition::reason(&status.conditions);
            !matches!(reason, crate::api::restore::SUCCEEDED | crate::api::restore::FAILED)
        };
        Ok(restores.items.iter().filter(is_open).map(|it| it.spec.checkpoint_name.clone()).collect())
    }

    /// Cordoned nodes and since when, which is noted on the node, so that the next drain is told from this one.
    async fn cordoned(&self) -> Result<BTreeMap<String, String>, Error> {
        let api: Api<Node> = Api::all(self.context.client.clone());
        let nodes = api.list(&ListParams::default()).await.map_err(Error::api("list nodes"))?;
        let mut cordoned = BTreeMap::new();
        for node in &nodes.items {
            let is_cordoned = node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false);
            let noted = node.annotations().get(CORDONED).cloned();
            let note = match (is_cordoned, &noted) {
                (true, None) => Some(json!(self.context.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string())),
                (false, Some(_)) => Some(serde_json::Value::Null),
                _ => None,
            };
            if let Some(value) = &note {
                let patch = json!({ "metadata": { "annotations": { CORDONED: value } } });
                let written =
                    api.patch(&node.name_any(), &PatchParams::default(), &Patch::Merge(&patch)).await;
                optional(written.map_err(Error::api("note that a node is cordoned")))?;
            }
            let since = note.as_ref().and_then(|value| value.as_str().map(str::to_owned)).or(noted);
            if let Some(since) = since.filter(|_| is_cordoned) {
                cordoned.insert(node.name_any(), since);
            }
        }
        Ok(cordoned)
    }

    async fn act(&self, action: &Action) -> Result<(), Error> {
        match action {
            Action::Make { name, pod, drain } => self.make(name, pod, drain.as_deref()).await,
            Action::Delete(name) => {
                let api: Api<PodCheckpoint> = Api::namespaced(self.context.client.clone(), self.namespace);
                let deleted = api.delete(name, &DeleteParams::default()).await;
                optional(deleted.map_err(Error::api("delete a checkpoint that is not kept")))?;
                Ok(())
            }
            Action::Guard(wanted) => self.guard(*wanted).await,
            Action::Evictable(pod, value) => {
                let patch = json!({ "metadata": { "labels": { EVICTABLE: value } } });
                let api = self.context.pods(self.namespace);
                let written = api.patch(pod, &PatchParams::default(), &Patch::Merge(&patch)).await;
                optional(written.map_err(Error::api("label a pod for its eviction")))?;
                Ok(())
            }
        }
    }

    async fn make(&self, name: &str, pod: &Pod, drain: Option<&str>) -> Result<(), Error> {
        let template = &self.object.spec.checkpoint;
        let spec = PodCheckpointSpec {
            source_pod: SourcePod { name: pod.name.clone(), uid: Some(pod.uid.clone()) },
            timeout_seconds: template.timeout_seconds,
            mode: template.mode,
            containers: Vec::new(),
            deletion_policy: template.deletion_policy,
            ttl: None,
        };
        let mut object = PodCheckpoint::new(name, spec);
        let labels = BTreeMap::from([(SCHEDULED_BY.to_owned(), label_value(&self.object.name_any()))]);
        object.metadata.labels = Some(labels);
        let mut annotations = BTreeMap::from([(SERIES.to_owned(), pod.series.clone())]);
        annotations.extend(drain.map(|cordon| (DRAIN.to_owned(), cordon.to_owned())));
        object.metadata.annotations = Some(annotations);
        let api: Api<PodCheckpoint> = Api::namespaced(self.context.client.clone(), self.namespace);
        match api.create(&PostParams::default(), &object).await.map_err(Error::api("make a checkpoint")) {
            // Made before a kill that kept the status from saying so.
            Err(error) if error.is_conflict() => Ok(()),
            made => made.map(|_| ()),
        }
    }

    fn budget_name(&self) -> String {
        let mut name = format!("cryopod-{}", self.object.name_any());
        name.truncate(253);
        name
    }

    async fn guard(&self, wanted: bool) -> Result<(), Error> {
        let api: Api<PodDisruptionBudget> = Api::namespaced(self.context.client.clone(), self.namespace);
        let name = self.budget_name();
        if !wanted {
            let deleted = api.delete(&name, &DeleteParams::default()).await;
            optional(deleted.map_err(Error::api("delete a disruption budget")))?;
            return Ok(());
        }
        let mut selector: LabelSelector = self.object.spec.selector.clone();
        selector.match_expressions.get_or_insert_default().push(LabelSelectorRequirement {
            key: EVICTABLE.to_owned(),
            operator: "DoesNotExist".to_owned(),
            values: None,
        });
        // Owned: it goes with its schedule.
        let owner: Option<OwnerReference> = self.object.controller_owner_ref(&());
        let budget = json!({
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": { "name": name, "ownerReferences": owner.into_iter().collect::<Vec<_>>() },
            "spec": { "selector": selector, "minAvailable": NEVER, "unhealthyPodEvictionPolicy": "IfHealthyBudget" },
        });
        let params = PatchParams::apply(MANAGER).force();
        let applied = api.patch(&name, &params, &Patch::Apply(&budget)).await;
        applied.map_err(Error::api("make a disruption budget")).map(|_| ())
    }

    async fn write(
        &self,
        api: &Api<CheckpointSchedule>,
        status: &crate::api::CheckpointScheduleStatus,
    ) -> Result<(), Error> {
        if self.object.status.as_ref() == Some(status) {
            return Ok(());
        }
        let mut value = serde_json::to_value(status).unwrap_or_default();
        // A merge patch leaves what it does not name; these may have become empty.
        for (key, default) in [("runs", json!([])), ("nextScheduleTime", serde_json::Value::Null)] {
            if value.get(key).is_none() {
                value[key] = default;
            }
        }
        let patch = Patch::Merge(json!({
            "metadata": { "resourceVersion": self.object.resource_version() }, "status": value,
        }));
        let written = api.patch_status(&self.object.name_any(), &PatchParams::default(), &patch).await;
        optional(written.map_err(Error::api("tell how a schedule stands")))?;
        Ok(())
    }
}
