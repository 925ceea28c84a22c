//! Keys of the cache: a hash of everything that goes into a layer, so that a changed recipe is another layer and an
//! unchanged one is never built twice.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// Collects the ingredients of a layer.
#[derive(Default)]
pub(crate) struct Recipe {
    hash: Sha256,
}

/// An ingredient could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {path}: {source}")]
pub(crate) struct Error {
    path: PathBuf,
    source: io::Error,
}

impl Recipe {
    /// Adds a text; its length goes in too, so that two texts never look like one.
    pub(crate) fn text(mut self, text: impl AsRef<[u8]>) -> Self {
        let text = text.as_ref();
        self.hash.update((text.len() as u64).to_le_bytes());
        self.hash.update(text);
        self
    }

    /// Adds a file, or a folder with all that is in it: names, modes of files, contents.
    pub(crate) fn path(self, path: &Path) -> Result<Self, Error> {
        self.entry(path, path)
    }

    fn entry(mut self, root: &Path, path: &Path) -> Result<Self, Error> {
        use std::os::unix::fs::PermissionsExt;
        let failed = |source| Error { path: path.to_path_buf(), source };
        let name = path.strip_prefix(root).unwrap_or(path).as_os_str().as_encoded_bytes().to_vec();
        let meta = fs::metadata(path).map_err(failed)?;
        if meta.is_dir() {
            let entries = fs::read_dir(path).map_err(failed)?;
            let mut children = entries
                .map(|entry| entry.map(|e| e.path()))
                .collect::<Result<Vec<_>, _>>()
                .map_err(failed)?;
            children.sort();
            self = self.text(name);
            for child in children {
                self = self.entry(root, &child)?;
            }
            return Ok(self);
        }
        let executable = if meta.permissions().mode() & 0o100 == 0 { "file" } else { "program" };
        let content = fs::read(path).map_err(failed)?;
        Ok(self.text(name).text(executable).text(content))
    }

    /// The key: 16 hexadecimal digits.
    pub(crate) fn key(self) -> String {
        self.hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }
}
