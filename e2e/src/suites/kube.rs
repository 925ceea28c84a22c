//! A real cluster: what an operator and an application's owner do with it, by kubectl.
//!
//! Each test makes what it needs and deletes it; `nothing_is_left_over` looks for what is left on the node, and after it the
//! chart itself is taken away and installed again.

mod asked;
mod bad;
mod chart;
mod dashboard;
mod life;
mod rough;
mod schedules;
mod top;

use crate::kube;
use crate::suite::{Failure, Suite, ensure, test};

type Body = fn() -> Result<(), Failure>;

/// In their order: name, whether every run has it, what it does.
const CASES: &[(&str, bool, Body)] = &[
    ("the_cluster_is_fit_for_it", true, life::doctor),
    ("a_pod_is_captured_deleted_and_goes_on_under_its_name", true, || life::round_trip("cryopod")),
    ("a_pod_of_lxc_is_captured_deleted_and_goes_on", false, || life::round_trip("cryopod-lxc")),
    ("three_clones_go_on_from_the_same_number", false, life::clones),
    ("an_ordinary_pod_with_the_annotation_goes_on", false, life::by_annotation),
    ("kubelets_own_endpoint_makes_an_archive_and_a_checkpoint", false, life::kubelet_endpoint),
    ("some_containers_of_a_pod_are_captured_and_the_others_start_afresh", false, asked::some_containers),
    ("the_audit_log_names_the_user_that_asked_the_cluster", false, asked::by_whom),
    ("metrics_tell_what_was_done", false, life::metrics),
    ("kubectl_top_shows_what_a_pod_uses", false, || top::shows("cryopod")),
    ("kubectl_top_shows_what_a_pod_of_lxc_uses", false, || top::shows("cryopod-lxc")),
    ("a_schedule_runs_by_hand_and_keeps_what_it_shall", false, schedules::by_hand),
    ("a_schedule_fires_by_the_clock", false, schedules::by_the_clock),
    ("a_drain_waits_for_the_checkpoint", false, schedules::drain),
    ("what_cannot_be_captured_says_why", true, bad::captures),
    ("what_cannot_be_restored_says_why", false, bad::restores),
    ("an_agent_that_is_killed_finishes_what_it_began", false, rough::agent_killed),
    (
        "a_checkpoint_that_is_deleted_while_it_is_taken_leaves_the_pod_running",
        false,
        rough::deleted_meanwhile,
    ),
    ("the_api_server_may_go_away_and_come_back", false, rough::api_server),
    ("agents_killed_at_random_lose_nothing", false, rough::random_kills),
    ("every_query_of_the_dashboard_has_data", false, dashboard::every_query_has_data),
    ("nothing_is_left_over", true, nothing_left),
    ("helm_test_passes", false, chart::helm_test),
    ("uninstall_is_refused_while_a_pod_runs", false, chart::refused_while_a_pod_runs),
    ("a_dropped_handler_stays_for_the_pod_that_it_has", false, chart::dropped_handler),
    ("uninstall_puts_the_node_back_and_install_works_again", false, chart::uninstall_and_install),
];

/// The tests; each of them waits for pods, so a run without `full` has a few of them.
pub fn suite(full: bool) -> Suite {
    let (chosen, rest): (Vec<_>, Vec<_>) = CASES.iter().copied().partition(|(_, always, _)| full || *always);
    Suite {
        tests: chosen.into_iter().map(|(name, _, body)| test(name, body)).collect(),
        left_out: rest.into_iter().map(|(name, ..)| format!("kube {name}")).collect(),
    }
}

/// After all of it, neither the cluster nor the node has anything of ours.
fn nothing_left() -> Result<(), Failure> {
    kube::delete(&["pods", "--all", "--grace-period=1"])?;
    kube::delete(&["checkpointschedules,podrestores,podcheckpoints", "--all"])?;
    let node = kube::node_name()?;
    // What settles, or is freed when the last pod goes, may take a moment.
    let left = "cryopod recover >/dev/null; cryopod checkpoints list -o json | tr -d ' \n'; \
                zfs list -H -o name -r tank/cryopod/checkpoints tank/cryopod/containers tank/cryopod/trash tank/cryopod/adopted \
                2>/dev/null | grep -cv -e /checkpoints$ -e /containers$ -e /trash$ -e /adopted$ || true; ls /run/cryopod/shims";
    crate::shell::eventually("the node is clean", kube::PATIENCE, || {
        let found = kube::in_node(&node, left)?;
        let lines: Vec<&str> = found.lines().collect();
        Ok((lines == ["[]0"] || lines == ["[]", "0"]).then_some(()))
    })
    .or_else(|error| {
        let found = kube::in_node(&node, left)?;
        ensure(false, || format!("{error}: {found}"))
    })
}
