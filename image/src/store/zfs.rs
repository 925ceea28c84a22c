//! Templates on ZFS: clones of their last layer, whole once they have their snapshot.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use cryopod_checkpoint::fault;
use cryopod_checkpoint::progress::Progress;
use cryopod_checkpoint::restore::RootfsPlacement;
use cryopod_checkpoint::store::Store;
use cryopod_checkpoint::tenant::{KIND, RootSource, TreeDigest, tree_digest};
use cryopod_command::Limits;
use cryopod_zfs::{
    CreateRequest, Dataset, DatasetName, Entry, Error as ZfsError, Filter, Kinds, Properties, Snapshot,
    SnapshotName, Wanted, Zfs,
};

use super::{Created, Draft, Pruned, Stored, Unpack, json, record};
use crate::digest::chains;
use crate::error::TemplateError;
use crate::template::{Template, TemplateName};

/// What a layer and its snapshot are called and marked as.
pub(super) const LAYER: &str = "layer";
/// The same of a template.
const TEMPLATE: &str = "template";
/// Removing what a failure has left is not cancelled, but bounded.
const UNDO: Duration = Duration::from_secs(120);

/// Templates below the store's root.
pub(super) struct ZfsTemplates<'a> {
    pub(super) store: &'a Store,
    pub(super) zfs: &'a dyn Zfs,
    pub(super) root: &'a DatasetName,
}

/// A dataset of a part, with its snapshot if it is whole.
struct Seen {
    dataset: Dataset,
    snapshot: Option<Snapshot>,
}

impl fmt::Debug for ZfsTemplates<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ZfsTemplates").field("root", self.root).finish_non_exhaustive()
    }
}

impl<'a> ZfsTemplates<'a> {
    pub(super) fn new(store: &'a Store, zfs: &'a dyn Zfs, root: &'a DatasetName) -> Self {
        Self { store, zfs, root }
    }

    fn template(&self, name: &TemplateName) -> Result<DatasetName, TemplateError> {
        Ok(self.root.child(&format!("templates/{name}"))?)
    }

    fn snapshot(&self, name: &TemplateName) -> Result<SnapshotName, TemplateError> {
        Ok(self.template(name)?.snapshot(TEMPLATE)?)
    }

    /// Makes the layers that are missing, then the template.
    pub(super) fn create(
        &self,
        draft: &Draft<'_>,
        unpack: &mut Unpack<'_>,
        progress: &dyn Progress,
        limits: &Limits,
    ) -> Result<Created, TemplateError> {
        let (mut below, mut made) = (None, 0);
        let chains = draft.chains();
        for (at, chain) in chains.iter().enumerate() {
            below = Some(match self.whole_layer(*chain, limits)? {
                Some(snapshot) => snapshot,
                None => {
                    made += 1;
                    self.make_layer(*chain, below.as_ref(), &mut |root| unpack(at, root), limits)?
                }
            });
        }
        let dataset = self.template(draft.request.name)?;
        let properties =
            Properties::new().with(KIND, TEMPLATE).with("mountpoint", "legacy").with("atime", "off");
        fault::step("template.clone")?;
        match &below {
            Some(below) => self.zfs.clone_snapshot(below, &dataset, &properties, limits)?,
            // An image without layers is an empty root.
            None => self.zfs.create(&CreateRequest::filesystem(&dataset, properties), limits)?,
        }
        let finished = (|| -> Result<Template, TemplateError> {
            progress.step("hashing its files");
            let view = self.store.view(&dataset, limits)?;
            let tree = tree_digest(view.path(), limits)?;
            drop(view);
            let template = draft.template(tree);
            let mut properties = Properties::new().with(KIND, TEMPLATE);
            record::write(&json(&template)?, &mut properties);
            fault::step("template.snapshot")?;
            self.zfs.snapshot_set(&[dataset.snapshot(TEMPLATE)?], &properties, limits)?;
            Ok(template)
        })();
        match finished {
            Ok(template) => Ok(Created { template, layers_shared: chains.len() - made, layers_made: made }),
            Err(error) => {
                self.discard(&dataset);
                Err(error)
            }
        }
    }

    /// Removes what is not whole; what cannot be removed now goes with the next `create` or `prune`.
    pub(super) fn discard(&self, dataset: &DatasetName) {
        match self.zfs.destroy(dataset, true, &Limits::within(UNDO)) {
            Err(error) if !error.is_not_found() => {
                tracing::warn!(%dataset, %error, "half of a template stays until `cryopod template prune`");
            }
            _ => {}
        }
    }

