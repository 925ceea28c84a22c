//! The node itself: looks at its files, units and cluster object, and changes them one action at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use cryopod_command::{Command, Limits};
use nix::time::{ClockId, clock_gettime};

use super::cluster::Cluster;
use super::containerd::{self, Choice, Distribution, Kind};
use super::observed::Observed;
use super::plan::Action;
use super::state::{Change, State, VERSION};
use super::{Edge, Error, Options, bundles};
use crate::host::{at_work, programs};

const MARKER: &str = "/var/lib/cryopod/setup.json";
const LOCK: &str = "/run/cryopod-setup.lock";
/// A restart waits for the unit to be up; k3s begins an API server.
const RESTART: Duration = Duration::from_secs(300);
/// Programs that only tell something.
const QUESTION: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_secs(2);
/// Where programs may be that a service is started with.
const PATH: &[&str] = &["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

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

/// Handlers with pods; where there are none, programs of ours that run all the same.
fn in_use(kind: Kind) -> BTreeMap<String, BTreeSet<String>> {
    let bundles = bundles::in_use(Path::new(kind.run()));
    if !bundles.is_empty() {
        return bundles;
    }
    programs::own_library().map(|library| at_work::programs(&library)).unwrap_or_default()
}

fn is_active(unit: &str) -> bool {
    let ask = Command::new("systemctl").args(["is-active", "--quiet", unit]);
    ask.status(&Limits::within(QUESTION)).is_ok_and(|(status, _)| status.success())
}

fn since(unit: &str) -> Option<u64> {
    let ask =
        Command::new("systemctl").args(["show", "--value", "--property=ActiveEnterTimestampMonotonic", unit]);
    let output = ask.run(&Limits::within(QUESTION)).ok()?;
    String::from_utf8_lossy(&output.stdout).trim().parse().ok().filter(|since| *since > 0)
}

fn version(program: &str) -> Option<(u32, u32)> {
    let output = Command::new(found(program)?).arg("--version").run(&Limits::within(QUESTION)).ok()?;
    containerd::version(&String::from_utf8_lossy(&output.stdout))
}

/// A program by path, or by name where services look.
fn found(program: &str) -> Option<PathBuf> {
    let path = Path::new(program);
    if path.is_absolute() {
        return path.exists().then(|| path.to_owned());
    }
    PATH.iter().map(|dir| Path::new(dir).join(program)).find(|path| path.exists())
}

/// Handlers whose programs or libraries are not here.
fn impossible(handlers: &[String]) -> BTreeMap<String, String> {
    let why = |handler: &String| {
        let shim = format!("containerd-shim-{handler}-v2");
        let lxc = handler == "cryopod-lxc";
        let programs = std::iter::once(shim.as_str()).chain(lxc.then_some("cryopod-lxc"));
        if let Some(missing) = programs.into_iter().find(|name| found(name).is_none()) {
            return Some(format!("{missing} is not installed"));
        }
        (lxc && !has_library("libseccomp.so.2"))
            .then(|| "libseccomp.so.2 is missing: install libseccomp2".to_owned())
    };
    handlers.iter().filter_map(|handler| Some((handler.clone(), why(handler)?))).collect()
}

fn has_library(name: &str) -> bool {
    let Some(program) = found("ldconfig") else { return true };
    let listed = Command::new(program).arg("-p").run(&Limits::within(QUESTION));
    listed.map_or(true, |output| String::from_utf8_lossy(&output.stdout).contains(name))
}

/// The snapshotter works where its folder is a ZFS file system.
fn zfs(kind: Kind) -> bool {
    let folder = format!("{}/io.containerd.snapshotter.v1.zfs", kind.root());
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mounts.lines().any(|line| {
        let mut words = line.split(' ').skip(1);
        (words.next(), words.next()) == (Some(folder.as_str()), Some("zfs"))
    })
}

fn others(drop_in: &Path) -> bool {
    let entries = drop_in.parent().and_then(|dir| fs::read_dir(dir).ok()).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .any(|path| path != drop_in && path.extension().is_some_and(|it| it == "toml"))
}

fn boot() -> Result<String, Error> {
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    Ok(fs::read_to_string(path).map_err(at("read", path))?.trim().to_owned())
}

/// As systemd counts.
fn now_us() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(u64::MAX, |now| {
        let (seconds, nanoseconds) = (now.tv_sec().unsigned_abs(), now.tv_nsec().unsigned_abs());
        seconds * 1_000_000 + nanoseconds / 1_000
    })
}

fn read_state() -> Result<Option<State>, Error> {
    let path = Path::new(MARKER);
    let Some(text) = read(path)? else { return Ok(None) };
    let strange = |why: String| Error::State { path: path.to_owned(), why };
    let state: State = serde_json::from_str(&text).map_err(|error| strange(error.to_string()))?;
    if state.version == VERSION {
        Ok(Some(state))
    } else {
        Err(strange(format!("version {}", state.version)))
    }
}

fn write_state(state: &State, at_us: Option<u64>) -> Result<(), Error> {
    let state = State { changed: Some(Change { boot: boot()?, at_us }), ..state.clone() };
    let text = serde_json::to_string(&state).map_err(|error| Error::File {
        what: "write",
        path: MARKER.into(),
        source: io::Error::other(error),
    })?;
    write(Path::new(MARKER), &text, 0o600)
}

fn read(path: &Path) -> Result<Option<String>, Error> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(at("read", path)(error)),
    }
}

/// Whole or not at all, also when the power fails.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), Error> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(dir).map_err(at("create", dir))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let half = dir.join(format!(".{name}.new"));
    let failed = at("write", &half);
    let mut file = match File::options().write(true).create(true).truncate(true).mode(mode).open(&half) {
        Ok(file) => file,
        Err(error) => return Err(failed(error)),
    };
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
    fs::rename(&half, path).map_err(at("write", path))?;
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(at("sync", dir))
}

fn put_back(path: &Path, before: Option<&Option<String>>) -> Result<(), Error> {
    match before {
        Some(Some(text)) => write(path, text, 0o644),
        _ => remove(path),
    }
}

fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at("remove", path)(error)),
        _ => Ok(()),
    }
}

fn at(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error + use<> {
    let path = path.to_owned();
    move |source| Error::File { what, path, source }
}
