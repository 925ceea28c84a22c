//! Looks at the node: reads files, asks tools for their versions, changes nothing.
//!
//! Each question is bounded by itself, so that one hanging tool does not silence the rest.

use std::path::{Path, PathBuf};
use std::time::Duration;

use cryopod_checkpoint::journal::Journal;
use cryopod_checkpoint::store::StoreKind;
use cryopod_command::{Command, Limits};
use cryopod_runtime::backend::Backend;
use cryopod_runtime::config::{Config, LXC};
use cryopod_runtime::criu::version;

use super::containerd;
use super::facts::{Cni, Containerd, Criu, Facts, Runtime, Store, Zfs};
use crate::context::Context;
use crate::error::Error;
use crate::pods;
use crate::standalone::state::State;

/// A tool that answers later than this is as good as broken.
const ANSWER: Duration = Duration::from_secs(20);
/// `criu check` tries what it needs one by one.
const CRIU_CHECK: Duration = Duration::from_secs(60);
const SHIM: &str = "containerd-shim-cryopod-v2";

/// Everything that can be found out.
pub(super) fn gather(context: &Context) -> Result<Facts, Error> {
    let limits = context.signals.limits(Duration::from_secs(300));
    let (config, config_error) = match context.config() {
        Ok(config) => (config.clone(), None),
        Err(error) => (without_files(), Some(error.to_string())),
    };
    let root = nix::unistd::geteuid().is_root();
    let zfs = zfs(&limits);
    Ok(Facts {
        root,
        kernel: nix::sys::utsname::uname()
            .map(|name| name.release().to_string_lossy().into_owned())
            .unwrap_or_default(),
        cgroup: controllers(),
        default_runtime: config.runtime.default.clone(),
        runtimes: config.runtime.named.keys().map(|name| runtime(context, name, &limits)).collect(),
        criu: criu(&config, root, &limits),
        zfs,
        store: root.then(|| store(context, &limits)),
        containerd: containerd(&limits),
        cni: Cni {
            plugins: entries("/opt/cni/bin") + entries("/usr/lib/cni"),
            networks: entries("/etc/cni/net.d"),
        },
        unfinished: root.then(|| unfinished(context)),
        leftovers: leftovers(context)?,
        config_error,
    })
}

/// What is in force when the files cannot be read: something to look for at least.
fn without_files() -> Config {
    let mut config = Config::default();
    config.runtime.named.insert("crun".into(), Default::default());
    config.runtime.named.insert("runc".into(), Default::default());
    config
}

/// The first line that a program answers.
fn ask(program: &Path, args: &[&str], limits: &Limits) -> Result<String, String> {
    let output =
        Command::new(program).args(args).run(&limits.at_most(ANSWER)).map_err(|error| error.to_string())?;
    Ok(String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().trim().to_owned())
}

/// Controllers of the unified hierarchy; None where cgroup v2 is not what /sys/fs/cgroup is.
fn controllers() -> Option<Vec<String>> {
    let text = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").ok()?;
    Some(text.split_whitespace().map(str::to_owned).collect())
}

fn runtime(context: &Context, name: &str, limits: &Limits) -> Runtime {
    match context.backend(Some(name)) {
        Ok(backend) => {
            let program = &backend.options().program;
            let version = ask(program, &["--version"], limits);
            let version = if name == LXC { with_libseccomp(program, version, limits) } else { version };
            Runtime { name: name.into(), checkpoint: backend.capabilities().memory_checkpoint, version }
        }
        Err(error) => Runtime { name: name.into(), version: Err(error.to_string()), checkpoint: false },
    }
}

/// `cryopod-lxc` opens its library only when it is needed; its features name the one that it found.
fn with_libseccomp(
    program: &Path,
    version: Result<String, String>,
    limits: &Limits,
) -> Result<String, String> {
    let version = version?;
    let features = Command::new(program).arg("features").run(&limits.at_most(ANSWER));
    let features = features.map_err(|error| error.to_string())?;
    let features: serde_json::Value =
        serde_json::from_slice(&features.stdout).map_err(|error| error.to_string())?;
    let library =
        features.pointer("/annotations/io.github.seccomp.libseccomp.version").and_then(|v| v.as_str());
    match library {
        Some(library) => Ok(format!("{version} with libseccomp {library}")),
        None => Err(format!("{version} without libseccomp: install libseccomp2")),
    }
}

