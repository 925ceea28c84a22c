//! The model's data and the questions every call asks of it: does it exist, is its pool well, is there space.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use super::tree::Tree;
use crate::error::Op;
use crate::properties::is_user_property;
use crate::{
    DatasetName, Error, Guid, HoldTag, Kind, MountHolder, PoolName, Property, SnapshotName, Source, Txg,
};

const DEFAULT_POOL_SIZE: u64 = 1 << 30;

#[derive(Debug)]
pub(super) struct State {
    pub(super) backing: PathBuf,
    pub(super) pools: BTreeMap<PoolName, PoolState>,
    pub(super) datasets: BTreeMap<DatasetName, Node>,
    /// Snapshots being sent, by id: they cannot be destroyed.
    pub(super) sending: Vec<u64>,
    txg: u64,
    ids: u64,
}

#[derive(Debug)]
pub(super) struct PoolState {
    pub(super) guid: Guid,
    pub(super) size: u64,
    pub(super) suspended: bool,
    pub(super) read_only: bool,
    pub(super) imported: bool,
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) kind: Kind,
    pub(super) guid: Guid,
    pub(super) createtxg: Txg,
    /// The id of the snapshot that it is a clone of.
    pub(super) origin: Option<u64>,
    pub(super) properties: BTreeMap<String, (String, Source)>,
    /// In the order of createtxg.
    pub(super) snapshots: Vec<Snap>,
    pub(super) bookmarks: Vec<Mark>,
    /// Its files.
    pub(super) content: PathBuf,
    pub(super) mounts: Vec<FakeMount>,
    pub(super) pins: Vec<MountHolder>,
    pub(super) partial: Option<Partial>,
}

#[derive(Debug, Clone)]
pub(super) struct Snap {
    pub(super) id: u64,
    pub(super) leaf: String,
    pub(super) guid: Guid,
    pub(super) createtxg: Txg,
    pub(super) tree: Arc<Tree>,
    pub(super) holds: BTreeSet<HoldTag>,
    pub(super) defer: bool,
    pub(super) properties: BTreeMap<String, (String, Source)>,
}

#[derive(Debug, Clone)]
pub(super) struct Mark {
    pub(super) leaf: String,
    pub(super) guid: Guid,
    pub(super) createtxg: Txg,
    /// ZFS has birth times instead.
    pub(super) tree: Arc<Tree>,
}

#[derive(Debug)]
pub(super) struct FakeMount {
    pub(super) path: PathBuf,
    pub(super) read_only: bool,
    /// What was there before, moved aside.
    pub(super) covered: Option<PathBuf>,
    /// By `mount_at`, not by `mount`.
    pub(super) explicit: bool,
}

#[derive(Debug)]
pub(super) struct Partial {
    pub(super) header: super::stream::Header,
    pub(super) payload: Vec<u8>,
}

impl State {
    pub(super) fn new(backing: PathBuf) -> Self {
        let (pools, datasets) = (BTreeMap::new(), BTreeMap::new());
        Self { backing, pools, datasets, sending: Vec::new(), txg: 4, ids: 0 }
    }

    pub(super) fn add_pool(&mut self, pool: &PoolName) -> Result<(), Error> {
        let guid = self.fresh_guid();
        let state =
            PoolState { guid, size: DEFAULT_POOL_SIZE, suspended: false, read_only: false, imported: true };
        self.pools.insert(pool.clone(), state);
        let op = Op::new("create", pool);
        self.add_node(&op, &pool.root(), Kind::Filesystem, BTreeMap::new())?;
        self.mount_if_due(&op, &pool.root())
    }

    pub(super) fn fresh_id(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }

    /// Looks random, as guids do, and differs from every other.
    pub(super) fn fresh_guid(&mut self) -> Guid {
        let mut z = self.fresh_id().wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Guid(z ^ (z >> 31))
    }

    pub(super) fn next_txg(&mut self) -> Txg {
        self.txg += 1;
        Txg(self.txg)
    }

    /// Adds a dataset with an empty directory; it is not mounted.
    pub(super) fn add_node(
        &mut self,
        op: &Op,
        name: &DatasetName,
        kind: Kind,
        properties: BTreeMap<String, (String, Source)>,
    ) -> Result<(), Error> {
        let content = self.backing.join("data").join(self.fresh_id().to_string());
        std::fs::create_dir_all(&content).map_err(|source| Error::System { op: op.clone(), source })?;
        let node = Node {
            kind,
            guid: self.fresh_guid(),
            createtxg: self.next_txg(),
            origin: None,
            properties,
            snapshots: Vec::new(),
            bookmarks: Vec::new(),
            content,
            mounts: Vec::new(),
            pins: Vec::new(),
            partial: None,
        };
        self.datasets.insert(name.clone(), node);
        Ok(())
    }

    /// Whether the pool of `name` can be worked on.
    pub(super) fn ready(&self, op: &Op, name: &DatasetName, write: bool) -> Result<(), Error> {
        match self.pools.get(&name.pool()) {
            Some(pool) if pool.imported => {
                if pool.suspended {
                    Err(Error::PoolSuspended { op: op.clone() })
                } else if write && pool.read_only {
                    Err(Error::ReadOnly { op: op.clone() })
                } else {
                    Ok(())
                }
            }
            _ => Err(Error::PoolMissing { op: op.clone() }),
        }
    }

    pub(super) fn node(&self, op: &Op, name: &DatasetName) -> Result<&Node, Error> {
        self.ready(op, name, false)?;
        let absent = || Error::NotFound { op: op.clone(), name: name.to_string() };
        self.datasets.get(name).ok_or_else(absent)
    }

