//! The Control protocol (`proto/control.proto`): cryopod's own verbs on running pods, beside containerd's.
//!
//! [`client`] is for the command and the agent; `service` is the shim's side. [`api`] has the messages.

pub mod client;
mod service;

pub use crate::proto::control as api;
/// The server's side as it is generated, for tests that stand in for shims.
pub use crate::proto::control_ttrpc as stubs;
pub(crate) use service::ControlService;
