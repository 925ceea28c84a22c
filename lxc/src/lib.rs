//! OCI containers on liblxc. Everything here turns a runtime spec into what the parts of an LXC container understand:
//! liblxc's configuration (namespaces, cgroup, root), the files of cgroup v2, and the plan of `cryopod-init`, which does
//! the rest. What cannot be had is refused by its name in the spec; nothing is dropped silently.

pub mod capabilities;
mod cgroup;
pub mod checkpoint;
pub mod command;
pub mod config;
pub mod create;
pub mod criu;
pub mod devices;
pub mod directory;
pub mod hooks;
pub mod joined;
pub mod launch;
pub mod making;
pub mod operate;
pub mod plan;
pub mod refusal;
pub mod resources;
pub mod restore;
pub mod rlimits;
pub mod seccomp;
pub mod state;
mod sys;
pub mod systemd;
