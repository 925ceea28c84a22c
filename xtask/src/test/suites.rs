//! The table of suites: what `cargo xtask test` runs, in this order, and what `--list` prints.

use std::time::Duration;

/// Where a suite runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Format, lints and cargo's tests, on this host.
    Cargo,
    /// The documentation's checks, on this host.
    Docs,
    /// A program inside the node; `--full` is added to its arguments when it is asked for.
    Node(&'static [&'static str]),
}

/// One suite.
#[derive(Debug)]
pub(super) struct Suite {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) place: Place,
    /// A suite that is not done by then hangs: several times what it takes on two emulated processors.
    pub(super) budget: Duration,
    /// What only `--full` runs.
    pub(super) only_full: &'static str,
}

const fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(60 * minutes)
}

/// All of them.
pub(super) const SUITES: &[Suite] = &[
    Suite {
        name: "unit",
        about: "formatting, lints, unit, property and doc tests of every crate",
        place: Place::Cargo,
        budget: minutes(30),
        only_full: "",
    },
    Suite {
        name: "docs",
        about: "links, quoted command lines, marked examples, generated pages",
        place: Place::Docs,
        budget: minutes(10),
        only_full: "",
    },
    Suite {
        name: "oci",
        about: "pods through CRI with crun and runc: run, exec, stop, logs, events",
        place: Place::Node(&["cryopod-e2e", "oci"]),
        budget: minutes(20),
        only_full: "",
    },
];

/// The suite `name`.
pub(super) fn find(name: &str) -> Option<&'static Suite> {
    SUITES.iter().find(|suite| suite.name == name)
}

/// Suites of the table that run in the node by `cryopod-e2e`.
pub(super) fn of_e2e() -> impl Iterator<Item = &'static str> {
    SUITES.iter().filter_map(|suite| match suite.place {
        Place::Node(["cryopod-e2e", name]) => Some(*name),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique() {
        for (at, suite) in SUITES.iter().enumerate() {
            assert!(SUITES[at + 1..].iter().all(|other| other.name != suite.name), "{}", suite.name);
        }
    }
}
