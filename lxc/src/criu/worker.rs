//! One `criu swrk`: a CRIU that gets its request, and says what becomes of it, over a socket that it inherits.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::{Child, Command, Stdio};

use rustix::io::FdFlags;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, SocketFlags, SocketType,
    recvmsg, send, socketpair,
};

use super::message::{Kind, Options, Response, go_on, request};

/// Name by which CRIU is found in PATH.
const PROGRAM: &str = "criu";
/// `CR_MAX_MSG_SIZE` of CRIU.
const LONGEST: usize = 1024 * 1024;
/// The notification that comes with the master of a terminal whose master is outside.
const TERMINAL: &str = "orphan-pts-master";

/// What CRIU did.
#[derive(Debug, Default)]
pub(super) struct Done {
    /// Whether it succeeded.
    pub(super) success: bool,
    /// What it said of a failure, besides its log.
    pub(super) error: String,
    /// First process that it restored.
    pub(super) pid: Option<u32>,
    /// Master of the terminal that it restored.
    pub(super) terminal: Option<OwnedFd>,
}

/// Lets CRIU do it, and waits until it is done.
///
/// # Errors
/// When CRIU cannot be started, or ends without an answer.
pub(super) fn work(kind: Kind, options: Options) -> io::Result<Done> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    rustix::io::fcntl_setfd(&theirs, FdFlags::empty())?;
    let mut criu = Command::new(PROGRAM);
    // The streams are the container's, and not CRIU's to write to.
    criu.args(["swrk", &theirs.as_raw_fd().to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let child =
        criu.spawn().map_err(|error| io::Error::new(error.kind(), format!("run {PROGRAM}: {error}")))?;
    drop(theirs);
    let done = talk(&ours, kind, options);
    // It ends when nobody is there any more.
    drop(ours);
    ended(child, done)
}

/// A CRIU without an answer has its status for a reason.
fn ended(mut child: Child, done: io::Result<Option<Done>>) -> io::Result<Done> {
    let status = child.wait()?;
    match done? {
        Some(done) => Ok(done),
        None => Err(io::Error::other(format!("{PROGRAM} ended without an answer ({status})"))),
    }
}

fn talk(socket: &OwnedFd, kind: Kind, options: Options) -> io::Result<Option<Done>> {
    let said = request(kind, options).map_err(io::Error::other)?;
    send(socket, &said, SendFlags::NOSIGNAL)?;
    let mut done = Done::default();
    let mut bytes = vec![0; LONGEST];
    loop {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = match recvmsg(
            socket.as_fd(),
            &mut [IoSliceMut::new(&mut bytes)],
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC,
        ) {
            Err(rustix::io::Errno::INTR) => continue,
            Err(rustix::io::Errno::CONNRESET) => return Ok(None),
            result => result?.bytes,
        };
        let descriptor = ancillary.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        let Some(text) = bytes.get(..received).filter(|text| !text.is_empty()) else { return Ok(None) };
        let response = Response::parse(text).map_err(io::Error::other)?;
        if response.kind == Kind::Notify as i32 {
            if response.script == TERMINAL {
                done.terminal = descriptor;
            }
            send(socket, &go_on().map_err(io::Error::other)?, SendFlags::NOSIGNAL)?;
            continue;
        }
        return Ok(Some(Done {
            success: response.success,
            error: response.error,
            pid: response.pid,
            ..done
        }));
    }
}
