//! Templates in the directory store: each one a whole tree, since directories share no layers. It is made beside and gets
//! its name once it is on disk, so what has a name is whole.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use cryopod_checkpoint::fault;
use cryopod_checkpoint::progress::Progress;
use cryopod_checkpoint::restore::RootfsPlacement;
use cryopod_checkpoint::store::Store;
use cryopod_checkpoint::tenant::{
    RootSource, TreeDigest, private_dir, remove_tree, rename_durably, tree_digest, write_durably,
};
use cryopod_command::Limits;

use super::{Created, Draft, Pruned, Stored, Unpack, json};
use crate::error::TemplateError;
use crate::template::{MAX_RECORD, Template, TemplateName};

/// No name of a template begins so.
const HALF: &str = ".half-";
const RECORD: &str = "template.json";
const ROOTFS: &str = "rootfs";

/// Templates below a directory.
#[derive(Debug)]
pub(super) struct DirTemplates<'a> {
    dir: &'a Path,
}

impl<'a> DirTemplates<'a> {
    pub(super) fn new(dir: &'a Path) -> Self {
        Self { dir }
    }

    fn all(&self) -> PathBuf {
        self.dir.join("templates")
    }

    fn template(&self, name: &TemplateName) -> PathBuf {
        self.all().join(name.as_str())
    }

    /// Unpacks all layers over one another.
    pub(super) fn create(
        &self,
        draft: &Draft<'_>,
        unpack: &mut Unpack<'_>,
        progress: &dyn Progress,
        limits: &Limits,
    ) -> Result<Created, TemplateError> {
        let name = draft.request.name;
        let half = self.all().join(format!("{HALF}{name}"));
        let rootfs = half.join(ROOTFS);
        private_dir(&rootfs).map_err(TemplateError::io("create", &rootfs))?;
        let made = (|| -> Result<Template, TemplateError> {
            crate::apply::begin(&rootfs).map_err(TemplateError::io("prepare", &rootfs))?;
            for at in 0..draft.image.layers.len() {
                fault::step("template.unpack")?;
                unpack(at, &rootfs)?;
            }
            progress.step("hashing its files");
            let template = draft.template(tree_digest(&rootfs, limits)?);
            let path = half.join(RECORD);
            write_durably(&path, json(&template)?.as_bytes()).map_err(TemplateError::io("write", &path))?;
            let opened = fs::File::open(&half).map_err(TemplateError::io("open", &half))?;
            rustix::fs::syncfs(&opened).map_err(|errno| TemplateError::io("sync", &half)(errno.into()))?;
            fault::step("template.rename")?;
            rename_durably(&half, &self.template(name))?;
            Ok(template)
        })();
        match made {
            Ok(template) => Ok(Created { layers_made: template.layers.len(), template, layers_shared: 0 }),
            Err(error) => {
                if let Err(left) = remove_tree(&half) {
                    tracing::warn!(error = %left, "half of a template stays until `cryopod template prune`");
                }
                Err(error)
            }
        }
    }

    pub(super) fn list(&self) -> Result<Vec<Stored>, TemplateError> {
        let mut names: Vec<TemplateName> =
            self.names()?.iter().filter_map(|name| name.parse().ok()).collect();
        names.sort();
        names.iter().filter_map(|name| self.find(name).transpose()).collect()
    }

    pub(super) fn find(&self, name: &TemplateName) -> Result<Option<Stored>, TemplateError> {
        let dir = self.template(name);
        let path = dir.join(RECORD);
        let bad = |reason: String| TemplateError::Record { name: name.to_string(), reason };
        let text = match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(TemplateError::io("find", &path)(error)),
            Ok(found) if found.len() > MAX_RECORD as u64 => {
                return Err(bad(format!("{} bytes long", found.len())));
            }
            Ok(_) => fs::read_to_string(&path).map_err(TemplateError::io("read", &path))?,
        };
        let template = Template::parse(&text).map_err(bad)?;
        let used_bytes = template.bytes;
        Ok(Some(Stored { template, place: dir.display().to_string(), used_bytes, users: Vec::new() }))
    }

    pub(super) fn read(&self, name: &TemplateName, limits: &Limits) -> Result<TreeDigest, TemplateError> {
        Ok(tree_digest(&self.template(name).join(ROOTFS), limits)?)
    }

    /// Containers have copies, so nothing lives on it. Its name goes first.
    pub(super) fn delete(&self, name: &TemplateName) -> Result<(), TemplateError> {
        let half = self.all().join(format!("{HALF}{name}"));
        remove_tree(&half)?;
        fault::step("template.delete")?;
        rename_durably(&self.template(name), &half)?;
        Ok(remove_tree(&half)?)
    }

    pub(super) fn make_root(
        &self,
        store: &Store,
        name: &TemplateName,
        container: &str,
        limits: &Limits,
    ) -> Result<RootfsPlacement, TemplateError> {
        let rootfs = self.template(name).join(ROOTFS);
        let origin = format!("template:{name}");
        Ok(store.make_root(container, &RootSource::Tree(&rootfs), &origin, limits)?)
    }

    pub(super) fn sweep(&self, dry_run: bool) -> Result<Pruned, TemplateError> {
        let mut pruned = Pruned::default();
        for name in self.names()?.into_iter().filter(|name| name.starts_with(HALF)) {
            let path = self.all().join(name);
            if !dry_run {
                fault::step("template.sweep")?;
                remove_tree(&path)?;
            }
            pruned.half_made.push(path.display().to_string());
        }
        Ok(pruned)
    }

    fn names(&self) -> Result<Vec<String>, TemplateError> {
        let dir = self.all();
        let failed = || TemplateError::io("list", &dir);
        let items = match fs::read_dir(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(failed())?,
        };
        let names = items.map(|item| item.map(|item| item.file_name().to_string_lossy().into_owned()));
        names.collect::<Result<_, _>>().map_err(failed())
    }
}
