//! What a plan is made from: everything about the node that it may depend on, seen at one time.

use std::collections::{BTreeMap, BTreeSet};

use super::containerd::Distribution;
use super::state::State;

/// The node.
#[derive(Debug, Clone, PartialEq)]
pub struct Observed {
    /// What runs containerd here; none if no unit that we know is active.
    pub distribution: Option<Distribution>,
    /// Major and minor number of containerd; none if it does not say.
    pub version: Option<(u32, u32)>,
    /// Text of the main configuration; none if there is no file.
    pub main: Option<String>,
    /// Text of our drop-in; none if there is no file.
    pub drop_in: Option<String>,
    /// Whether other drop-ins are beside it.
    pub others: bool,
    /// Whether containerd's ZFS snapshotter works.
    pub zfs: bool,
    /// Handlers that cannot work here, and why.
    pub impossible: BTreeMap<String, String>,
    /// Handlers that have bundles here, each with the ids of their pods and containers.
    pub in_use: BTreeMap<String, BTreeSet<String>>,
    /// What an earlier setup noted.
    pub state: Option<State>,
    /// When the unit was started, in microseconds of the monotonic clock; none if it does not run.
    pub unit_since_us: Option<u64>,
    /// Which boot this is.
    pub boot: String,
    /// The node as the cluster sees it; none where the cluster is left out.
    pub node: Option<NodeView>,
    /// Whether programs of ours are here that an image brought.
    pub programs: bool,
}

/// The node's object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeView {
    /// Its condition Ready.
    pub ready: bool,
    /// Handlers that kubelet sees.
    pub handlers: BTreeSet<String>,
    /// Labels of ours.
    pub labels: BTreeMap<String, String>,
}
