//! OCI containers on liblxc. Everything here turns a runtime spec into what the parts of an LXC container understand:
//! liblxc's configuration (namespaces, cgroup, root), the files of cgroup v2, and the plan of `cryopod-init`, which does
//! the rest. What cannot be had is refused by its name in the spec; nothing is dropped silently.

pub mod capabilities;
pub mod client;
pub mod command;
pub mod config;
pub mod create;
pub mod launch;
pub mod monitor;
pub mod operate;
pub mod plan;
pub mod refusal;
pub mod resources;
pub mod rlimits;
pub mod seccomp;
pub mod state;
mod sys;
