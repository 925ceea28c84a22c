//! Send and receive in the fake.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::changing::{check_properties, local};
use super::state::{Node, Partial, Snap, State};
use super::stream::{self, Decoded, Header};
use super::tree::{self, Tree};
use crate::error::Op;
use crate::{
    Base, DatasetName, Error, Guid, Kind, ReceiveRequest, Received, ResumeToken, SendRequest, SnapshotName,
    Source, Stream,
};

/// A stream ready to be written, and the snapshot it is of.
pub(super) struct Outgoing {
    pub(super) bytes: Vec<u8>,
    pub(super) snapshot: u64,
}

impl State {
    pub(super) fn outgoing(&self, op: &Op, send: &SendRequest) -> Result<Outgoing, Error> {
        let (snapshot, base, clone, offset) = match &send.stream {
            Stream::Full(to) => (self.snap(op, to)?, None, false, 0),
            Stream::Incremental { from, to } => {
                let snap = self.snap(op, to)?;
                let (base, clone) = self.base(op, from, to, snap)?;
                (snap, Some(base), clone, 0)
            }
            Stream::FromOrigin(to) => {
                let snap = self.snap(op, to)?;
                let origin = self.node(op, &to.dataset())?.origin;
                let Some((_, base)) = origin.and_then(|id| self.snap_by_id(id)) else {
                    return Err(Error::NotAClone { op: op.clone() });
                };
                (snap, Some((base.guid, base.tree.clone())), true, 0)
            }
            Stream::Resume(token) => return self.resumed(op, token),
        };
        let dataset = self.snap_by_id(snapshot.id).filter(|_| send.flags.raw).map(|(dataset, _)| dataset);
        let cipher = dataset.and_then(|dataset| self.effective(dataset, "encryption"));
        let cipher = cipher.map(|cipher| cipher.value).filter(|cipher| cipher != "off");
        Ok(pack(snapshot, base, clone, offset, &self.name_of(snapshot), cipher))
    }

    fn name_of(&self, snap: &Snap) -> String {
        self.snap_by_id(snap.id).map(|(dataset, _)| format!("{dataset}@{}", snap.leaf)).unwrap_or_default()
    }

    /// The guid and content of an increment's base, and whether the increment makes a clone.
    fn base(
        &self,
        op: &Op,
        from: &Base,
        to: &SnapshotName,
        snap: &Snap,
    ) -> Result<((Guid, Arc<Tree>), bool), Error> {
        let missing = |said: String| Error::BaseMissing { op: op.clone(), said };
        match from {
            Base::Snapshot(name) => {
                let found = self.find_snap(name).ok_or_else(|| missing(format!("{name} does not exist")))?;
                let clone = name.dataset() != to.dataset();
                let is_origin = self.node(op, &to.dataset())?.origin == Some(found.id);
                if (clone && !is_origin) || found.createtxg >= snap.createtxg {
                    return Err(missing(format!("{name} is not an earlier snapshot of it")));
                }
                Ok(((found.guid, found.tree.clone()), clone))
            }
            Base::Bookmark(name) => {
                let node = self.datasets.get(&name.dataset());
                let mark = node.and_then(|node| node.bookmarks.iter().find(|mark| mark.leaf == name.leaf()));
                let mark = mark.ok_or_else(|| missing(format!("{name} does not exist")))?;
                if mark.createtxg >= snap.createtxg {
                    return Err(missing(format!("{name} is not earlier")));
                }
                Ok(((mark.guid, mark.tree.clone()), name.dataset() != to.dataset()))
            }
        }
    }

    fn resumed(&self, op: &Op, token: &ResumeToken) -> Result<Outgoing, Error> {
        let corrupt =
            || Error::StreamCorrupt { op: op.clone(), said: "the resume token is corrupt".to_owned() };
        let fields: Vec<&str> = token.as_str().split('-').collect();
        let [_, "fa4e", guid, from, clone, offset] = fields.as_slice() else { return Err(corrupt()) };
        let number = |text: &str| u64::from_str_radix(text, 16).map_err(|_| corrupt());
        let (guid, from, offset) = (Guid(number(guid)?), Guid(number(from)?), number(offset)?);
        let all = || self.datasets.values().flat_map(|node| &node.snapshots);
        // The guid may also be that of a received copy; any will do.
        let snap = all().find(|snap| snap.guid == guid).ok_or_else(|| Error::NotFound {
            op: op.clone(),
            name: "the snapshot of the interrupted stream".to_owned(),
        })?;
        let marks = self.datasets.values().flat_map(|node| &node.bookmarks);
        let bases = all().map(|s| (s.guid, &s.tree)).chain(marks.map(|m| (m.guid, &m.tree)));
        let base = match from {
            Guid(0) => None,
            from => {
                let mut bases = bases.filter(|(guid, _)| *guid == from);
                let said = "the base of the interrupted stream is gone".to_owned();
                let base = bases.next().ok_or(Error::BaseMissing { op: op.clone(), said })?;
                Some((from, base.1.clone()))
            }
        };
        Ok(pack(snap, base, *clone == "1", offset, &self.name_of(snap), None))
    }

