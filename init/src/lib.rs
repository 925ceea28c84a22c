//! The first process of an LXC container. It is started in the container's cgroup and its new namespaces, enters the others and
//! the root, makes the mounts and devices, waits until the container is started, and then becomes the process that
//! the OCI spec describes: `execve` replaces it, so that PID 1 is the workload's own and nothing of ours is left in the
//! container (docs/adr says why).
//!
//! It is linked statically, since it runs where no library of the host is, and gets everything over descriptors: the
//! [`Plan`](plan::Plan) on one, the word to start on another. It never prints.

pub mod devices;
pub mod enter;
pub mod error;
pub mod exec;
pub mod hooks;
pub mod mounts;
pub mod options;
pub mod paths;
pub mod pid1;
pub mod plan;
pub mod process;
pub mod report;
pub mod sys;
pub mod terminal;
