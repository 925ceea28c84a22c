//! Captures of the pod of [`crate::testing`]: what the tests of the folder have in common.

mod auto;
mod captured;
mod faults;
mod limits;

use std::sync::Arc;

use super::*;
use crate::store::StoreKind;
use crate::testing::{World, none};

const KINDS: [StoreKind; 2] = [StoreKind::Zfs, StoreKind::Dir];

fn run(world: &World, options: CaptureOptions<'_>) -> Result<Captured, CaptureError> {
    let target: Arc<dyn Target> = world.pod.clone();
    capture(target, &world.store, &world.journal, options, &none())
}

/// The steps of a whole capture; one that ends the pod does not thaw it.
fn steps(exit: bool) -> Vec<&'static str> {
    let met = |step: &&str| step.starts_with("capture.") && !(exit && *step == "capture.thaw");
    fault::STEPS.iter().copied().filter(met).collect()
}
