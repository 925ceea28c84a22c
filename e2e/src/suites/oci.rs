//! `oci`: the whole Task API on a real node, as kubelet uses it through CRI and as `ctr` uses it directly, on crun and
//! on runc, with and without a pause container, through restarts and crashes.
//!
//! Every test ends with a look at what is left: datasets, mounts, cgroups, network namespaces, processes.

mod commands;
mod crash;
mod lifecycle;
mod memory;
mod pods;
mod restart;
mod routing;
mod signals;
mod stats;
mod streams;
mod tasks;
mod terminal;
mod update;

use crate::leaks;
use crate::suite::{Failure, Suite, test};

/// A test of this suite: its name, the runtime handlers on which every run has it, those that `--full` adds, and what
/// it does there.
type Case = (&'static str, Handlers, Handlers, Body);
/// What a test does with a handler.
type Body = fn(&str) -> Result<(), Failure>;
type Handlers = &'static [&'static str];

const NONE: Handlers = &[];
/// Our default runtime.
const CRUN: Handlers = &["cryopod"];
const RUNC: Handlers = &["cryopod-runc"];
/// With a pause container.
const PAUSE: Handlers = &["cryopod-pause"];
const RUNTIMES: Handlers = &["cryopod", "cryopod-runc"];
const WITH_AND_WITHOUT_PAUSE: Handlers = &["cryopod", "cryopod-pause"];
/// All but the default.
const OTHERS: Handlers = &["cryopod-runc", "cryopod-pause"];
const ALL: Handlers = &["cryopod", "cryopod-runc", "cryopod-pause"];

const ROOMS: [&[Case]; 12] = [
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
    commands::CASES,
];

/// Every test by its name, to be run on a handler: what a pod may expect does not depend on what runs it.
pub fn bodies() -> impl Iterator<Item = (&'static str, Body)> {
    ROOMS.into_iter().flatten().map(|(name, _, _, body)| (*name, *body))
}

/// The tests.
pub fn suite(full: bool) -> Suite {
    let mut suite = Suite { tests: Vec::new(), left_out: Vec::new() };
    // Not among the bodies: what runs a pod is all that rules are about.
    for (name, always, more, body) in ROOMS.into_iter().chain([routing::CASES]).flatten().copied() {
        for handler in always.iter().chain(more) {
            let named = format!("{handler}::{name}");
            if full || always.contains(handler) {
                suite.tests.push(test(named, move || leaks::checked(|| body(handler))));
            } else {
                suite.left_out.push(format!("oci {named}"));
            }
        }
    }
    suite
}

/// Options of `ctr run` that choose the runtime of a handler.
fn runtime_options(handler: &str) -> &'static [&'static str] {
    match handler {
        "cryopod-runc" => &["--runtime-config-path", "/etc/cryopod/runc.toml"],
        "cryopod-lxc" => &["--runtime-config-path", "/etc/cryopod/lxc.toml"],
        _ => &[],
    }
}
