//! The backend for OCI runtimes: crun by default, runc, or any program with the same command line.
//!
//! A process start is the expensive part of a call, so a runtime is started only where it does the work: create, start,
//! exec, delete, update, checkpoint, restore. Pause and resume write `cgroup.freeze`, signals go through pidfds,
//! the state is never asked for. Memory capture and return are in `dump` and `restore`; CRIU itself in [`crate::criu`].

mod argv;
mod dialect;
mod dump;
mod known;
mod launch;
mod restore;
mod said;

use std::path::{Path, PathBuf};
use std::time::Duration;

use cryopod_checkpoint::target::{AtInstant, DumpOptions, DumpStats, ImageDir, Member};
use cryopod_command::{Command, Limits, Output, Stdin};
use serde_json::Value;

use crate::backend::{Backend, Capabilities, CreateRequest, ExecRequest, RestoreRequest};
use crate::cgroup::{Cgroup, CgroupError};
use crate::config::{Config, LXC};
use crate::criu::{operation, orphans, version};
use crate::error::Error;
use crate::process::Process;
use crate::spec::Spec;
use argv::Argv;
use dialect::Asked;
pub(crate) use dump::settle_container;
use known::{Known, Registry};

/// Base of the runtimes' state directories.
pub const ROOT: &str = "/run/cryopod/oci";

/// The OCI runtime whose containers are LXC containers, and where those are: the LXC tools look there.
const LXC_PROGRAM: &str = "cryopod-lxc";
const LXC_PATH: &str = "/var/lib/lxc";

/// How long clean-up after a failed or ended call may take, beyond the caller's limits.
const CLEANUP: Duration = Duration::from_secs(60);
/// How long the kernel may take to freeze or thaw when the caller sets no limit.
const FREEZE: Duration = Duration::from_secs(30);
/// Linux has 64 signals.
const LAST_SIGNAL: i32 = 64;

/// How one runtime is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OciOptions {
    /// Name, e.g. `crun`.
    pub name: String,
    /// Program, by path or by name in PATH.
    pub program: PathBuf,
    /// `--root`.
    pub root: PathBuf,
    /// Global arguments.
    pub extra_args: Vec<String>,
    /// cgroups by systemd.
    pub systemd_cgroup: bool,
    /// CRIU program.
    pub criu: PathBuf,
    /// Base of the scratch directories of CRIU calls.
    pub criu_base: PathBuf,
    /// Largest deleted but open file in a memory image, bytes.
    pub ghost_limit: u64,
}

impl OciOptions {
    /// From the configuration; `namespace` is containerd's, or `standalone`. `None` if no such runtime is configured.
    pub fn from_config(config: &Config, name: &str, namespace: &str) -> Option<Self> {
        let settings = config.runtime(name)?;
        let (program, root) = if name == LXC {
            (LXC_PROGRAM.into(), LXC_PATH.into())
        } else {
            (name.into(), Path::new(ROOT).join(namespace))
        };
        Some(Self {
            name: name.to_owned(),
            program: settings.path.clone().unwrap_or(program),
            root: settings.root.clone().unwrap_or(root),
            extra_args: settings.extra_args.clone(),
            systemd_cgroup: settings.systemd_cgroup,
            criu: config.criu.path.clone(),
            criu_base: operation::BASE.into(),
            ghost_limit: config.checkpoint.ghost_limit.0,
        })
    }
}

