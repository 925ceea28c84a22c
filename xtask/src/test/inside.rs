//! Suites that run inside the node: it is made once, fresh, and shared by them; a suite that takes it down with it gets
//! the next one a fresh one.

use std::process::Command;
use std::time::{Duration, Instant};

use super::outcome::{Outcome, Reader};
use super::suites::{self, Suite};
use super::{shown, stream};
use crate::cache::Cache;
use crate::lock::Lock;
use crate::machine::Machine;
use crate::node::Node;
use crate::report;

/// The node of test runs, so that a node that somebody works with stays as it is.
const NAME: &str = "test";
/// Building the image on a machine that has nothing, and booting it.
const READY: Duration = Duration::from_secs(45 * 60);
/// For `timeout` in the node to end the suite before we cut the connection.
const SLACK: Duration = Duration::from_secs(45);

/// The node of this run.
pub(super) struct Inside<'a> {
    cache: &'a Cache,
    name: String,
    ours: bool,
    deployed: bool,
    lock: Option<Lock>,
    unknown: Vec<String>,
}

impl<'a> Inside<'a> {
    /// On the node `given`, which is left running; else on one of our own.
    pub(super) fn new(cache: &'a Cache, given: Option<&str>) -> Self {
        let name = given.unwrap_or(NAME).to_owned();
        Self { cache, name, ours: given.is_none(), deployed: false, lock: None, unknown: Vec::new() }
    }

    /// Runs one suite.
    pub(super) fn suite(
        &mut self,
        suite: &Suite,
        argv: &[&str],
        full: bool,
        filter: Option<&str>,
        budget: Duration,
        deadline: Option<Instant>,
    ) -> Outcome {
        let before = |end: Instant| deadline.map_or(end, |deadline| end.min(deadline));
        let node = match self.ready(before(Instant::now() + READY)) {
            Ok(node) => node,
            Err(why) => return Outcome::broken(format!("no node to run it on: {why}")),
        };
        let until = before(Instant::now() + budget);
        let seconds = until.saturating_duration_since(Instant::now()).as_secs().max(1).to_string();
        let mut line = vec!["timeout", "--kill-after=15", &seconds];
        line.extend(argv);
        line.extend(full.then_some("--full"));
        line.extend(filter);
        let mut reader = Reader::default();
        let end = stream::stream(node.command(line), until + SLACK, |line| {
            reader.line(line);
            println!("{line}");
        });
        let outcome = match end {
            // What timeout(1) returns when it had to end the suite.
            Ok(stream::End::Exited(124 | 137)) => reader.suite(stream::End::TimedOut),
            Ok(end) => reader.suite(end),
            Err(error) => Outcome::broken(format!("cannot start ssh: {error}")),
        };
        if outcome.failed > 0 {
            self.keep_journal(&node, suite.name);
        }
        outcome
    }

    /// The running node with our programs in it; boots and deploys when needed.
    fn ready(&mut self, until: Instant) -> Result<Node, String> {
        if self.ours && self.lock.is_none() {
            let path = self.cache.nodes().join(".test-run.lock");
            self.lock = Some(Lock::take(&path, "another run of the tests").map_err(|e| e.to_string())?);
        }
        let alive = |node: &Node| node.run(["true"]).is_ok_and(|output| output.code == 0);
        let found = Node::find(self.cache, &self.name);
        if self.deployed || !self.ours {
            match found {
                Ok(node) if self.deployed && alive(&node) => return Ok(node),
                Ok(_) if !self.ours => {}
                Err(error) if !self.ours => return Err(error.to_string()),
                _ => println!("node '{}' is gone; a fresh one is made", self.name),
            }
        }
        if self.ours {
            self.xtask(&["reset"], until).map_err(|why| format!("booting it: {why}"))?;
        }
        self.xtask(&["deploy"], until).map_err(|why| format!("deploying cryopod: {why}"))?;
        self.deployed = true;
        let node = Node::find(self.cache, &self.name).map_err(|error| error.to_string())?;
        self.unknown = unknown(&node)?;
        Ok(node)
    }

    /// A verb of `cargo xtask node` as a program of its own, so that deadline and interrupt reach everything it starts.
    fn xtask(&self, verb: &[&str], until: Instant) -> Result<(), String> {
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut command = Command::new(program);
        command.args(["node", "--name", &self.name]).args(verb);
        shown(command, until)
    }

    /// What the node logged, for whoever looks for the reason.
    fn keep_journal(&self, node: &Node, suite: &str) {
        let path = self.cache.root().join(format!("log/test-{suite}.journal"));
        let lines = node.run(["journalctl", "-b", "--no-pager", "-o", "short-precise", "-n", "5000"]);
        if let Ok(output) = lines.map(|output| output.stdout)
            && std::fs::write(&path, output).is_ok()
        {
            println!("the node's journal is in {}", path.display());
        }
    }

    /// Fails when the node has suites that nobody runs.
    pub(super) fn nothing_unknown(&self) -> Result<(), String> {
        if self.unknown.is_empty() {
            return Ok(());
        }
        Err(format!("cryopod-e2e has suites that are not in the table: {}", self.unknown.join(", ")))
    }

    /// Throws our node away.
    pub(super) fn end(&mut self) {
        if self.ours && self.lock.is_some() {
            let removed = Machine::new(self.cache, &self.name).and_then(|machine| machine.remove());
            if let Err(error) = removed {
                println!("the node stays: {}", report::chain(&error));
            }
            self.lock = None;
        }
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.end();
    }
}

/// Suites of `cryopod-e2e` that the table does not have.
fn unknown(node: &Node) -> Result<Vec<String>, String> {
    const NO_SUITES: &[&str] = &["demo", "bench"];
    let output = node.run(["cryopod-e2e", "--list"]).map_err(|error| error.to_string())?;
    let known = |name: &&str| NO_SUITES.contains(name) || suites::of_e2e().any(|known| known == *name);
    Ok(output.stdout.lines().filter(|name| !known(name)).map(str::to_owned).collect())
}
