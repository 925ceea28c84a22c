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

use libtest_mimic::Trial;

use crate::kube;
use crate::suite::{Failure, Suite, ensure, test};

/// The tests; `full` adds those that wait for minutes.
pub fn suite(full: bool) -> Suite {
    let mut tests: Vec<Trial> = vec![
        test("the_cluster_is_fit_for_it", life::doctor),
        test("a_pod_is_captured_deleted_and_goes_on_under_its_name", || life::round_trip("cryopod")),
        test("a_pod_of_lxc_is_captured_deleted_and_goes_on", || life::round_trip("cryopod-lxc")),
        test("three_clones_go_on_from_the_same_number", life::clones),
        test("an_ordinary_pod_with_the_annotation_goes_on", life::by_annotation),
        test("kubelets_own_endpoint_makes_an_archive_and_a_checkpoint", life::kubelet_endpoint),
        test("some_containers_of_a_pod_are_captured_and_the_others_start_afresh", asked::some_containers),
        test("the_audit_log_names_the_user_that_asked_the_cluster", asked::by_whom),
        test("metrics_tell_what_was_done", life::metrics),
        test("kubectl_top_shows_what_a_pod_uses", || top::shows("cryopod")),
        test("kubectl_top_shows_what_a_pod_of_lxc_uses", || top::shows("cryopod-lxc")),
        test("a_schedule_runs_by_hand_and_keeps_what_it_shall", schedules::by_hand),
        test("a_drain_waits_for_the_checkpoint", schedules::drain),
        test("what_cannot_be_captured_says_why", bad::captures),
        test("what_cannot_be_restored_says_why", bad::restores),
        test("an_agent_that_is_killed_finishes_what_it_began", rough::agent_killed),
        test(
            "a_checkpoint_that_is_deleted_while_it_is_taken_leaves_the_pod_running",
            rough::deleted_meanwhile,
        ),
    ];
    let mut left_out = Vec::new();
    if full {
        tests.push(test("a_schedule_fires_by_the_clock", schedules::by_the_clock));
        tests.push(test("the_api_server_may_go_away_and_come_back", rough::api_server));
        tests.push(test("agents_killed_at_random_lose_nothing", rough::random_kills));
    } else {
        left_out.push("a schedule by the clock, a restart of the API server, kills at random".into());
    }
    tests.push(test("every_query_of_the_dashboard_has_data", dashboard::every_query_has_data));
    tests.push(test("nothing_is_left_over", nothing_left));
    tests.push(test("helm_test_passes", chart::helm_test));
    tests.push(test("uninstall_is_refused_while_a_pod_runs", chart::refused_while_a_pod_runs));
    if full {
        tests.push(test("a_dropped_handler_stays_for_the_pod_that_it_has", chart::dropped_handler));
    } else {
        left_out.push("an upgrade that drops a handler".into());
    }
    tests.push(test("uninstall_puts_the_node_back_and_install_works_again", chart::uninstall_and_install));
    Suite { tests, left_out }
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
