//! The node itself: looks at its files, units and cluster object, and changes them one action at a time.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use cryopod_command::{Command, Limits};

use super::cluster::Cluster;
use super::containerd::{self, Choice, Distribution, Kind};
use super::files::{MARKER, at, put_back, read, read_state, remove, write, write_state};
use super::look::{
    QUESTION, boot, found, impossible, in_use, is_active, now_us, others, since, version, zfs,
};
use super::observed::Observed;
use super::{Action, Edge, Error, Options, labels};
use crate::host::programs;

/// Held by whoever changes the node.
pub(super) const LOCK: &str = "/run/cryopod-setup.lock";
/// A restart waits for the unit to be up; k3s begins an API server.
const RESTART: Duration = Duration::from_secs(300);
const POLL: Duration = Duration::from_secs(2);

/// This node.
pub(super) struct Node {
    choice: Choice,
    handlers: Vec<String>,
    distribution: Option<Distribution>,
    cluster: Option<Cluster>,
    timeout: Duration,
    /// The drop-in before this process wrote it, to be put back if containerd cannot read ours.
    before: Option<Option<String>>,
    /// The same of the main configuration.
    main_before: Option<Option<String>>,
}

impl Node {
    pub(super) fn new(options: &Options) -> Result<Self, Error> {
        let cluster = if options.no_cluster {
            None
        } else {
            let name = options.node_name.as_deref().ok_or(Error::NoName)?;
            Some(Cluster::new(options.kubeconfig.as_deref(), name)?)
        };
        let timeout = Duration::from_secs(options.timeout_seconds);
        Ok(Self {
            choice: options.distribution,
            handlers: options.handlers.clone(),
            distribution: None,
            cluster,
            timeout,
            before: None,
            main_before: None,
        })
    }

    /// Waits until nobody else sets up this node; the kernel ends the lock with its holder.
    pub(super) fn lock(&self) -> Result<File, Error> {
        let path = Path::new(LOCK);
        let file = File::create(path).map_err(at("create", path))?;
        file.lock().map_err(at("lock", path))?;
        Ok(file)
    }

    /// Notes the labels that the node has now, for an agent that has to put them back; forgets them where there are none.
    pub(super) fn note_labels(&self) -> Result<(), Error> {
        let Some(cluster) = &self.cluster else { return Ok(()) };
        let path = Path::new(labels::FILE);
        match cluster.noted()? {
            Some(noted) => write(path, &noted.text(), 0o600),
            None => remove(path),
        }
    }

    fn kind(&self) -> Kind {
        self.distribution.as_ref().map_or(Kind::Containerd, |it| it.kind)
    }

    /// Asks containerd what it would run with, where its program is found.
    fn verify(&self, wanted: &[String]) -> Result<(), Error> {
        let kind = self.kind();
        let Some(program) = kind.programs().iter().find_map(|name| found(name)) else {
            return Ok(());
        };
        let command = Command::new(&program).args(["--config", kind.main(), "config", "dump"]);
        let (missing, said) = match command.run(&Limits::within(QUESTION)) {
            Ok(output) => match containerd::handlers(&String::from_utf8_lossy(&output.stdout)) {
                Ok(there) => {
                    let missing: Vec<String> =
                        wanted.iter().filter(|name| !there.contains(name)).cloned().collect();
                    (missing, "the drop-in is not read".to_owned())
                }
                Err(error) => (wanted.to_vec(), error),
            },
            Err(error) => (wanted.to_vec(), error.to_string()),
        };
        if missing.is_empty() {
            return Ok(());
        }
        put_back(Path::new(&kind.drop_in()), self.before.as_ref())?;
        if let Some(before) = &self.main_before {
            put_back(Path::new(kind.main()), Some(before))?;
        }
        Err(Error::Config { missing: missing.join(", "), said })
    }

