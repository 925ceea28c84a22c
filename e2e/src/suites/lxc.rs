//! `lxc`: pods whose containers are LXC containers. What `oci` shows of a pod holds for them too, so its tests run here on
//! the handler `cryopod-lxc`; what is their own is in the rooms below.

mod kills;
mod restored;
mod systemd;
mod tools;

use super::{faults, matrix, oci};
use crate::leaks;
use crate::suite::{Failure, Suite, test};

/// The runtime handler.
const HANDLER: &str = "cryopod-lxc";

/// Of the tests of `oci`, those of every run: one of each kind of work that the runtime does.
const DEFAULT: &[&str] = &[
    "a_container_runs_logs_and_its_exit_code_arrives",
    "exec_returns_output_and_exit_code",
    "stop_ends_it_with_sigterm_and_sigkill",
    "a_command_that_is_not_there_fails_its_start_and_leaves_nothing",
    "a_real_time_stop_signal_arrives",
    "input_arrives_whole_and_ends",
    "exec_with_a_terminal_has_its_size_and_follows_it",
    "pause_stops_it_and_resume_lets_it_go_on",
    "limits_of_a_running_and_of_a_paused_container_change",
    "a_container_beyond_its_memory_is_oom_killed",
    "a_shared_process_namespace_shows_all_and_leaves_no_process_of_the_dead",
];

/// A test of this room: its name, whether every run has it, and what it does.
type Case = (&'static str, bool, fn() -> Result<(), Failure>);

/// The tests.
pub fn suite(full: bool) -> Suite {
    let mut suite = Suite { tests: Vec::new(), left_out: Vec::new() };
    for (name, body) in oci::bodies() {
        let chosen = full || DEFAULT.contains(&name);
        add(&mut suite, chosen, format!("pods::{name}"), move || body(HANDLER));
    }
    for (name, always, body) in tools::CASES.iter().copied() {
        add(&mut suite, full || always, format!("tools::{name}"), body);
    }
    for (name, always, body) in restored::CASES.iter().copied() {
        add(&mut suite, full || always, format!("restored::{name}"), body);
    }
    for (name, always, body) in systemd::CASES.iter().copied() {
        add(&mut suite, full || always, format!("systemd::{name}"), body);
    }
    for (name, always, body) in kills::CASES.iter().copied() {
        add(&mut suite, full || always, format!("kills::{name}"), body);
    }
    for (name, always, body) in faults::of_pods(HANDLER) {
        add(&mut suite, full || always, format!("faults::{name}"), body);
    }
    for (name, always, body) in matrix::again_and_again(HANDLER) {
        add(&mut suite, full || always, format!("matrix::{name}"), body);
    }
    suite
}

fn add(
    suite: &mut Suite,
    chosen: bool,
    name: String,
    body: impl FnOnce() -> Result<(), Failure> + Send + 'static,
) {
    if chosen {
        suite.tests.push(test(name, move || leaks::checked(body)));
    } else {
        suite.left_out.push(format!("lxc {name}"));
    }
}
