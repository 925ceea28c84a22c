//! What can go wrong with a node's machine.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::{image, lock, node};

/// Why a node could not be started or stopped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("'{name}' is no name for a node: up to 20 of a-z, 0-9 and -")]
    Name { name: String },
    #[error(transparent)]
    Image(#[from] image::Error),
    #[error(transparent)]
    Lock(#[from] lock::Error),
    #[error(transparent)]
    Node(#[from] node::Error),
    #[error(transparent)]
    Command(#[from] cryopod_command::Error),
    #[error("{path}: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("there are 250 nodes in this cache; remove some with `cargo xtask node remove`")]
    TooMany,
    #[error("the emulator of node '{name}' did not start: {said}")]
    Emulator { name: String, said: String },
    #[error("the emulator of node '{name}' ended during boot; the last of its console:\n{console}")]
    Died { name: String, console: String },
    #[error("node '{name}' did not answer within {} s; the last of its console:\n{console}", after.as_secs())]
    Boot { name: String, after: Duration, console: String },
    #[error("cannot end the emulator (process {pid}): {source}")]
    Kill { pid: i32, source: io::Error },
}

/// Adds the path to an input or output error.
pub(super) fn at(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Error {
    let path = path.into();
    move |source| Error::File { path, source }
}
