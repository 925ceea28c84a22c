//! How a monitor gets what it answers for. It may be started before the container is there, since loading a program takes
//! longer than telling it something: it waits on its standard input, a socket, for one message.
//!
//! ```text
//! PID of the container's first process, 4 bytes in the machine's order; with it the listening socket (SCM_RIGHTS)
//! ```
//!
//! The end of the stream means that there is no container.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

/// Tells a monitor what it answers for.
///
/// # Errors
/// When it is not there any more.
pub fn give(monitor: &UnixStream, pid: u32, socket: UnixListener) -> io::Result<()> {
    let socket = OwnedFd::from(socket);
    let fds = [socket.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(&fds));
    sendmsg(monitor, &[IoSlice::new(&pid.to_ne_bytes())], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Waits to be told; `None` if there is no container.
///
/// # Errors
/// For anything else that is said.
pub fn take(from: BorrowedFd<'_>) -> io::Result<Option<(u32, UnixListener)>> {
    let mut pid = [0; 4];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let pieces = &mut [IoSliceMut::new(&mut pid)];
    let got = loop {
        match recvmsg(from, pieces, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            got => break got?,
        }
    };
    let socket = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    match (got.bytes, socket) {
        (0, _) => Ok(None),
        (4, Some(socket)) => Ok(Some((u32::from_ne_bytes(pid), socket.into()))),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::SocketAddr;

    use super::*;

    #[test]
    fn what_is_given_is_taken_and_the_end_is_no_container() {
        let address = SocketAddr::from_abstract_name(format!("cryopod-test-{}", std::process::id())).unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        give(&ours, 4711, UnixListener::bind_addr(&address).unwrap()).unwrap();
        let (pid, socket) = take(theirs.as_fd()).unwrap().unwrap();
        assert_eq!(pid, 4711);
        let _client = UnixStream::connect_addr(&address).unwrap();
        socket.accept().unwrap();
        drop(ours);
        assert!(take(theirs.as_fd()).unwrap().is_none());
    }

    #[test]
    fn a_message_without_a_socket_is_refused() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        ours.write_all(&[1, 2, 3, 4]).unwrap();
        assert_eq!(take(theirs.as_fd()).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
