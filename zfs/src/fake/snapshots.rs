//! Snapshots, bookmarks, holds and rollback in the fake.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::changing::{check_properties, local};
use super::state::{Mark, Snap, State};
use super::tree::Tree;
use crate::error::Op;
use crate::{
    BookmarkName, DatasetName, Error, Hold, HoldTag, Holders, Properties, SnapshotName, StreamHolder,
};

impl State {
    pub(super) fn snapshot_names(&self, dataset: &DatasetName) -> Vec<SnapshotName> {
        let snaps = self.datasets.get(dataset).map(|node| node.snapshots.as_slice()).unwrap_or_default();
        snaps.iter().filter_map(|snap| dataset.snapshot(&snap.leaf).ok()).collect()
    }

    pub(super) fn snapshot_set(
        &mut self,
        op: &Op,
        snapshots: &[SnapshotName],
        properties: &Properties,
    ) -> Result<(), Error> {
        check_properties(op, properties, true)?;
        let mut trees = Vec::new();
        for name in snapshots {
            self.ready(op, &name.dataset(), true)?;
            let node = self.node(op, &name.dataset())?;
            if self.find_snap(name).is_some() {
                return Err(Error::Exists { op: op.clone(), name: name.to_string() });
            }
            self.fits(op, &name.dataset(), 512)?;
            trees.push(Tree::read(&node.content).map_err(|source| Error::System { op: op.clone(), source })?);
        }
        // All can be taken: now take them, in one transaction group.
        let createtxg = self.next_txg();
        for (name, tree) in snapshots.iter().zip(trees) {
            let snap = Snap {
                id: self.fresh_id(),
                leaf: name.leaf().to_owned(),
                guid: self.fresh_guid(),
                createtxg,
                tree: Arc::new(tree),
                holds: BTreeSet::new(),
                defer: false,
                properties: local(properties),
            };
            self.node_mut(op, &name.dataset())?.snapshots.push(snap);
        }
        Ok(())
    }

    /// Why a snapshot cannot be destroyed, if so.
    pub(super) fn may_destroy(&self, op: &Op, name: &SnapshotName) -> Result<(), Error> {
        let Some(snap) = self.find_snap(name) else { return Ok(()) };
        if !snap.holds.is_empty() || self.sending.contains(&snap.id) {
            let holds = snap.holds.iter().map(|tag| Hold { snapshot: name.clone(), tag: tag.clone() });
            let sender = self
                .sending
                .contains(&snap.id)
                .then(|| StreamHolder { pid: std::process::id(), command: format!("zfs send {name}") });
            let streams = sender.into_iter().collect();
            let holders = Holders { holds: holds.collect(), streams, ..Holders::default() };
            return Err(Error::Busy { op: op.clone(), holders: Box::new(holders) });
        }
        Ok(())
    }

    pub(super) fn destroy_snapshots(
        &mut self,
        op: &Op,
        snapshots: &[SnapshotName],
        deferred: bool,
    ) -> Result<(), Error> {
        for name in snapshots {
            self.ready(op, &name.dataset(), true)?;
            let Some(snap) = self.find_snap(name) else { continue };
            if self.sending.contains(&snap.id) || !deferred {
                self.may_destroy(op, name)?;
            }
            let clones = self.clones_of(snap.id);
            if !deferred && !clones.is_empty() {
                let dependents = clones.iter().map(ToString::to_string).collect();
                return Err(Error::HasDependents { op: op.clone(), dependents });
            }
        }
        for name in snapshots {
            let Some(id) = self.find_snap(name).map(|snap| snap.id) else { continue };
            if let Some(snap) = self.snap_mut(name) {
                snap.defer = true;
            }
            self.reap_deferred(Some(id));
        }
        Ok(())
    }

    /// Removes a snapshot that is marked for it and that nothing keeps any more.
    pub(super) fn reap_deferred(&mut self, id: Option<u64>) {
        let Some(id) = id else { return };
        let Some((dataset, snap)) = self.snap_by_id(id) else { return };
        if snap.defer && snap.holds.is_empty() && self.clones_of(id).is_empty() {
            let dataset = dataset.clone();
            if let Some(node) = self.datasets.get_mut(&dataset) {
                node.snapshots.retain(|snap| snap.id != id);
            }
        }
    }

