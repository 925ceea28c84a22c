//! Create, exec and restore have in common: the container's standard streams become the runtime's own, its words go to
//! a log file, and the new process's number comes back in a file.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use cryopod_command::{Command, Limits, Stderr, Stdin, Stdout};

use super::OciBackend;
use super::argv::Argv;
use super::known::Known;
use super::said;
use crate::backend::{CreateRequest, ExecRequest, Stdio};
use crate::cgroup::Cgroup;
use crate::error::Error;
use crate::process::Process;
use crate::spec::Spec;

/// The descriptors that a runtime hands on, after the request was taken apart.
pub(super) struct Streams {
    stdin: Stdin,
    stdout: Stdout,
    stderr: Stderr,
    pub(super) console: Option<PathBuf>,
}

impl Streams {
    pub(super) fn new(stdio: Stdio) -> Result<Self, Error> {
        Ok(match stdio {
            Stdio::Pipes { stdin, stdout, stderr } => Self {
                stdin: stdin.map_or(Stdin::Null, Stdin::File),
                stdout: stdout.map_or(Stdout::Null, Stdout::File),
                stderr: Stderr::File(match stderr {
                    Some(stderr) => stderr,
                    None => null()?,
                }),
                console: None,
            },
            // The runtime keeps its own streams to itself then; what it says goes to the log.
            Stdio::Terminal { console_socket } => Self {
                stdin: Stdin::Null,
                stdout: Stdout::Null,
                stderr: Stderr::File(null()?),
                console: Some(console_socket),
            },
        })
    }

    pub(super) fn of(self, command: Command) -> Command {
        command.stdin(self.stdin).stdout(self.stdout).stderr(self.stderr)
    }
}

fn null() -> Result<OwnedFd, Error> {
    let path = Path::new("/dev/null");
    let file = OpenOptions::new().read(true).write(true).open(path);
    file.map(OwnedFd::from).map_err(Error::file("open", path))
}

/// Files that one call leaves in the bundle; removed on drop.
pub(super) struct Scratch {
    pub(super) pid: PathBuf,
    pub(super) log: PathBuf,
    pub(super) process: PathBuf,
}

impl Scratch {
    /// `name` is unique among the calls that run on this bundle at one time.
    pub(super) fn new(bundle: &Path, name: &str) -> Self {
        let file = |extension: &str| bundle.join(format!("{name}.{extension}"));
        let scratch = Self { pid: file("pid"), log: file("log.json"), process: file("process.json") };
        scratch.clear();
        scratch
    }

    fn clear(&self) {
        for path in [&self.pid, &self.log, &self.process] {
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    tracing::debug!(path = %path.display(), %error, "scratch file stays");
                }
                _ => {}
            }
        }
    }

    /// What the runtime wrote to its PID file.
    pub(super) fn read_pid(&self) -> Option<u32> {
        std::fs::read_to_string(&self.pid).ok()?.trim().parse().ok().filter(|pid| *pid > 0)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.clear();
    }
}

impl OciBackend {
    pub(super) fn do_create(&self, request: CreateRequest<'_>, limits: &Limits) -> Result<u32, Error> {
        let id = self.valid_id(request.id)?;
        let existed = self.state_dir(id).exists();
        let scratch = Scratch::new(request.bundle, "init");
        let streams = Streams::new(request.stdio)?;
        let console = streams.console.clone();
        let spec = Spec::of_bundle(request.bundle)?;
        let systemd = self.systemd(&spec);
        let cgroup = spec.cgroup(id, systemd);
        let had_cgroup = cgroup.exists();
        let global = self.global_logged(&scratch.log, systemd);
        let argv = global.create(id, request.bundle, &scratch.pid, console.as_deref());
        let result = self.launch("create", id, &argv, streams, &scratch, limits);
        if let Err(error) = &result
            && !existed
        {
            self.forget_failed(id, error);
            // Runtimes that fail late (crun 1.21, a user namespace without id 0) leave it.
            if !had_cgroup && let Err(error) = cgroup.destroy(&Limits::within(super::CLEANUP)) {
                tracing::warn!(id, %error, "cgroup of a half-made container stays");
            }
        }
        let pid = result?;
        self.remember("create", id, pid, &scratch)?;
        Ok(pid)
    }

    pub(super) fn do_exec(&self, request: ExecRequest<'_>, limits: &Limits) -> Result<u32, Error> {
        let id = self.valid_id(request.id)?;
        let exec = self.valid_id(request.exec_id)?;
        let scratch = Scratch::new(request.bundle, &format!("exec-{exec}"));
        let text = request.process.to_string();
        let mut options = OpenOptions::new();
        // The environment may hold secrets.
        let written = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&scratch.process)
            .and_then(|mut file| file.write_all(text.as_bytes()));
        written.map_err(Error::file("write", &scratch.process))?;
        let streams = Streams::new(request.stdio)?;
        let console = streams.console.clone();
        let argv = self.global_logged(&scratch.log, self.options.systemd_cgroup).exec(
            id,
            &scratch.process,
            &scratch.pid,
            console.as_deref(),
        );
        self.launch("exec", id, &argv, streams, &scratch, limits)
    }

    /// Runs the runtime with the container's streams and returns the number in its PID file.
    fn launch(
        &self,
        verb: &'static str,
        id: &str,
        argv: &Argv,
        streams: Streams,
        scratch: &Scratch,
        limits: &Limits,
    ) -> Result<u32, Error> {
        let command = streams.of(Command::new(&self.options.program).args(argv.words()));
        match command.run(limits) {
            Ok(_) => scratch.read_pid().ok_or_else(|| self.no_pid(verb, id, scratch)),
            Err(error) => Err(self.failed(verb, id, error, &said::in_log(&scratch.log))),
        }
    }

    /// Keeps what later calls need. The process exists: it waits for `start`, or is our child and not reaped.
    pub(super) fn remember(
        &self,
        verb: &'static str,
        id: &str,
        pid: u32,
        scratch: &Scratch,
    ) -> Result<(), Error> {
        let init = Process::now(pid).ok().flatten().ok_or_else(|| self.no_pid(verb, id, scratch))?;
        match Cgroup::of_process(pid) {
            Ok(cgroup) => self.known.insert(id, Known { init, cgroup }),
            // It has ended already: the caller learns of that by its exit.
            Err(error) => tracing::debug!(id, pid, %error, "cgroup is not known"),
        }
        Ok(())
    }

    pub(super) fn no_pid(&self, verb: &'static str, id: &str, scratch: &Scratch) -> Error {
        Error::NoPid {
            runtime: self.options.name.clone(),
            verb,
            container: id.to_owned(),
            path: scratch.pid.clone(),
        }
    }

    /// A runtime that was ended in the middle leaves a half-made container; one that failed cleans up itself.
    fn forget_failed(&self, id: &str, error: &Error) {
        if matches!(error, Error::Command(_))
            && self.state_dir(id).exists()
            && let Err(error) = self.do_delete(id, &Limits::within(super::CLEANUP))
        {
            tracing::warn!(id, %error, "half-made container stays");
        }
    }
}