    pub(super) fn list(&self, limits: &Limits) -> Result<Vec<Stored>, TemplateError> {
        let mut all = Vec::new();
        for seen in self.part("templates", TEMPLATE, limits)? {
            if let Some(snapshot) = &seen.snapshot {
                all.push(stored(&seen.dataset, snapshot)?);
            }
        }
        all.sort_by(|a, b| a.template.name.cmp(&b.template.name));
        Ok(all)
    }

    pub(super) fn find(&self, name: &TemplateName, limits: &Limits) -> Result<Option<Stored>, TemplateError> {
        let Some(snapshot) = self.zfs.snapshot(&self.snapshot(name)?, limits)? else { return Ok(None) };
        let Some(dataset) = self.zfs.dataset(&self.template(name)?, limits)? else { return Ok(None) };
        stored(&dataset, &snapshot).map(Some)
    }

    /// Reads the whole tree of the snapshot, after a look at what it is a clone of.
    pub(super) fn read(&self, template: &Template, limits: &Limits) -> Result<TreeDigest, TemplateError> {
        let name = &template.name;
        let damaged = |damage: String| TemplateError::Damaged { name: name.clone(), damage };
        let dataset = self.zfs.dataset(&self.template(name)?, limits)?;
        let origin = dataset.and_then(|dataset| dataset.origin);
        let last = match chains(&template.layers).last() {
            Some(chain) => self.whole_layer(*chain, limits)?,
            None => None,
        };
        if origin != last {
            let shown = |snapshot: Option<SnapshotName>| {
                snapshot.map_or("nothing".to_owned(), |name| name.to_string())
            };
            return Err(damaged(format!(
                "it is a clone of {}, and its last layer is {}",
                shown(origin),
                shown(last)
            )));
        }
        let view = self.store.view_snapshot(&self.snapshot(name)?, limits)?;
        Ok(tree_digest(view.path(), limits)?)
    }

    pub(super) fn delete(&self, name: &TemplateName, limits: &Limits) -> Result<(), TemplateError> {
        fault::step("template.delete")?;
        match self.zfs.destroy(&self.template(name)?, true, limits) {
            // Somebody was faster than our look.
            Err(ZfsError::HasDependents { dependents, .. }) => {
                Err(TemplateError::InUse { name: name.clone(), users: dependents })
            }
            other => Ok(other?),
        }
    }

    /// One question and one transaction: this is what the start of a container waits for.
    pub(super) fn make_root(
        &self,
        name: &TemplateName,
        container: &str,
        limits: &Limits,
    ) -> Result<Option<(Template, RootfsPlacement)>, TemplateError> {
        let Some(snapshot) = self.zfs.snapshot(&self.snapshot(name)?, limits)? else { return Ok(None) };
        let template = recorded(&snapshot)?;
        let origin = format!("template:{name}");
        let source = RootSource::Snapshot(&snapshot.name);
        Ok(Some((template, self.store.make_root(container, &source, &origin, limits)?)))
    }

    /// Removes what killed operations have left.
    pub(super) fn sweep(&self, dry_run: bool, limits: &Limits) -> Result<Pruned, TemplateError> {
        let mut pruned = Pruned::default();
        for (part, leaf) in [("templates", TEMPLATE), ("layers", LAYER)] {
            for seen in self.part(part, leaf, limits)? {
                if seen.snapshot.is_some() {
                    continue;
                }
                if !dry_run {
                    fault::step("template.sweep")?;
                    self.zfs.destroy(&seen.dataset.name, true, limits)?;
                }
                pruned.half_made.push(seen.dataset.name.to_string());
                pruned.bytes += seen.dataset.used.0;
            }
        }
        Ok(pruned)
    }

    /// Removes layers that neither a template nor another layer is a clone of, the highest first.
    pub(super) fn prune_layers(
        &self,
        pruned: &mut Pruned,
        dry_run: bool,
        limits: &Limits,
    ) -> Result<(), TemplateError> {
        let mut layers: BTreeMap<DatasetName, Seen> = self
            .part("layers", LAYER, limits)?
            .into_iter()
            .map(|seen| (seen.dataset.name.clone(), seen))
            .collect();
        loop {
            let gone = |clone: &DatasetName| {
                clone.is_within(self.root) && pruned.layers.contains(&clone.to_string())
            };
            let is_unused = |seen: &Seen| {
                let snapshot = seen.snapshot.as_ref();
                snapshot.is_some_and(|snapshot| snapshot.clones.iter().all(gone))
            };
            let Some(unused) =
                layers.values().find(|seen| is_unused(seen)).map(|seen| seen.dataset.name.clone())
            else {
                return Ok(());
            };
            if !dry_run {
                fault::step("template.prune")?;
                self.zfs.destroy(&unused, true, limits)?;
            }
            pruned.bytes += layers.remove(&unused).map_or(0, |seen| seen.dataset.used.0);
            pruned.layers.push(unused.to_string());
        }
    }

