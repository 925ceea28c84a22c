//! The other side of the command socket, as liblxc's own tools are.

use std::io::{self, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(5);

/// `LXC_CMD_GET_STATE`.
const GET_STATE: i32 = 3;
/// `LXC_CMD_GET_INIT_PID`.
const GET_INIT_PID: i32 = 4;

/// A container on which somebody answers.
#[derive(Debug, Clone, Copy)]
pub struct Client<'a> {
    /// Directory of the containers (`lxcpath`).
    pub path: &'a str,
    /// The container.
    pub name: &'a str,
}

impl Client<'_> {
    /// PID of its first process.
    ///
    /// # Errors
    /// `ConnectionRefused` when nobody answers for it: it does not run, or its monitor is gone.
    pub fn init_pid(&self) -> io::Result<u32> {
        let (_, number) = self.ask(GET_INIT_PID)?;
        u32::try_from(number).ok().filter(|pid| *pid > 0).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// State, as liblxc numbers it.
    ///
    /// # Errors
    /// As with [`Client::init_pid`].
    pub fn state(&self) -> io::Result<u64> {
        self.ask(GET_STATE).map(|(_, number)| number)
    }

    fn ask(&self, command: i32) -> io::Result<(i32, u64)> {
        let mut socket = UnixStream::connect_addr(&SocketAddr::from_abstract_name(format!(
            "{}/{}/command",
            self.path, self.name
        ))?)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        let mut request = [0; 16];
        for (byte, part) in request.iter_mut().zip(command.to_ne_bytes()) {
            *byte = part;
        }
        socket.write_all(&request)?;
        let mut response = [0; 16];
        socket.read_exact(&mut response)?;
        let [c0, c1, c2, c3, _, _, _, _, number @ ..] = response;
        let code = i32::from_ne_bytes([c0, c1, c2, c3]);
        if code < 0 {
            return Err(io::Error::from_raw_os_error(-code));
        }
        Ok((code, u64::from_ne_bytes(number)))
    }
}