    /// Takes in what was read of a stream.
    pub(super) fn incoming(
        &mut self,
        op: &Op,
        receive: &ReceiveRequest,
        bytes: &[u8],
    ) -> Result<Received, Error> {
        check_properties(op, &receive.set, false)?;
        self.ready(op, &receive.target, true)?;
        let (header, payload, checksum) = match stream::decode(bytes) {
            Decoded::Stream { header, payload, checksum } => (header, payload, checksum),
            Decoded::NoHeader => return Err(Error::StreamTruncated { op: op.clone(), token: None }),
            Decoded::Corrupt => {
                return Err(Error::StreamCorrupt {
                    op: op.clone(),
                    said: "invalid backup stream".to_owned(),
                });
            }
        };
        let payload = self.continued(op, receive, &header, payload)?;
        let base = self.target_base(op, receive, &header)?;
        self.fits(op, &nearest(self, &receive.target), payload.len() as u64)?;
        let Some(checksum) = checksum else { return Err(self.interrupted(op, receive, header, payload)) };
        let changes = (stream::checksum(&payload) == checksum).then(|| tree::decode(&payload)).flatten();
        let Some(changes) = changes else {
            return Err(Error::StreamCorrupt { op: op.clone(), said: "checksum mismatch".to_owned() });
        };
        let mut content = base.as_ref().map(|(_, tree)| Tree::clone(tree)).unwrap_or_default();
        content.apply(changes);
        self.arrive(op, receive, &header, base.map(|(id, _)| id), content)
    }

    /// The whole payload so far: a resumed stream goes on where the interrupted one ended.
    fn continued(
        &self,
        op: &Op,
        receive: &ReceiveRequest,
        header: &Header,
        payload: Vec<u8>,
    ) -> Result<Vec<u8>, Error> {
        let partial = self.datasets.get(&receive.target).and_then(|node| node.partial.as_ref());
        match partial {
            None if header.offset == 0 => Ok(payload),
            Some(partial) if header.offset > 0 => {
                if partial.header.guid != header.guid || partial.payload.len() as u64 != header.offset {
                    let said = "the stream does not continue the interrupted one".to_owned();
                    return Err(Error::StreamCorrupt { op: op.clone(), said });
                }
                Ok([partial.payload.as_slice(), &payload].concat())
            }
            None => {
                let said = "there is no interrupted receive to continue".to_owned();
                Err(Error::BaseMissing { op: op.clone(), said })
            }
            Some(_) => Err(Error::ResumeExists { op: op.clone() }),
        }
    }

    /// The snapshot here that the stream starts from; None for a full stream.
    fn target_base(
        &self,
        op: &Op,
        receive: &ReceiveRequest,
        header: &Header,
    ) -> Result<Option<(u64, Arc<Tree>)>, Error> {
        let missing = |said: String| Error::BaseMissing { op: op.clone(), said };
        let target = self.datasets.get(&receive.target);
        // A dataset that so far only holds an interrupted stream is not there yet.
        let existing = target.filter(|node| node.partial.is_none() || !node.snapshots.is_empty());
        match (header.from, existing) {
            (None, Some(_)) => Err(Error::Exists { op: op.clone(), name: receive.target.to_string() }),
            (None, None) => Ok(None),
            (Some(from), Some(node)) if !header.clone => {
                let latest = node.snapshots.last().filter(|snap| snap.guid.0 == from);
                let latest =
                    latest.ok_or_else(|| missing("its most recent snapshot is not the base".to_owned()))?;
                if Tree::read(&node.content).ok().as_ref() != Some(&*latest.tree) {
                    return Err(Error::Diverged { op: op.clone() });
                }
                Ok(Some((latest.id, latest.tree.clone())))
            }
            (Some(_), Some(_)) => Err(Error::Exists { op: op.clone(), name: receive.target.to_string() }),
            (Some(_), None) if !header.clone => Err(missing(format!("{} does not exist", receive.target))),
            (Some(from), None) => {
                let snap = match &receive.origin {
                    Some(name) => self.find_snap(name).filter(|snap| snap.guid.0 == from),
                    None => {
                        let pool = receive.target.pool();
                        let here = self.datasets.iter().filter(|(name, _)| name.pool() == pool);
                        here.flat_map(|(_, node)| &node.snapshots).find(|snap| snap.guid.0 == from)
                    }
                };
                let snap = snap.ok_or_else(|| missing("local origin for clone does not exist".to_owned()))?;
                Ok(Some((snap.id, snap.tree.clone())))
            }
        }
    }

