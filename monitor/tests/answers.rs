//! The monitor, asked in liblxc's words. That `lxc-info` and its like understand it is shown on the node.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod client;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;

use client::Client;
use cryopod_lxc_monitor::{Error, Listener, Subject, bind};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

struct Container {
    process: Child,
    dir: tempfile::TempDir,
    monitor: Option<JoinHandle<Result<(), Error>>>,
}

impl Container {
    fn run() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("cgroup.events"), "populated 1\nfrozen 0\n").unwrap();
        let process =
            Command::new("sleep").arg("1000").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let mut container = Self { process, dir, monitor: None };
        let socket = bind(container.dir.path(), "c1").unwrap();
        let listener = Listener::new(container.subject(), socket);
        container.monitor = Some(std::thread::spawn(move || listener.serve()));
        container
    }

    fn path(&self) -> String {
        self.dir.path().display().to_string()
    }

    fn subject(&self) -> Subject {
        let pid = Pid::from_child(&self.process);
        Subject {
            name: "c1".to_owned(),
            path: self.dir.path().to_owned(),
            pid: self.process.id(),
            pidfd: pidfd_open(pid, PidfdFlags::empty()).unwrap(),
            cgroup: self.dir.path().to_owned(),
            config: "lxc.uts.name = pod\nlxc.idmap = u 0 1 2\nlxc.idmap = g 0 1 2\nlxc.empty =\n".to_owned(),
            clone_flags: 0x2000_0000,
        }
    }

    fn connect(&self) -> UnixStream {
        let address = SocketAddr::from_abstract_name(format!("{}/c1/command", self.path())).unwrap();
        UnixStream::connect_addr(&address).unwrap()
    }

    /// Code, number, payload and descriptor of an answer.
    fn ask(&self, command: i32, payload: &[u8]) -> (i32, u64, Vec<u8>, Option<OwnedFd>) {
        let mut socket = self.connect();
        answer(&mut socket, command, payload).expect("it was closed without a word")
    }

    fn end(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        self.monitor.take().unwrap().join().unwrap().unwrap();
        let client = Client { path: &self.path(), name: "c1" };
        let error = client.state().unwrap_err().kind();
        // A process that another test starts may hold the socket for the moment between fork and exec.
        assert!(matches!(error, ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset), "{error}");
    }
}

fn answer(
    socket: &mut UnixStream,
    command: i32,
    payload: &[u8],
) -> Option<(i32, u64, Vec<u8>, Option<OwnedFd>)> {
    let length = i32::try_from(payload.len()).unwrap();
    let request = [command.to_ne_bytes().as_slice(), &length.to_ne_bytes(), &[0; 8], payload].concat();
    socket.write_all(&request).unwrap();
    let mut header = [0; 16];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [std::io::IoSliceMut::new(&mut header)];
    let got = recvmsg(&socket, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC).unwrap();
    if got.bytes == 0 {
        return None;
    }
    let descriptor = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    let number = |range: std::ops::Range<usize>| i32::from_ne_bytes(header[range].try_into().unwrap());
    let mut rest = vec![0; usize::try_from(number(4..8)).unwrap()];
    socket.read_exact(&mut rest).unwrap();
    Some((number(0..4), u64::from_ne_bytes(header[8..].try_into().unwrap()), rest, descriptor))
}

#[test]
fn it_says_what_lxc_info_and_lxc_attach_ask() {
    let container = Container::run();
    let path = container.path();
    let client = Client { path: &path, name: "c1" };
    assert_eq!(client.init_pid().unwrap(), container.process.id());
    assert_eq!(client.state().unwrap(), 2);
    assert_eq!(container.ask(5, b"").1, 0x2000_0000);
    assert_eq!(container.ask(7, b"lxc.uts.name\0").2, b"pod\0");
    assert_eq!(container.ask(7, b"lxc.idmap\0").2, b"u 0 1 2\ng 0 1 2\0");
    assert!(container.ask(7, b"lxc.empty\0").0 < 0 && container.ask(7, b"lxc.no\0").0 < 0);
    assert_eq!(container.ask(8, b"").2, b"c1\0");
    assert_eq!(container.ask(9, b"").2, [path.as_bytes(), b"\0"].concat());
    assert_eq!(container.ask(99, b"").0, -38);
    let (code, _, context, cgroup) = container.ask(23, &[0; 96]);
    assert_eq!(
        (code, context.len(), &context[..12]),
        (0, 96, [2, 0, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0].as_slice())
    );
    let cgroup = cgroup.expect("no descriptor of the cgroup");
    let link = fs::read_link(format!("/proc/self/fd/{}", cgroup.as_raw_fd())).unwrap();
    assert_eq!(link, container.dir.path());
    assert!(container.ask(18, b"").3.is_some(), "no descriptor of the first process");
    container.end();
}

#[test]
fn it_freezes_thaws_and_stops() {
    let container = Container::run();
    let file = |name: &str| fs::read_to_string(container.dir.path().join(name)).unwrap_or_default();
    assert_eq!(container.ask(15, b"").0, 0);
    assert_eq!(file("cgroup.freeze"), "1");
    fs::write(container.dir.path().join("cgroup.events"), "populated 1\nfrozen 1\n").unwrap();
    assert_eq!(container.ask(3, b"").1, 6);
    assert_eq!(container.ask(16, b"").0, 0);
    assert_eq!(file("cgroup.freeze"), "0");
    assert!(answer(&mut container.connect(), 2, b"").is_none(), "lxc-stop takes silence for success");
    assert_eq!(file("cgroup.kill"), "1");
    container.end();
}

#[test]
fn who_waits_for_its_end_hears_of_it_and_nobody_is_kept_waiting_by_others() {
    let container = Container::run();
    let mut wanted = [0_i32; 8];
    wanted[0] = 1;
    let wanted = wanted.map(i32::to_ne_bytes).concat();
    let mut waiting = container.connect();
    let (code, ..) = answer(&mut waiting, 10, &wanted).unwrap();
    assert_eq!(code, 8, "it has ended already");
    // Says nothing, or nonsense.
    let silent = container.connect();
    container.connect().write_all(&[0xff; 16]).unwrap();
    assert_eq!(container.ask(3, b"").1, 2);
    drop(silent);
    container.end();
    let mut message = Vec::new();
    waiting.read_to_end(&mut message).unwrap();
    assert_eq!(
        (message.len(), &message[..6], &message[260..]),
        (264, b"\0\0\0\0c1".as_slice(), [0; 4].as_slice())
    );
}

#[test]
fn there_is_one_for_each_container() {
    let container = Container::run();
    assert!(matches!(bind(container.dir.path(), "c1"), Err(Error::InUse(_))));
    container.end();
}
