//! A root file system in a tar archive, as debootstrap's users, LXC and Proxmox have them: an image of one layer without
//! a configuration. It is read twice: its digest has to be known before anything is made, since it is its name.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use cryopod_command::Limits;

use super::SourceError;
use crate::bounds::{Bounds, Budget};
use crate::config::RunConfig;
use crate::manifest::{Blob, Image, Layer};
use crate::stream::{Expected, LayerStream};

/// A root file system in an archive.
pub(super) struct Tarball(PathBuf);

impl Tarball {
    /// Reads all of it for its digests; `most` bounds what it unpacks to.
    pub(super) fn open(path: &Path, most: u64, limits: &Limits) -> Result<(Self, Image), SourceError> {
        let tarball = Self(path.to_owned());
        let failed = |source| SourceError::Stream { path: path.to_owned(), source };
        let mut budget = Budget::new(Bounds { unpacked: most, ..Bounds::default() });
        let stream = LayerStream::open(tarball.read()?, &mut budget, limits).map_err(failed)?;
        let (digest, diff_id) = stream.finish(Expected::default()).map_err(failed)?;
        let layers = vec![Layer { diff_id, blob: Blob::Whole }];
        // It has no manifest; the file's own digest is what people can compare.
        Ok((tarball, Image { digest, config: RunConfig::default(), layers }))
    }

    /// Begins to read it.
    pub(super) fn read(&self) -> Result<Box<dyn Read + '_>, SourceError> {
        let file = File::open(&self.0).map_err(SourceError::io("open", &self.0))?;
        Ok(Box::new(file))
    }
}
