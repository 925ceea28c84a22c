//! `cargo xtask`: everything that is done with this repository besides plain cargo. `cargo xtask --help` is the manual.

mod agent_image;
mod args;
mod bench;
mod cache;
mod chart;
mod cluster;
mod cross;
mod deb;
mod demo;
mod deploy;
mod docs;
mod exchange;
mod host;
mod image;
mod krew;
mod lock;
mod machine;
mod node;
mod process;
mod programs;
mod progress;
mod quote;
mod recipe;
mod report;
mod repository;
mod session;
mod stream;
mod sys;
mod test;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let args = args::Args::parse();
    match args.run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {}", report::chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}
