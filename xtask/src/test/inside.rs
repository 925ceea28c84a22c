//! Suites that run inside the node: it is made once, fresh, and shared by them; a suite that takes it down with it gets
//! the next one a fresh one.

use std::process::Command;
use std::time::{Duration, Instant};

use super::outcome::{Outcome, Reader};
use super::suites::{self, Suite};
use crate::cache::Cache;
use crate::cluster::Cluster;
use crate::deploy::{self, Profile};
use crate::node::Node;
use crate::session::Session;
use crate::{report, stream};

/// Where `cryopod-e2e nodes-prepare` leaves what its suite has to know.
const NODES_NOTE: &str = "/var/lib/cryopod-e2e/nodes.json";
/// For `timeout` in the node to end the suite before we cut the connection.
const SLACK: Duration = Duration::from_secs(45);

/// The node of this run.
pub(super) struct Inside<'a> {
    cache: &'a Cache,
    session: Session<'a>,
    made: bool,
    unknown: Vec<String>,
}

/// What is asked of a suite.
pub(super) struct Wish<'a> {
    pub(super) full: bool,
    pub(super) filter: Option<&'a str>,
    pub(super) budget: Duration,
    /// The end of the whole run.
    pub(super) deadline: Option<Instant>,
}

impl<'a> Inside<'a> {
    /// On the node `given`, which is left running; else on one of our own.
    pub(super) fn new(cache: &'a Cache, given: Option<&str>) -> Self {
        Self { cache, session: Session::new(cache, "test", given), made: false, unknown: Vec::new() }
    }

    /// Runs one suite: its programs one after the other, in one budget.
    pub(super) fn suite(&mut self, suite: &Suite, programs: &[&[&str]], wish: &Wish<'_>) -> Outcome {
        let mut node = match self.ready(wish.deadline) {
            Ok(node) => node,
            Err(why) => return Outcome::broken(format!("no node to run it on: {why}")),
        };
        let until = Instant::now() + wish.budget;
        let until = wish.deadline.map_or(until, |deadline| until.min(deadline));
        let mut outcome = Outcome::default();
        // Thrown away with the suite.
        let mut other = Session::new(self.cache, "test-other", None);
        for argv in programs {
            match argv.first() {
                Some(&suites::CUT_POWER) => match self.power_cycle(until) {
                    Ok(booted) => node = booted,
                    Err(why) => {
                        outcome.fail(format!("the node does not come back after a power cut: {why}"));
                        return outcome;
                    }
                },
                Some(&suites::OTHER_NODE) => match carry(&node, &mut other, until) {
                    Ok(booted) => node = booted,
                    Err(why) => {
                        outcome.fail(format!("nothing arrives on another node: {why}"));
                        return outcome;
                    }
                },
                _ => outcome.add(run(&node, argv, wish, until)),
            }
        }
        if outcome.failed > 0 {
            self.keep_journal(&node, suite.name);
        }
        outcome
    }

    /// Runs a suite on this host against a cluster of which the node is a member as long as the suite runs.
    pub(super) fn cluster(&mut self, suite: &Suite, wish: &Wish<'_>) -> Outcome {
        let node = match self.ready(wish.deadline) {
            Ok(node) => node,
            Err(why) => return Outcome::broken(format!("no node to run it on: {why}")),
        };
        let cluster = Cluster::new(self.cache);
        let nodes = [node];
        let made = cluster.up(&nodes).and_then(|()| cluster.install(&nodes));
        // The tests of every run look neither at metrics-server nor at Prometheus.
        let monitored = wish.full || wish.filter.is_some();
        let made = made.and_then(|()| if monitored { cluster.monitor(&nodes) } else { Ok(()) });
        let made = made.and_then(|()| cluster.env());
        let outcome = match made {
            Ok(env) => outside(suite.name, nodes[0].name(), env, wish),
            Err(error) => Outcome::broken(format!("no cluster to run it on: {}", report::chain(&error))),
        };
        if outcome.failed > 0 {
            self.keep_journal(&nodes[0], suite.name);
        }
        let mut outcome = outcome;
        outcome.check("the cluster is taken down", cluster.down().map_err(|error| report::chain(&error)));
        outcome
    }

