//! containerd shim v2 of cryopod: one process per pod, three services on one ttrpc socket.
//!
//! `task` (containerd.task.v3), `sandbox` (containerd.runtime.sandbox.v1) and `control` (cryopod.control.v1) are
//! thin: they decode a request and call `pod`, which owns the containers. A container's life is one state machine
//! (`process`), its exits come from pidfds (`exits`), its events leave in order (`events`). Everything that blocks
//! runs off the event loop.
//!
//! As a library this crate gives the command and the agent [`control::client`] and [`discovery`].

pub mod args;
mod backends;
pub mod bootstrap;
mod bundle;
mod called;
pub mod capture;
mod container;
pub mod control;
mod delete;
pub mod discovery;
pub mod entry;
mod error;
mod events;
mod exits;
mod idle;
mod info;
mod io;
mod log;
mod members;
mod metrics;
mod metrics_message;
mod mounts;
mod pod;
mod process;
mod proto;
mod routing;
mod rpc;
mod sandbox;
mod server;
mod socket;
mod spawn;
mod sys;
mod task;
#[cfg(test)]
mod tests;
mod together;