/// Removes what a killed call or a power cut left of LXC containers; answers their names. Without the program there are none.
///
/// # Errors
/// When the program fails.
pub fn sweep_lxc(config: &Config, limits: &Limits) -> Result<Vec<String>, Error> {
    let Some(options) = OciOptions::from_config(config, LXC, "") else { return Ok(Vec::new()) };
    let command = Command::new(&options.program).arg("--root").arg(&options.root).arg("sweep");
    match command.run(limits) {
        Ok(output) => Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()),
        Err(cryopod_command::Error::NotFound { .. }) => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

/// Containers of one OCI runtime.
#[derive(Debug)]
pub struct OciBackend {
    options: OciOptions,
    name: String,
    known: Registry,
    asked: Asked,
}

impl OciBackend {
    /// A backend for one runtime; touches nothing.
    pub fn new(options: OciOptions) -> Self {
        Self {
            name: if options.name == LXC { LXC.to_owned() } else { format!("oci/{}", options.name) },
            options,
            known: Registry::default(),
            asked: Asked::default(),
        }
    }

    /// How the runtime is called.
    pub fn options(&self) -> &OciOptions {
        &self.options
    }

    /// Name and version for manifests, e.g. `oci/crun 1.21`; asks the program.
    pub fn version(&self, limits: &Limits) -> Result<String, Error> {
        let output = Command::new(&self.options.program).arg("--version").run(limits)?;
        let text = String::from_utf8_lossy(&output.stdout);
        let first = text.lines().next().unwrap_or_default();
        let version = first.split_whitespace().last().unwrap_or("unknown");
        Ok(format!("{} {version}", self.name))
    }

    fn global(&self) -> Argv {
        let options = &self.options;
        Argv::global(&options.root, &options.extra_args, options.systemd_cgroup, None)
    }

    fn global_logged(&self, log: &Path, systemd: bool) -> Argv {
        let options = &self.options;
        Argv::global(&options.root, &options.extra_args, systemd, Some(log))
    }

    /// By configuration, or because the spec cannot mean anything else.
    fn systemd(&self, spec: &Spec) -> bool {
        self.options.systemd_cgroup || spec.wants_systemd_cgroup()
    }

    fn state_dir(&self, id: &str) -> PathBuf {
        self.options.root.join(id)
    }

    /// Ids become file names here, so they must not lead elsewhere; runtimes accept the same or less.
    fn valid_id<'a>(&self, id: &'a str) -> Result<&'a str, Error> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.+".contains(c);
        if id.is_empty() || id.starts_with(['-', '.']) || id.len() > 200 || !id.chars().all(plain) {
            return Err(Error::BadId { id: id.chars().take(80).collect() });
        }
        Ok(id)
    }

    /// Runs a verb whose stderr is ours.
    fn call(&self, verb: &'static str, id: &str, argv: &Argv, limits: &Limits) -> Result<Output, Error> {
        let command = Command::new(&self.options.program).args(argv.words());
        command.run(limits).map_err(|error| self.failed(verb, id, error, ""))
    }

    /// The error of a runtime that failed: `said` is from its log, else its stderr speaks.
    fn failed(&self, verb: &'static str, id: &str, error: cryopod_command::Error, said: &str) -> Error {
        if !matches!(error, cryopod_command::Error::Failed { .. }) {
            return error.into();
        }
        let message = match said {
            "" => said::last_error(error.stderr()),
            said => said.to_owned(),
        };
        let message = if message.is_empty() { error.to_string() } else { message };
        let kind = said::kind(&message);
        Error::Runtime { runtime: self.options.name.clone(), verb, container: id.to_owned(), message, kind }
    }

    fn find(&self, id: &str) -> Result<Known, Error> {
        self.known.find(self.valid_id(id)?, &self.options.root)
    }

    fn do_delete(&self, id: &str, limits: &Limits) -> Result<(), Error> {
        let id = self.valid_id(id)?;
        let known = self.find(id).ok();
        if self.state_dir(id).exists() {
            match self.call("delete", id, &self.global().delete(id), limits) {
                Err(error) if error.kind() == cryopod_checkpoint::kind::Kind::NotFound => {}
                result => {
                    result?;
                }
            }
        }
        // Cgroups that the container made inside its own are not the runtime's to know.
        match known.map(|known| known.cgroup.destroy(limits)) {
            Some(Err(error @ CgroupError::NotAContainers { .. })) => {
                tracing::warn!(id, %error, "the container had no cgroup of its own");
            }
            Some(result) => result?,
            None => {}
        }
        // Last, since the runtime has forgotten it: a Delete that is repeated finds the cgroup here alone.
        self.known.remove(id);
        // A criu that hangs holds dead tasks by ptrace; without a directory of its own there is none.
        if !operation::directories(&self.options.criu_base, id).is_empty() {
            orphans::end_all(id);
            operation::sweep(&self.options.criu_base, id);
        }
        Ok(())
    }

    fn signal_one(&self, id: &str, pid: u32, signal: i32) -> Result<(), Error> {
        let ended = || Error::ProcessEnded { container: id.to_owned(), pid };
        let path = PathBuf::from(format!("/proc/{pid}"));
        let known = self.find(id).ok();
        let process = match &known {
            Some(known) if known.init.pid == pid => known.init,
            // An exec: its number may have been given to a stranger since.
            Some(known) => {
                let process = Process::now(pid).map_err(Error::file("read", &path))?.ok_or_else(ended)?;
                let cgroup = Cgroup::of_process(pid).map_err(|_| ended())?;
                if !cgroup.path().starts_with(known.cgroup.path()) {
                    return Err(ended());
                }
                process
            }
            None => Process::now(pid).map_err(Error::file("read", &path))?.ok_or_else(ended)?,
        };
        if process.signal(signal).map_err(Error::file("signal", &path))? { Ok(()) } else { Err(ended()) }
    }
}

