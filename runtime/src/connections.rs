//! Established TCP connections of a pod, and whether they can go on where it is restored.
//!
//! CRIU closes all of them or none. One whose own address is not there any more makes the whole restore fail, so they are
//! kept only where every one of them can be: connections over loopback, or a pod that has its address again.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use nix::ifaddrs::getifaddrs;
use nix::sched::CloneFlags;

use crate::namespace;

/// `st` of /proc/net/tcp (include/net/tcp_states.h): what has no peer or no owner any more.
const WITHOUT_PEER: [&str; 4] = ["06", "07", "0A", "0C"];

/// The own addresses of the connections in the network namespace of a process, each once.
///
/// # Errors
/// When /proc cannot be read.
pub fn of_process(pid: u32) -> io::Result<Vec<IpAddr>> {
    let mut found = BTreeSet::new();
    for table in ["tcp", "tcp6"] {
        match std::fs::read_to_string(format!("/proc/{pid}/net/{table}")) {
            Ok(text) => found.extend(parse(&text)),
            // A kernel without IPv6.
            Err(error) if error.kind() == io::ErrorKind::NotFound && table == "tcp6" => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found.into_iter().collect())
}

fn parse(table: &str) -> impl Iterator<Item = IpAddr> {
    table.lines().skip(1).filter_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let (local, state) = (words.next()?, words.nth(1)?);
        if WITHOUT_PEER.contains(&state) {
            return None;
        }
        address(local.split(':').next()?)
    })
}

/// Words of four bytes in the machine's order.
fn address(hex: &str) -> Option<IpAddr> {
    let mut bytes = Vec::with_capacity(16);
    for at in (0..hex.len()).step_by(8) {
        bytes.extend(u32::from_str_radix(hex.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    }
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(|b| Ipv4Addr::from(b).into()),
        16 => <[u8; 16]>::try_from(bytes).ok().map(|b| Ipv6Addr::from(b).to_canonical()),
        _ => None,
    }
}

/// Whether connections with these own addresses can go on in the network namespace at `netns`.
///
/// # Errors
/// When the namespace cannot be asked for its addresses.
pub fn fit(connected: &[IpAddr], netns: &Path) -> io::Result<bool> {
    if connected.iter().all(IpAddr::is_loopback) {
        return Ok(true);
    }
    let there = addresses(netns)?;
    Ok(connected.iter().all(|own| own.is_loopback() || there.contains(own)))
}

fn addresses(netns: &Path) -> io::Result<BTreeSet<IpAddr>> {
    namespace::inside(netns, CloneFlags::CLONE_NEWNET, || {
        let mut found = BTreeSet::new();
        for interface in getifaddrs()? {
            let Some(address) = interface.address else { continue };
            found.extend(address.as_sockaddr_in().map(|v4| IpAddr::from(v4.ip())));
            found.extend(address.as_sockaddr_in6().map(|v6| IpAddr::from(v6.ip())));
        }
        Ok(found)
    })
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn only_connections_with_a_peer_count() {
        let table = "  sl  local_address rem_address   st tx_queue\n\
                     0: 0100007F:1B58 00000000:0000 0A 00000000:00000000\n\
                     1: 0100007F:1B58 0100007F:BE4A 01 00000000:00000000\n\
                     2: 2800580A:BE4A 0100007F:1B58 06 00000000:00000000\n\
                     3: 2800580A:BE4A 0100007F:1B58 08 00000000:00000000\n\
                     4: what\n";
        let found: Vec<IpAddr> = parse(table).collect();
        assert_eq!(found, ["127.0.0.1", "10.88.0.40"].map(|a| a.parse::<IpAddr>().unwrap()));
    }

    #[test]
    fn long_addresses_are_words_too() {
        let loopback = address("00000000000000000000000001000000").unwrap();
        assert_eq!(loopback, "::1".parse::<IpAddr>().unwrap());
        let mapped = address("0000000000000000FFFF00000100007F").unwrap();
        assert_eq!(mapped, "127.0.0.1".parse::<IpAddr>().unwrap());
        assert_eq!(address("0100007"), None);
        assert_eq!(address("01ü0007F"), None);
    }

    #[test]
    fn an_open_connection_is_seen_and_fits_where_it_is() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let connection = listener.accept().unwrap();
        let found = of_process(std::process::id()).unwrap();
        assert!(found.contains(&"127.0.0.1".parse().unwrap()), "{found:?}");
        drop(connection);
        client.read_to_end(&mut Vec::new()).unwrap();
        assert!(fit(&["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()], Path::new("/nowhere")).unwrap());
        assert!(fit(&["192.0.2.1".parse().unwrap()], Path::new("/nowhere")).is_err());
    }
}
