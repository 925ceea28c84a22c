//! Bringing a container back from its memory images, into the namespaces and cgroup of the live request.
//!
//! Invariant: a failure leaves no process, no cgroup, no mount, no state and no network lock. What CRIU did is verified
//! afterwards, because it has put tasks elsewhere without an error (runc 1.1.15 without `cgroup-root` restores into the
//! cgroup of the original).
//!
//! Namespaces given by path are joined by both runtimes (runc `handleRestoringNamespaces`, crun `criu.c`): network and
//! PID as CRIU externals, ipc and uts by CRIU's `join-ns`. Into the joined ones CRIU still writes what the images hold: the
//! old host name, which is put right afterwards, and the System V objects, which the first container of a pod brings
//! ([`images`]).

use std::path::{Path, PathBuf};

use cryopod_checkpoint::fault;
use cryopod_checkpoint::target::TcpPolicy;
use cryopod_command::Limits;
use nix::libc::SIGKILL;
use nix::mount::{MntFlags, umount2};

use super::argv::RestorePaths;
use super::dialect::Dialect;
use super::known::Known;
use super::launch::{Scratch, Streams};
use super::{CLEANUP, OciBackend, said};
use crate::backend::{CreateRequest, RestoreRequest};
use crate::cgroup::Cgroup;
use crate::criu::hook::{self, Server, Stage};
use crate::criu::operation::Operation;
use crate::criu::settings::Settings;
use crate::criu::{CriuError, headless, images, netlock, orphans};
use crate::error::Error;
use crate::namespace::{self, UtsNames};
use crate::process::Process;
use crate::spec::Spec;

impl OciBackend {
    pub(super) fn do_restore(
        &self,
        request: CreateRequest<'_>,
        restore: &RestoreRequest<'_>,
        limits: &Limits,
    ) -> Result<u32, Error> {
        let id = self.valid_id(request.id)?;
        if self.state_dir(id).exists() {
            return Err(Error::ContainerExists { container: id.to_owned() });
        }
        let bundle = request.bundle;
        let spec = Spec::of_bundle(bundle)?;
        let systemd = self.systemd(&spec);
        let cgroup = spec.cgroup(id, systemd);
        fault::step("runtime.restore")?;
        let operation = Operation::begin(&self.options.criu_base, id)?;
        let keep = restore.tcp == TcpPolicy::Keep;
        let hook = if restore.frozen {
            Some((operation.link_hook()?, Server::bind(&operation.socket(), Stage::PreResume)?))
        } else {
            None
        };
        let config = operation.write_settings(&Settings {
            ghost_limit: Some(self.options.ghost_limit),
            action_script: hook.as_ref().map(|(script, _)| script.clone()),
            tcp_close: !keep,
            cgroup_root: Some(self.cgroup_root(&cgroup, systemd, limits)?),
        })?;
        std::fs::create_dir_all(restore.work).map_err(Error::file("create", restore.work))?;
        let view = images_for(&spec, restore.images, operation.dir())?;
        let names = uts_names(&spec);
        let scratch = Scratch::new(bundle, "init");
        let streams = Streams::new(request.stdio)?;
        let console = streams.console.clone();
        let paths = RestorePaths {
            bundle,
            images: &view,
            // Not the caller's: criu is found by its working directory.
            work: operation.dir(),
            pid: &scratch.pid,
            console: console.as_deref(),
        };
        let argv = self.global_logged(&scratch.log, systemd).restore(id, &paths, keep);
        let command = streams.of(self.criu_command(id, &argv, &config));
        let ran = match &hook {
            None => headless::watched(id, || command.run(limits)),
            Some((_, server)) => {
                let command = command
                    .env(hook::SOCKET_ENV, operation.socket())
                    .env(hook::PATIENCE_ENV, hook::patience(limits));
                let freeze = || cgroup.begin_freeze().map_err(|error| error.to_string());
                server.serve(&freeze, || headless::watched(id, || command.run(limits)))
            }
        };
        let result = match ran {
            Ok(_) => self.verified(id, &spec, &cgroup, &scratch).and_then(|pid| {
                if restore.frozen {
                    // Again, should a runtime not have called the hook: late is better than never.
                    cgroup.freeze(limits)?;
                }
                Ok(pid)
            }),
            Err(error) => {
                let said = said::in_log(&scratch.log);
                Err(self.explain("restore", &operation, "restore.log", error, &said))
            }
        };
        let result = result.and_then(|pid| {
            fault::step("runtime.restored")?;
            Ok(pid)
        });
        keep_log(operation.dir(), restore.work);
        // Also after a failure: CRIU has written to the pod's namespace before most of them.
        if let Err(error) = put_names(&spec, names, result.as_ref().ok().copied()) {
            tracing::error!(id, %error, "host name of the pod is not put right after a restore");
        }
        if result.is_err() {
            self.undo_restore(id, bundle, &spec, &cgroup);
        }
        result
    }

    /// Where CRIU is to put the tasks: crun and cryopod-lxc have them in a group below systemd's scope.
    fn cgroup_root(&self, cgroup: &Cgroup, systemd: bool, limits: &Limits) -> Result<String, Error> {
        let root = cgroup.relative();
        let below = |dialect| matches!(dialect, Dialect::Crun | Dialect::Lxc);
        Ok(if systemd && below(self.asked.dialect(&self.options, limits)?) {
            format!("{root}/container")
        } else {
            root
        })
    }

