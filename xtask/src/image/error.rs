//! What can go wrong while an image is built.

use std::io;
use std::path::PathBuf;

use crate::{host, lock, process, recipe};

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Host(#[from] host::Error),
    #[error(transparent)]
    Lock(#[from] lock::Error),
    #[error(transparent)]
    Process(#[from] process::Error),
    #[error(transparent)]
    Recipe(#[from] recipe::Error),
    #[error(transparent)]
    Command(#[from] cryopod_command::Error),
    #[error("{path}: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("the tree {tree} has {found} kernels, not one: remove the folder and build again")]
    Kernel { tree: PathBuf, found: usize },
    #[error("the node can be built by root only: it needs chroot and device nodes")]
    NotRoot,
}

/// Adds the path to an input or output error.
pub(super) fn at(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Error {
    let path = path.into();
    move |source| Error::File { path, source }
}
