//! The node of one run of `test`, `demo` or `bench`: made fresh under a name of its own, so that a node that somebody
//! works with stays as it is, and thrown away afterwards, also when the run fails or is interrupted.
//!
//! Its verbs run as programs of their own (`cargo xtask node …`), so that a deadline or an interrupt ends everything
//! that they have started.

use std::io::{IsTerminal, stderr};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::cache::Cache;
use crate::lock::{self, Lock};
use crate::machine::Machine;
use crate::node::Node;
use crate::progress::say;
use crate::{node, report, stream};

/// Building the image on a machine that has nothing, and booting it.
const READY: Duration = Duration::from_secs(50 * 60);

/// Why there is no node for the run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Lock(#[from] lock::Error),
    #[error(transparent)]
    Node(#[from] node::Error),
    #[error("cannot start `cargo xtask node {verb}`: {source}")]
    Start { verb: String, source: std::io::Error },
    #[error("`cargo xtask node {verb}`: {why}")]
    Verb { verb: String, why: String },
}

/// The node, from its first use on.
pub(crate) struct Session<'a> {
    cache: &'a Cache,
    name: String,
    ours: bool,
    lock: Option<Lock>,
}

impl<'a> Session<'a> {
    /// On the running node `given`, which is left as it is; else on a fresh one, `own`.
    pub(crate) fn new(cache: &'a Cache, own: &str, given: Option<&str>) -> Self {
        Self { cache, name: given.unwrap_or(own).to_owned(), ours: given.is_none(), lock: None }
    }

    /// Makes the node anew if it is ours to make, with this checkout's cryopod in it (`deploy`: what to say to that verb); by `until` at the latest.
    pub(crate) fn make(&mut self, deploy: &[&str], until: Option<Instant>) -> Result<Node, Error> {
        let longest = Instant::now() + READY;
        let until = until.map_or(longest, |until| until.min(longest));
        if self.ours {
            if self.lock.is_none() {
                let path = self.cache.nodes().join(format!(".{}-run.lock", self.name));
                self.lock = Some(Lock::take(&path, &format!("another run on the node '{}'", self.name))?);
            }
            self.verb(&["reset"], until)?;
        }
        self.verb(&[&["deploy"], deploy].concat(), until)?;
        self.node()
    }

    /// The running node.
    pub(crate) fn node(&self) -> Result<Node, Error> {
        Ok(Node::find(self.cache, &self.name)?)
    }

    /// Runs `cargo xtask node VERB` for this node; what it says goes to standard error.
    pub(crate) fn verb(&self, verb: &[&str], until: Instant) -> Result<(), Error> {
        let name = verb.join(" ");
        let start = |source| Error::Start { verb: name.clone(), source };
        // Ourselves, even when the suite `unit` has put a newer build in the place of our file.
        let mut command = Command::new("/proc/self/exe");
        command.args(["node", "--name", &self.name]).args(verb);
        let end = if stderr().is_terminal() {
            command.stdout(stderr());
            stream::attended(command, until)
        } else {
            stream::stream(command, until, |line| eprintln!("{line}"))
        };
        end.map_err(start)?.good().map_err(|why| Error::Verb { verb: name, why })
    }

    /// Leaves our node running.
    pub(crate) fn keep(&mut self) {
        self.ours = false;
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        if self.ours && self.lock.is_some() {
            let removed = Machine::new(self.cache, &self.name).and_then(|machine| machine.remove());
            if let Err(error) = removed {
                say(&format!("the node stays: {}", report::chain(&error)));
            }
        }
    }
}
