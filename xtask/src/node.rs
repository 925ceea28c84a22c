//! A handle to a running node: run commands, copy files.
//!
//! All of it goes through ssh over one shared connection, which `cargo xtask node up` opens and any call opens again
//! when it is gone; a command then costs milliseconds instead of a key exchange. Exit codes are those of the remote
//! command; 255 is ssh's own failure.

mod error;
mod ssh;
mod state;

pub(crate) use error::Error;
pub(crate) use ssh::Output;
pub(crate) use state::{State, process_start};

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cache::Cache;

/// A node that was found running.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    name: String,
    state: State,
    key: PathBuf,
    control: PathBuf,
    host_keys: PathBuf,
}

impl Node {
    /// The running node `name` of the cache; an error that says how to start it otherwise.
    pub(crate) fn find(cache: &Cache, name: &str) -> Result<Self, Error> {
        let dir = cache.node(name);
        let state = State::read(&dir)?.ok_or_else(|| Error::Absent { name: name.to_owned() })?;
        if !state.is_running() {
            return Err(Error::Down { name: name.to_owned() });
        }
        Ok(Self::new(cache, name, state))
    }

    /// The handle of a node that is known to run; for the one who just started it.
    pub(crate) fn new(cache: &Cache, name: &str, state: State) -> Self {
        Self {
            name: name.to_owned(),
            state,
            key: cache.ssh_key(),
            control: cache.sockets().join(format!("{name}.ssh")),
            host_keys: cache.root().join("ssh/known_hosts"),
        }
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// What is known of its machine.
    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    /// Its address on the network that all nodes of this cache share.
    pub(crate) fn address(&self) -> String {
        format!("10.77.0.{}", self.state.number)
    }

    /// A local command that runs `argv` in the node, its standard streams passed through; for streaming and pipes.
    pub(crate) fn command<A: AsRef<str>>(&self, argv: impl IntoIterator<Item = A>) -> Command {
        let mut command = ssh::client(self);
        command.arg("root@node").arg("--").arg(crate::quote::line(argv));
        command
    }

    /// The same with a terminal in the node, for output that is drawn for people.
    pub(crate) fn command_with_terminal<A: AsRef<str>>(&self, argv: impl IntoIterator<Item = A>) -> Command {
        let mut command = ssh::client(self);
        command.arg("-t").arg("root@node").arg("--").arg(crate::quote::line(argv));
        command
    }

    /// A local command that opens an interactive shell in the node.
    pub(crate) fn shell(&self) -> Command {
        let mut command = ssh::client(self);
        command.arg("-t").arg("root@node");
        command
    }

    /// Runs `argv` to its end, without standard input; any exit code is an answer.
    pub(crate) fn run<A: AsRef<str>>(&self, argv: impl IntoIterator<Item = A>) -> Result<Output, Error> {
        ssh::run(self, argv)
    }

    /// Runs a shell script and returns what it printed; an exit code other than 0 is an error with its last words.
    pub(crate) fn script(&self, script: &str) -> Result<String, Error> {
        let output = self.run(["sh", "-ec", script])?;
        if output.code == 0 {
            return Ok(output.stdout);
        }
        Err(Error::Script { script: script.to_owned(), code: output.code, said: output.last_words() })
    }

    /// Copies a file or folder into the node.
    pub(crate) fn copy_in(&self, local: &Path, remote: &str) -> Result<(), Error> {
        ssh::copy(self, local.as_os_str(), format!("root@node:{remote}").as_ref())
    }

    /// Copies a file or folder out of the node.
    pub(crate) fn copy_out(&self, remote: &str, local: &Path) -> Result<(), Error> {
        ssh::copy(self, format!("root@node:{remote}").as_ref(), local.as_os_str())
    }

    /// Opens the shared connection if it is not there; waits at most `seconds` for the node to answer.
    pub(crate) fn connect(&self, seconds: u32) -> Result<(), Error> {
        ssh::connect(self, seconds)
    }

    /// Closes the shared connection; the node is going away.
    pub(crate) fn disconnect(&self) {
        ssh::disconnect(self);
    }
}
