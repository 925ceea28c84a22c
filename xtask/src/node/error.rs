//! What can go wrong on the way to a node.

use std::io;
use std::path::PathBuf;

/// Why a node could not be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// There is no such node.
    #[error("there is no node '{name}': start one with `cargo xtask node up --name {name}`")]
    Absent {
        /// Its name.
        name: String,
    },
    /// The node exists and is not running.
    #[error("node '{name}' is not running: start it with `cargo xtask node up --name {name}`")]
    Down {
        /// Its name.
        name: String,
    },
    /// Its state file cannot be read.
    #[error("cannot use {path}: {source}; `cargo xtask node reset` makes a new one")]
    State {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: io::Error,
    },
    /// The environment names no cache.
    #[error(transparent)]
    Cache(#[from] crate::cache::NoPlace),
    /// A local program did not start.
    #[error("cannot start {program}: {source}; is the package openssh-client installed?")]
    Program {
        /// ssh or scp.
        program: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// ssh reached nobody.
    #[error("node '{name}' does not answer on ssh: {said}")]
    Unreachable {
        /// Its name.
        name: String,
        /// ssh's last words.
        said: String,
    },
    /// A file was not copied.
    #[error("cannot copy {from} to {to}: {said}")]
    Copy {
        /// Source.
        from: String,
        /// Destination.
        to: String,
        /// scp's last words.
        said: String,
    },
    /// A script failed in the node.
    #[error("script ended with {code} in the node: {said}\n  script: {script}")]
    Script {
        /// The script.
        script: String,
        /// Its exit code.
        code: i32,
        /// Its last words.
        said: String,
    },
}
