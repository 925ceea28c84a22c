//! Where images come from, and what is read of them: who says `oci-archive:x.tar` gets the same as who says
//! `registry.example/x:1`.
//!
//! ```text
//! [docker://]REFERENCE          a registry           oci-archive:FILE[:NAME]     docker-archive:FILE[:NAME]
//! containerd:REFERENCE          containerd's images  oci:DIR[:NAME]              tar:FILE   a root file system
//! /path or ./path               a directory or file of any of these kinds: what it is says what is in it
//! ```

mod archive;
mod containerd;
mod docker;
mod error;
mod layout;
mod registry;
mod tarball;
mod words;

use std::io::Read;

use cryopod_command::Limits;

use crate::manifest::{Blob, Blobs, Image, Layer};

pub use error::SourceError;
pub(crate) use error::{stream_kind, tar_kind};
pub use registry::Access;
pub use words::ImageName;

use archive::Archive;
use containerd::Content;
use docker::DockerArchive;
use layout::Layout;
use registry::Registry;
use tarball::Tarball;

/// What reading needs besides the name.
#[derive(Debug, Clone)]
pub struct Options {
    /// containerd's namespace.
    pub namespace: String,
    /// How registries are talked to.
    pub access: Access,
    /// Where compressed archives are unpacked for reading; a file without a name that goes with the process.
    pub scratch: std::path::PathBuf,
    /// Bytes that such an archive may unpack to.
    pub most: u64,
}

/// An image that was found.
pub(crate) struct Opened {
    pub(crate) image: Image,
    source: Source,
}

enum Source {
    Blobs(Box<dyn Blobs>),
    Docker(DockerArchive),
    Tarball(Tarball),
}

impl Opened {
    /// Finds an image and reads everything of it but its layers.
    pub(crate) fn find(name: &ImageName, options: &Options, limits: &Limits) -> Result<Self, SourceError> {
        let by_blobs = |blobs: Box<dyn Blobs>, top: &crate::manifest::Descriptor| {
            let image = crate::manifest::resolve(blobs.as_ref(), top, limits)?;
            Ok(Self { image, source: Source::Blobs(blobs) })
        };
        match name {
            ImageName::Registry(reference) => {
                let (registry, top) = Registry::find(reference, &options.access, limits)?;
                by_blobs(Box::new(registry), &top)
            }
            ImageName::Containerd(reference) => {
                let (content, top) = Content::find(reference, &options.namespace, limits)?;
                by_blobs(Box::new(content), &top)
            }
            ImageName::Layout { dir, name } => {
                let (layout, top) = Layout::open_dir(dir, name.as_deref())?;
                by_blobs(Box::new(layout), &top)
            }
            ImageName::OciArchive { file, name } => {
                let archive = Archive::open(file, &options.scratch, options.most, limits)?;
                let (layout, top) = Layout::of_archive(archive, name.as_deref())?;
                by_blobs(Box::new(layout), &top)
            }
            ImageName::DockerArchive { file, name } => {
                let archive = Archive::open(file, &options.scratch, options.most, limits)?;
                let (docker, image) = DockerArchive::open(archive, name.as_deref())?;
                Ok(Self { image, source: Source::Docker(docker) })
            }
            ImageName::Tarball { file } => {
                let (tarball, image) = Tarball::open(file, options.most, limits)?;
                Ok(Self { image, source: Source::Tarball(tarball) })
            }
            ImageName::Path(path) => Self::find(&words::detect(path, options, limits)?, options, limits),
        }
    }

    /// Begins to read a layer; nothing of it is verified here.
    pub(crate) fn layer(&self, layer: &Layer) -> Result<Box<dyn Read + '_>, SourceError> {
        match (&self.source, &layer.blob) {
            (Source::Blobs(blobs), Blob::Digest(digest, size)) => blobs.blob(digest, *size),
            (Source::Docker(docker), Blob::Member(name)) => docker.layer(name),
            (Source::Tarball(tarball), _) => tarball.read(),
            _ => Err(SourceError::NoBlob { digest: layer.diff_id, place: "this image".into() }),
        }
    }
}
