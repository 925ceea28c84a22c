//! Opening what containerd named, before the runtime makes the process.

use std::os::fd::OwnedFd;

use cryopod_runtime::backend::Stdio;
use nix::fcntl::OFlag;

use super::console::Console;
use super::logger::Logger;
use super::target::{Opened, Target};
use super::{IoError, Output, Owner, Prepared, StdioPaths};
use crate::exits::Registry;

/// Opens what `paths` name and makes the pipes; the returned [`Stdio`] goes to the backend.
///
/// Waits for a reader of each output fifo, as containerd's shim does, within bounds.
///
/// # Errors
/// See [`IoError`]; then everything is closed again.
pub async fn prepare(
    paths: &StdioPaths,
    owner: Owner<'_>,
    registry: &Registry,
) -> Result<(Stdio, Prepared), IoError> {
    let stdin = match Target::parse(&paths.stdin)? {
        None => None,
        Some(Target::Fifo(path) | Target::File(path)) => Some(path),
        Some(Target::Logger(uri)) => return Err(IoError::Malformed(uri.path.display().to_string())),
    };
    let (out, err) = (Target::parse(&paths.stdout)?, Target::parse(&paths.stderr)?);
    if paths.terminal {
        let console = Console::listen()?;
        let stdio = Stdio::Terminal { console_socket: console.path().to_owned() };
        let mut outputs = Vec::new();
        let mut logger = None;
        match out {
            Some(Target::Logger(uri)) => {
                let (read, write) = pipe(owner)?;
                logger = Some(Logger::start(&uri, owner, Some(read), None, registry).await?);
                outputs.push(Output { to: Opened::Fifo(write, None), from: None });
            }
            Some(target) => outputs.push(Output { to: target.open("stdout").await?, from: None }),
            None => {}
        }
        let stdin = stdin.map(|path| (path, None));
        return Ok((stdio, Prepared { stdin, outputs, console: Some(console), logger }));
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
        return Ok((stdio, Prepared { stdin, outputs: Vec::new(), console: None, logger: Some(logger) }));
    }
    let mut outputs = Vec::new();
    let mut child = [None, None];
    for ((target, stream), slot) in [(out, "stdout"), (err, "stderr")].into_iter().zip(&mut child) {
        if let Some(target) = target {
            let to = target.open(stream).await?;
            let (read, write) = pipe(owner)?;
            outputs.push(Output { to, from: Some(read) });
            *slot = Some(write);
        }
    }
    let [stdout, stderr] = child;
    Ok((
        Stdio::Pipes { stdin: child_stdin, stdout, stderr },
        Prepared { stdin, outputs, console: None, logger: None },
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
