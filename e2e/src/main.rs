//! Tests on a real node. This binary runs *inside* the node, next to containerd, ZFS and CRIU, so that a test is
//! plain local calls; `cargo xtask test --suite NAME` copies it there and streams what it prints.
//!
//! `cryopod-e2e SUITE [--full] [FILTER…]` runs a suite and ends with `N passed, N failed`; exit code 1 if one failed.
//! `cryopod-e2e power-prepare` brings the node into the state in which the power is cut for the suite `power`.
//! `cryopod-e2e nodes-prepare` captures what the suite `nodes` brings back on another node.
//! `cryopod-e2e demo` tells the story of one pod.
//! Tests run one after the other: they share a node. `cryopod-e2e bench [--json] [--quick]` compares and judges nothing.

mod bench;
mod crictl;
mod cryopod;
mod ctr;
mod demo;
mod kube;
mod leaks;
mod registry;
mod shell;
mod story;
mod suite;
mod suites;
mod ticks;
mod workloads;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let Some(name) = args.next() else {
        eprintln!("usage: cryopod-e2e SUITE [--full] [FILTER]\nsuites: {}", suites::names().join(" "));
        return ExitCode::from(2);
    };
    if name == "--list" {
        suites::names().iter().for_each(|name| println!("{name}"));
        return ExitCode::SUCCESS;
    }
    let rest: Vec<String> = args.collect();
    if name == "demo" {
        return match demo::run(&rest) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("demo: failed: {error}");
                ExitCode::FAILURE
            }
        };
    }
    if name == "power-prepare" {
        return suites::power::prepare();
    }
    if name == "nodes-prepare" {
        return suites::nodes::prepare();
    }
    if name == "bench" {
        return bench::main(&rest);
    }
    let full = rest.iter().any(|a| a == "--full");
    let filter = rest.into_iter().find(|a| !a.starts_with("--"));
    match suites::build(&name, full) {
        Some(suite) => suite::run(suite, filter),
        None => {
            eprintln!("no suite {name:?}; there are: {}", suites::names().join(" "));
            ExitCode::from(2)
        }
    }
}
