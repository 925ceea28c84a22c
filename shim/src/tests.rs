//! The services through a real ttrpc socket, with a fake backend and a fake containerd.

mod complete;
mod control;
mod deletion;
mod execs;
pub(crate) mod fake;
mod lifecycle;
mod notes;
mod restored;
mod revived;
mod routed;
mod sandbox_metrics;
mod traced;
