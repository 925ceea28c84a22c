//! Named steps of this crate for fault injection; [`cryopod_checkpoint::fault::step`] runs them.

/// Every step, in the order in which an operation meets it.
pub const STEPS: &[&str] = &[
    "template.sweep",
    "template.layer",
    "template.unpack",
    "template.layer-snapshot",
    "template.clone",
    "template.snapshot",
    "template.rename",
    "template.delete",
    "template.prune",
];
