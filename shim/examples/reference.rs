//! Prints what the reference pages are made of, as JSON: defaults of the configuration, codes of refusals, steps of
//! fault injection. `cargo xtask docs --write` renders it; the suite `docs` compares.

use std::collections::BTreeMap;

use cryopod_checkpoint::{fault, refusal};
use cryopod_image::fault as image_fault;
use cryopod_runtime::config::Config;
use cryopod_runtime::criu::advice;
use cryopod_runtime::{fault as runtime_fault, preflight};
use cryopod_shim::capture;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let refusals: BTreeMap<&str, &str> =
        [preflight::CODES, advice::CODES, refusal::CODES].concat().into_iter().collect();
    let reference = serde_json::json!({
        "config": Config::default(),
        "refusals": refusals,
        "faults": {
            "checkpoint": fault::STEPS,
            "image": image_fault::STEPS,
            "runtime": runtime_fault::STEPS,
            "shim": capture::STEPS,
        },
    });
    println!("{}", serde_json::to_string_pretty(&reference)?);
    Ok(())
}
