//! Templates in the store of a node.
//!
//! ```text
//! ZFS: <root>                                            directory: <dir>
//! ├ layers/<chain>@layer      one per chain of layers,   └ templates/<name>/template.json
//! │                           a clone of the one below              └ rootfs/…
//! └ templates/<name>@template a clone of the last layer
//! ```
//!
//! A layer or template is whole once it has its snapshot, which carries what is known of it, in one transaction; one without
//! is what a killed `create` has left, and goes with the next `create` or `prune`. In a directory it is whole once it has
//! its name. All changes are made under one lock, so nothing that is half is anybody's work in progress. What is cloned
//! cannot go: ZFS says so itself, also to whoever decided a moment ago.

mod dir;
mod layers;
mod record;
#[cfg(test)]
mod tests;
mod zfs;

use cryopod_checkpoint::progress::Progress;
use cryopod_checkpoint::restore::RootfsPlacement;
use cryopod_checkpoint::store::Store;
use cryopod_checkpoint::tenant::{Place, TreeDigest};
use cryopod_command::Limits;
use jiff::Timestamp;
use serde::Serialize;

use crate::bounds::{Bounds, Budget};
use crate::digest::{Digest, chains};
use crate::error::TemplateError;
use crate::manifest::Image;
use crate::source::{ImageName, Opened, Options};
use crate::stream::Expected;
use crate::template::{MAX_RECORD, Template, TemplateName, VERSION};

use dir::DirTemplates;
use zfs::ZfsTemplates;

/// One change at a time.
const LOCK: &str = "templates";

/// Templates of a store.
#[derive(Debug)]
pub struct Templates<'a> {
    store: &'a Store,
    kept: Kept<'a>,
}

#[derive(Debug)]
enum Kept<'a> {
    Zfs(ZfsTemplates<'a>),
    Dir(DirTemplates<'a>),
}

/// A template with what the store says of it now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stored {
    /// What it is.
    #[serde(flatten)]
    pub template: Template,
    /// Where it is.
    pub place: String,
    /// Bytes that it holds alone; what layers hold is theirs.
    pub used_bytes: u64,
    /// Who lives on it.
    pub users: Vec<String>,
}

/// A template that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Created {
    /// What it is.
    #[serde(flatten)]
    pub template: Template,
    /// Layers that were there already.
    pub layers_shared: usize,
    /// Layers that were unpacked for it.
    pub layers_made: usize,
}

/// What a removal of unused things has removed, or would.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Pruned {
    /// Chains of layers that nothing used.
    pub layers: Vec<String>,
    /// What killed operations had left.
    pub half_made: Vec<String>,
    /// Bytes that they held.
    pub bytes: u64,
}

/// What a template is to be made of, and how.
#[derive(Debug)]
pub struct Request<'a> {
    /// Its name.
    pub name: &'a TemplateName,
    /// The image.
    pub image: &'a ImageName,
    /// The image as it was asked for, to be kept.
    pub asked: &'a str,
    /// How the image is read.
    pub options: &'a Options,
    /// How much it may be.
    pub bounds: Bounds,
}

impl<'a> Templates<'a> {
    /// Those of a store.
    pub fn of(store: &'a Store) -> Self {
        let kept = match store.tenancy() {
            Place::Zfs { zfs, root } => Kept::Zfs(ZfsTemplates::new(store, zfs.as_ref(), root)),
            Place::Dir(dir) => Kept::Dir(DirTemplates::new(dir)),
        };
        Self { store, kept }
    }

    /// Makes a template of an image. On error nothing of it stays but layers that are whole, for the next try.
    pub fn create(
        &self,
        request: &Request<'_>,
        progress: &dyn Progress,
        limits: &Limits,
    ) -> Result<Created, TemplateError> {
        let _lock = self.store.lock(LOCK, limits)?;
        // Before a byte is read from anywhere.
        self.sweep(false, limits)?;
        if self.find(request.name, limits)?.is_some() {
            return Err(TemplateError::Exists { name: request.name.clone(), place: self.store.place() });
        }
        progress.step("looking for the image");
        let opened = Opened::find(request.image, request.options, limits)?;
        let mut budget = Budget::new(request.bounds);
        let draft = Draft { request, image: &opened.image };
        let mut unpack = |at: usize, root: &std::path::Path| -> Result<(), TemplateError> {
            let Some(layer) = opened.image.layers.get(at) else { return Ok(()) };
            progress.step(&format!("unpacking layer {} of {}", at + 1, opened.image.layers.len()));
            let digest = match layer.blob {
                crate::manifest::Blob::Digest(digest, _) => Some(digest),
                _ => None,
            };
            let expected = Expected { digest, diff_id: Some(layer.diff_id) };
            let blob = opened.layer(layer)?;
            let applied = crate::apply::apply(blob, expected, root, &mut budget, limits);
            applied.map(drop).map_err(|source| TemplateError::Layer { layer: layer.diff_id, source })
        };
        match &self.kept {
            Kept::Zfs(kept) => kept.create(&draft, &mut unpack, progress, limits),
            Kept::Dir(kept) => kept.create(&draft, &mut unpack, progress, limits),
        }
    }

