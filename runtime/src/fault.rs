//! Named steps of this crate for fault injection; [`cryopod_checkpoint::fault::step`] runs them.

/// Every step, in the order in which an operation meets it.
pub const STEPS: &[&str] = &[
    "runtime.pre-dump",
    "runtime.dump",
    "runtime.hook",
    "runtime.dumped",
    "runtime.restore",
    "runtime.restored",
];
