//! Runs external programs for the synchronous crates: one call, one deadline, no orphan left behind.
//!
//! Every `zfs`, `criu`, `crun` or `runc` process of cryopod is started here, so that three promises hold
//! everywhere: a call ends by its deadline or as soon as it is cancelled; on every such end the children
//! are killed and reaped; an error says what was run, what it said last and how long it took.
//!
//! Waiting is `poll(2)` on the child's pidfd together with the cancel fd, so there is no SIGCHLD handler,
//! no `waitpid(-1)` and no sleeping loop: the shim, which watches its own children, is not disturbed.
//! Nothing sets PR_SET_PDEATHSIG, because that fires when the starting *thread* ends.

mod argv;
mod builder;
mod error;
mod limits;
mod lookup;
mod pipeline;
mod pump;
mod relay;
mod running;
mod sys;

pub use argv::Argv;
pub use builder::{Command, Kill, Stderr, Stdin, Stdout};
pub use error::Error;
pub use limits::{Cancel, Limits, Stop};
pub use pipeline::{PipelineError, Side, pipeline};
pub use running::{Output, Running};
