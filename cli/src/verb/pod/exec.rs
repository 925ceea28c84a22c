//! `cryopod exec` in a container of a running pod: its shim runs the process, between fifos of ours.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cryopod_shim::control::client::ClientError;
use cryopod_shim::control::client::exec::{Exec, Input, StdioPaths};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::json;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use super::{Target, only};
use crate::args::ExecArgs;
use crate::context::{Context, need_root};
use crate::error::Error;
use crate::exit;
use crate::pods;
use crate::standalone::bundle;
use crate::standalone::stdio::Pumps;
use crate::verb::exec::{exec_id, process};

/// Until the process runs; a checkpoint of the pod is waited for.
const BEGIN: Duration = Duration::from_secs(60);

/// Runs the process; returns its code.
pub(crate) fn exec(context: &Context, target: &Target, args: &ExecArgs) -> Result<u8, Error> {
    need_root("exec")?;
    let container = only(&target.containers, &pods::display(&target.pod), "exec")?.id.as_str();
    let process = process(bundle::process_of(&target.client.bundle(container)?)?, args);
    let id = exec_id();
    let limits = context.signals.limits(BEGIN);
    let detached = args.detach;
    let request = |stdio| Exec { container, id: &id, process: &process, stdio, detached };
    if detached {
        let pid = target.client.exec(&request(StdioPaths::default()), &limits)?;
        context.output.result(&json!({ "id": container, "pid": pid }), |_| pid.to_string())?;
        return Ok(exit::OK);
    }
    let fifos = Fifos::make(&context.root.join(&id), args.tty)?;
    target.client.exec(&request(fifos.stdio()), &limits)?;
    // It must not run on with nobody at its streams; the first error is the one to report.
    let abandon = || {
        context.signals.forget();
        target.client.abandon(container, &id).ok();
    };
    let (sender, inputs) = unbounded_channel();
    let pumps = connect(context, fifos, sender, args.tty).inspect_err(|_| abandon())?;
    let status = target.client.attend(container, &id, inputs).inspect_err(|_| abandon());
    context.signals.forget();
    // The shim answers at the end of the process and closes its ends of the fifos when all was delivered.
    let failure = pumps.drain(&context.signals.cancel());
    let status = status?;
    let forgotten = target.client.forget_exec(container, &id);
    outcome(status, forgotten, failure, |text| context.output.note(text))
}

/// Joins our streams and signals to those of the process.
fn connect(
    context: &Context,
    fifos: Fifos,
    sender: UnboundedSender<Input>,
    terminal: bool,
) -> Result<Pumps, Error> {
    let pumps = fifos.pump(&sender)?;
    context.signals.pass_to(sender, terminal)?;
    Ok(pumps)
}

/// What came of it: the process's own code, unless its output has not arrived.
fn outcome(
    status: u32,
    forgotten: Result<(), ClientError>,
    failure: Option<io::Error>,
    note: impl FnOnce(&str),
) -> Result<u8, Error> {
    // The process has ended all the same, and the shim forgets it with its container.
    if let Err(error) = forgotten {
        note(&format!("the shim keeps a record of the ended process: {error}"));
    }
    match failure {
        Some(error) => Err(Error::Stdout(error)),
        // A wait status has 8 bits.
        None => Ok(u8::try_from(status).unwrap_or(u8::MAX)),
    }
}

/// Fifos in a directory of their own, with our ends of the output open: what the process writes waits there.
struct Fifos {
    dir: Directory,
    stdout: File,
    stderr: Option<File>,
}

/// Removed when dropped. Open ends live on.
struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

impl Fifos {
    fn make(dir: &Path, terminal: bool) -> Result<Self, Error> {
        let failed = |source| Error::Write { what: "streams", path: dir.to_owned(), source };
        std::fs::create_dir_all(dir).map_err(failed)?;
        let dir_guard = Directory(dir.to_owned());
        let make = |name: &str| {
            mkfifo(&dir.join(name), Mode::S_IRUSR | Mode::S_IWUSR).map_err(|errno| failed(errno.into()))
        };
        make("stdin")?;
        make("stdout")?;
        let stdout = open(&dir.join("stdout"), false).map_err(failed)?;
        let stderr = if terminal {
            None
        } else {
            make("stderr")?;
            Some(open(&dir.join("stderr"), false).map_err(failed)?)
        };
        Ok(Self { dir: dir_guard, stdout, stderr })
    }

