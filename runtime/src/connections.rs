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

use cryopod_checkpoint::target::TcpPolicy;

use crate::namespace;
use crate::spec::Spec;

/// `st` of /proc/net/tcp (include/net/tcp_states.h): what has no peer or no owner any more.
const WITHOUT_PEER: [&str; 4] = ["06", "07", "0A", "0C"];

/// The network namespace of this process, for containers that have none of their own.
const OWN: &str = "/proc/self/ns/net";

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

/// What becomes of the connections of a container that is restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Whether CRIU is to keep them.
    pub tcp: TcpPolicy,
    /// Why they are closed although they were wanted, in one sentence.
    pub note: Option<String>,
}

/// Whether connections with these own addresses go on in a container with this specification: if they are wanted, and
/// all of them can. Where there are none nothing is lost by `Close`, which never makes a restore fail.
pub fn on_restore(wanted: TcpPolicy, connected: &[IpAddr], spec: &Spec) -> Verdict {
    let closed = |note| Verdict { tcp: TcpPolicy::Close, note };
    if wanted == TcpPolicy::Close || connected.is_empty() {
        return closed(None);
    }
    let fits = match spec.namespace_path("network") {
        Some(path) => fit(connected, path).map_err(|error| format!("{}: {error}", path.display())),
        // One that the runtime is going to make: it has no address but loopback's.
        None if spec.has_namespace("network") => Ok(connected.iter().all(IpAddr::is_loopback)),
        None => fit(connected, Path::new(OWN)).map_err(|error| format!("{OWN}: {error}")),
    };
    match fits {
        Ok(true) => Verdict { tcp: TcpPolicy::Keep, note: None },
        Ok(false) => {
            let own: Vec<String> = connected.iter().map(IpAddr::to_string).collect();
            let own = own.join(", ");
            closed(Some(format!("TCP connections are closed: not all of {own} are addresses of it here")))
        }
        Err(why) => {
            closed(Some(format!("TCP connections are closed: its addresses here cannot be read: {why}")))
        }
    }
}

/// Whether connections with these own addresses can go on in the network namespace at `netns`.
///
/// # Errors
/// When the namespace cannot be asked for its addresses.
fn fit(connected: &[IpAddr], netns: &Path) -> io::Result<bool> {
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

    fn spec(network: &str) -> Spec {
        Spec::from_value(
            serde_json::from_str(&format!("{{\"linux\":{{\"namespaces\":[{network}]}}}}")).unwrap(),
        )
    }

    const NEW: &str = r#"{"type":"network"}"#;

    #[test]
    fn connections_are_kept_where_they_are_wanted_and_all_of_them_can_go_on() {
        let (loopback, other) = ("127.0.0.1".parse().unwrap(), "192.0.2.1".parse().unwrap());
        let kept = on_restore(TcpPolicy::Keep, &[loopback], &spec(NEW));
        assert_eq!(kept, Verdict { tcp: TcpPolicy::Keep, note: None });
        let closed = on_restore(TcpPolicy::Keep, &[loopback, other], &spec(NEW));
        assert_eq!(closed.tcp, TcpPolicy::Close);
        assert!(closed.note.unwrap().contains("192.0.2.1"));
    }

    #[test]
    fn nobody_is_told_of_connections_that_were_not_wanted_or_not_there() {
        let closed = Verdict { tcp: TcpPolicy::Close, note: None };
        assert_eq!(on_restore(TcpPolicy::Close, &["127.0.0.1".parse().unwrap()], &spec(NEW)), closed);
        assert_eq!(on_restore(TcpPolicy::Keep, &[], &spec(NEW)), closed);
    }

    #[test]
    fn a_network_that_cannot_be_looked_at_closes_them_and_is_named() {
        let gone = spec(r#"{"type":"network","path":"/nowhere"}"#);
        let closed = on_restore(TcpPolicy::Keep, &["192.0.2.1".parse().unwrap()], &gone);
        assert_eq!(closed.tcp, TcpPolicy::Close);
        assert!(closed.note.unwrap().contains("/nowhere"));
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
