//! What in the subtree is ours: known by marks of its own, never by a name or a place alone.
//!
//! A configured root may be somebody's who has his own `checkpoints` there, and marks get lost (`zfs send` without
//! properties). So a root or part that has anything in it is used only with its mark, and recovery removes nothing that
//! has none. One that is empty is taken and marked: people make datasets by hand before the first start.

use cryopod_command::Limits;
use cryopod_zfs::{CreateRequest, Dataset, DatasetName, Entry, Filter, Kinds, Name, Properties, Wanted, Zfs};

use super::list::state;
use super::{ID, KIND, STATE, State, ZfsStore};
use crate::id::CheckpointId;
use crate::store::StoreError;

/// What the root and its parts are marked as.
const ROOT: &str = "root";
/// The parts of a store.
const PARTS: [&str; 7] = ["bases", "checkpoints", "containers", "adopted", "trash", "layers", "templates"];
/// More than an empty file system refers to on any pool: 96 KiB on mirrors, some hundred on wide RAIDZ and dRAID.
const EMPTY: u64 = 4 << 20;

/// Whose a dataset is that is to be used as root or part.
#[derive(Debug, PartialEq, Eq)]
enum Whose {
    Ours,
    Nobodys,
    Somebodys,
}

/// A dataset with what is directly in it.
struct Seen {
    dataset: Dataset,
    children: Vec<Dataset>,
    snapshots: usize,
}

impl Seen {
    fn whose(&self) -> Whose {
        match self.dataset.properties.own(KIND) {
            Some(ROOT) => Whose::Ours,
            Some(_) => Whose::Somebodys,
            None if !self.children.is_empty() || self.dataset.referenced.0 > EMPTY => Whose::Somebodys,
            None => Whose::Nobodys,
        }
    }

    /// Whether it may be used as a root.
    fn is_usable(&self) -> bool {
        match self.whose() {
            Whose::Ours | Whose::Nobodys => true,
            Whose::Somebodys => self.dataset.properties.own(KIND).is_none() && self.has_part(),
        }
    }

    /// Whether an earlier open made a part in it: then the root was made by hand and has no mark yet.
    fn has_part(&self) -> bool {
        let is_part = |child: &&Dataset| PARTS.contains(&child.name.leaf());
        self.children.iter().filter(is_part).any(|part| part.properties.own(KIND) == Some(ROOT))
    }
}

impl ZfsStore {
    /// Makes root and parts, or makes sure that those which are there are ours.
    pub(super) fn claim(&self, limits: &Limits) -> Result<(), StoreError> {
        let parts = match self.look(&self.root, limits)? {
            Some(root) if !root.is_usable() => return Err(not_ours(&self.root)),
            Some(root) => {
                if root.whose() != Whose::Ours {
                    self.mark(&self.root, limits)?;
                }
                root.children
            }
            None => {
                // Attributes and ACLs as Linux containers use them; nothing here is mounted by itself.
                let properties = Properties::new()
                    .with(KIND, ROOT)
                    .with("mountpoint", "none")
                    .with("canmount", "off")
                    .with("atime", "off")
                    .with("xattr", "sa")
                    .with("acltype", "posixacl");
                let request = CreateRequest::filesystem(&self.root, properties).with_parents();
                self.zfs.create(&request, limits)?;
                Vec::new()
            }
        };
        for name in PARTS {
            let name = self.root.child(name)?;
            match parts.iter().find(|part| part.name == name) {
                Some(part) if part.properties.own(KIND) == Some(ROOT) => {}
                Some(_) => match self.look(&name, limits)?.map(|part| part.whose()) {
                    Some(Whose::Somebodys) => return Err(not_ours(&name)),
                    _ => self.mark(&name, limits)?,
                },
                None => {
                    let properties = Properties::new().with(KIND, ROOT).with("canmount", "off");
                    self.zfs.create(&CreateRequest::filesystem(&name, properties).with_parents(), limits)?;
                }
            }
        }
        Ok(())
    }

    fn mark(&self, dataset: &DatasetName, limits: &Limits) -> Result<(), StoreError> {
        Ok(self.zfs.set(&Name::from(dataset), &Properties::new().with(KIND, ROOT), limits)?)
    }

    fn look(&self, dataset: &DatasetName, limits: &Limits) -> Result<Option<Seen>, StoreError> {
        see(self.zfs.as_ref(), dataset, limits)
    }

    /// Bytes that are free where [`Self::open`] would be used, if the root or its pool says so; changes nothing.
    pub(in crate::store) fn free_at(
        zfs: &dyn Zfs,
        root: &DatasetName,
        limits: &Limits,
    ) -> Result<Option<u64>, StoreError> {
        let Some(seen) = see(zfs, root, limits)? else {
            return Ok(zfs.dataset(&root.pool().root(), limits)?.map(|pool| pool.available.0));
        };
        if !seen.is_usable() {
            return Err(not_ours(root));
        }
        let is_part = |child: &&Dataset| PARTS.contains(&child.name.leaf());
        for part in seen.children.iter().filter(is_part) {
            if part.properties.own(KIND) != Some(ROOT)
                && see(zfs, &part.name, limits)?.is_some_and(|part| part.whose() == Whose::Somebodys)
            {
                return Err(not_ours(&part.name));
            }
        }
        Ok(Some(seen.dataset.available.0))
    }

