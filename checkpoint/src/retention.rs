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
mod tests {
    use super::*;
    use crate::manifest::CapturedMode;
    use crate::target::PodIdentity;
    use proptest::prelude::*;

    fn at(pod: &str, time: &str) -> CheckpointInfo {
        let created: Timestamp = time.parse().unwrap();
        CheckpointInfo {
            id: format!("{pod}-{}", created.as_second()).parse().unwrap(),
            created,
            mode: CapturedMode::Full,
            pod: PodIdentity { name: pod.into(), ..PodIdentity::default() },
            members: vec![],
            settled: true,
            imported: false,
            held: false,
            memory_bytes: 0,
            disk_bytes: 0,
            sharers: vec![],
        }
    }

    fn now() -> Timestamp {
        "2026-06-30T23:59:59Z".parse().unwrap()
    }

    fn kept(plan: &Plan, reason: Reason) -> usize {
        plan.keep.iter().filter(|(_, why)| *why == reason).count()
    }

    #[test]
    fn without_a_rule_everything_stays() {
        let all = [at("web", "2026-01-01T00:00:00Z"), at("web", "2020-01-01T00:00:00Z")];
        let plan = plan(&all, &Policy::default(), now());
        assert_eq!((plan.keep.len(), plan.delete.len()), (2, 0));
    }

    #[test]
    fn keep_last_keeps_the_newest_of_each_pod() {
        let all = [
            at("web", "2026-06-01T00:00:00Z"),
            at("web", "2026-06-02T00:00:00Z"),
            at("web", "2026-06-03T00:00:00Z"),
            at("db", "2025-01-01T00:00:00Z"),
        ];
        let plan = plan(&all, &Policy { keep_last: 2, ..Policy::default() }, now());
        assert_eq!(plan.delete, vec![all[0].id.clone()]);
    }

    #[test]
    fn imported_checkpoints_do_not_compete_with_those_captured_here() {
        let mut all = vec![at("web", "2026-06-01T00:00:00Z"), at("web", "2026-06-02T00:00:00Z")];
        for day in 10..14 {
            let mut imported = at("web", &format!("2026-06-{day}T00:00:00Z"));
            imported.imported = true;
            all.push(imported);
        }
        let plan = plan(&all, &Policy { keep_last: 2, ..Policy::default() }, now());
        assert_eq!(plan.delete, vec![all[3].id.clone(), all[2].id.clone()]);
    }

    #[test]
    fn the_rules_add_up_as_in_proxmox() {
        // Two a day for ten days: the last 2, then the newest of 3 further days, then one further month.
        let mut all = vec![at("web", "2026-05-31T12:00:00Z")];
        for day in 11..=20 {
            all.push(at("web", &format!("2026-06-{day}T06:00:00Z")));
            all.push(at("web", &format!("2026-06-{day}T18:00:00Z")));
        }
        let policy = Policy { keep_last: 2, keep_daily: 3, keep_monthly: 1, ..Policy::default() };
        let plan = plan(&all, &policy, now());
        let ids: Vec<String> = plan.keep.iter().map(|(id, _)| id.to_string()).collect();
        let want: Vec<String> = [
            "2026-06-20T18:00:00Z",
            "2026-06-20T06:00:00Z",
            "2026-06-19T18:00:00Z",
            "2026-06-18T18:00:00Z",
            "2026-06-17T18:00:00Z",
            "2026-05-31T12:00:00Z",
        ]
        .iter()
        .map(|time| at("web", time).id.to_string())
        .collect();
        assert_eq!(ids, want);
        assert_eq!(kept(&plan, Reason::Daily), 3);
        assert_eq!(kept(&plan, Reason::Monthly), 1);
    }

    #[test]
    fn held_used_unsettled_and_future_checkpoints_stay_and_take_no_place() {
        let mut all: Vec<CheckpointInfo> =
            (1..=6).map(|day| at("web", &format!("2026-06-0{day}T00:00:00Z"))).collect();
        all[0].held = true;
        all[1].sharers = vec!["tank/snaps/9".into()];
        all[2].settled = false;
        all.push(at("web", "2030-01-01T00:00:00Z"));
        let plan = plan(&all, &Policy { keep_last: 1, ..Policy::default() }, now());
        assert_eq!(plan.delete, vec![all[4].id.clone(), all[3].id.clone()]);
        for reason in [Reason::Held, Reason::InUse, Reason::Settling, Reason::Future, Reason::Last] {
            assert_eq!(kept(&plan, reason), 1, "{reason:?}");
        }
    }

    fn any_checkpoint() -> impl Strategy<Value = CheckpointInfo> {
        (0i64..40_000_000, any::<bool>(), any::<bool>(), any::<bool>(), 0..3usize).prop_map(
            |(second, held, used, settled, pod)| {
                let pod = ["web", "db", "x"][pod];
                let created = Timestamp::from_second(1_740_000_000 + second).unwrap();
                CheckpointInfo {
                    id: format!("{pod}-{second}").parse().unwrap(),
                    created,
                    held: held && second % 7 == 0,
                    sharers: if used && second % 5 == 0 { vec!["d".into()] } else { vec![] },
                    settled: settled || second % 11 != 0,
                    ..at(pod, "2026-01-01T00:00:00Z")
                }
            },
        )
    }

    proptest! {
        #[test]
        fn nothing_held_or_used_is_deleted_and_nothing_is_lost_from_the_plan(
            mut all in prop::collection::vec(any_checkpoint(), 0..60),
            last in 0u32..5, hourly in 0u32..5, daily in 0u32..5, weekly in 0u32..5, monthly in 0u32..5, yearly in 0u32..5,
        ) {
            all.sort_by(|a, b| a.id.cmp(&b.id));
            all.dedup_by(|a, b| a.id == b.id);
            let policy = Policy {
                keep_last: last, keep_hourly: hourly, keep_daily: daily,
                keep_weekly: weekly, keep_monthly: monthly, keep_yearly: yearly,
            };
            let now = Timestamp::from_second(1_760_000_000).unwrap();
            let plan = plan(&all, &policy, now);
            prop_assert_eq!(plan.keep.len() + plan.delete.len(), all.len());
            for checkpoint in &all {
                if plan.delete.contains(&checkpoint.id) {
                    prop_assert!(!checkpoint.held && checkpoint.sharers.is_empty() && checkpoint.settled);
                    prop_assert!(checkpoint.created <= now);
                }
            }
            // Each rule keeps no more than it says, per pod.
            for pod in ["web", "db", "x"] {
                let of = |reason| plan.keep.iter()
                    .filter(|(id, why)| *why == reason && id.as_str().starts_with(&format!("{pod}-"))).count();
                prop_assert!(of(Reason::Last) <= last as usize);
                prop_assert!(of(Reason::Hourly) <= hourly as usize);
                prop_assert!(of(Reason::Daily) <= daily as usize);
                prop_assert!(of(Reason::Weekly) <= weekly as usize);
                prop_assert!(of(Reason::Monthly) <= monthly as usize);
                prop_assert!(of(Reason::Yearly) <= yearly as usize);
            }
            // With a rule for the newest ones, the newest judged checkpoint of each pod stays.
            if last > 0 {
                for pod in ["web", "db", "x"] {
                    let newest = all.iter().filter(|c| c.pod.name == pod && c.created <= now)
                        .max_by(|a, b| a.created.cmp(&b.created).then_with(|| a.id.cmp(&b.id)));
                    if let Some(newest) = newest {
                        prop_assert!(!plan.delete.contains(&newest.id));
                    }
                }
            }
        }
    }
}
