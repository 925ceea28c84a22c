//! `oci`: the whole Task API on a real node, as kubelet uses it through CRI and as `ctr` uses it directly, on crun and
//! on runc, with and without a pause container, through restarts and crashes.
//!
//! Every test ends with a look at what is left: datasets, mounts, cgroups, network namespaces, processes.

mod crash;
mod lifecycle;
mod memory;
mod pods;
mod restart;
mod signals;
mod stats;
mod streams;
mod tasks;
mod terminal;
mod update;

use crate::leaks;
use crate::suite::{Failure, Suite, test};

/// A test of this suite: its name, whether every run has it, the runtime handlers it runs on, what it does there.
type Case = (&'static str, bool, &'static [&'static str], fn(&str) -> Result<(), Failure>);

/// Our default runtime.
const CRUN: &[&str] = &["cryopod"];
/// Both runtimes.
const RUNTIMES: &[&str] = &["cryopod", "cryopod-runc"];
/// Both runtimes, and crun without a pause container.
const ALL: &[&str] = &["cryopod", "cryopod-runc", "cryopod-shim"];
/// Without a pause container.
const SANDBOXER: &[&str] = &["cryopod-shim"];

/// The tests.
pub fn suite(full: bool) -> Suite {
    let rooms: [&[Case]; 11] = [
        lifecycle::CASES,
        signals::CASES,
        streams::CASES,
        terminal::CASES,
        tasks::CASES,
        update::CASES,
        stats::CASES,
        memory::CASES,
        pods::CASES,
        restart::CASES,
        crash::CASES,
    ];
    let mut suite = Suite { tests: Vec::new(), left_out: Vec::new() };
    for (name, always, handlers, body) in rooms.into_iter().flatten().copied() {
        for handler in handlers {
            if full || always {
                let name = format!("{handler}::{name}");
                suite.tests.push(test(name, move || leaks::checked(|| body(handler))));
            } else {
                suite.left_out.push(format!("oci {handler}::{name}"));
            }
        }
    }
    suite
}

/// Options of `ctr run` that choose the runtime of a handler.
fn runtime_options(handler: &str) -> &'static [&'static str] {
    if handler == "cryopod-runc" { &["--runtime-config-path", "/etc/cryopod/runc.toml"] } else { &[] }
}