fn criu(config: &Config, root: bool, limits: &Limits) -> Criu {
    let program = &config.criu.path;
    let found = version::of(program, &limits.at_most(ANSWER));
    let check = (root && found.is_ok()).then(|| {
        let outcome = Command::new(program).arg("check").run(&limits.at_most(CRIU_CHECK));
        outcome.map(|_| ()).map_err(|error| error.to_string())
    });
    let version = found.map(|version| version.to_string()).map_err(|error| error.to_string());
    Criu { version: Some(version), check }
}

fn zfs(limits: &Limits) -> Zfs {
    let module = std::fs::read_to_string("/sys/module/zfs/version").ok().map(|text| text.trim().to_owned());
    // `zfs version` talks to the module too; the first line is the tool's own.
    let tools = ask(Path::new("zfs"), &["version"], limits).map(|line| line.replace("zfs-", ""));
    let pools = match &module {
        None => Vec::new(),
        Some(_) => pools(limits).unwrap_or_default(),
    };
    Zfs { module, tools: Some(tools), pools }
}

fn pools(limits: &Limits) -> Option<Vec<(String, String)>> {
    let list = Command::new("zpool").args(["list", "-H", "-o", "name,health"]);
    let output = list.run(&limits.at_most(ANSWER)).ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let pool = |line: &str| line.split_once('\t').map(|(name, health)| (name.to_owned(), health.to_owned()));
    Some(text.lines().filter_map(pool).collect())
}

fn store(context: &Context, limits: &Limits) -> Result<Store, String> {
    let limits = limits.at_most(ANSWER);
    let (chosen, free) = context.look_at_store(&limits).map_err(|error| error.to_string())?;
    Ok(Store {
        kind: match chosen.kind {
            StoreKind::Zfs => "zfs",
            StoreKind::Dir => "dir",
        }
        .to_owned(),
        free,
        why: chosen.why,
        place: chosen.place,
    })
}

fn containerd(limits: &Limits) -> Containerd {
    let version = ask(Path::new("containerd"), &["--version"], limits);
    let config = version.is_ok().then(|| {
        let dump = Command::new("containerd").args(["config", "dump"]).run(&limits.at_most(ANSWER));
        let dump = dump.map_err(|error| error.to_string())?;
        containerd::parse(&String::from_utf8_lossy(&dump.stdout))
    });
    Containerd { version: Some(version), config, shim: find(SHIM) }
}

/// containerd looks in its PATH and then beside itself; ours is the same on any ordinary node.
fn find(program: &str) -> Option<PathBuf> {
    version::find(Path::new(program)).or_else(|| {
        let beside = version::find(Path::new("containerd"))?.canonicalize().ok()?.with_file_name(program);
        beside.is_file().then_some(beside)
    })
}

fn entries(dir: &str) -> usize {
    std::fs::read_dir(dir).map(|entries| entries.flatten().count()).unwrap_or(0)
}

/// Operations whose process has gone, and what recovery will move aside.
fn unfinished(context: &Context) -> Result<Vec<String>, String> {
    let look = Journal::look(&context.journal_dir()).map_err(|error| error.to_string())?;
    let unreadable = look.unreadable.iter().map(|file| format!("damaged {file}"));
    Ok(look.orphans.iter().cloned().chain(unreadable).collect())
}

/// What dead shims and damaged containers have left.
fn leftovers(context: &Context) -> Result<Vec<String>, Error> {
    let mut leftovers = pods::find(&context.root, None)?.leftovers;
    for entry in context.registry().all()? {
        match State::load(entry.dir()) {
            Ok(Some(_)) => {}
            Ok(None) => leftovers.push(format!("container {} was never finished", entry.id())),
            Err(error) => leftovers.push(error.to_string()),
        }
    }
    Ok(leftovers)
}
