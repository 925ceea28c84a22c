//! The table of suites: what `cargo xtask test` runs, in this order, and what `--list` prints.

use std::time::Duration;

/// The program with most of the suites; what it leaves out without `--full` it says itself.
pub(super) const E2E: &str = "cryopod-e2e";

/// Not a program of the node: its power is cut and it boots again.
pub(super) const CUT_POWER: &str = "cut-power";

/// Not a program of the node: another node is booted, what was prepared is carried over, and the rest runs there.
pub(super) const OTHER_NODE: &str = "other-node";

/// Where a suite runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Format, lints and cargo's tests, on this host.
    Cargo,
    /// The documentation's checks, on this host.
    Docs,
    /// Chart, alerts and dashboard, on this host.
    Chart,
    /// Debian packages, on this host and in a tree of Debian.
    Packages,
    /// Programs inside the node; `--full` is added to their arguments when it is asked for.
    Node(&'static [&'static [&'static str]]),
    /// A suite of `cryopod-e2e` on this host, against a cluster whose node is that of the other suites.
    Cluster,
}

/// One suite.
#[derive(Debug)]
pub(super) struct Suite {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) place: Place,
    /// Left out of a run of everything without `--full`, since it needs many minutes before its first test.
    pub(super) only_full: bool,
    /// A suite that is not done by then hangs: several times what it takes on two emulated processors.
    pub(super) budget: Duration,
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
        only_full: false,
        budget: minutes(40),
    },
    Suite {
        name: "docs",
        about: "links, quoted command lines, marked examples, generated pages",
        place: Place::Docs,
        only_full: false,
        budget: minutes(10),
    },
    Suite {
        name: "chart",
        about: "the chart against the schemas of Kubernetes 1.34 to 1.37, alerts by promtool, the dashboard's queries",
        place: Place::Chart,
        only_full: false,
        budget: minutes(15),
    },
    Suite {
        name: "packages",
        about: "Debian packages: lintian, contents, install, upgrade, remove and purge; the units' exposure; krew",
        place: Place::Packages,
        only_full: false,
        budget: minutes(25),
    },
    Suite {
        name: "zfs",
        about: "the conformance cases on a real pool: the zfs command, with JSON and with tables, and libzfs_core",
        place: Place::Node(&[
            &["zfs-conformance", "cli", "tank/conformance"],
            &["zfs-conformance", "tables", "tank/conformance"],
            &["zfs-conformance", "lzc", "tank/conformance"],
        ]),
        only_full: false,
        budget: minutes(15),
    },
    Suite {
        name: "oci",
        about: "the Task API by CRI and ctr, on crun and runc: life, streams, limits, restarts, crashes",
        place: Place::Node(&[&[E2E, "oci"]]),
        only_full: false,
        budget: minutes(30),
    },
    Suite {
        name: "checkpoint",
        about: "capture, store and restore of pods and bundles, by every front door",
        place: Place::Node(&[&[E2E, "checkpoint"]]),
        only_full: false,
        budget: minutes(40),
    },
    Suite {
        name: "matrix",
        about: "workloads by runtime: checkpoint, restore, go on",
        place: Place::Node(&[&[E2E, "matrix"]]),
        only_full: false,
        budget: minutes(20),
    },
    Suite {
        name: "templates",
        about: "images from archives, containerd and a registry as templates; containers of them; hostile archives",
        place: Place::Node(&[&[E2E, "templates"]]),
        only_full: false,
        budget: minutes(30),
    },
    Suite {
        name: "faults",
        about: "every named step fails, every process is killed: after recovery nothing is lost or left over",
        place: Place::Node(&[&[E2E, "faults"]]),
        only_full: false,
        budget: minutes(30),
    },
    Suite {
        name: "power",
        about: "the power is cut in the middle of a capture, a restore and a settling; what was committed comes back",
        place: Place::Node(&[&[E2E, "power-prepare"], &[CUT_POWER], &[E2E, "power"]]),
        only_full: false,
        budget: minutes(12),
    },
    Suite {
        name: "nodes",
        about: "a pod that was captured on one node goes on, on another one",
        place: Place::Node(&[&[E2E, "nodes-prepare"], &[OTHER_NODE], &[E2E, "nodes"]]),
        only_full: true,
        budget: minutes(15),
    },
    Suite {
        name: "lxc",
        about: "pods and bundles as LXC containers: what `oci` and `matrix` show, the LXC tools, restores of restores",
        place: Place::Node(&[&[E2E, "lxc"]]),
        only_full: false,
        budget: minutes(30),
    },
    Suite {
        name: "oci-validation",
        about: "cryopod-lxc by itself: the validation programs of runtime-tools beside runc, podman, containerd's shim",
        place: Place::Node(&[&[E2E, "oci-validation"]]),
        only_full: false,
        budget: minutes(20),
    },
    Suite {
        name: "critest",
        about: "the validation suite of cri-tools in both sandboxer modes, beside containerd's own shim",
        place: Place::Node(&[&[E2E, "critest"]]),
        only_full: false,
        budget: minutes(25),
    },
    Suite {
        name: "kube",
        about: "a cluster with kubelet and chart: checkpoints, restores, clones, schedules and drains by kubectl; kills",
        place: Place::Cluster,
        only_full: false,
        budget: minutes(45),
    },
];

/// The suite `name`.
pub(super) fn find(name: &str) -> Option<&'static Suite> {
    SUITES.iter().find(|suite| suite.name == name)
}

/// Suites of the table that run in the node by `cryopod-e2e`.
pub(super) fn of_e2e() -> impl Iterator<Item = &'static str> {
    let programs = SUITES.iter().filter_map(|suite| match suite.place {
        Place::Node(programs) => Some(programs),
        _ => None,
    });
    let inside = programs.flat_map(|programs| programs.iter()).filter_map(|argv| match argv {
        [program, name] if *program == E2E => Some(*name),
        _ => None,
    });
    let outside = SUITES.iter().filter(|suite| matches!(suite.place, Place::Cluster)).map(|suite| suite.name);
    inside.chain(outside)
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
