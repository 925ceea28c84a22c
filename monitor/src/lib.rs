//! What `lxc-ls`, `lxc-info` and `lxc-attach` talk to: liblxc's command socket, answered for a container that liblxc
//! does not know. One small process per container; the container needs it for nothing, and it ends with the container.

mod answer;
mod place;
mod protocol;
mod server;
mod subject;

pub use place::{give, take};
pub use protocol::State;
pub use server::{Error, Listener, bind};
pub use subject::Subject;
