//! Datasets in the fake: create, clone, destroy, promote, rename, properties.

use std::collections::BTreeMap;

use super::state::State;
use crate::error::Op;
use crate::properties::{is_user_property, key_fault};
use crate::{
    CreateRequest, DatasetName, Error, Holders, Kind, Mountpoint, Name, NewKind, Properties, Rename,
    SnapshotName, Source,
};

/// Native properties that can be set; as many as cryopod or its tests use.
const SETTABLE: [&str; 30] = [
    "acltype",
    "atime",
    "canmount",
    "checksum",
    "compression",
    "copies",
    "devices",
    "dnodesize",
    "encryption",
    "exec",
    "keyformat",
    "keylocation",
    "logbias",
    "mountpoint",
    "primarycache",
    "quota",
    "readonly",
    "recordsize",
    "refquota",
    "refreservation",
    "relatime",
    "reservation",
    "secondarycache",
    "setuid",
    "snapdev",
    "snapdir",
    "special_small_blocks",
    "sync",
    "volsize",
    "xattr",
];

pub(super) fn check_properties(op: &Op, properties: &Properties, user_only: bool) -> Result<(), Error> {
    if let Some(said) = properties.fault() {
        return Err(Error::InvalidProperty { op: op.clone(), said });
    }
    for (key, _) in properties.iter().filter(|(key, _)| !is_user_property(key)) {
        if user_only || !SETTABLE.contains(&key) {
            return Err(Error::InvalidProperty { op: op.clone(), said: format!("invalid property '{key}'") });
        }
    }
    let wrong = properties.iter().find(|(key, value)| match *key {
        "atime" | "devices" | "exec" | "readonly" | "relatime" | "setuid" => !["on", "off"].contains(value),
        "canmount" => !["on", "off", "noauto"].contains(value),
        "mountpoint" => !["legacy", "none"].contains(value) && !value.starts_with('/'),
        _ => false,
    });
    match wrong {
        Some((key, value)) => {
            Err(Error::InvalidProperty { op: op.clone(), said: format!("'{value}' is no value of '{key}'") })
        }
        None => Ok(()),
    }
}

pub(super) fn local(properties: &Properties) -> BTreeMap<String, (String, Source)> {
    properties.iter().map(|(key, value)| (key.to_owned(), (value.to_owned(), Source::Local))).collect()
}

impl State {
    fn new_name(&mut self, op: &Op, name: &DatasetName, parents: bool) -> Result<(), Error> {
        self.ready(op, name, true)?;
        if self.datasets.contains_key(name) {
            return Err(Error::Exists { op: op.clone(), name: name.to_string() });
        }
        let Some(parent) = name.parent() else {
            return Err(Error::PoolMissing { op: op.clone() });
        };
        if !self.datasets.contains_key(&parent) {
            if !parents {
                return Err(Error::NotFound { op: op.clone(), name: parent.to_string() });
            }
            self.new_name(op, &parent, true)?;
            self.add_node(op, &parent, Kind::Filesystem, BTreeMap::new())?;
            self.mount_if_due(op, &parent)?;
        }
        self.fits(op, name, 512)
    }

    pub(super) fn create(&mut self, op: &Op, create: &CreateRequest) -> Result<(), Error> {
        check_properties(op, &create.properties, false)?;
        if create.parents
            && self.ready(op, &create.name, true).is_ok()
            && self.datasets.contains_key(&create.name)
        {
            return Ok(());
        }
        self.new_name(op, &create.name, create.parents)?;
        let mut properties = local(&create.properties);
        let kind = match create.kind {
            NewKind::Filesystem => Kind::Filesystem,
            NewKind::Volume { size, .. } => {
                properties.insert("volsize".to_owned(), (size.0.to_string(), Source::Local));
                Kind::Volume
            }
        };
        self.add_node(op, &create.name, kind, properties)?;
        self.mount_if_due(op, &create.name)
    }

    pub(super) fn clone_snapshot(
        &mut self,
        op: &Op,
        snapshot: &SnapshotName,
        target: &DatasetName,
        properties: &Properties,
    ) -> Result<(), Error> {
        check_properties(op, properties, false)?;
        let (id, tree) = {
            let snap = self.snap(op, snapshot)?;
            (snap.id, snap.tree.clone())
        };
        let kind = self.node(op, &snapshot.dataset())?.kind;
        self.new_name(op, target, false)?;
        self.add_node(op, target, kind, local(properties))?;
        let node = self.node_mut(op, target)?;
        node.origin = Some(id);
        tree.write(&node.content).map_err(|source| Error::System { op: op.clone(), source })?;
        self.mount_if_due(op, target)
    }

