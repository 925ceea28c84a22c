//! Opening what containerd named, before the runtime makes the process.

use std::os::fd::OwnedFd;

use cryopod_runtime::backend::Stdio;
use nix::fcntl::OFlag;

use super::console::Console;
use super::logger::Logger;
use super::target::{Opened, Target};
use super::{IoError, Output, Owner, Prepared, StdioPaths};
use crate::exits::Registry;

/// Streams whose pipes are there and whose fifos are still to be opened.
#[derive(Debug)]
pub struct Opening {
    prepared: Prepared,
    pending: Vec<(Target, &'static str, Option<OwnedFd>)>,
}

impl Opening {
    /// Opens the rest. Waits for a reader of each output fifo, as containerd's shim does, within bounds.
    ///
    /// # Errors
    /// See [`IoError`]; then everything is closed again.
    pub async fn finish(self) -> Result<Prepared, IoError> {
        let Opening { mut prepared, pending } = self;
        for (target, stream, from) in pending {
            prepared.outputs.push(Output { to: target.open(stream).await?, from });
        }
        Ok(prepared)
    }

    /// Opens the rest while `work` makes the process: the pipes take what it says until then, and containerd opens its
    /// ends when it likes.
    ///
    /// # Errors
    /// That of `work`, which is always waited for.
    pub async fn finish_during<T, E>(
        self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<(T, Result<Prepared, IoError>), E> {
        let (finish, work) = (self.finish(), work);
        tokio::pin!(finish, work);
        let first = tokio::select! {
            biased;
            done = &mut work => Err(done),
            prepared = &mut finish => Ok(prepared),
        };
        match first {
            Ok(prepared) => Ok((work.await?, prepared)),
            Err(done) => Ok((done?, finish.await)),
        }
    }
}

/// Makes the pipes, and starts the logger if there is one.
///
/// # Errors
/// See [`IoError`]; then everything is closed again.
pub async fn begin(
    paths: &StdioPaths,
    owner: Owner<'_>,
    registry: &Registry,
) -> Result<(Stdio, Opening), IoError> {
    let stdin = match Target::find("stdin", &paths.stdin).await? {
        None => None,
        Some(Target::Fifo(path) | Target::File(path)) => Some(path),
        Some(Target::Logger(uri)) => return Err(IoError::Malformed(uri.path.display().to_string())),
    };
    let out = Target::find("stdout", &paths.stdout).await?;
    let err = Target::find("stderr", &paths.stderr).await?;
    if paths.terminal {
        let console = Console::listen()?;
        let stdio = Stdio::Terminal { console_socket: console.path().to_owned() };
        let (mut outputs, mut pending) = (Vec::new(), Vec::new());
        let mut logger = None;
        match out {
            Some(Target::Logger(uri)) => {
                let (read, write) = pipe(owner)?;
                logger = Some(Logger::start(&uri, owner, Some(read), None, registry).await?);
                outputs.push(Output { to: Opened::Fifo(write, None), from: None });
            }
            Some(target) => pending.push((target, "stdout", None)),
            None => {}
        }
        let stdin = stdin.map(|path| (path, None));
        let prepared = Prepared { stdin, outputs, console: Some(console), logger };
        return Ok((stdio, Opening { prepared, pending }));
    }
    let (child_stdin, stdin) = match stdin {
        None => (None, None),
        Some(path) => {
            let (read, write) = pipe(owner)?;
            (Some(read), Some((path, Some(write))))
        }
    };
    // A logger reads both pipes itself; containerd gives the same URI for stdout and stderr.
    if let Some(Target::Logger(uri)) = &out {
        let (out_read, stdout) = pipe(owner)?;
        let (err_read, stderr) = pipe(owner)?;
        let logger = Logger::start(uri, owner, Some(out_read), Some(err_read), registry).await?;
        let stdio = Stdio::Pipes { stdin: child_stdin, stdout: Some(stdout), stderr: Some(stderr) };
        let prepared = Prepared { stdin, outputs: Vec::new(), console: None, logger: Some(logger) };
        return Ok((stdio, Opening { prepared, pending: Vec::new() }));
    }
    let mut pending = Vec::new();
    let mut child = [None, None];
    for ((target, stream), slot) in [(out, "stdout"), (err, "stderr")].into_iter().zip(&mut child) {
        if let Some(target) = target {
            let (read, write) = pipe(owner)?;
            pending.push((target, stream, Some(read)));
            *slot = Some(write);
        }
    }
    let [stdout, stderr] = child;
    Ok((
        Stdio::Pipes { stdin: child_stdin, stdout, stderr },
        Opening { prepared: Prepared { stdin, outputs: Vec::new(), console: None, logger: None }, pending },
    ))
}

fn pipe(owner: Owner<'_>) -> Result<(OwnedFd, OwnedFd), IoError> {
    let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(|e| IoError::Pipe(e.into()))?;
    if owner.uid != 0 || owner.gid != 0 {
        for end in [&read, &write] {
            // In a user namespace the workload reopens /dev/stdout, which needs the pipe to be its own.
            nix::unistd::fchown(end, Some(owner.uid.into()), Some(owner.gid.into()))
                .map_err(|e| IoError::Pipe(e.into()))?;
        }
    }
    Ok((read, write))
}
