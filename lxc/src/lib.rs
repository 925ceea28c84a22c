//! OCI containers as LXC containers. Everything here turns a runtime spec into what their parts understand: the files of cgroup
//! v2, the configuration that the LXC tools read, and the plan of `cryopod-init`, which does the rest. What cannot be had is refused by its name in the spec; nothing is dropped silently.

mod answers;
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
