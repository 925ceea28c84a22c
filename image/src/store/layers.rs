//! Layers on ZFS: each chain of layers is one dataset, a clone of the chain below it, so what images have in common is
//! there once.

use std::path::Path;

use cryopod_checkpoint::fault;
use cryopod_checkpoint::tenant::KIND;
use cryopod_command::Limits;
use cryopod_zfs::{CreateRequest, DatasetName, Properties, SnapshotName};

use super::zfs::{LAYER, ZfsTemplates};
use crate::digest::Digest;
use crate::error::TemplateError;

/// The chain that a layer's snapshot is.
const CHAIN: &str = "cryopod:chain";
/// Digits of the chain in the dataset's name: 128 bits, and room for the names above it in ZFS's 255 characters. The whole
/// digest stands in a property and is compared.
const DIGITS: usize = 32;

impl ZfsTemplates<'_> {
    /// The dataset of a chain.
    fn layer(&self, chain: Digest) -> Result<DatasetName, TemplateError> {
        let digits: String = chain.hex().chars().take(DIGITS).collect();
        Ok(self.root.child(&format!("layers/{digits}"))?)
    }

    /// The snapshot of a chain, if it is whole.
    pub(super) fn whole_layer(
        &self,
        chain: Digest,
        limits: &Limits,
    ) -> Result<Option<SnapshotName>, TemplateError> {
        let name = self.layer(chain)?.snapshot(LAYER)?;
        let Some(found) = self.zfs.snapshot(&name, limits)? else { return Ok(None) };
        if found.properties.own(CHAIN) == Some(chain.to_string().as_str()) {
            return Ok(Some(name));
        }
        Err(TemplateError::Foreign { dataset: name.dataset().to_string(), chain })
    }

    /// Makes a layer over the chain below it; on error nothing of it stays.
    pub(super) fn make_layer(
        &self,
        chain: Digest,
        below: Option<&SnapshotName>,
        unpack: &mut dyn FnMut(&Path) -> Result<(), TemplateError>,
        limits: &Limits,
    ) -> Result<SnapshotName, TemplateError> {
        let dataset = self.layer(chain)?;
        let properties = Properties::new()
            .with(KIND, LAYER)
            .with("mountpoint", "legacy")
            .with("readonly", "off")
            .with("atime", "off")
            .with("xattr", "sa")
            .with("acltype", "posixacl");
        fault::step("template.layer")?;
        match below {
            Some(below) => self.zfs.clone_snapshot(below, &dataset, &properties, limits)?,
            None => self.zfs.create(&CreateRequest::filesystem(&dataset, properties), limits)?,
        }
        let snapshot = dataset.snapshot(LAYER)?;
        let made = (|| -> Result<(), TemplateError> {
            let view = self.store.view(&dataset, limits)?;
            fault::step("template.unpack")?;
            if below.is_none() {
                crate::apply::begin(view.path()).map_err(TemplateError::io("prepare", view.path()))?;
            }
            unpack(view.path())?;
            // Unmounted first: whatever the kernel still holds for the mount is in the dataset then.
            drop(view);
            fault::step("template.layer-snapshot")?;
            let properties = Properties::new().with(KIND, LAYER).with(CHAIN, chain.to_string());
            self.zfs.snapshot_set(std::slice::from_ref(&snapshot), &properties, limits)?;
            Ok(())
        })();
        match made {
            Ok(()) => Ok(snapshot),
            Err(error) => {
                self.discard(&dataset);
                Err(error)
            }
        }
    }
}