    pub(super) fn node_mut(&mut self, op: &Op, name: &DatasetName) -> Result<&mut Node, Error> {
        self.ready(op, name, true)?;
        let absent = || Error::NotFound { op: op.clone(), name: name.to_string() };
        self.datasets.get_mut(name).ok_or_else(absent)
    }

    pub(super) fn snap(&self, op: &Op, name: &SnapshotName) -> Result<&Snap, Error> {
        self.ready(op, &name.dataset(), false)?;
        self.find_snap(name).ok_or_else(|| Error::NotFound { op: op.clone(), name: name.to_string() })
    }

    pub(super) fn find_snap(&self, name: &SnapshotName) -> Option<&Snap> {
        let node = self.datasets.get(&name.dataset())?;
        node.snapshots.iter().find(|snap| snap.leaf == name.leaf())
    }

    pub(super) fn snap_mut(&mut self, name: &SnapshotName) -> Option<&mut Snap> {
        let node = self.datasets.get_mut(&name.dataset())?;
        node.snapshots.iter_mut().find(|snap| snap.leaf == name.leaf())
    }

    /// A snapshot by its id, with its dataset.
    pub(super) fn snap_by_id(&self, id: u64) -> Option<(&DatasetName, &Snap)> {
        self.datasets.iter().find_map(|(name, node)| {
            node.snapshots.iter().find(|snap| snap.id == id).map(|snap| (name, snap))
        })
    }

    pub(super) fn clones_of(&self, id: u64) -> Vec<DatasetName> {
        let clones = self.datasets.iter().filter(|(_, node)| node.origin == Some(id));
        clones.map(|(name, _)| name.clone()).collect()
    }

    /// `name` and everything below it, from the top.
    pub(super) fn subtree(&self, name: &DatasetName) -> Vec<DatasetName> {
        self.datasets.keys().filter(|other| other.is_within(name)).cloned().collect()
    }

    /// A property as it holds: set here, or above where it is inherited.
    pub(super) fn effective(&self, name: &DatasetName, key: &str) -> Option<Property> {
        let own = self.datasets.get(name)?.properties.get(key);
        if let Some((value, source)) = own {
            return Some(Property { value: value.clone(), source: source.clone() });
        }
        if !is_user_property(key) && NOT_INHERITED.contains(&key) {
            return None;
        }
        let mut above = name.parent();
        while let Some(ancestor) = above {
            if let Some((value, _)) = self.datasets.get(&ancestor).and_then(|node| node.properties.get(key)) {
                return Some(Property {
                    value: value.clone(),
                    source: Source::Inherited(ancestor.to_string()),
                });
            }
            above = ancestor.parent();
        }
        None
    }

    /// (space that `name` and all below it hold, space that its live files refer to).
    pub(super) fn space(&self, name: &DatasetName) -> (u64, u64) {
        let mut used = 0;
        for dataset in self.subtree(name) {
            let Some(node) = self.datasets.get(&dataset) else { continue };
            let live = Tree::read(&node.content).unwrap_or_default();
            let mut blocks: BTreeMap<u64, u64> = live.blocks().collect();
            for snap in &node.snapshots {
                blocks.extend(snap.tree.blocks());
            }
            if let Some((_, origin)) = node.origin.and_then(|id| self.snap_by_id(id)) {
                for (block, _) in origin.tree.blocks() {
                    blocks.remove(&block);
                }
            }
            let partial = node.partial.as_ref().map_or(0, |partial| partial.payload.len() as u64);
            used += blocks.values().sum::<u64>() + partial;
        }
        let live = self.datasets.get(name).map(|node| Tree::read(&node.content).unwrap_or_default().size());
        (used, live.unwrap_or_default())
    }

    /// Space left for `name`, and whether a quota (and not the pool) sets that bound.
    pub(super) fn available(&self, name: &DatasetName) -> (u64, bool) {
        let pool = self.pools.get(&name.pool()).map_or(0, |pool| pool.size);
        let mut left = (pool.saturating_sub(self.space(&name.pool().root()).0), false);
        let mut bound = |limit: Option<u64>, taken: u64| {
            if let Some(free) = limit.map(|limit| limit.saturating_sub(taken))
                && free < left.0
            {
                left = (free, true);
            }
        };
        let mut at = Some(name.clone());
        while let Some(dataset) = at {
            let number = |key: &str| {
                let value = self.datasets.get(&dataset).and_then(|node| node.properties.get(key));
                value.and_then(|(value, _)| amount(value))
            };
            if dataset == *name {
                bound(number("refquota"), self.space(&dataset).1);
            }
            if number("quota").is_some() {
                bound(number("quota"), self.space(&dataset).0);
            }
            at = dataset.parent();
        }
        left
    }

    /// Whether `more` bytes fit.
    pub(super) fn fits(&self, op: &Op, name: &DatasetName, more: u64) -> Result<(), Error> {
        let (left, quota) = self.available(name);
        if more <= left { Ok(()) } else { Err(Error::NoSpace { op: op.clone(), quota }) }
    }
}

/// Native properties that hold only where they are set.
pub(super) const NOT_INHERITED: [&str; 6] =
    ["canmount", "quota", "refquota", "reservation", "refreservation", "volsize"];

/// "10M" as bytes; None for "none" and everything else that is no amount.
pub(super) fn amount(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text.get(digits.len()..)?.to_ascii_uppercase().as_str() {
        "" | "B" => 0,
        "K" | "KB" | "KIB" => 10,
        "M" | "MB" | "MIB" => 20,
        "G" | "GB" | "GIB" => 30,
        "T" | "TB" | "TIB" => 40,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}
