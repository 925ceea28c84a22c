//! What the fake answers when it is asked: entries of a listing, built from the model at that moment.

use std::collections::BTreeSet;

use super::state::{Mark, Node, Snap, State};
use crate::error::Op;
use crate::{
    Bookmark, Bytes, Dataset, DatasetName, EffectiveProperties, Entry, Error, Filter, Kind, Mountpoint,
    Property, ResumeToken, Snapshot, Source, Wanted,
};

impl State {
    pub(super) fn list(&self, op: &Op, filter: &Filter) -> Result<Vec<Entry>, Error> {
        let mut entries = Vec::new();
        let mut seen = BTreeSet::new();
        for root in &filter.roots {
            self.node(op, root)?;
            for (name, node) in self.datasets.iter().filter(|(name, _)| name.is_within(root)) {
                let below = name.as_str().matches('/').count() - root.as_str().matches('/').count();
                let within = |levels: usize| filter.depth.is_none_or(|depth| levels <= depth as usize);
                if !within(below) || !seen.insert(name.clone()) {
                    continue;
                }
                let wanted_kind = match node.kind {
                    Kind::Filesystem => filter.kinds.filesystems,
                    Kind::Volume => filter.kinds.volumes,
                };
                if wanted_kind {
                    entries.push(Entry::Dataset(self.dataset_view(name, node, &filter.wanted)));
                }
                if within(below + 1) && filter.kinds.snapshots {
                    let views =
                        node.snapshots.iter().filter_map(|s| self.snapshot_view(name, s, &filter.wanted));
                    entries.extend(views.map(Entry::Snapshot));
                }
                if within(below + 1) && filter.kinds.bookmarks {
                    let views = node.bookmarks.iter().filter_map(|mark| bookmark_view(name, mark));
                    entries.extend(views.map(Entry::Bookmark));
                }
            }
        }
        entries.sort_by_key(|entry| (entry.createtxg(), entry.name()));
        Ok(entries)
    }

    pub(super) fn dataset_view(&self, name: &DatasetName, node: &Node, wanted: &Wanted) -> Dataset {
        let (used, referenced) = self.space(name);
        let origin = node.origin.and_then(|id| self.snap_by_id(id));
        let volsize = node.properties.get("volsize").and_then(|(size, _)| super::state::amount(size));
        let mountpoint: Option<Mountpoint> = (node.kind == Kind::Filesystem).then(|| self.mountpoint(name));
        Dataset {
            name: name.clone(),
            kind: node.kind,
            guid: node.guid,
            createtxg: node.createtxg,
            creation: 0,
            origin: origin.and_then(|(dataset, snap)| dataset.snapshot(&snap.leaf).ok()),
            used: Bytes(used),
            referenced: Bytes(referenced),
            available: Bytes(self.available(name).0),
            mountpoint,
            mounted: !node.mounts.is_empty(),
            volsize: volsize.map(Bytes),
            resume_token: self.token(node),
            properties: self.select(wanted, name, &node.properties.keys().cloned().collect::<Vec<_>>(), None),
        }
    }

    pub(super) fn snapshot_view(&self, name: &DatasetName, snap: &Snap, wanted: &Wanted) -> Option<Snapshot> {
        let keys: Vec<String> = snap.properties.keys().cloned().collect();
        Some(Snapshot {
            name: name.snapshot(&snap.leaf).ok()?,
            guid: snap.guid,
            createtxg: snap.createtxg,
            creation: 0,
            used: Bytes(0),
            referenced: Bytes(snap.tree.size()),
            userrefs: snap.holds.len() as u64,
            clones: self.clones_of(snap.id),
            defer_destroy: snap.defer,
            properties: self.select(wanted, name, &keys, Some(snap)),
        })
    }

    /// The properties that were asked for, each as it holds.
    fn select(
        &self,
        wanted: &Wanted,
        name: &DatasetName,
        own: &[String],
        snap: Option<&Snap>,
    ) -> EffectiveProperties {
        let keys: BTreeSet<String> = match wanted {
            Wanted::TypedOnly => BTreeSet::new(),
            Wanted::Named(keys) => keys.iter().cloned().collect(),
            Wanted::All => {
                let above = std::iter::successors(Some(name.clone()), DatasetName::parent);
                let inherited = above.filter_map(|name| self.datasets.get(&name));
                inherited
                    .flat_map(|node| node.properties.keys().cloned())
                    .chain(own.iter().cloned())
                    .collect()
            }
        };
        let mut found = EffectiveProperties::default();
        for key in keys {
            let value = match snap.map(|snap| snap.properties.get(&key)) {
                Some(Some((value, source))) => {
                    Some(Property { value: value.clone(), source: source.clone() })
                }
                // A snapshot inherits user properties from its dataset.
                Some(None) if key.contains(':') => self.effective(name, &key).map(|property| Property {
                    source: match property.source {
                        Source::Inherited(from) => Source::Inherited(from),
                        _ => Source::Inherited(name.to_string()),
                    },
                    ..property
                }),
                Some(None) => None,
                None => self.effective(name, &key),
            };
            if let Some(value) = value {
                found.insert(key, value);
            }
        }
        found
    }

    pub(super) fn token(&self, node: &Node) -> Option<ResumeToken> {
        let partial = node.partial.as_ref()?;
        let header = &partial.header;
        let text = format!(
            "1-fa4e-{:x}-{:x}-{}-{:x}",
            header.guid,
            header.from.unwrap_or_default(),
            u8::from(header.clone),
            partial.payload.len()
        );
        text.parse().ok()
    }
}

fn bookmark_view(name: &DatasetName, mark: &Mark) -> Option<Bookmark> {
    let name = name.bookmark(&mark.leaf).ok()?;
    Some(Bookmark { name, guid: mark.guid, createtxg: mark.createtxg, creation: 0 })
}
