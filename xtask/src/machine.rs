//! The machine of a node: starting, stopping and resetting its emulator.
//!
//! A node is a folder `nodes/<name>` in the cache: a root disk that stands on the image, two data disks, the console
//! log, the state file. `up` is idempotent, `reset` throws the disks away. One lock per node keeps two callers apart.

mod accelerator;
mod disks;
mod emulator;
mod error;

pub(crate) use error::Error;

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::cache::Cache;
use crate::image::Image;
use crate::lock::Lock;
use crate::node::{Node, State};
use crate::progress::{Step, say};

/// An emulated boot takes 15 to 60 s on an idle host; this is for a busy one.
const BOOT: Duration = Duration::from_secs(420);
const SHUTDOWN: Duration = Duration::from_secs(60);

/// What kind of machine is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    pub(crate) cpus: u8,
    pub(crate) memory_mib: u32,
    /// Host writes go through to the disk files, so that killing the emulator is like a power cut.
    pub(crate) power_cut: bool,
}

/// A node's folder.
pub(crate) struct Machine<'a> {
    cache: &'a Cache,
    name: String,
    dir: PathBuf,
}

impl<'a> Machine<'a> {
    pub(crate) fn new(cache: &'a Cache, name: &str) -> Result<Self, Error> {
        let valid = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.is_empty() || name.len() > 20 || !name.chars().all(valid) || name.starts_with('-') {
            return Err(Error::Name { name: name.to_owned() });
        }
        Ok(Self { cache, name: name.to_owned(), dir: cache.node(name) })
    }

    /// The names of all nodes that were ever started and not removed.
    pub(crate) fn names(cache: &Cache) -> Vec<String> {
        let entries = fs::read_dir(cache.nodes()).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries
            .filter(|entry| entry.path().join("state.json").exists())
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    fn lock(&self) -> Result<Lock, Error> {
        Ok(Lock::take(&self.dir.join(".lock"), &format!("starting or stopping node '{}'", self.name))?)
    }

    /// The running node; boots it if need be.
    pub(crate) fn up(&self, shape: &Shape) -> Result<Node, Error> {
        let _lock = self.lock()?;
        self.up_locked(shape)
    }

    fn up_locked(&self, shape: &Shape) -> Result<Node, Error> {
        let before = State::read(&self.dir)?;
        if let Some(state) = before.as_ref().filter(|state| state.is_running()) {
            let node = Node::new(self.cache, &self.name, state.clone());
            node.connect(60)?;
            return Ok(node);
        }
        let newest = Image::build(self.cache)?;
        // The disks of a stopped node stand on the image that they were made with.
        let image = match before.as_ref() {
            Some(state) if state.image != newest.key => match Image::cached(self.cache, &state.image) {
                Some(image) => {
                    say(&format!(
                        "node '{}' stays on its older image; `cargo xtask node reset` renews it",
                        self.name
                    ));
                    image
                }
                None => {
                    say(&format!("the image of node '{}' is gone; it starts anew", self.name));
                    disks::remove(&self.dir)?;
                    newest
                }
            },
            _ => newest,
        };
        disks::ensure(&self.dir, &image)?;
        let node = emulator::start(self.cache, &self.name, &image, shape, before.as_ref())?;
        self.wait(&node)?;
        Ok(node)
    }

    fn wait(&self, node: &Node) -> Result<(), Error> {
        let state = node.state();
        let step =
            Step::begin(format!("booting node '{}' ({})", self.name, state.accelerator), Some("30 seconds"));
        let end = Instant::now() + BOOT;
        loop {
            if node.connect(1).is_ok() {
                break;
            }
            if !state.is_running() {
                return Err(Error::Died { name: self.name.clone(), console: self.console(25) });
            }
            if Instant::now() > end {
                return Err(Error::Boot { name: self.name.clone(), after: BOOT, console: self.console(25) });
            }
            step.detail(&self.console(1));
            thread::sleep(Duration::from_millis(200));
        }
        step.detail("identity, containerd, images");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        node.script(&format!("node-identity {} {} {now:.3}", state.number, self.name))?;
        node.script(READY)?;
        step.done();
        Ok(())
    }

    /// The last lines of the console, without the colours.
    fn console(&self, lines: usize) -> String {
        let text = fs::read(self.dir.join("console.log")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).replace("\u{1b}[K", "");
        let all: Vec<String> = text.lines().map(plain).filter(|line| !line.trim().is_empty()).collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// Stops the machine; its disks stay.
    pub(crate) fn down(&self) -> Result<(), Error> {
        let _lock = self.lock()?;
        self.down_locked(true)
    }

    fn down_locked(&self, politely: bool) -> Result<(), Error> {
        let Some(state) = State::read(&self.dir)?.filter(State::is_running) else {
            return Ok(());
        };
        let node = Node::new(self.cache, &self.name, state.clone());
        let step = Step::begin(format!("stopping node '{}'", self.name), None);
        if politely && node.connect(2).is_ok() {
            // No answer is expected: the connection ends with the machine.
            node.run(["systemctl", "poweroff", "--no-block"]).ok();
            let end = Instant::now() + SHUTDOWN;
            while state.is_running() && Instant::now() < end {
                thread::sleep(Duration::from_millis(100));
            }
        }
        node.disconnect();
        emulator::kill(&state)?;
        step.done();
        Ok(())
    }

    /// Stops the machine and throws its disks away; the next `up` is a fresh node.
    pub(crate) fn remove(&self) -> Result<(), Error> {
        let _lock = self.lock()?;
        self.down_locked(false)?;
        disks::remove(&self.dir)
    }

    /// A fresh node in place of this one.
    pub(crate) fn reset(&self, shape: &Shape) -> Result<Node, Error> {
        let _lock = self.lock()?;
        self.down_locked(false)?;
        disks::remove(&self.dir)?;
        self.up_locked(shape)
    }

    /// Ends the emulator at once, as a power cut would.
    pub(crate) fn cut_power(&self) -> Result<(), Error> {
        let _lock = self.lock()?;
        self.down_locked(false)
    }
}

/// What must be there before a node counts as up; imports the container images at the first boot.
const READY: &str = "
for i in $(seq 600); do systemctl is-active -q containerd && break; sleep 0.2; done
systemctl is-active -q containerd || { systemctl status containerd node-storage; exit 1; }
[ -e /var/lib/node/images/.imported ] || { node-images >/dev/null && touch /var/lib/node/images/.imported; }
";

fn plain(line: &str) -> String {
    let mut text = String::new();
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' {
            chars.by_ref().find(|c| c.is_ascii_alphabetic());
        } else if !c.is_control() {
            text.push(c);
        }
    }
    text
}