    /// The running node with our programs in it; makes it at the first time, and again when it is gone.
    fn ready(&mut self, deadline: Option<Instant>) -> Result<Node, String> {
        if self.made {
            match self.session.node() {
                Ok(node) if node.run(["true"]).is_ok_and(|output| output.code == 0) => return Ok(node),
                _ => println!("the node is gone"),
            }
        }
        let node = self.session.make(&[], deadline).map_err(|error| report::chain(&error))?;
        self.made = true;
        self.unknown = unknown(&node)?;
        Ok(node)
    }

    /// Cuts the node's power and boots it from the disks as they are.
    fn power_cycle(&self, until: Instant) -> Result<Node, String> {
        let cycle = || {
            self.session.verb(&["cut-power"], until)?;
            self.session.verb(&["up"], until)?;
            self.session.node()
        };
        cycle().map_err(|error| report::chain(&error))
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
}

/// Boots the other node and carries over what `cryopod-e2e nodes-prepare` left on the first, as an administrator would:
/// one pipe from node to node, over the network that both are on.
fn carry(first: &Node, other: &mut Session<'_>, until: Instant) -> Result<Node, String> {
    let failed = |error: &dyn std::error::Error| report::chain(error);
    let second = other.make(&[], Some(until)).map_err(|error| failed(&error))?;
    first.script(&format!("ping -c 1 -W 10 {}", second.address())).map_err(|error| failed(&error))?;
    let note = first.script(&format!("cat {NODES_NOTE}")).map_err(|error| failed(&error))?;
    let parsed: serde_json::Value = serde_json::from_str(&note).map_err(|error| failed(&error))?;
    let id = parsed["checkpoint"].as_str().ok_or("the note names no checkpoint")?;
    let export = first.command(["cryopod", "checkpoints", "export", id]);
    let import = second.command(["cryopod", "checkpoints", "import", "-"]);
    let (export, import) = stream::piped(export, import, until).map_err(|error| failed(&error))?;
    let ends = [("export", export), ("import", import)];
    let bad = ends.iter().filter_map(|(what, end)| end.good().err().map(|why| format!("{what}: {why}")));
    let bad = bad.collect::<Vec<_>>();
    if !bad.is_empty() {
        return Err(bad.join("; "));
    }
    let place =
        format!("mkdir -p $(dirname {NODES_NOTE}); printf %s {} > {NODES_NOTE}", crate::quote::line([&note]));
    second.script(&place).map_err(|error| failed(&error))?;
    println!("{id} is on another node now ({})", second.address());
    Ok(second)
}

fn run(node: &Node, argv: &[&str], wish: &Wish<'_>, until: Instant) -> Outcome {
    let seconds = until.saturating_duration_since(Instant::now()).as_secs().max(1).to_string();
    let mut line = vec!["timeout", "--kill-after=15", &seconds];
    line.extend(argv);
    line.extend(wish.full.then_some("--full"));
    line.extend(wish.filter);
    let mut reader = Reader::default();
    let end = stream::stream(node.command(line), until + SLACK, |line| {
        reader.line(line);
        println!("{line}");
    });
    match end {
        // What timeout(1) returns when it had to end the suite.
        Ok(stream::End::Exited(124 | 137)) => reader.suite(stream::End::TimedOut),
        Ok(end) => reader.suite(end),
        Err(error) => Outcome::broken(format!("cannot start ssh: {error}")),
    }
}

/// Runs `cryopod-e2e` on this host.
fn outside(name: &str, node: &str, env: Vec<(&'static str, String)>, wish: &Wish<'_>) -> Outcome {
    let until = Instant::now() + wish.budget;
    let until = wish.deadline.map_or(until, |deadline| until.min(deadline));
    let mut command = Command::new(deploy::built(Profile::Release, suites::E2E, false));
    command.arg(name).args(wish.full.then_some("--full")).args(wish.filter);
    command.envs(env).env("CRYOPOD_E2E_NODES", node);
    let mut reader = Reader::default();
    let end = stream::stream(command, until, |line| {
        reader.line(line);
        println!("{line}");
    });
    match end {
        Ok(end) => reader.suite(end),
        Err(error) => Outcome::broken(format!("cannot start {}: {error}", suites::E2E)),
    }
}

/// Suites of `cryopod-e2e` that the table does not have.
fn unknown(node: &Node) -> Result<Vec<String>, String> {
    let output = node.run([suites::E2E, "--list"]).map_err(|error| error.to_string())?;
    let known = |name: &&str| suites::of_e2e().any(|known| known == *name);
    Ok(output.stdout.lines().filter(|name| !known(name)).map(str::to_owned).collect())
}
