//! cryopod in Kubernetes: the types of its objects, and what the agent of a node does with them.
//!
//! Each controller is a pure `plan` – from what is seen to the next step – and a thin edge that does the step. The leader
//! among the agents does what belongs to no node: restores, schedules, and judging checkpoints that no agent takes.

pub mod api;
pub mod checkpoint;
pub mod context;
pub mod host;
pub mod leader;
pub mod metrics;
pub mod node;
pub mod orphans;
pub mod restore;
pub mod run;
pub mod schedule;
#[cfg(test)]
mod script;
pub mod serve;
pub mod setup;
pub mod size;
pub mod template;
pub mod waiting;
