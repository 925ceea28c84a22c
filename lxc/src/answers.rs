//! What the first process of a container says while it gets ready, and what the host does then: mappings of ids, hooks.

use std::fs;
use std::io::{self, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use cryopod_init::hooks::run_all;
use cryopod_init::report::Report;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::Pid;

use crate::hooks::Hooks;
use crate::making::{Error, Request, host};
use crate::plan::lines;
use crate::sys::spawn;

/// Listens until it is ready; answers its PID. `child` is the process that was made, which may have made the first one beside
/// itself and ended.
pub(crate) fn wait(
    request: &Request<'_>,
    hooks: &Hooks,
    mut report: UnixStream,
    child: Pid,
) -> Result<u32, Error> {
    let mut patience = Some(request.patience);
    loop {
        let Some((pid, said)) = hear(&mut report, patience.take())? else { return Err(ended(child)) };
        match said {
            Report::Ready | Report::Running { .. } => {
                // The one that only made it, if there was one.
                spawn::ended(child);
                return Ok(pid);
            }
            Report::Failed { message, errno } => return Err(Error::Inside { message, errno }),
            Report::Unmapped => {
                map(request, pid)?;
                go_on(&mut report, pid)?;
            }
            Report::Entered => {
                run_all(&hooks.create_runtime, pid).map_err(|error| Error::Inside {
                    message: error.to_string(),
                    errno: error.source.raw_os_error(),
                })?;
                go_on(&mut report, pid)?;
                if !hooks.create_container.is_empty() {
                    // They have no limit but their own.
                    continue;
                }
            }
            Report::Hooked => {}
        }
        patience = Some(request.patience);
    }
}

fn go_on(report: &mut UnixStream, pid: u32) -> Result<(), Error> {
    host("let", "the container go on", report.write_all(&pid.to_ne_bytes()))
}

/// What it says next, and its PID, which the kernel says with the message; `None` when it has gone.
fn hear(report: &mut UnixStream, patience: Option<Duration>) -> Result<Option<(u32, Report)>, Error> {
    host("wait for", "the container", report.set_read_timeout(patience))?;
    let heard = sender(report).and_then(|pid| Ok(pid.zip(Report::hear(report)?)));
    match heard {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            Err(Error::TooLong(patience.unwrap_or_default()))
        }
        // It died with something of ours unread.
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(None),
        heard => host("hear of", "the container", heard),
    }
}

/// Who sent what is to be heard next, as this process sees it; `None` at the end of the stream.
fn sender(report: &UnixStream) -> io::Result<Option<u32>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let pieces = &mut [IoSliceMut::new(&mut byte)];
    let seen = loop {
        match recvmsg(report, pieces, &mut ancillary, RecvFlags::PEEK) {
            Err(rustix::io::Errno::INTR) => {}
            seen => break seen?,
        }
    };
    if seen.bytes == 0 {
        return Ok(None);
    }
    let of = |message| match message {
        RecvAncillaryMessage::ScmCredentials(user) => Some(user.pid.as_raw_nonzero().get().unsigned_abs()),
        _ => None,
    };
    Ok(ancillary.drain().find_map(of))
}

/// Who is who in its user namespace; a file takes all lines at once, and once only.
fn map(request: &Request<'_>, pid: u32) -> Result<(), Error> {
    let linux = request.spec.linux().as_ref();
    for (file, mappings) in [
        ("uid_map", linux.and_then(|linux| linux.uid_mappings().as_ref())),
        ("gid_map", linux.and_then(|linux| linux.gid_mappings().as_ref())),
    ] {
        let path = format!("/proc/{pid}/{file}");
        host("write", &path, fs::write(&path, lines(mappings)))?;
    }
    Ok(())
}

fn ended(child: Pid) -> Error {
    let how = spawn::ended(child).map_or_else(
        || "it is gone".to_owned(),
        |status| match (status.exit_status(), status.terminating_signal()) {
            (_, Some(signal)) => format!("signal {signal}"),
            // That is the one which only made it.
            (Some(code), _) if code != 0 => format!("exit code {code}"),
            _ => "it is gone".to_owned(),
        },
    );
    Error::Ended { how }
}
