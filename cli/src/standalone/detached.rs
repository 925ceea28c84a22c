//! Containers that outlive the command: a monitor process of our own keeps their pipes and learns their exit code.
//!
//! ```text
//! cryopod create ──spawn──▶ cryopod monitor ID      (own session, stderr into monitor.log)
//!      │  stdin:  one JSON request                    │
//!      ◀──stdout: {"pid":N} or {"kind","message",…}───┘ then closed; the monitor stays
//! ```
//!
//! The command waits for the one answer. When it is interrupted, it ends the monitor, which undoes its work.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use cryopod_checkpoint::kind::Kind;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::registry::{Entry, Registry};
use super::session::{Begin, Session};
use super::stdio::Ends;
use crate::context::Context;
use crate::error::Error;
use crate::exit;

/// A request is a few hundred bytes.
const MAX_REQUEST: u64 = 1 << 20;

/// What the monitor is told.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    begin: Begin,
    pid_file: Option<PathBuf>,
}

/// What it answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Answer {
    Ready { pid: i32 },
    Failed { kind: Kind, message: String, advice: Option<String> },
}

/// Begins the container in a monitor of its own and returns the PID of its init.
pub(crate) fn spawn(
    context: &Context,
    entry: &Entry,
    begin: Begin,
    pid_file: Option<PathBuf>,
) -> Result<i32, Error> {
    let log = entry.dir().join("log");
    entry.update(|state| state.log = Some(log))?;
    let failed = |source| Error::System { action: "start the monitor of the container", source };
    let monitor_log = entry.dir().join("monitor.log");
    let stderr = File::create(&monitor_log).map_err(|source| Error::Write {
        what: "log",
        path: monitor_log.clone(),
        source,
    })?;
    let mut command = Command::new("/proc/self/exe");
    command.arg("--root").arg(&context.root);
    if let Some(config) = &context.config_file {
        command.arg("--config").arg(config);
    }
    command.args(["monitor", entry.id()]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(stderr);
    let mut child = command.spawn().map_err(failed)?;
    let answer = converse(context, &mut child, &Request { begin, pid_file: absolute(pid_file)? });
    match answer.map_err(failed)? {
        Some(Answer::Ready { pid }) => Ok(pid),
        Some(Answer::Failed { kind, message, advice }) => {
            reap(&mut child);
            Err(Error::Relayed { kind, message, advice })
        }
        None => {
            reap(&mut child);
            Err(Error::MonitorDied { id: entry.id().to_owned(), log: monitor_log })
        }
    }
}

/// The monitor changes no directory, but its request should mean the same to everybody.
fn absolute(path: Option<PathBuf>) -> Result<Option<PathBuf>, Error> {
    path.map(std::path::absolute)
        .transpose()
        .map_err(|source| Error::System { action: "find the working directory", source })
}

/// Sends the request and waits for the answer; an interruption is passed on, and its outcome awaited.
fn converse(context: &Context, child: &mut Child, request: &Request) -> std::io::Result<Option<Answer>> {
    let (Some(mut stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else { return Ok(None) };
    stdin.write_all(&serde_json::to_vec(request)?)?;
    drop(stdin);
    let cancel = context.signals.cancel();
    if let Some(event) = cancel.event() {
        let mut fds = [PollFd::new(stdout.as_fd(), PollFlags::POLLIN), PollFd::new(event, PollFlags::POLLIN)];
        while let Err(nix::errno::Errno::EINTR) = poll(&mut fds, PollTimeout::NONE) {}
    }
    if cancel.is_cancelled() {
        // Already gone is fine; a PID we have not reaped belongs to nobody else.
        kill(Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX)), Signal::SIGTERM).ok();
    }
    let mut line = String::new();
    BufReader::new(stdout).take(MAX_REQUEST).read_line(&mut line)?;
    Ok(serde_json::from_str(&line).ok())
}

fn reap(child: &mut Child) {
    // Its word is in the answer or in its log; the status adds nothing.
    child.wait().ok();
}

/// `cryopod monitor`.
pub(crate) fn monitor(context: &Context, id: &str) -> Result<u8, Error> {
    let mut request = Vec::new();
    std::io::stdin()
        .take(MAX_REQUEST)
        .read_to_end(&mut request)
        .map_err(|source| Error::System { action: "read the request", source })?;
    let request: Request = serde_json::from_slice(&request).map_err(|error| Error::StateDamaged {
        path: Path::new("standard input").to_owned(),
        reason: error.to_string(),
    })?;
    // Away from the terminal of whoever called: its hang-up and its Ctrl-C are not ours.
    nix::unistd::setsid()
        .map_err(|errno| Error::System { action: "leave the session", source: errno.into() })?;
    let entry = Registry::below(&context.root).open(id)?;
    let ends = Ends::Log(entry.dir().join("log"));
    let session = Session { context, entry: &entry, begin: request.begin, ends, pid_file: request.pid_file };
    match session.begin() {
        Ok(alive) => {
            answer(&Answer::Ready { pid: alive.pid() });
            session.wait(alive)?;
            Ok(exit::OK)
        }
        Err(error) => {
            answer(&Answer::Failed {
                kind: error.kind(),
                message: error.to_string(),
                advice: error.advice(),
            });
            Ok(exit::code(error.kind()))
        }
    }
}

/// Answers and closes standard output, so that a pipeline of the caller's can end.
fn answer(answer: &Answer) {
    let line = serde_json::to_string(answer).unwrap_or_default();
    let mut stdout = std::io::stdout().lock();
    // The caller may have gone; the container lives all the same.
    writeln!(stdout, "{line}").and_then(|()| stdout.flush()).ok();
    if let Ok(null) = File::options().read(true).write(true).open("/dev/null") {
        nix::unistd::dup2_stdout(&null).ok();
        nix::unistd::dup2_stdin(&null).ok();
    }
}