    /// What has no mark of ours stays, whatever it is. A clone of ours that has none was cut off before it got its mark,
    /// which is a transaction of its own in some versions of ZFS.
    fn is_ours(&self, dataset: &Dataset, leaf: &str, whole: bool) -> bool {
        match dataset.properties.own(KIND) {
            Some(kind) => kind == leaf,
            None => {
                !whole && dataset.origin.as_ref().is_some_and(|origin| origin.dataset().is_within(self.root))
            }
        }
    }

    /// What is directly below a part and is ours.
    fn part(&self, part: &str, leaf: &str, limits: &Limits) -> Result<Vec<Seen>, TemplateError> {
        let root = self.root.child(part)?;
        let kinds = Kinds { snapshots: true, ..Kinds::DATASETS };
        let filter = Filter { depth: Some(2), ..Filter::below(&root, kinds) }.wanting(Wanted::All);
        let (mut datasets, mut snapshots) = (Vec::new(), BTreeMap::new());
        for entry in self.zfs.list(&filter, limits)? {
            match entry {
                Entry::Dataset(dataset) if dataset.name.parent().as_ref() == Some(&root) => {
                    datasets.push(dataset);
                }
                Entry::Snapshot(snapshot) if snapshot.name.leaf() == leaf => {
                    snapshots.insert(snapshot.name.dataset(), snapshot);
                }
                _ => {}
            }
        }
        let ours = datasets
            .into_iter()
            .filter(|dataset| self.is_ours(dataset, leaf, snapshots.contains_key(&dataset.name)));
        let ours: Vec<Dataset> = ours.collect();
        Ok(ours
            .into_iter()
            .map(|dataset| Seen { snapshot: snapshots.remove(&dataset.name), dataset })
            .collect())
    }
}

fn recorded(snapshot: &Snapshot) -> Result<Template, TemplateError> {
    let name = snapshot.name.dataset().leaf().to_owned();
    let template = Template::parse(&record::read(&snapshot.properties));
    template.map_err(|reason| TemplateError::Record { name, reason })
}

fn stored(dataset: &Dataset, snapshot: &Snapshot) -> Result<Stored, TemplateError> {
    let template = recorded(snapshot)?;
    // <root>/templates/<name>
    let root = dataset.name.parent().and_then(|part| part.parent());
    let users = snapshot.clones.iter().map(|clone| user(root.as_ref(), clone));
    Ok(Stored {
        template,
        place: dataset.name.to_string(),
        used_bytes: dataset.used.0,
        users: users.collect(),
    })
}

/// Who a clone belongs to, in the words of people, where it is in a place of the store that says so.
fn user(root: Option<&DatasetName>, clone: &DatasetName) -> String {
    let below = root.and_then(|root| clone.as_str().strip_prefix(root.as_str())).unwrap_or_default();
    let mut names = below.trim_start_matches('/').split('/');
    match (names.next(), names.next()) {
        (Some("containers"), Some(name)) => format!("container {name}"),
        // Its disk is kept as what it differs by from the template.
        (Some("checkpoints"), Some(id)) => format!("checkpoint {id}"),
        _ => format!("dataset {clone}"),
    }
}

#[cfg(test)]
mod tests {
    use super::user;

    #[test]
    fn those_who_live_on_a_template_are_named_as_people_know_them() {
        let root = "tank/cryopod".parse().unwrap();
        let named = |clone: &str| user(Some(&root), &clone.parse().unwrap());
        assert_eq!(named("tank/cryopod/containers/web"), "container web");
        assert_eq!(named("tank/cryopod/checkpoints/web-1/app-rootfs"), "checkpoint web-1");
        assert_eq!(
            named("tank/cryopod/trash/web-1.7/app-rootfs"),
            "dataset tank/cryopod/trash/web-1.7/app-rootfs"
        );
        assert_eq!(named("tank/containers/web"), "dataset tank/containers/web");
    }
}