    /// The restored init, if it is where it belongs.
    fn verified(&self, id: &str, spec: &Spec, cgroup: &Cgroup, scratch: &Scratch) -> Result<u32, Error> {
        let pid = scratch.read_pid().ok_or_else(|| self.no_pid("restore", id, scratch))?;
        let init = Process::now(pid).ok().flatten().ok_or_else(|| self.no_pid("restore", id, scratch))?;
        // The cgroup that was asked for: should init be in another one, that may be a live container's, and what is
        // remembered here is what the failed restore kills and removes.
        self.known.insert(id, Known { init, cgroup: cgroup.clone() });
        let misplaced = |what, found: String, expected: String| CriuError::Misplaced {
            container: id.to_owned(),
            pid,
            what,
            found,
            expected,
        };
        let found = Cgroup::of_process(pid)?;
        if found.clone().of_container() != *cgroup {
            return Err(misplaced("cgroup", found.relative(), cgroup.relative()).into());
        }
        if let Some(expected) = spec.namespace_path("network") {
            let own = format!("/proc/{pid}/ns/net");
            let (found, expected) = (identity(Path::new(&own))?, identity(expected)?);
            if found != expected {
                return Err(misplaced("network namespace", found, expected).into());
            }
        }
        for (kind, file) in [("ipc", "ipc"), ("uts", "uts")] {
            if let Some(expected) = spec.namespace_path(kind) {
                let own = format!("/proc/{pid}/ns/{file}");
                if identity(Path::new(&own)).ok() != identity(expected).ok() {
                    tracing::warn!(id, pid, kind, "restored container is not in its pod's namespace");
                }
            }
        }
        self.known.insert(id, Known { init, cgroup: found });
        Ok(pid)
    }

    /// Removes everything of a failed restore. Reports to the log alone: the caller has an error already.
    fn undo_restore(&self, id: &str, bundle: &Path, spec: &Spec, cgroup: &Cgroup) {
        let report = |what: &str, result: Result<(), Error>| {
            if let Err(error) = result {
                tracing::error!(id, what, %error, "a failed restore leaves something behind");
            }
        };
        // What hangs is ended with the container.
        report("criu", orphans::wait_for_end(id, orphans::PATIENCE).map_err(Error::from));
        headless::clear_mounts();
        let limits = Limits::within(CLEANUP);
        if let Ok(known) = self.find(id) {
            // It may be in a cgroup that is not destroyed here.
            let path = PathBuf::from(format!("/proc/{}", known.init.pid));
            report("init", known.init.signal(SIGKILL).map(drop).map_err(Error::file("signal", &path)));
        }
        report("container", self.do_delete(id, &limits));
        report("cgroup", cgroup.destroy(&limits).map_err(Error::from));
        for root in [bundle.join("criu-root"), self.state_dir(id).join("criu-root")] {
            report("mount", unmount(&root));
        }
        if let Some(netns) = spec.namespace_path("network") {
            report("network lock", netlock::remove(netns).map(|_| ()).map_err(Error::from));
        }
    }
}

/// The images, or a view of them for a pod whose ipc namespace has its System V objects already.
fn images_for(spec: &Spec, images: &Path, scratch: &Path) -> Result<PathBuf, Error> {
    let Some(ipc) = spec.namespace_path("ipc") else { return Ok(images.to_owned()) };
    if !images::have_sysv_objects(images)? {
        return Ok(images.to_owned());
    }
    if !namespace::has_sysv_objects(ipc).map_err(Error::file("look into", ipc))? {
        return Ok(images.to_owned());
    }
    Ok(images::without_sysv_objects(images, &scratch.join("images"))?)
}

/// The names of the pod's uts namespace before the restore; `None` when the container gets its own.
fn uts_names(spec: &Spec) -> Option<UtsNames> {
    UtsNames::read(spec.namespace_path("uts")?).ok()
}

/// The live request decides about the host name, not the images.
fn put_names(spec: &Spec, before: Option<UtsNames>, pid: Option<u32>) -> std::io::Result<()> {
    match (spec.namespace_path("uts"), before, pid) {
        (Some(path), Some(names), _) => names.write(path),
        (None, _, Some(pid)) if spec.has_namespace("uts") && !spec.hostname().is_empty() => {
            let path = PathBuf::from(format!("/proc/{pid}/ns/uts"));
            UtsNames::read(&path)?.with_host(spec.hostname()).write(&path)
        }
        _ => Ok(()),
    }
}

/// The log goes where the caller looks for it; without it the restore is as good.
fn keep_log(from: &Path, to: &Path) {
    if let Err(error) = std::fs::copy(from.join("restore.log"), to.join("restore.log")) {
        tracing::debug!(%error, "restore.log is not kept");
    }
}

/// Device and inode, which tell namespaces apart.
fn identity(path: &Path) -> Result<String, Error> {
    use std::os::unix::fs::MetadataExt;
    let meta = std::fs::metadata(path).map_err(Error::file("look at", path))?;
    Ok(format!("{}:{}", meta.dev(), meta.ino()))
}

/// The bind mount that runtimes make for CRIU and leave when they are ended in between.
fn unmount(root: &Path) -> Result<(), Error> {
    if !root.exists() {
        return Ok(());
    }
    match umount2(root, MntFlags::MNT_DETACH) {
        Ok(()) | Err(nix::errno::Errno::EINVAL) => {}
        Err(errno) => return Err(Error::file("unmount", root)(errno.into())),
    }
    // Plain rmdir: were it still a mount, nothing of the container's root may be removed.
    std::fs::remove_dir(root).map_err(Error::file("remove", root))
}
