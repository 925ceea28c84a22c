//! The network lock that a killed criu leaves: a table `inet CRIU-<id>` that drops every packet of the namespace.
//!
//! Looked for and removed by netlink from a thread that has joined the namespace, so neither the `nft` command nor a
//! helper process is needed. The iptables chain `CRIU` of images made elsewhere is removed with iptables, if it exists.
//! Wire format: linux/netlink.h, linux/netfilter/nf_tables.h.

mod wire;

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use cryopod_command::{Command, Limits};
use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, setsockopt, socket,
    sockopt,
};
use nix::sys::time::TimeVal;

use super::CriuError;
use crate::namespace;
use wire::{Name, Reply};

/// What CRIU calls its tables (criu `netfilter.c`).
const PREFIX: &str = "CRIU-";
/// The kernel answers at once; this ends a wait for an answer that does not come.
const ANSWER_SECONDS: i64 = 5;

/// Removes CRIU's lock from a network namespace (`/proc/<pid>/ns/net` or a bind mount); returns what was removed.
/// A namespace that has gone is success.
pub fn remove(netns: &Path) -> Result<Vec<String>, CriuError> {
    match namespace::inside(netns, CloneFlags::CLONE_NEWNET, clean) {
        Err(error) if matches!(error.raw_os_error(), Some(nix::libc::ENOENT | nix::libc::ESRCH)) => {
            Ok(Vec::new())
        }
        Err(source) => Err(CriuError::NetLock { netns: netns.to_owned(), source }),
        Ok(removed) => Ok(removed),
    }
}

/// Works on the namespace of the calling thread.
fn clean() -> io::Result<Vec<String>> {
    let mut removed = Vec::new();
    let Some(socket) = Socket::open()? else { return Ok(removed) };
    for table in socket.tables()? {
        if table.family == wire::INET && table.name.starts_with(PREFIX) {
            socket.delete_table(&table)?;
            removed.push(format!("table inet {}", table.name));
        }
    }
    for (family, tool) in [(wire::IPV4, "iptables"), (wire::IPV6, "ip6tables")] {
        if socket.chains()?.iter().any(|chain| chain.family == family && chain.name == "CRIU") {
            iptables(tool)?;
            removed.push(format!("{tool} chain CRIU"));
        }
    }
    Ok(removed)
}

fn iptables(tool: &str) -> io::Result<()> {
    let limits = Limits::within(Duration::from_secs(30));
    let rules: &[&[&str]] =
        &[&["-D", "INPUT", "-j", "CRIU"], &["-D", "OUTPUT", "-j", "CRIU"], &["-F", "CRIU"], &["-X", "CRIU"]];
    for (index, rule) in rules.iter().enumerate() {
        let result = Command::new(tool).arg("-w").args(*rule).run(&limits);
        // A jump that is not there is no failure; a chain that stays is.
        if let Err(error) = result
            && index == rules.len() - 1
        {
            return Err(io::Error::other(error));
        }
    }
    Ok(())
}

struct Socket(OwnedFd);

impl Socket {
    /// `None` when this kernel has no netfilter netlink: then there is no lock either.
    fn open() -> io::Result<Option<Self>> {
        let protocol = SockProtocol::NetlinkNetFilter;
        match socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol) {
            Ok(fd) => {
                setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::new(ANSWER_SECONDS, 0))?;
                Ok(Some(Self(fd)))
            }
            Err(Errno::EPROTONOSUPPORT | Errno::EAFNOSUPPORT) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    fn tables(&self) -> io::Result<Vec<Name>> {
        self.dump(&wire::list_tables())
    }

    fn chains(&self) -> io::Result<Vec<Name>> {
        self.dump(&wire::list_chains())
    }

    fn dump(&self, request: &[u8]) -> io::Result<Vec<Name>> {
        self.send(request)?;
        let mut names = Vec::new();
        loop {
            for reply in self.receive()? {
                match reply {
                    Reply::Name(name) => names.push(name),
                    Reply::Done => return Ok(names),
                    Reply::Error(0) => {}
                    // Kernels without nf_tables do not know the request.
                    Reply::Error(errno) if unknown(errno) => return Ok(Vec::new()),
                    Reply::Error(errno) => return Err(io::Error::from_raw_os_error(errno)),
                }
            }
        }
    }

    fn delete_table(&self, table: &Name) -> io::Result<()> {
        self.send(&wire::delete_table(table))?;
        loop {
            for reply in self.receive()? {
                match reply {
                    // Someone else was faster.
                    Reply::Error(0) => return Ok(()),
                    Reply::Error(errno) if errno == nix::libc::ENOENT => return Ok(()),
                    Reply::Error(errno) => return Err(io::Error::from_raw_os_error(errno)),
                    Reply::Name(_) | Reply::Done => {}
                }
            }
        }
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        sendto(self.0.as_raw_fd(), bytes, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
        Ok(())
    }

    fn receive(&self) -> io::Result<Vec<Reply>> {
        let mut buffer = vec![0u8; 64 << 10];
        let length = recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        wire::parse(buffer.get(..length).unwrap_or_default())
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "malformed netlink answer"))
    }
}

fn unknown(errno: i32) -> bool {
    matches!(errno, nix::libc::EOPNOTSUPP | nix::libc::EINVAL | nix::libc::EPROTONOSUPPORT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_that_has_gone_needs_no_cleaning() {
        assert_eq!(remove(Path::new("/proc/4294967295/ns/net")).expect("gone"), Vec::<String>::new());
    }
}
