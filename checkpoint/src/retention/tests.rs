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

/// Newest first: a time, and the rule that keeps it or None.
type Row = (&'static str, Option<Reason>);

/// Each row as planned, with nothing beside them.
fn exactly(policy: Policy, now: &str, rows: &[Row]) {
    let all: Vec<_> = rows.iter().map(|(time, _)| at("web", time)).collect();
    let plan = plan(&all, &policy, now.parse().unwrap());
    for ((time, expected), checkpoint) in rows.iter().zip(&all) {
        let kept = plan.keep.iter().find(|(id, _)| *id == checkpoint.id).map(|(_, reason)| *reason);
        assert_eq!(kept, *expected, "{time} of {plan:?}");
        assert_eq!(plan.delete.contains(&checkpoint.id), expected.is_none(), "{time}");
    }
}

#[test]
fn keep_hourly_keeps_the_newest_of_each_hour_of_each_day() {
    let kept = Some(Reason::Hourly);
    exactly(
        Policy { keep_hourly: 4, ..Policy::default() },
        "2026-06-30T23:59:59Z",
        &[
            ("2026-06-30T10:59:59Z", kept),
            ("2026-06-30T10:00:00Z", None),
            ("2026-06-30T09:59:59Z", kept),
            ("2026-06-30T09:10:00Z", None),
            // The same hour of the day before is another one.
            ("2026-06-29T10:30:00Z", kept),
            ("2026-06-29T10:29:00Z", None),
            ("2026-05-29T10:30:00Z", kept),
            ("2026-05-29T09:30:00Z", None),
        ],
    );
}

#[test]
fn keep_weekly_goes_by_iso_weeks_over_the_end_of_a_year() {
    let kept = Some(Reason::Weekly);
    // 2026 has a week 53, whose last days are in 2027; a calendar year with a week number would split it.
    exactly(
        Policy { keep_weekly: 3, ..Policy::default() },
        "2027-02-01T00:00:00Z",
        &[
            ("2027-01-04T00:00:00Z", kept), // Monday of week 1
            ("2027-01-03T23:59:59Z", kept), // Sunday of week 53
            ("2027-01-01T12:00:00Z", None),
            ("2026-12-31T12:00:00Z", None),
            ("2026-12-28T00:00:00Z", None), // Monday of week 53
            ("2026-12-27T23:59:59Z", kept), // Sunday of week 52
            ("2026-12-21T00:00:00Z", None),
            ("2026-12-20T00:00:00Z", None), // week 51, a fourth one
        ],
    );
    // The last days of 2024 are in week 1 of 2025, and its first ones were in week 1 of 2024.
    exactly(
        Policy { keep_weekly: 9, ..Policy::default() },
        "2025-02-01T00:00:00Z",
        &[
            ("2025-01-05T00:00:00Z", kept),
            ("2024-12-30T00:00:00Z", None),
            ("2024-12-29T23:59:59Z", kept),
            ("2024-01-07T00:00:00Z", kept),
            ("2024-01-01T00:00:00Z", None),
        ],
    );
}

#[test]
fn keep_monthly_keeps_the_newest_of_each_month_of_each_year() {
    let kept = Some(Reason::Monthly);
    exactly(
        Policy { keep_monthly: 4, ..Policy::default() },
        "2026-06-30T23:59:59Z",
        &[
            ("2026-03-31T23:59:59Z", kept),
            ("2026-03-01T00:00:00Z", None),
            ("2026-02-28T23:59:59Z", kept),
            ("2026-02-01T00:00:00Z", None),
            ("2025-12-01T00:00:00Z", kept),
            // The same month of the year before is another one.
            ("2025-03-15T00:00:00Z", kept),
            ("2025-03-14T00:00:00Z", None),
            ("2025-01-31T00:00:00Z", None),
        ],
    );
}

#[test]
fn keep_yearly_keeps_the_newest_of_each_year() {
    let kept = Some(Reason::Yearly);
    exactly(
        Policy { keep_yearly: 3, ..Policy::default() },
        "2027-06-30T23:59:59Z",
        &[
            // In week 53 of 2026, and of 2027 all the same.
            ("2027-01-01T00:00:00Z", kept),
            ("2026-12-31T23:59:59Z", kept),
            ("2026-01-01T00:00:00Z", None),
            ("2024-12-31T00:00:00Z", kept),
            ("2024-01-01T00:00:00Z", None),
            ("2023-12-31T00:00:00Z", None),
        ],
    );
}

#[test]
fn periods_that_an_earlier_rule_covers_use_up_no_place_of_a_later_one() {
    let policy = Policy {
        keep_last: 1,
        keep_hourly: 1,
        keep_daily: 1,
        keep_weekly: 1,
        keep_monthly: 1,
        keep_yearly: 1,
    };
    exactly(
        policy,
        "2026-06-30T23:59:59Z",
        &[
            ("2026-06-30T10:30:00Z", Some(Reason::Last)),
            ("2026-06-30T10:00:00Z", None),
            ("2026-06-30T09:00:00Z", Some(Reason::Hourly)),
            ("2026-06-30T08:00:00Z", None),
            ("2026-06-29T08:00:00Z", Some(Reason::Daily)),
            ("2026-06-28T08:00:00Z", Some(Reason::Weekly)), // Sunday of the week before
            ("2026-06-27T08:00:00Z", None),
            ("2026-05-27T08:00:00Z", Some(Reason::Monthly)),
            ("2026-04-27T08:00:00Z", None),
            ("2025-04-27T08:00:00Z", Some(Reason::Yearly)),
            ("2024-04-27T08:00:00Z", None),
        ],
    );
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