    pub(super) fn rename_snapshot(
        &mut self,
        op: &Op,
        snapshot: &SnapshotName,
        to: &SnapshotName,
    ) -> Result<(), Error> {
        self.ready(op, &snapshot.dataset(), true)?;
        self.snap(op, snapshot)?;
        if self.find_snap(to).is_some() {
            return Err(Error::Exists { op: op.clone(), name: to.to_string() });
        }
        if let Some(snap) = self.snap_mut(snapshot) {
            snap.leaf = to.leaf().to_owned();
        }
        Ok(())
    }

    pub(super) fn rollback(&mut self, op: &Op, snapshot: &SnapshotName) -> Result<(), Error> {
        let dataset = snapshot.dataset();
        self.ready(op, &dataset, true)?;
        let (txg, tree) = {
            let snap = self.snap(op, snapshot)?;
            (snap.createtxg, snap.tree.clone())
        };
        let mounts = self.all_mounts(&dataset);
        if !mounts.is_empty() {
            return Err(Error::Mounted { op: op.clone(), mounts });
        }
        let node = self.node(op, &dataset)?;
        let newer = node
            .snapshots
            .iter()
            .filter(|snap| snap.createtxg > txg)
            .map(|s| format!("{dataset}@{}", s.leaf));
        let marks = node
            .bookmarks
            .iter()
            .filter(|mark| mark.createtxg > txg)
            .map(|m| format!("{dataset}#{}", m.leaf));
        let newer: Vec<String> = newer.chain(marks).collect();
        if !newer.is_empty() {
            return Err(Error::NotLatest { op: op.clone(), newer });
        }
        tree.write(&node.content).map_err(|source| Error::System { op: op.clone(), source })
    }

    pub(super) fn bookmark(
        &mut self,
        op: &Op,
        snapshot: &SnapshotName,
        bookmark: &BookmarkName,
    ) -> Result<(), Error> {
        let snap = self.snap(op, snapshot)?;
        let (guid, createtxg, tree) = (snap.guid, snap.createtxg, snap.tree.clone());
        let leaf = bookmark.leaf().to_owned();
        let node = self.node_mut(op, &bookmark.dataset())?;
        if node.bookmarks.iter().any(|mark| mark.leaf == leaf) {
            return Err(Error::Exists { op: op.clone(), name: bookmark.to_string() });
        }
        node.bookmarks.push(Mark { leaf, guid, createtxg, tree });
        Ok(())
    }

    pub(super) fn destroy_bookmark(&mut self, op: &Op, bookmark: &BookmarkName) -> Result<(), Error> {
        let node = self.node_mut(op, &bookmark.dataset())?;
        let before = node.bookmarks.len();
        node.bookmarks.retain(|mark| mark.leaf != bookmark.leaf());
        if node.bookmarks.len() == before {
            return Err(Error::NotFound { op: op.clone(), name: bookmark.to_string() });
        }
        Ok(())
    }

    pub(super) fn hold(&mut self, op: &Op, snapshots: &[SnapshotName], tag: &HoldTag) -> Result<(), Error> {
        for name in snapshots {
            self.ready(op, &name.dataset(), true)?;
            if self.snap(op, name)?.holds.contains(tag) {
                return Err(Error::HoldExists { op: op.clone(), tag: tag.clone() });
            }
        }
        for name in snapshots {
            if let Some(snap) = self.snap_mut(name) {
                snap.holds.insert(tag.clone());
            }
        }
        Ok(())
    }

    pub(super) fn release(
        &mut self,
        op: &Op,
        snapshots: &[SnapshotName],
        tag: &HoldTag,
    ) -> Result<(), Error> {
        for name in snapshots {
            self.ready(op, &name.dataset(), true)?;
            if !self.snap(op, name)?.holds.contains(tag) {
                let (snapshot, tag) = (name.clone(), tag.clone());
                return Err(Error::HoldMissing { op: op.clone(), snapshot, tag });
            }
        }
        for name in snapshots {
            let id = self.snap_mut(name).map(|snap| {
                snap.holds.remove(tag);
                snap.id
            });
            self.reap_deferred(id);
        }
        Ok(())
    }

    pub(super) fn holds(&self, op: &Op, snapshot: &SnapshotName) -> Result<Vec<Hold>, Error> {
        let tags = self.snap(op, snapshot)?.holds.iter();
        Ok(tags.map(|tag| Hold { snapshot: snapshot.clone(), tag: tag.clone() }).collect())
    }
}
