//! Prints what the reference pages are made of, as JSON: defaults of the configuration, codes of refusals, steps of
//! fault injection. `cargo xtask docs --write` renders it; the suite `docs` compares.

use std::collections::BTreeMap;

use cryopod_checkpoint::{fault, refusal};
use cryopod_runtime::config::Config;
use cryopod_runtime::{fault as runtime_fault, preflight};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut refusals: BTreeMap<&str, &str> = preflight::CODES.iter().copied().collect();
    // Those that the checkpoint crate makes; they depend on sizes, not on what runs in the pod.
    refusals.extend([
        (refusal::NO_SPACE, "the store lacks the space for the checkpoint"),
        (
            refusal::COPY_TOO_LARGE,
            "a volume that is not on ZFS is larger than what may be copied inside the freeze",
        ),
        (refusal::COPY_UNREADABLE, "a volume that is not on ZFS cannot be read"),
        (
            refusal::SHARED_UNLINKED,
            "a deleted file of a volume shared with an earlier container is open and still has another name",
        ),
    ]);
    let reference = serde_json::json!({
        "config": Config::default(),
        "refusals": refusals,
        "faults": { "checkpoint": fault::STEPS, "runtime": runtime_fault::STEPS },
    });
    println!("{}", serde_json::to_string_pretty(&reference)?);
    Ok(())
}