    /// Removes a draft with its snapshots on foreign datasets; what has the name of a draft and no mark stays.
    pub(in crate::store) fn abort(
        &self,
        id: &CheckpointId,
        sources: &[cryopod_zfs::SnapshotName],
        limits: &Limits,
    ) -> Result<(), StoreError> {
        let name = self.checkpoint(id)?;
        let Some(seen) = self.look(&name, limits)? else {
            return self.remove(id, sources, limits).map(drop);
        };
        if is_draft(&seen.dataset, &seen.children) {
            return self.remove(id, sources, limits).map(drop);
        }
        self.drop_sources(sources, limits)?;
        // Creating and marking are two transactions: a power cut between them leaves one without anything in it, like
        // a part that was never mounted.
        let part = self.zfs.dataset(&self.root.child("checkpoints")?, limits)?;
        let smallest = part.is_some_and(|part| seen.dataset.referenced <= part.referenced);
        if smallest && seen.snapshots == 0 && seen.whose() == Whose::Nobodys {
            return match self.zfs.destroy(&name, false, limits) {
                Err(error) if error.is_not_found() => Ok(()),
                other => Ok(other?),
            };
        }
        tracing::warn!(dataset = %name, "it has no mark of cryopod and is left alone");
        Ok(())
    }

    /// What is in places of the store and has no mark: left alone, for people to look at.
    pub(in crate::store) fn strangers(&self, limits: &Limits) -> Result<Vec<String>, StoreError> {
        let mut strangers = Vec::new();
        for (dataset, children) in self.uncommitted(limits)? {
            if !is_draft(&dataset, &children) {
                strangers.push(dataset.name.to_string());
            }
        }
        type Proof = fn(&Dataset) -> bool;
        for (part, proof) in [("trash", is_trash as Proof), ("bases", is_base as Proof)] {
            let children = self.children(&self.root.child(part)?, marks(), limits)?;
            let without = children.into_iter().filter(|dataset| !proof(dataset));
            strangers.extend(without.map(|dataset| dataset.name.to_string()));
        }
        Ok(strangers)
    }
}

fn see(zfs: &dyn Zfs, dataset: &DatasetName, limits: &Limits) -> Result<Option<Seen>, StoreError> {
    let kinds = Kinds { snapshots: true, ..Kinds::DATASETS };
    let filter = Filter { depth: Some(1), ..Filter::below(dataset, kinds) };
    let entries = match zfs.list(&filter.wanting(marks()), limits) {
        Err(error) if error.is_not_found() => return Ok(None),
        other => other?,
    };
    let (mut itself, mut children, mut snapshots) = (None, Vec::new(), 0);
    for entry in entries {
        match entry {
            Entry::Dataset(found) if found.name == *dataset => itself = Some(found),
            Entry::Dataset(found) => children.push(found),
            Entry::Snapshot(_) | Entry::Bookmark(_) => snapshots += 1,
        }
    }
    Ok(itself.map(|dataset| Seen { dataset, children, snapshots }))
}

/// The properties that say what something is.
pub(super) fn marks() -> Wanted {
    Wanted::Named([KIND, ID, STATE].map(str::to_owned).to_vec())
}

/// Whether an uncommitted dataset below `checkpoints` is a draft of ours. Those of earlier versions have no mark but that
/// of their memory.
pub(super) fn is_draft(dataset: &Dataset, children: &[Dataset]) -> bool {
    if let Some(state) = state(dataset) {
        return state != State::Committed;
    }
    let memory = children.iter().find(|child| child.name.leaf() == "memory");
    dataset.properties.own(KIND).is_none()
        && memory.is_some_and(|memory| {
            memory.properties.own(KIND) == Some("memory")
                && memory.properties.own(ID) == Some(dataset.name.leaf())
        })
}

/// Whether a dataset below `trash` is a deleted checkpoint: marked before it is moved there.
pub(super) fn is_trash(dataset: &Dataset) -> bool {
    state(dataset) == Some(State::Trash)
}

/// Whether a dataset below `bases` is a base. Half a receive may not have its mark yet, and its sender has all of it.
pub(super) fn is_base(dataset: &Dataset) -> bool {
    dataset.properties.own(KIND) == Some("base") || dataset.resume_token.is_some()
}

fn not_ours(dataset: &DatasetName) -> StoreError {
    StoreError::NotOurs {
        place: dataset.to_string(),
        advice: format!(
            "name a new or empty dataset in store.zfs.root; if this is a store whose properties were lost, say so by \
             `zfs set {KIND}={ROOT} {dataset}`"
        ),
    }
}

#[cfg(test)]
mod tests;
