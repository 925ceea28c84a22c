//! An OCI image layout (image-layout.md): `oci-layout`, `index.json` and `blobs/sha256/…`, in a directory or an archive.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::SourceError;
use super::archive::Archive;
use crate::digest::Digest;
use crate::manifest::{Blobs, Descriptor, MAX_DOCUMENT};

/// Annotations that name an image in an index: that of the specification, and containerd's with the whole reference.
const NAMES: [&str; 2] = ["org.opencontainers.image.ref.name", "io.containerd.image.name"];

/// A layout.
pub(super) enum Layout {
    Dir(PathBuf),
    Archive(Archive),
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

impl Layout {
    /// The layout in a directory, and the image of that name in it.
    pub(super) fn open_dir(dir: &Path, name: Option<&str>) -> Result<(Self, Descriptor), SourceError> {
        let layout = Self::Dir(dir.to_owned());
        let top = layout.top(name)?;
        Ok((layout, top))
    }

    /// The same in an archive.
    pub(super) fn of_archive(
        archive: Archive,
        name: Option<&str>,
    ) -> Result<(Self, Descriptor), SourceError> {
        let layout = Self::Archive(archive);
        let top = layout.top(name)?;
        Ok((layout, top))
    }

    fn path(&self) -> &Path {
        match self {
            Self::Dir(dir) => dir,
            Self::Archive(archive) => archive.path(),
        }
    }

    /// A file of the layout; links are followed in no part of a directory that is somebody's download.
    fn open(&self, name: &str) -> Result<Option<Box<dyn Read + '_>>, SourceError> {
        match self {
            Self::Archive(archive) => archive.member(name),
            Self::Dir(dir) => {
                let path = dir.join(name);
                let found = path.symlink_metadata();
                if !found.is_ok_and(|found| found.is_file()) {
                    return Ok(None);
                }
                let file = File::open(&path).map_err(SourceError::io("open", &path))?;
                Ok(Some(Box::new(file)))
            }
        }
    }

    fn top(&self, name: Option<&str>) -> Result<Descriptor, SourceError> {
        let odd = |reason: &str| SourceError::Odd { path: self.path().to_owned(), reason: reason.to_owned() };
        let index = self
            .open("index.json")?
            .ok_or_else(|| odd("it has no index.json, so it is no OCI image layout"))?;
        let mut text = Vec::new();
        index.take(MAX_DOCUMENT).read_to_end(&mut text).map_err(SourceError::io("read", self.path()))?;
        let parsed = serde_json::from_slice::<Index>(&text);
        let index = parsed.map_err(|error| odd(&format!("its index.json cannot be read: {error}")))?;
        let named = |descriptor: &&Descriptor| {
            name.is_none_or(|name| {
                NAMES.iter().any(|key| descriptor.annotations.get(*key).is_some_and(|is| is == name))
            })
        };
        let found: Vec<&Descriptor> = index.manifests.iter().filter(named).collect();
        match found.as_slice() {
            [only] => Ok((*only).clone()),
            _ => {
                let names = index.manifests.iter().filter_map(|found| found.annotations.get(NAMES[0]));
                let names: Vec<&str> = names.map(String::as_str).take(16).collect();
                let there = format!("{} images ({})", index.manifests.len(), names.join(", "));
                Err(SourceError::Which { path: self.path().to_owned(), there })
            }
        }
    }
}

impl Blobs for Layout {
    fn blob(&self, digest: &Digest, _size: u64) -> Result<Box<dyn Read + '_>, SourceError> {
        let found = self.open(&format!("blobs/sha256/{}", digest.hex()))?;
        found.ok_or_else(|| SourceError::NoBlob { digest: *digest, place: self.path().display().to_string() })
    }
}
