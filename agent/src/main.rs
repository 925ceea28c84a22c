//! `cryopod-agent`: cryopod's part of a Kubernetes node. One runs on each, under systemd or as a DaemonSet's container.

mod args;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Cli, Verb};

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.verb {
        Verb::Crds => crds(),
    }
}

/// Prints the custom resource definitions, for people who install without the chart, and for the chart itself.
fn crds() -> ExitCode {
    for crd in cryopod_agent::api::crds() {
        match serde_saphyr::to_string(&crd) {
            Ok(text) => println!("---\n{}", text.trim_end()),
            Err(error) => {
                eprintln!("cryopod-agent: cannot write a definition as YAML: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}