    /// All of them, by name.
    pub fn list(&self, limits: &Limits) -> Result<Vec<Stored>, TemplateError> {
        match &self.kept {
            Kept::Zfs(kept) => kept.list(limits),
            Kept::Dir(kept) => kept.list(),
        }
    }

    /// One of them.
    pub fn show(&self, name: &TemplateName, limits: &Limits) -> Result<Stored, TemplateError> {
        let missing = || TemplateError::NotFound { name: name.clone(), place: self.store.place() };
        self.find(name, limits)?.ok_or_else(missing)
    }

    /// Reads all of a template and compares it with what it was when it was made.
    pub fn verify(&self, name: &TemplateName, limits: &Limits) -> Result<TreeDigest, TemplateError> {
        let stored = self.show(name, limits)?;
        let found = match &self.kept {
            Kept::Zfs(kept) => kept.read(&stored.template, limits)?,
            Kept::Dir(kept) => kept.read(name, limits)?,
        };
        if found.hash == stored.template.tree {
            return Ok(found);
        }
        let damage = format!("its files have hash {}, and had {}", found.hash, stored.template.tree);
        Err(TemplateError::Damaged { name: name.clone(), damage })
    }

    /// Removes a template that nothing lives on; its layers stay until `prune`.
    pub fn delete(&self, name: &TemplateName, limits: &Limits) -> Result<(), TemplateError> {
        let _lock = self.store.lock(LOCK, limits)?;
        let stored = self.show(name, limits)?;
        if !stored.users.is_empty() {
            return Err(TemplateError::InUse { name: name.clone(), users: stored.users });
        }
        match &self.kept {
            Kept::Zfs(kept) => kept.delete(name, limits),
            Kept::Dir(kept) => kept.delete(name),
        }
    }

    /// Removes layers that nothing uses, and what killed operations have left.
    pub fn prune(&self, dry_run: bool, limits: &Limits) -> Result<Pruned, TemplateError> {
        let _lock = self.store.lock(LOCK, limits)?;
        let mut pruned = self.sweep(dry_run, limits)?;
        if let Kept::Zfs(kept) = &self.kept {
            kept.prune_layers(&mut pruned, dry_run, limits)?;
        }
        Ok(pruned)
    }

    /// Makes the root file system of a container of it, which goes with the container.
    pub fn make_root(
        &self,
        name: &TemplateName,
        container: &str,
        limits: &Limits,
    ) -> Result<(Template, RootfsPlacement), TemplateError> {
        let missing = || TemplateError::NotFound { name: name.clone(), place: self.store.place() };
        match &self.kept {
            Kept::Zfs(kept) => kept.make_root(name, container, limits)?.ok_or_else(missing),
            Kept::Dir(kept) => {
                let template = kept.find(name)?.ok_or_else(missing)?.template;
                Ok((template, kept.make_root(self.store, name, container, limits)?))
            }
        }
    }

    fn find(&self, name: &TemplateName, limits: &Limits) -> Result<Option<Stored>, TemplateError> {
        match &self.kept {
            Kept::Zfs(kept) => kept.find(name, limits),
            Kept::Dir(kept) => kept.find(name),
        }
    }

    fn sweep(&self, dry_run: bool, limits: &Limits) -> Result<Pruned, TemplateError> {
        match &self.kept {
            Kept::Zfs(kept) => kept.sweep(dry_run, limits),
            Kept::Dir(kept) => kept.sweep(dry_run),
        }
    }
}

/// Unpacks the layer with that number over a directory.
type Unpack<'a> = dyn FnMut(usize, &std::path::Path) -> Result<(), TemplateError> + 'a;

/// A template about to be made.
struct Draft<'a> {
    request: &'a Request<'a>,
    image: &'a Image,
}

impl Draft<'_> {
    fn diff_ids(&self) -> Vec<Digest> {
        self.image.layers.iter().map(|layer| layer.diff_id).collect()
    }

    fn chains(&self) -> Vec<Digest> {
        chains(&self.diff_ids())
    }

    /// The record, once the tree is known.
    fn template(&self, tree: TreeDigest) -> Template {
        Template {
            version: VERSION,
            name: self.request.name.clone(),
            image: self.request.asked.to_owned(),
            digest: self.image.digest,
            created: Timestamp::now(),
            config: self.image.config.clone(),
            layers: self.diff_ids(),
            tree: tree.hash,
            entries: tree.entries,
            bytes: tree.bytes,
        }
    }
}

/// The record as JSON, if it is not too long.
fn json(template: &Template) -> Result<String, TemplateError> {
    let failed = |error: serde_json::Error| TemplateError::Record {
        name: template.name.to_string(),
        reason: error.to_string(),
    };
    let json = template.to_json().map_err(failed)?;
    if json.len() > MAX_RECORD { Err(TemplateError::TooLarge { size: json.len() }) } else { Ok(json) }
}