    pub(super) fn destroy(&mut self, op: &Op, name: &DatasetName, recursive: bool) -> Result<(), Error> {
        self.ready(op, name, true)?;
        self.node(op, name)?;
        let subtree = self.subtree(name);
        let snapshots: Vec<SnapshotName> =
            subtree.iter().flat_map(|dataset| self.snapshot_names(dataset)).collect();
        let children = subtree.iter().filter(|dataset| *dataset != name).map(ToString::to_string);
        let dependents: Vec<String> = children.chain(snapshots.iter().map(ToString::to_string)).collect();
        if !recursive && !dependents.is_empty() {
            return Err(Error::HasDependents { op: op.clone(), dependents });
        }
        let mut clones = Vec::new();
        for snap in snapshots.iter().filter_map(|snapshot| self.find_snap(snapshot)) {
            clones.extend(self.clones_of(snap.id));
        }
        clones.retain(|clone| !clone.is_within(name));
        if !clones.is_empty() {
            let dependents = clones.iter().map(ToString::to_string).collect();
            return Err(Error::HasDependents { op: op.clone(), dependents });
        }
        for snapshot in &snapshots {
            self.may_destroy(op, snapshot)?;
        }
        for dataset in subtree.iter().rev() {
            self.unmount_all(op, dataset)?;
            let pins = self.datasets.get(dataset).map(|node| node.pins.clone()).unwrap_or_default();
            if !pins.is_empty() {
                let holders = Box::new(Holders { mounts: pins, ..Holders::default() });
                return Err(Error::Busy { op: op.clone(), holders });
            }
        }
        for dataset in subtree.iter().rev() {
            if let Some(node) = self.datasets.remove(dataset) {
                std::fs::remove_dir_all(&node.content)
                    .map_err(|source| Error::System { op: op.clone(), source })?;
                self.reap_deferred(node.origin);
            }
        }
        Ok(())
    }

    pub(super) fn promote(&mut self, op: &Op, name: &DatasetName) -> Result<(), Error> {
        let node = self.node_mut(op, name)?;
        let Some(origin_id) = node.origin else { return Err(Error::NotAClone { op: op.clone() }) };
        let own: Vec<String> = node.snapshots.iter().map(|snap| snap.leaf.clone()).collect();
        let Some((source, txg)) =
            self.snap_by_id(origin_id).map(|(dataset, snap)| (dataset.clone(), snap.createtxg))
        else {
            return Err(Error::Unknown { op: op.clone(), said: "the origin is gone".to_owned() });
        };
        let origin_node = self.node_mut(op, &source)?;
        let conflict =
            origin_node.snapshots.iter().find(|snap| snap.createtxg <= txg && own.contains(&snap.leaf));
        if let Some(snap) = conflict {
            return Err(Error::Exists { op: op.clone(), name: format!("{name}@{}", snap.leaf) });
        }
        let (moved, kept) = origin_node.snapshots.drain(..).partition(|snap| snap.createtxg <= txg);
        origin_node.snapshots = kept;
        let (marks, kept) = origin_node.bookmarks.drain(..).partition(|mark| mark.createtxg <= txg);
        origin_node.bookmarks = kept;
        let above = origin_node.origin.replace(origin_id);
        let node = self.node_mut(op, name)?;
        node.origin = above;
        node.snapshots.splice(0..0, Vec::from_iter::<Vec<_>>(moved));
        node.bookmarks.splice(0..0, Vec::from_iter::<Vec<_>>(marks));
        Ok(())
    }

    pub(super) fn rename(
        &mut self,
        op: &Op,
        from: &DatasetName,
        to: &DatasetName,
        how: Rename,
    ) -> Result<(), Error> {
        self.node(op, from)?;
        self.new_name(op, to, how.parents)?;
        let mut remount = Vec::new();
        let new_name = |old: &DatasetName| {
            let below = old.as_str().get(from.as_str().len()..).unwrap_or_default();
            format!("{to}{below}").parse::<DatasetName>()
        };
        if !how.keep_mounts {
            for dataset in self.subtree(from).iter().rev() {
                let ours =
                    self.datasets.get(dataset).is_some_and(|node| node.mounts.iter().any(|m| !m.explicit));
                if ours && matches!(self.mountpoint(dataset), Mountpoint::Path(_)) {
                    self.unmount_all(op, dataset)?;
                    remount.push(new_name(dataset)?);
                }
            }
        }
        for dataset in self.subtree(from) {
            let target = new_name(&dataset)?;
            if let Some(node) = self.datasets.remove(&dataset) {
                self.datasets.insert(target, node);
            }
        }
        remount.iter().rev().try_for_each(|dataset| self.mount_if_due(op, dataset))
    }

    pub(super) fn set(&mut self, op: &Op, name: &Name, properties: &Properties) -> Result<(), Error> {
        let (user_only, into) = match name {
            Name::Dataset(dataset) => (false, &mut self.node_mut(op, dataset)?.properties),
            Name::Snapshot(snapshot) => {
                self.ready(op, &snapshot.dataset(), true)?;
                self.snap(op, snapshot)?;
                let absent = || Error::NotFound { op: op.clone(), name: snapshot.to_string() };
                (true, &mut self.snap_mut(snapshot).ok_or_else(absent)?.properties)
            }
            Name::Bookmark(_) => {
                let said = "bookmarks have no properties to set".to_owned();
                return Err(Error::Unsupported { op: op.clone(), said });
            }
        };
        check_properties(op, properties, user_only)?;
        into.extend(local(properties));
        Ok(())
    }

    pub(super) fn inherit(&mut self, op: &Op, name: &Name, key: &str) -> Result<(), Error> {
        if let Some(fault) = key_fault(key) {
            return Err(Error::InvalidProperty { op: op.clone(), said: format!("property {key:?} {fault}") });
        }
        match name {
            Name::Dataset(dataset) => {
                self.node_mut(op, dataset)?.properties.remove(key);
            }
            Name::Snapshot(snapshot) => {
                self.snap(op, snapshot)?;
                if let Some(snap) = self.snap_mut(snapshot) {
                    snap.properties.remove(key);
                }
            }
            Name::Bookmark(_) => {}
        }
        Ok(())
    }
}
