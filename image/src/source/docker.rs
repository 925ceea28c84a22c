//! An archive of `docker save`: `manifest.json` names a configuration and the files of the layers. It knows no digests of
//! layers; they are verified by what the configuration says they unpack to.

use std::io::Read;

use serde::Deserialize;

use super::SourceError;
use super::archive::Archive;
use crate::config::or_default;
use crate::digest::Digest;
use crate::manifest::{Blob, Image, Layer, MAX_DOCUMENT, read_config};

/// An archive of `docker save`.
pub(super) struct DockerArchive(Archive);

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    #[serde(default, deserialize_with = "or_default")]
    repo_tags: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    layers: Vec<String>,
}

impl DockerArchive {
    /// Finds the image of that name, or the only one.
    pub(super) fn open(archive: Archive, name: Option<&str>) -> Result<(Self, Image), SourceError> {
        let path = archive.path().to_owned();
        let odd = |reason: String| SourceError::Odd { path: path.clone(), reason };
        let docker = Self(archive);
        let parsed = serde_json::from_slice::<Vec<Item>>(&docker.small("manifest.json")?);
        let items = parsed.map_err(|error| odd(format!("its manifest.json cannot be read: {error}")))?;
        let fits = |item: &&Item| name.is_none_or(|name| item.repo_tags.iter().any(|tag| tag == name));
        let found: Vec<&Item> = items.iter().filter(fits).collect();
        let [item] = found.as_slice() else {
            let tags: Vec<&str> =
                items.iter().flat_map(|item| &item.repo_tags).map(String::as_str).take(16).collect();
            let there = format!("{} images ({})", items.len(), tags.join(", "));
            return Err(SourceError::Which { path, there });
        };
        let text = docker.small(&item.config)?;
        let digest = Digest::of(&text);
        // Its name is its digest, in all versions of docker.
        if !item.config.contains(&digest.hex()) {
            return Err(odd(format!("its configuration {} has digest {digest}", item.config)));
        }
        let (config, diff_ids) = read_config(&text, digest)?;
        if diff_ids.len() != item.layers.len() {
            let (here, there) = (item.layers.len(), diff_ids.len());
            return Err(odd(format!("it has {here} layers and its configuration {there}")));
        }
        let layers = diff_ids.into_iter().zip(&item.layers);
        let layers =
            layers.map(|(diff_id, name)| Layer { diff_id, blob: Blob::Member(name.clone()) }).collect();
        Ok((docker, Image { digest, config, layers }))
    }

    /// Begins to read a layer.
    pub(super) fn layer(&self, name: &str) -> Result<Box<dyn Read + '_>, SourceError> {
        let missing = || SourceError::Odd {
            path: self.0.path().to_owned(),
            reason: format!("it has no member {name}"),
        };
        self.0.member(name)?.ok_or_else(missing)
    }

    fn small(&self, name: &str) -> Result<Vec<u8>, SourceError> {
        let mut text = Vec::new();
        let member = self.layer(name)?;
        member.take(MAX_DOCUMENT).read_to_end(&mut text).map_err(SourceError::io("read", self.0.path()))?;
        Ok(text)
    }
}