impl Backend for OciBackend {
    fn name(&self) -> &str {
        &self.name
    }

    fn capabilities(&self) -> Capabilities {
        // The caller has no limits here; the question has its own.
        let captures = version::find(&self.options.criu).is_some()
            && self.asked.captures(&self.options, &Limits::none());
        Capabilities {
            memory_checkpoint: captures,
            pre_dump: captures,
            terminal: true,
            exec: true,
            pause: true,
            update: true,
        }
    }

    fn features(&self, limits: &Limits) -> Result<Option<Value>, Error> {
        let output = Command::new(&self.options.program).arg("features").run(limits)?;
        Ok(serde_json::from_slice(&output.stdout).ok())
    }

    fn create(&self, request: CreateRequest<'_>, limits: &Limits) -> Result<u32, Error> {
        self.do_create(request, limits)
    }

    fn start(&self, id: &str, limits: &Limits) -> Result<(), Error> {
        let id = self.valid_id(id)?;
        self.call("start", id, &self.global().start(id), limits).map(|_| ())
    }

    fn restore(
        &self,
        request: CreateRequest<'_>,
        restore: &RestoreRequest<'_>,
        limits: &Limits,
    ) -> Result<u32, Error> {
        self.do_restore(request, restore, limits)
    }

    fn exec(&self, request: ExecRequest<'_>, limits: &Limits) -> Result<u32, Error> {
        self.do_exec(request, limits)
    }

    fn kill(&self, id: &str, pid: u32, signal: i32, all: bool, _limits: &Limits) -> Result<(), Error> {
        if !(0..=LAST_SIGNAL).contains(&signal) {
            return Err(Error::NoSignal { signal });
        }
        if !all {
            return self.signal_one(id, pid, signal);
        }
        // Never one that is only found by the process: were it misplaced, others would be hit.
        let cgroup = self.find(id)?.cgroup;
        let any = if signal == nix::libc::SIGKILL {
            let populated = cgroup.is_populated();
            cgroup.kill()?;
            populated?
        } else {
            cgroup.signal(signal)?
        };
        if any { Ok(()) } else { Err(Error::ProcessEnded { container: id.to_owned(), pid }) }
    }

    fn delete(&self, id: &str, limits: &Limits) -> Result<(), Error> {
        self.do_delete(id, limits)
    }

    fn pause(&self, id: &str, limits: &Limits) -> Result<(), Error> {
        Ok(self.find(id)?.cgroup.freeze(&limits.at_most(FREEZE))?)
    }

    fn resume(&self, id: &str, limits: &Limits) -> Result<(), Error> {
        Ok(self.find(id)?.cgroup.thaw(&limits.at_most(FREEZE))?)
    }

    fn update(&self, id: &str, resources: &Value, limits: &Limits) -> Result<(), Error> {
        let id = self.valid_id(id)?;
        let argv = self.global().update(id);
        let command = Command::new(&self.options.program)
            .args(argv.words())
            .stdin(Stdin::Bytes(resources.to_string().into_bytes()));
        command.run(limits).map(|_| ()).map_err(|error| self.failed("update", id, error, ""))
    }

    fn cgroup(&self, id: &str, pid: u32) -> Result<PathBuf, Error> {
        match self.find(id) {
            Ok(known) => Ok(known.cgroup.path().to_owned()),
            Err(_) => Ok(Cgroup::of_process(pid)?.path().to_owned()),
        }
    }

    fn pre_dump(&self, member: &Member, images: &ImageDir, limits: &Limits) -> Result<DumpStats, Error> {
        self.do_pre_dump(member, images, limits)
    }

    fn dump(
        &self,
        member: &Member,
        images: &ImageDir,
        options: &DumpOptions,
        at_instant: &AtInstant<'_>,
        limits: &Limits,
    ) -> Result<DumpStats, Error> {
        self.do_dump(member, images, options, at_instant, limits)
    }
}

#[cfg(test)]
#[path = "oci/tests.rs"]
mod tests;