    /// Keeps what arrived of a stream that ended early, if it may be resumed.
    fn interrupted(&mut self, op: &Op, receive: &ReceiveRequest, header: Header, payload: Vec<u8>) -> Error {
        let name = &receive.target;
        let mut token = None;
        if receive.resumable {
            if !self.datasets.contains_key(name)
                && let Err(error) = self.add_node(op, name, Kind::Filesystem, BTreeMap::new())
            {
                return error;
            }
            if let Some(node) = self.datasets.get_mut(name) {
                node.partial = Some(Partial { header, payload });
            }
            token = self.datasets.get(name).and_then(|node| self.token(node));
        }
        Error::StreamTruncated { op: op.clone(), token }
    }

    fn arrive(
        &mut self,
        op: &Op,
        receive: &ReceiveRequest,
        header: &Header,
        base: Option<u64>,
        content: Tree,
    ) -> Result<Received, Error> {
        let name = &receive.target;
        let leaf = header.snapshot.split_once('@').map_or("received", |(_, leaf)| leaf);
        let snapshot = name.snapshot(leaf)?;
        if self.find_snap(&snapshot).is_some() {
            return Err(Error::Exists { op: op.clone(), name: snapshot.to_string() });
        }
        let is_new = header.from.is_none() || header.clone;
        if !self.datasets.contains_key(name) {
            match name.parent() {
                Some(parent) if self.datasets.contains_key(&parent) => {}
                parent => {
                    let name = parent.map(|parent| parent.to_string()).unwrap_or_default();
                    return Err(Error::NotFound { op: op.clone(), name });
                }
            }
            self.add_node(op, name, Kind::Filesystem, BTreeMap::new())?;
        }
        let (id, createtxg, guid) = (self.fresh_id(), self.next_txg(), Guid(header.guid));
        let node: &mut Node = self.node_mut(op, name)?;
        node.partial = None;
        node.properties.extend(local(&receive.set));
        if is_new && let Some(cipher) = &header.encryption {
            node.properties.insert("encryption".to_owned(), (cipher.clone(), Source::None));
        }
        if header.clone {
            node.origin = base;
        }
        content.write(&node.content).map_err(|source| Error::System { op: op.clone(), source })?;
        node.snapshots.push(Snap {
            id,
            leaf: leaf.to_owned(),
            guid,
            createtxg,
            tree: Arc::new(content),
            holds: Default::default(),
            defer: false,
            properties: BTreeMap::new(),
        });
        if is_new && !receive.unmounted {
            self.mount_if_due(op, name)?;
        }
        Ok(Received { snapshot, guid })
    }

    pub(super) fn abort_receive(&mut self, op: &Op, target: &DatasetName) -> Result<(), Error> {
        self.ready(op, target, true)?;
        let Some(node) = self.datasets.get_mut(target) else { return Ok(()) };
        let only_partial = node.partial.take().is_some() && node.snapshots.is_empty();
        if only_partial && let Some(node) = self.datasets.remove(target) {
            std::fs::remove_dir_all(&node.content)
                .map_err(|source| Error::System { op: op.clone(), source })?;
        }
        Ok(())
    }
}

fn pack(
    snap: &Snap,
    base: Option<(Guid, Arc<Tree>)>,
    clone: bool,
    offset: u64,
    name: &str,
    encryption: Option<String>,
) -> Outgoing {
    let (from, changes) = match base {
        Some((guid, tree)) => (Some(guid.0), snap.tree.since(&tree)),
        None => (None, snap.tree.since(&Tree::default())),
    };
    let payload = tree::encode(&changes);
    let header = Header {
        snapshot: name.to_owned(),
        guid: snap.guid.0,
        from,
        clone,
        encryption,
        payload: payload.len() as u64,
        offset,
    };
    Outgoing { bytes: stream::encode(&header, &payload), snapshot: snap.id }
}

/// The dataset whose quotas bound what arrives at `name`: itself or the nearest one above that exists.
fn nearest(state: &State, name: &DatasetName) -> DatasetName {
    let mut at = name.clone();
    while !state.datasets.contains_key(&at) {
        match at.parent() {
            Some(parent) => at = parent,
            None => break,
        }
    }
    at
}
