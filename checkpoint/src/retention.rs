//! Which checkpoints to keep: `keep-last/hourly/daily/weekly/monthly/yearly`, per pod, with Proxmox's meaning.
//!
//! Pure: it plans, the store acts. The rules work as Proxmox VE and Backup Server document them for `prune-backups`:
//! newest first, each rule keeps the newest checkpoint of a period and skips periods that an earlier rule covers, so
//! the rules add up. No rule at all keeps everything. Whatever is held or in use is kept in any case (I5) and does
//! not use up a place. Periods are those of UTC.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use crate::id::CheckpointId;
use crate::info::CheckpointInfo;

/// How many to keep of each kind; 0 is "no such rule".
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Policy {
    /// The newest ones.
    pub keep_last: u32,
    /// Newest of each hour.
    pub keep_hourly: u32,
    /// Newest of each day.
    pub keep_daily: u32,
    /// Newest of each ISO week.
    pub keep_weekly: u32,
    /// Newest of each month.
    pub keep_monthly: u32,
    /// Newest of each year.
    pub keep_yearly: u32,
}

/// Why a checkpoint is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// There is no rule.
    NoPolicy,
    /// A person holds it.
    Held,
    /// A restored pod or a later checkpoint shares its disks.
    InUse,
    /// A restore or an export goes on.
    BeingRead,
    /// Not yet independent of its source.
    Settling,
    /// Its time is in the future: the clock is or was wrong, so no rule can judge it.
    Future,
    /// `keep-last`.
    Last,
    /// `keep-hourly`.
    Hourly,
    /// `keep-daily`.
    Daily,
    /// `keep-weekly`.
    Weekly,
    /// `keep-monthly`.
    Monthly,
    /// `keep-yearly`.
    Yearly,
}

/// What is kept and what goes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// Kept, each with its reason.
    pub keep: Vec<(CheckpointId, Reason)>,
    /// To be deleted.
    pub delete: Vec<CheckpointId>,
}

/// Plans for all pods of a store; checkpoints compete only with those of the same pod (namespace and name, so that
/// the pods a Deployment or a restore makes one after the other under one name are one series). Imported ones are a
/// series of their own: pod and time are their sender's word, which must not push out what was captured here.
pub fn plan(checkpoints: &[CheckpointInfo], policy: &Policy, now: Timestamp) -> Plan {
    let mut pods: BTreeMap<(bool, &str, &str), Vec<&CheckpointInfo>> = BTreeMap::new();
    for checkpoint in checkpoints {
        let pod = (checkpoint.imported, checkpoint.pod.namespace.as_str(), checkpoint.pod.name.as_str());
        pods.entry(pod).or_default().push(checkpoint);
    }
    let mut plan = Plan::default();
    for mut series in pods.into_values() {
        // Equal times are ordered by id, so that two runs decide alike.
        series.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| b.id.cmp(&a.id)));
        one_pod(&series, policy, now, &mut plan);
    }
    plan
}

fn one_pod(series: &[&CheckpointInfo], policy: &Policy, now: Timestamp, plan: &mut Plan) {
    let mut keep: BTreeMap<&CheckpointId, Reason> = BTreeMap::new();
    let mut judged: Vec<&CheckpointInfo> = Vec::new();
    for checkpoint in series {
        match untouchable(checkpoint, policy, now) {
            Some(reason) => {
                keep.insert(&checkpoint.id, reason);
            }
            None => judged.push(checkpoint),
        }
    }
    let rules: [(u32, Reason, &str); 6] = [
        (policy.keep_last, Reason::Last, ""),
        (policy.keep_hourly, Reason::Hourly, "%Y-%m-%d %H"),
        (policy.keep_daily, Reason::Daily, "%Y-%m-%d"),
        (policy.keep_weekly, Reason::Weekly, "%G-%V"),
        (policy.keep_monthly, Reason::Monthly, "%Y-%m"),
        (policy.keep_yearly, Reason::Yearly, "%Y"),
    ];
    for (count, reason, format) in rules {
        let period = |checkpoint: &CheckpointInfo| {
            if format.is_empty() {
                checkpoint.id.to_string()
            } else {
                checkpoint.created.to_zoned(TimeZone::UTC).strftime(format).to_string()
            }
        };
        let mut covered: BTreeSet<String> =
            judged.iter().filter(|c| keep.contains_key(&c.id)).map(|c| period(c)).collect();
        let mut left = count;
        for checkpoint in &judged {
            if left == 0 {
                break;
            }
            if !keep.contains_key(&checkpoint.id) && covered.insert(period(checkpoint)) {
                keep.insert(&checkpoint.id, reason);
                left -= 1;
            }
        }
    }
    for checkpoint in series {
        match keep.get(&checkpoint.id) {
            Some(reason) => plan.keep.push((checkpoint.id.clone(), *reason)),
            None => plan.delete.push(checkpoint.id.clone()),
        }
    }
}

/// Kept whatever the rules say.
fn untouchable(checkpoint: &CheckpointInfo, policy: &Policy, now: Timestamp) -> Option<Reason> {
    if *policy == Policy::default() {
        Some(Reason::NoPolicy)
    } else if let Some(reason) = in_use(checkpoint) {
        Some(reason)
    } else if checkpoint.created > now {
        Some(Reason::Future)
    } else {
        None
    }
}

/// Why a checkpoint must not go, apart from all rules.
pub(crate) fn in_use(checkpoint: &CheckpointInfo) -> Option<Reason> {
    if checkpoint.held {
        Some(Reason::Held)
    } else if !checkpoint.sharers.is_empty() {
        Some(Reason::InUse)
    } else if !checkpoint.settled {
        Some(Reason::Settling)
    } else {
        None
    }
}

#[cfg(test)]
mod tests;
