//! cryopod in Kubernetes: the types of its objects, and what the agent of a node does with them.

pub mod api;
