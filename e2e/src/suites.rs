//! The suites that run inside the node.

mod checkpoint;
mod critest;
mod faults;
mod kube;
mod lxc;
mod matrix;
pub mod nodes;
mod oci;
mod oci_validation;
pub mod power;
mod prepared;
mod templates;

use crate::suite::Suite;

/// Their names, in the order in which `cargo xtask test` runs them.
pub fn names() -> Vec<&'static str> {
    vec![
        "oci",
        "checkpoint",
        "matrix",
        "templates",
        "faults",
        "power",
        "nodes",
        "lxc",
        "oci-validation",
        "critest",
        "kube",
    ]
}

/// The tests of one suite; `full` adds the long ones.
pub fn build(name: &str, full: bool) -> Option<Suite> {
    match name {
        "oci" => Some(oci::suite(full)),
        "checkpoint" => Some(checkpoint::suite(full)),
        "matrix" => Some(matrix::suite(full)),
        "templates" => Some(templates::suite(full)),
        "faults" => Some(faults::suite(full)),
        "power" => Some(power::suite(full)),
        "nodes" => Some(nodes::suite(full)),
        "lxc" => Some(lxc::suite(full)),
        "oci-validation" => Some(oci_validation::suite(full)),
        "critest" => Some(critest::suite(full)),
        "kube" => Some(kube::suite(full)),
        _ => None,
    }
}
