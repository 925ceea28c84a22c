//! Dump and pre-dump of one container.
//!
//! Invariant: after any failure the container is as before the call – running or frozen as it was, its network not
//! locked, no `link_remap.*` in its files. Achieved by (1) never killing criu, only its runtime, and waiting for criu
//! to roll back; (2) cleaning what a criu that was killed by others left; (3) freezing again what was frozen.
//!
//! The tasks always go on living, also for [`DumpOptions::exit`]: a checkpoint may still fail to be committed after the
//! dump, so ending the container is its caller's last step (`kill` works on frozen tasks).

use std::path::{Path, PathBuf};

use cryopod_checkpoint::fault;
use cryopod_checkpoint::target::{AtInstant, DumpOptions, DumpStats, ImageDir, Member};
use cryopod_command::{Command, Kill, Limits};

use super::argv::Argv;
use super::{CLEANUP, OciBackend, said};
use crate::cgroup::Cgroup;
use crate::connections;
use crate::criu::hook::{self, Server, Stage};
use crate::criu::operation::{CONTAINER_ENV, Operation};
use crate::criu::settings::Settings;
use crate::criu::{CriuError, leftovers, netlock, orphans, stats};
use crate::error::Error;
use crate::process;

impl OciBackend {
    pub(super) fn do_pre_dump(
        &self,
        member: &Member,
        images: &ImageDir,
        limits: &Limits,
    ) -> Result<DumpStats, Error> {
        let id = self.valid_id(&member.id)?;
        fault::step("runtime.pre-dump")?;
        let mut operation = Operation::begin(&self.options.criu_base, id)?;
        let settings = Settings { ghost_limit: Some(self.options.ghost_limit), ..Settings::default() };
        let config = operation.write_settings(&settings)?;
        let argv = self.global().pre_dump(id, &images.dir, operation.dir(), images.parent.as_deref());
        let ran = self.criu_command(id, &argv, &config).run(limits);
        if let Err(error) = ran {
            let error = self.explain("pre-dump", &operation, "dump.log", error, "");
            roll_back(&mut operation, member, false);
            return Err(error);
        }
        Ok(statistics(&operation, &images.dir)?)
    }

    pub(super) fn do_dump(
        &self,
        member: &Member,
        images: &ImageDir,
        _options: &DumpOptions,
        at_instant: &AtInstant<'_>,
        limits: &Limits,
    ) -> Result<DumpStats, Error> {
        let id = self.valid_id(&member.id)?;
        let frozen = Cgroup::at(&member.cgroup).is_frozen()?;
        fault::step("runtime.dump")?;
        let connected = match connections::of_process(member.pid) {
            Ok(addresses) => Some(addresses),
            Err(error) => {
                tracing::warn!(id, pid = member.pid, %error, "restores will close TCP connections");
                None
            }
        };
        let mut operation = Operation::begin(&self.options.criu_base, id)?;
        let action_script = operation.link_hook()?;
        let settings = Settings {
            ghost_limit: Some(self.options.ghost_limit),
            action_script: Some(action_script.clone()),
            ..Settings::default()
        };
        let config = operation.write_settings(&settings)?;
        let server = Server::bind(&operation.socket(), Stage::PostDump)?;
        let argv = self.global().dump(id, &images.dir, operation.dir(), images.parent.as_deref());
        let command = self.criu_command(id, &argv, &config).env(hook::SOCKET_ENV, operation.socket());
        let command = command.env(hook::PATIENCE_ENV, hook::patience(limits));
        let work = || {
            fault::step("runtime.hook").map_err(|error| error.to_string())?;
            at_instant()
        };
        let ran = server.serve(&work, || command.run(limits));
        let outcome = server.outcome();
        // A criu that outlives its cancelled runtime may reach the hook only now. With the listener closed it fails at
        // once and criu rolls back; else it would wait for an answer, and the roll-back below for it.
        drop(server);

        let container = || id.to_owned();
        let result = match (ran, outcome) {
            (Ok(_), Some(Ok(()))) => Ok(()),
            (Ok(_), None) => {
                Err(CriuError::HookNotCalled { container: container(), hook: action_script }.into())
            }
            (_, Some(Err(text))) => Err(CriuError::Hook { text }.into()),
            (Err(error), _) => Err(self.explain("dump", &operation, "dump.log", error, "")),
        };
        let result = result.and_then(|()| Ok(fault::step("runtime.dumped")?));
        match result {
            Ok(()) => Ok(DumpStats { connected, ..statistics(&operation, &images.dir)? }),
            Err(error) => {
                roll_back(&mut operation, member, frozen);
                Err(error)
            }
        }
    }

