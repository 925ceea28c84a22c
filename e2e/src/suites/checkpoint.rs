//! `checkpoint`: what DESIGN §6 promises of checkpoints, on a real node: containerd, kubelet's way of making pods,
//! real CRIU, real pools.
//!
//! Every test ends with a look at what is left: datasets, mounts, cgroups, firewall tables, processes.

mod bad_input;
mod cri;
mod ctr;
mod deletion;
mod demo;
mod lives;
mod pods;
mod refusals;
mod standalone;
mod stores;
mod stream;
mod systemd;
mod volumes;

use crate::leaks;
use crate::suite::{Failure, Suite, test};

/// A test of this suite: its name, whether every run has it, what it does.
type Case = (&'static str, bool, fn() -> Result<(), Failure>);

/// The tests.
pub fn suite(full: bool) -> Suite {
    let rooms: [&[Case]; 13] = [
        pods::CASES,
        lives::CASES,
        volumes::CASES,
        refusals::CASES,
        deletion::CASES,
        stream::CASES,
        cri::CASES,
        ctr::CASES,
        systemd::CASES,
        stores::CASES,
        bad_input::CASES,
        demo::CASES,
        standalone::CASES,
    ];
    let mut suite = Suite { tests: Vec::new(), left_out: Vec::new() };
    for (name, always, body) in rooms.into_iter().flatten().copied() {
        if full || always {
            suite.tests.push(test(name, move || leaks::checked(body)));
        } else {
            suite.left_out.push(format!("checkpoint {name}"));
        }
    }
    suite
}
