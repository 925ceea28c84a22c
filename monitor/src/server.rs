//! The socket, and the loop around it.

use std::io::{self, IoSlice, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg, sockopt};

use super::answer::{self, Answer, Then};
use super::protocol::{HEADER, Request, STATES, State, change, response};
use super::subject::Subject;

/// Who connects and then says nothing must not keep others waiting.
const PATIENCE: Duration = Duration::from_secs(2);
/// Clients that wait for a state at the same time.
const MOST: usize = 64;
/// How often it is looked at whether a state was reached that somebody waits for.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Why nobody answers for a container.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Somebody does already.
    #[error("the command socket of {0} is in use: something answers for it already")]
    InUse(String),
    /// The kernel refuses.
    #[error("answer for {name}: {source}")]
    Socket {
        /// Of the container.
        name: String,
        /// What it said.
        source: io::Error,
    },
}

/// The open socket.
#[derive(Debug)]
pub struct Listener {
    subject: Subject,
    socket: UnixListener,
    waiting: Vec<(UnixStream, [bool; STATES])>,
}

/// Takes a container's address. Whoever makes the container does, so that it can be asked for as soon as it is there.
///
/// # Errors
/// See [`Error`].
pub fn bind(path: &Path, name: &str) -> Result<UnixListener, Error> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::AddrInUse => Error::InUse(name.to_owned()),
        _ => Error::Socket { name: name.to_owned(), source },
    };
    let address = address(&path.display().to_string(), name).map_err(failed)?;
    UnixListener::bind_addr(&address).map_err(failed)
}

impl Listener {
    /// For a container whose address is taken.
    #[must_use]
    pub fn new(subject: Subject, socket: UnixListener) -> Self {
        Self { subject, socket, waiting: Vec::new() }
    }

    /// Answers until the container has ended.
    ///
    /// # Errors
    /// When the kernel refuses to wait.
    pub fn serve(mut self) -> Result<(), Error> {
        loop {
            let (ended, asked) = self
                .wait()
                .map_err(|source| Error::Socket { name: self.subject.name.clone(), source: source.into() })?;
            if ended {
                self.tell(State::Stopped);
                return Ok(());
            }
            if asked && let Ok((client, _)) = self.socket.accept() {
                // A client that fails has only itself to tell.
                self.attend(client).ok();
            }
            if !self.waiting.is_empty() {
                self.tell(self.subject.state());
            }
        }
    }

    fn wait(&self) -> rustix::io::Result<(bool, bool)> {
        let mut fds =
            [PollFd::new(&self.subject.pidfd, PollFlags::IN), PollFd::new(&self.socket, PollFlags::IN)];
        let timeout =
            if self.waiting.is_empty() { None } else { Some(LOOK_EVERY.try_into().unwrap_or_default()) };
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error),
        }
        let [ended, asked] = fds.map(|fd| !fd.revents().is_empty());
        Ok((ended, asked))
    }

    fn attend(&mut self, mut client: UnixStream) -> io::Result<()> {
        client.set_read_timeout(Some(PATIENCE))?;
        client.set_write_timeout(Some(PATIENCE))?;
        // An abstract socket has no mode: anybody in this network namespace can connect.
        if !sockopt::socket_peercred(&client)?.uid.is_root() {
            let refused = Answer { code: -libc::EPERM, ..Answer::default() };
            return send(&client, refused);
        }
        let mut header = [0; HEADER];
        client.read_exact(&mut header)?;
        let request = Request::parse(&header).ok_or(io::ErrorKind::InvalidData)?;
        let mut payload = vec![0; request.payload];
        client.read_exact(&mut payload)?;
        match answer::to(&self.subject, &request, &payload) {
            Then::Answer(answer) => send(&client, answer),
            Then::Close => Ok(()),
            Then::Wait(answer, wanted) => {
                send(&client, answer)?;
                if self.waiting.len() < MOST {
                    self.waiting.push((client, wanted));
                }
                Ok(())
            }
        }
    }

    /// Tells those who wait for it.
    fn tell(&mut self, state: State) {
        let message = change(&self.subject.name, state);
        self.waiting.retain_mut(|(client, wanted)| {
            if !wanted.get(state as usize).copied().unwrap_or(false) {
                return true;
            }
            io::Write::write_all(client, &message).ok();
            false
        });
    }
}

/// Address of a container's command socket: `\0<lxcpath>/<name>/command`, without a zero at the end (lxc
/// `src/lxc/commands_utils.c`).
///
/// # Errors
/// When it is longer than the address of a socket may be.
pub(crate) fn address(path: &str, name: &str) -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(format!("{path}/{name}/command"))
}

fn send(client: &UnixStream, answer: Answer) -> io::Result<()> {
    let Answer { code, number, payload, descriptor } = answer;
    let header = response(code, payload.len(), number);
    let fds: Vec<BorrowedFd<'_>> = descriptor.iter().map(AsFd::as_fd).collect();
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        ancillary.push(SendAncillaryMessage::ScmRights(&fds));
    }
    sendmsg(client, &[IoSlice::new(&header)], &mut ancillary, SendFlags::NOSIGNAL)?;
    // liblxc reads header and payload apart.
    if payload.is_empty() { Ok(()) } else { io::Write::write_all(&mut &*client, &payload) }
}