    /// The runtime with what criu inherits from it. At the limits only the runtime is ended.
    pub(super) fn criu_command(&self, id: &str, argv: &Argv, config: &Path) -> Command {
        let mut command = Command::new(&self.options.program)
            .args(argv.words())
            .env("CRIU_CONFIG_FILE", config)
            .env(CONTAINER_ENV, id)
            .on_deadline(Kill::ProcessOnly);
        // Both runtimes look for criu in PATH alone.
        if let Some(directory) = self.options.criu.parent().filter(|dir| !dir.as_os_str().is_empty()) {
            let path = std::env::var_os("PATH").unwrap_or_default();
            let paths = std::iter::once(directory.to_owned()).chain(std::env::split_paths(&path));
            if let Ok(path) = std::env::join_paths(paths) {
                command = command.env("PATH", path);
            }
        }
        command
    }

    /// The error of a runtime that failed in a CRIU call: a limit, or CRIU's own words.
    pub(super) fn explain(
        &self,
        verb: &'static str,
        operation: &Operation,
        log: &str,
        error: cryopod_command::Error,
        runtime_said: &str,
    ) -> Error {
        if !matches!(error, cryopod_command::Error::Failed { .. }) {
            return error.into();
        }
        let said = match runtime_said {
            "" => said::last_error(error.stderr()),
            said => said.to_owned(),
        };
        operation.failure(verb, log, &said).into()
    }
}

/// Brings a container back to what it was before a failed dump. Reports to the log alone: the caller has an error
/// already, and recovery does the same again.
fn roll_back(operation: &mut Operation, member: &Member, frozen: bool) {
    if let Err(error) = settle_container(member, frozen) {
        tracing::error!(container = member.id, %error, "container is not put right after a failed dump");
        operation.stay();
    }
}

/// Ends what still works on a container, cleans what a killed criu left, and restores the freeze. Idempotent.
pub(crate) fn settle_container(member: &Member, frozen: bool) -> Result<(), Error> {
    orphans::wait_for_end(&member.id, orphans::PATIENCE)?;
    clean_network(member)?;
    let cgroup = Cgroup::at(&member.cgroup);
    if !cgroup.exists() {
        return Ok(());
    }
    leftovers::remove(&cgroup.processes()?);
    if frozen && !cgroup.is_frozen()? {
        // A criu that was killed by others takes the pause with it.
        cgroup.freeze(&Limits::within(CLEANUP))?;
    }
    Ok(())
}

/// Removes CRIU's network lock from the container's network namespace.
pub(crate) fn clean_network(member: &Member) -> Result<(), Error> {
    for netns in network_namespaces(member) {
        for lock in netlock::remove(&netns)? {
            tracing::warn!(container = member.id, netns = %netns.display(), lock, "removed CRIU's network lock");
        }
    }
    Ok(())
}

/// Of the init, if that is still the container's; else the one its spec joins.
fn network_namespaces(member: &Member) -> Vec<PathBuf> {
    let spec = crate::spec::Spec::from_value(member.spec.clone());
    let joined = spec.namespace_path("network").map(Path::to_owned);
    let in_cgroup =
        Cgroup::of_process(member.pid).is_ok_and(|cgroup| cgroup.path().starts_with(&member.cgroup));
    let alive = process::stat(member.pid).ok().flatten().is_some_and(|stat| !stat.is_dead());
    let own = (in_cgroup && alive).then(|| PathBuf::from(format!("/proc/{}/ns/net", member.pid)));
    own.or(joined).into_iter().collect()
}

/// CRIU writes its statistics to the work directory; older runtimes have it in the images.
fn statistics(operation: &Operation, images: &Path) -> Result<DumpStats, CriuError> {
    let dir = if operation.dir().join(stats::FILE).exists() { operation.dir() } else { images };
    stats::read(dir)
}
