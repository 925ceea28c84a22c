//! Runs containers and brings their memory back.
//!
//! [`backend::Backend`] is the one trait for every kind of container; `oci` implements it with crun, runc or any OCI
//! runtime. Around it: the configuration of the node, reading of OCI specs, cgroup v2, CRIU, preflight checks and the
//! adapters through which the checkpoint room captures a pod.

pub mod backend;
pub mod cgroup;
pub mod choice;
pub mod config;
pub mod connections;
pub mod criu;
pub mod disk;
pub mod error;
pub mod fault;
pub mod members;
pub mod mountinfo;
mod namespace;
pub mod node_facts;
pub mod oci;
pub mod oom;
pub mod pod_target;
pub mod preflight;
pub mod process;
pub mod repair;
pub mod routing;
pub mod spec;
pub mod stats;
mod sys;
#[cfg(test)]
mod test_script;
mod wait;