    fn path(&self, name: &str) -> String {
        self.dir.0.join(name).display().to_string()
    }

    fn stdio(&self) -> StdioPaths {
        StdioPaths {
            stdin: self.path("stdin"),
            stdout: self.path("stdout"),
            stderr: self.stderr.as_ref().map(|_| self.path("stderr")).unwrap_or_default(),
            terminal: self.stderr.is_none(),
        }
    }

    /// Moves bytes, now that the shim has opened its ends.
    fn pump(self, inputs: &UnboundedSender<Input>) -> Result<Pumps, Error> {
        let failed = |source| Error::System { action: "connect the process's standard streams", source };
        // Without a reader it has ended already.
        let stdin = match open(&self.dir.0.join("stdin"), true) {
            Ok(stdin) => Some(stdin),
            Err(error) if error.raw_os_error() == Some(nix::libc::ENXIO) => None,
            Err(error) => return Err(failed(error)),
        };
        // Nobody attends it any more where these do not arrive.
        let say = |what: Input| {
            let inputs = inputs.clone();
            move || {
                inputs.send(what).ok();
            }
        };
        let (ended, closed) = (say(Input::Ended), say(Input::Closed));
        Pumps::between(stdin, ended, self.stdout, self.stderr, closed)
    }
}

/// Opens one end without waiting for the other, then reads and writes as usual.
fn open(path: &Path, write: bool) -> io::Result<File> {
    let file = File::options().read(!write).write(write).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
    fcntl(file.as_fd(), FcntlArg::F_SETFL(OFlag::empty()))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use cryopod_command::Cancel;

    use super::*;

    #[test]
    fn the_code_of_the_process_stands_even_if_the_shim_cannot_forget_it() {
        let mut noted = String::new();
        let lost = Err(ClientError::Lost("gone".to_owned()));
        let code = outcome(7, lost, None, |text| noted.push_str(text)).unwrap();
        assert!(code == 7 && noted.contains("gone"), "{code}: {noted}");
        let closed = Some(io::ErrorKind::BrokenPipe.into());
        assert!(matches!(outcome(0, Ok(()), closed, |_| ()), Err(Error::Stdout(_))));
    }

    #[test]
    fn streams_pass_through_the_fifos_and_leave_no_file() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("exec");
        let fifos = Fifos::make(&dir, false).unwrap();
        let stdio = fifos.stdio();
        assert!(!stdio.terminal);
        // The shim's side: it holds both ends of the input, so that only CloseIO ends it.
        let mut input = open(Path::new(&stdio.stdin), false).unwrap();
        let mut output = open(Path::new(&stdio.stdout), true).unwrap();
        drop(open(Path::new(&stdio.stderr), true).unwrap());
        output.write_all(b"").unwrap();
        drop(output);
        let (sender, mut inputs) = unbounded_channel();
        let pumps = fifos.pump(&sender).unwrap();
        assert!(!dir.exists(), "the names are not needed any more");
        pumps.drain(&Cancel::new());
        // The test's own standard input ends or not; what it says must be the end and nothing else.
        if let Ok(said) = inputs.try_recv() {
            assert_eq!(said, Input::Ended);
            input.read_to_end(&mut Vec::new()).unwrap();
        }
    }

    #[test]
    fn a_terminal_has_no_third_stream() {
        let root = tempfile::tempdir().unwrap();
        let fifos = Fifos::make(&root.path().join("exec"), true).unwrap();
        let stdio = fifos.stdio();
        assert!(stdio.terminal && stdio.stderr.is_empty());
        drop(fifos);
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
    }

    #[test]
    fn input_of_a_process_that_has_ended_is_no_error() {
        let root = tempfile::tempdir().unwrap();
        let fifos = Fifos::make(&root.path().join("exec"), false).unwrap();
        let (sender, mut inputs) = unbounded_channel();
        fifos.pump(&sender).unwrap().drain(&Cancel::new());
        assert!(inputs.try_recv().is_err(), "there is no input to be closed");
    }
}
