//! What `lxc-ls`, `lxc-info` and `lxc-attach` talk to: liblxc's command socket, answered for a container that runs without
//! liblxc. One small process per container; the container needs it for nothing, and it ends with the container.

mod answer;
mod client;
mod protocol;
mod server;
mod subject;

pub use client::Client;
pub use protocol::State;
pub use server::{Error, Listener, bind};
pub use subject::Subject;
