//! Starts and ends QEMU.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill as send};
use nix::unistd::Pid;

use super::accelerator::Accelerator;
use super::error::at;
use super::{Error, Machine, Shape, disks};
use crate::cache::Cache;
use crate::image::Image;
use crate::lock::Lock;
use crate::node::{Node, State, process_start};

/// `panic=-1` with `-no-reboot`: a crashed kernel ends the emulator, and `up` says so at once.
const KERNEL_ARGUMENTS: &str =
    "console=ttyS0 loglevel=4 mitigations=off net.ifnames=0 panic=-1 systemd.ssh_auto=no";

/// Starts the machine on the disks that are in its folder.
pub(super) fn start(
    cache: &Cache,
    name: &str,
    image: &Image,
    shape: &Shape,
    before: Option<&State>,
) -> Result<Node, Error> {
    let dir = cache.node(name);
    let accelerator = Accelerator::find(cache, image);
    let sockets = cache.sockets();
    fs::create_dir_all(&sockets).map_err(at(&sockets))?;
    // Numbers and ports are taken under one lock for all nodes.
    let _lock = Lock::take(&cache.nodes().join(".lock"), "starting another node")?;
    let number = match before {
        Some(state) => state.number,
        None => free_number(cache)?,
    };
    let port = free_port().map_err(at(&dir))?;
    let pid_file = dir.join("pid");
    fs::remove_file(&pid_file).ok();
    fs::remove_file(dir.join("console.log")).ok();
    let mut command = Command::new("qemu-system-x86_64");
    command.args(["-name", &format!("cryopod-{name}"), "-machine", "q35"]).args(accelerator.arguments());
    command.args(["-smp", &shape.cpus.to_string(), "-m", &shape.memory_mib.to_string()]);
    command.arg("-kernel").arg(image.kernel()).arg("-initrd").arg(image.initrd());
    command.args([
        "-append",
        KERNEL_ARGUMENTS,
        "-no-reboot",
        "-display",
        "none",
        "-nodefaults",
        "-rtc",
        "base=utc",
    ]);
    command.arg("-serial").arg(format!("file:{}", dir.join("console.log").display()));
    command
        .arg("-monitor")
        .arg(format!("unix:{},server,nowait", sockets.join(format!("{name}.monitor")).display()));
    let cache_mode = if shape.power_cut { "writethrough" } else { "unsafe" };
    for (file, _) in disks::DISKS {
        // A comma in a path is written twice in the emulator's option syntax.
        let file = dir.join(file).display().to_string().replace(',', ",,");
        command.args([
            "-drive",
            &format!("file={file},if=virtio,format=qcow2,cache={cache_mode},discard=unmap"),
        ]);
    }
    command.args(["-netdev", &format!("user,id=user,hostfwd=tcp:127.0.0.1:{port}-:22")]);
    command.args(["-device", "virtio-net-pci,netdev=user"]);
    command.args(["-netdev", &format!("socket,id=nodes,mcast={},localaddr=127.0.0.1", network(cache))]);
    command.args(["-device", &format!("virtio-net-pci,netdev=nodes,mac=52:54:00:77:00:{number:02x}")]);
    command.args(["-device", "virtio-rng-pci", "-daemonize", "-pidfile"]).arg(&pid_file);
    command.stdin(Stdio::null());
    let output = command.output().map_err(at("qemu-system-x86_64"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(Error::Emulator { name: name.to_owned(), said });
    }
    let pid = read_pid(&pid_file)?;
    let state = State {
        number,
        ssh_port: port,
        pid,
        pid_started: process_start(pid).unwrap_or_default(),
        image: image.key.clone(),
        cpus: shape.cpus,
        memory_mib: shape.memory_mib,
        accelerator: accelerator.name().to_owned(),
        power_cut: shape.power_cut,
    };
    state.write(&dir)?;
    let node = Node::new(cache, name, state);
    // One left over from an earlier run leads nowhere.
    node.disconnect();
    Ok(node)
}

/// Ends the emulator; like pulling the plug.
pub(super) fn kill(state: &State) -> Result<(), Error> {
    let end = Instant::now() + Duration::from_secs(20);
    while state.is_running() {
        if let Err(errno) = send(Pid::from_raw(state.pid), Signal::SIGKILL)
            && (errno != nix::errno::Errno::ESRCH || Instant::now() > end)
        {
            return Err(Error::Kill { pid: state.pid, source: errno.into() });
        }
        thread::sleep(Duration::from_millis(30));
    }
    Ok(())
}

fn read_pid(path: &Path) -> Result<i32, Error> {
    let text = fs::read_to_string(path).map_err(at(path))?;
    text.trim().parse().map_err(|_| at(path)(std::io::Error::other(format!("not a process id: {text:?}"))))
}

fn free_number(cache: &Cache) -> Result<u8, Error> {
    let mut taken = Vec::new();
    for name in Machine::names(cache) {
        taken.extend(State::read(&cache.node(&name))?.map(|state| state.number));
    }
    (1..=250).find(|number| !taken.contains(number)).ok_or(Error::TooMany)
}

fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// The multicast group that carries the nodes' network; one for each cache.
fn network(cache: &Cache) -> String {
    let [a, b, c, d] = cache.fingerprint().to_be_bytes();
    let port = 20000 + u16::from_be_bytes([c, d]) % 10000;
    format!("239.77.{a}.{b}:{port}")
}