    /// Waits until the node is Ready and its handlers are as `done` wants them.
    fn wait(&self, done: impl Fn(&super::NodeView) -> Result<(), String>) -> Result<(), Error> {
        let Some(cluster) = &self.cluster else { return Ok(()) };
        let began = Instant::now();
        loop {
            // The API server may be part of what is being restarted.
            let seen = match cluster.view() {
                Ok(view) if !view.ready => "not Ready".to_owned(),
                Ok(view) => match done(&view) {
                    Ok(()) => return Ok(()),
                    Err(seen) => seen,
                },
                Err(error) => error.to_string(),
            };
            if began.elapsed() >= self.timeout {
                let unit = self.distribution.as_ref().map_or("containerd", |it| it.unit).to_owned();
                return Err(Error::NotInTime {
                    node: cluster.name().to_owned(),
                    seen,
                    after: self.timeout,
                    unit,
                });
            }
            thread::sleep(POLL);
        }
    }
}

impl Edge for Node {
    fn observe(&mut self) -> Result<Observed, Error> {
        self.distribution = self.choice.find(is_active);
        let kind = self.kind();
        let drop_in = PathBuf::from(kind.drop_in());
        Ok(Observed {
            distribution: self.distribution.clone(),
            version: kind.programs().iter().find_map(|name| version(name)),
            main: read(Path::new(kind.main()))?,
            drop_in: read(&drop_in)?,
            others: others(&drop_in),
            zfs: zfs(kind),
            impossible: impossible(&self.handlers),
            in_use: in_use(kind),
            state: read_state()?,
            unit_since_us: self.distribution.as_ref().and_then(|it| since(it.unit)),
            boot: boot()?,
            node: self.cluster.as_ref().map(Cluster::view).transpose()?,
            programs: programs::own_library().is_some(),
        })
    }

    fn perform(&mut self, action: &Action) -> Result<(), Error> {
        let kind = self.kind();
        let drop_in = PathBuf::from(kind.drop_in());
        let main = Path::new(kind.main());
        match action {
            Action::Label(labels) => match &self.cluster {
                Some(cluster) => cluster.label(labels),
                None => Ok(()),
            },
            Action::Begin(state) => write_state(state, None),
            Action::Complete(state) => write_state(state, Some(now_us())),
            Action::Forget => remove(Path::new(MARKER)),
            Action::BackUp => {
                // Not *.toml, so that nobody imports it.
                let kept = drop_in.with_extension("toml.before-cryopod-agent");
                fs::copy(&drop_in, &kept).map(|_| ()).map_err(at("keep a copy as", &kept))
            }
            Action::WriteDropIn(text) => {
                self.before = Some(read(&drop_in)?);
                write(&drop_in, text, 0o644)
            }
            Action::RemoveDropIn => remove(&drop_in),
            Action::WriteMain(text) => {
                self.main_before = Some(read(main)?);
                write(main, text, 0o644)
            }
            Action::RemoveMain => remove(main),
            Action::Verify(handlers) => self.verify(handlers),
            Action::Restart(unit) => {
                let limits = Limits::within(RESTART);
                Ok(Command::new("systemctl").args(["restart", unit]).run(&limits).map(|_| ())?)
            }
            Action::AskForRestart(unit) => Err(Error::RestartNeeded { unit: (*unit).to_owned() }),
            Action::AwaitHandlers(names) => self.wait(|view| {
                let missing: Vec<&str> =
                    names.iter().filter(|name| !view.handlers.contains(*name)).map(String::as_str).collect();
                if missing.is_empty() { Ok(()) } else { Err(format!("Ready without {}", missing.join(", "))) }
            }),
            Action::AwaitNoHandlers(names) => self.wait(|view| {
                let there: Vec<&str> =
                    names.iter().filter(|name| view.handlers.contains(*name)).map(String::as_str).collect();
                if there.is_empty() { Ok(()) } else { Err(format!("still with {}", there.join(", "))) }
            }),
            Action::StillUnused => {
                let names: Vec<String> = in_use(kind).into_keys().collect();
                if names.is_empty() { Ok(()) } else { Err(Error::CameInUse(names.join(", "))) }
            }
            Action::RemovePrograms => match programs::own_library() {
                Some(library) => programs::remove(&library).map_err(|error| Error::File {
                    what: "remove programs in",
                    path: library,
                    source: io::Error::other(error),
                }),
                None => Ok(()),
            },
        }
    }
}
