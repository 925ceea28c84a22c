//! Which checkpoints of a schedule go. Pure; the rules are those of the store ([`retention`]).
//!
//! A pod's checkpoints compete with each other. Those of pods that are gone compete with all others of the same series – the
//! Deployment, say – whose pods are gone: else each name that a Deployment ever gave a pod would keep its own for ever.

use std::collections::{BTreeMap, BTreeSet};

use cryopod_checkpoint::id::CheckpointId;
use cryopod_checkpoint::info::CheckpointInfo;
use cryopod_checkpoint::manifest::CapturedMode;
use cryopod_checkpoint::retention::{self, Policy};
use cryopod_checkpoint::target::PodIdentity;
use jiff::Timestamp;

use crate::api::keep::Retention;
use crate::size;

/// A complete checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Name of its object.
    pub name: String,
    /// Its pod.
    pub pod: String,
    /// What it belongs to when the pod is gone.
    pub series: String,
    /// When it was completed.
    pub completed: Timestamp,
    /// Memory and disks.
    pub bytes: u64,
    /// Held by a person, or a restore needs it.
    pub untouchable: bool,
}

/// The names of those that go. `living`: names of pods that are there.
pub fn plan(kept: &[Kept], living: &BTreeSet<String>, rules: &Retention, now: Timestamp) -> Vec<String> {
    let series = |it: &Kept| match living.contains(&it.pod) {
        true => format!("pod/{}", it.pod),
        false => format!("gone/{}", it.series),
    };
    let by_id: BTreeMap<CheckpointId, &Kept> =
        kept.iter().map(|it| (CheckpointId::of_object("", &it.name), it)).collect();
    let infos: Vec<CheckpointInfo> = by_id.iter().map(|(id, it)| info(id.clone(), it, series(it))).collect();
    let planned = retention::plan(&infos, &policy(rules), now).delete;
    let mut gone: BTreeSet<&str> =
        planned.iter().filter_map(|id| by_id.get(id)).map(|it| it.name.as_str()).collect();
    if let Some(most) = rules.max_total_size.as_deref().and_then(size::parse) {
        let mut left: Vec<&Kept> = kept.iter().filter(|it| !gone.contains(it.name.as_str())).collect();
        left.sort_by(|a, b| a.completed.cmp(&b.completed).then_with(|| a.name.cmp(&b.name)));
        let newest: BTreeMap<String, &str> = left.iter().map(|it| (series(it), it.name.as_str())).collect();
        let mut total: u64 = left.iter().fold(0, |sum, it| sum.saturating_add(it.bytes));
        for it in left {
            if total <= most {
                break;
            }
            if !it.untouchable && newest.get(&series(it)) != Some(&it.name.as_str()) {
                gone.insert(&it.name);
                total = total.saturating_sub(it.bytes);
            }
        }
    }
    gone.into_iter().map(str::to_owned).collect()
}

fn policy(rules: &Retention) -> Policy {
    let count = |rule: Option<u32>| rule.unwrap_or(0);
    Policy {
        keep_last: count(rules.keep_last),
        keep_hourly: count(rules.keep_hourly),
        keep_daily: count(rules.keep_daily),
        keep_weekly: count(rules.keep_weekly),
        keep_monthly: count(rules.keep_monthly),
        keep_yearly: count(rules.keep_yearly),
    }
}

fn info(id: CheckpointId, it: &Kept, series: String) -> CheckpointInfo {
    CheckpointInfo {
        id,
        created: it.completed,
        mode: CapturedMode::Full,
        pod: PodIdentity { name: series, ..PodIdentity::default() },
        members: Vec::new(),
        settled: true,
        imported: false,
        held: it.untouchable,
        memory_bytes: 0,
        disk_bytes: 0,
        sharers: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(hour: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + hour * 3600).unwrap()
    }

    fn one(name: &str, pod: &str, hour: i64) -> Kept {
        Kept {
            name: name.into(),
            pod: pod.into(),
            series: "web".into(),
            completed: at(hour),
            bytes: 10,
            untouchable: false,
        }
    }

    fn living(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn no_rule_keeps_everything() {
        let kept = [one("a", "web-0", 1), one("b", "web-0", 2)];
        assert!(plan(&kept, &living(&["web-0"]), &Retention::default(), at(9)).is_empty());
    }

    #[test]
    fn each_living_pod_has_its_own_and_those_that_are_gone_share() {
        let rules = Retention { keep_last: Some(1), ..Retention::default() };
        let kept = [
            one("a1", "web-a", 1),
            one("a2", "web-a", 2),
            one("b1", "web-b", 1),
            one("c1", "web-c", 3),
            one("d1", "web-d", 4),
        ];
        let gone = plan(&kept, &living(&["web-a", "web-b"]), &rules, at(9));
        assert_eq!(gone, ["a1", "c1"], "of the pods that are gone the newest stays");
    }

    #[test]
    fn the_oldest_go_beyond_the_size_but_never_the_newest_nor_what_is_held() {
        let rules = Retention { max_total_size: Some("20".into()), ..Retention::default() };
        let mut kept = vec![one("a", "p", 1), one("b", "p", 2), one("c", "p", 3), one("d", "p", 4)];
        assert_eq!(plan(&kept, &living(&["p"]), &rules, at(9)), ["a", "b"]);
        kept[0].untouchable = true;
        assert_eq!(plan(&kept, &living(&["p"]), &rules, at(9)), ["b", "c"]);
        let tiny = Retention { max_total_size: Some("1".into()), ..Retention::default() };
        assert_eq!(plan(&kept, &living(&["p"]), &tiny, at(9)), ["b", "c"], "the newest stays");
    }

    proptest! {
        #[test]
        fn what_is_held_and_the_newest_of_a_living_pod_stay(
            hours in proptest::collection::vec(0i64..2000, 1..20), last in 1u32..4, daily in 0u32..4, held in 0usize..20,
            limit in proptest::option::of(0u32..200),
        ) {
            let mut kept: Vec<Kept> =
                hours.iter().enumerate().map(|(n, hour)| one(&format!("c{n}"), "p", *hour)).collect();
            if let Some(it) = kept.get_mut(held) {
                it.untouchable = true;
            }
            let rules = Retention {
                keep_last: Some(last), keep_daily: Some(daily),
                max_total_size: limit.map(|limit| limit.to_string()), ..Retention::default()
            };
            let gone = plan(&kept, &living(&["p"]), &rules, at(3000));
            prop_assert!(gone.iter().all(|name| kept.iter().all(|it| it.name != *name || !it.untouchable)));
            let newest = kept.iter().filter(|it| !it.untouchable).map(|it| it.completed).max();
            if let Some(newest) = newest {
                let survives = kept.iter().any(|it| it.completed == newest && !gone.contains(&it.name));
                prop_assert!(survives || kept.iter().any(|it| it.untouchable && it.completed >= newest));
            }
        }
    }
}
