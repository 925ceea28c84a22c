//! C libraries, opened when they are needed.

pub(crate) mod liblxc;
pub(crate) mod seccomp;
