//! `cryopod-agent`: cryopod's part of a Kubernetes node. One runs on each, under systemd or as a DaemonSet's container.

mod args;

use std::error::Error;
use std::process::ExitCode;

use clap::Parser;
use cryopod_agent::run::{self, Settings};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use crate::args::{Cli, RunArgs, Verb};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.verb {
        Verb::Run(args) => begin(args),
        Verb::Setup(options) => return cryopod_agent::setup::run(&options),
        Verb::Await(options) => return cryopod_agent::waiting::run(&options),
        Verb::Host(options) => return cryopod_agent::host::run(&options),
        Verb::Crds(args) => crds(args.markdown),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cryopod-agent: {}", chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

/// Each look at the store says which store it is; that is the shim's to log.
const LOG: &str = "info,cryopod_shim=warn";

/// An error and what it comes from.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        next = cause.source();
    }
    text
}

/// Prints the custom resource definitions, for people who install without the chart, and for the chart itself.
fn crds(markdown: bool) -> Result<(), Box<dyn Error>> {
    if markdown {
        println!("{}", cryopod_agent::api::page::markdown(&cryopod_agent::api::crds()).trim());
        return Ok(());
    }
    for crd in cryopod_agent::api::crds() {
        println!("---\n{}", serde_saphyr::to_string(&crd)?.trim_end());
    }
    Ok(())
}

fn begin(args: RunArgs) -> Result<(), Box<dyn Error>> {
    let filter = tracing_subscriber::EnvFilter::try_from_env("CRYOPOD_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(LOG));
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(std::io::stderr).init();
    let node = match args.node_name.clone() {
        Some(node) => node,
        None => hostname()?,
    };
    let settings = Settings { node, namespace: args.namespace, listen: args.listen, config: args.config };
    // One thread for everything but what blocks: an agent's memory counts on every node.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let client = client(args.kubeconfig).await?;
        run::run(settings, client).await?;
        Ok(())
    })
}

/// The cluster; None where none is configured.
async fn client(file: Option<std::path::PathBuf>) -> Result<Option<Client>, Box<dyn Error>> {
    let config = match file {
        Some(file) => {
            let text = Kubeconfig::read_from(&file)
                .map_err(|error| format!("cannot use {}: {error}", file.display()))?;
            Config::from_custom_kubeconfig(text, &KubeConfigOptions::default()).await?
        }
        None => match Config::incluster() {
            Ok(config) => config,
            Err(error) => {
                tracing::info!(%error, "not in a cluster");
                return Ok(None);
            }
        },
    };
    Ok(Some(Client::try_from(config)?))
}

fn hostname() -> Result<String, Box<dyn Error>> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/hostname")?.trim().to_ascii_lowercase())
}
