//! etcd, API server, controller manager and scheduler as processes of this host.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::{Error, at, pki};
use crate::node::process_start;
use crate::progress::Step;

/// It answers within seconds; this is for a busy host.
const READY: Duration = Duration::from_secs(180);
const ENDS: Duration = Duration::from_secs(20);

/// The parts, in the order of their start.
const PARTS: [&str; 4] = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"];

/// What is written down of a running control plane.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Ports {
    api: u16,
    etcd: u16,
    etcd_peer: u16,
}

/// Starts what does not run; returns the API server's port.
pub(super) fn start(dir: &Path, programs: &Path) -> Result<u16, Error> {
    start_parts(dir, programs, &PARTS)
}

/// The API server and its etcd alone: objects stay as they are written.
pub(super) fn start_server(dir: &Path, programs: &Path) -> Result<u16, Error> {
    start_parts(dir, programs, &PARTS[..2])
}

fn start_parts(dir: &Path, programs: &Path, parts: &[&'static str]) -> Result<u16, Error> {
    let step = Step::begin("starting the control plane".to_owned(), Some("10 seconds"));
    for folder in ["log", "run"] {
        let folder = dir.join(folder);
        fs::create_dir_all(&folder).map_err(at("make", &folder))?;
    }
    pki::ensure(dir, &step)?;
    let ports = ports(dir)?;
    let server = format!("https://127.0.0.1:{}", ports.api);
    let pki = dir.join("pki");
    for name in ["kube-controller-manager", "kube-scheduler"] {
        pki::kubeconfig(&server, &pki, name, &dir.join(format!("{name}.conf")))?;
    }
    pki::kubeconfig(&server, &pki, "admin", &dir.join("admin.conf"))?;
    for &part in parts {
        launch(dir, programs, part, &arguments(dir, part, ports))?;
        if part == "kube-apiserver" {
            ready(dir, programs, &step)?;
        }
    }
    step.done();
    Ok(ports.api)
}

fn ports(dir: &Path) -> Result<Ports, Error> {
    let path = dir.join("ports.json");
    if let Ok(text) = fs::read_to_string(&path)
        && let Ok(ports) = serde_json::from_str(&text)
    {
        return Ok(ports);
    }
    let [api, etcd, etcd_peer] = free_ports().map_err(at("find a free port for", &path))?;
    let ports = Ports { api, etcd, etcd_peer };
    let text = serde_json::to_string(&ports).unwrap_or_default();
    fs::write(&path, text).map_err(at("write", &path))?;
    Ok(ports)
}

/// Ports of this host that nobody listens on, all found at once, so that they differ.
pub(super) fn free_ports<const N: usize>() -> io::Result<[u16; N]> {
    let listeners: Vec<TcpListener> =
        (0..N).map(|_| TcpListener::bind(("127.0.0.1", 0))).collect::<Result<_, _>>()?;
    let mut ports = [0; N];
    for (port, listener) in ports.iter_mut().zip(&listeners) {
        *port = listener.local_addr()?.port();
    }
    Ok(ports)
}

fn arguments(dir: &Path, part: &str, ports: Ports) -> Vec<String> {
    let pki = |file: &str| dir.join("pki").join(file).display().to_string();
    let config = dir.join(format!("{part}.conf")).display().to_string();
    let etcd = format!("http://127.0.0.1:{}", ports.etcd);
    match part {
        "etcd" => vec![
            format!("--data-dir={}", dir.join("etcd").display()),
            format!("--listen-client-urls={etcd}"),
            format!("--advertise-client-urls={etcd}"),
            format!("--listen-peer-urls=http://127.0.0.1:{}", ports.etcd_peer),
            // The data is thrown away; a shared disk's fsync would be most of the time.
            "--unsafe-no-fsync".to_owned(),
        ],
        "kube-apiserver" => vec![
            format!("--etcd-servers={etcd}"),
            format!("--secure-port={}", ports.api),
            "--bind-address=127.0.0.1".to_owned(),
            "--advertise-address=10.0.2.2".to_owned(),
            format!("--client-ca-file={}", pki("ca.crt")),
            format!("--tls-cert-file={}", pki("apiserver.crt")),
            format!("--tls-private-key-file={}", pki("apiserver.key")),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            format!("--service-account-key-file={}", pki("sa.pub")),
            format!("--service-account-signing-key-file={}", pki("sa.key")),
            "--authorization-mode=Node,RBAC".to_owned(),
            "--enable-admission-plugins=NodeRestriction".to_owned(),
            "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
            "--allow-privileged=true".to_owned(),
            format!("--kubelet-client-certificate={}", pki("admin.crt")),
            format!("--kubelet-client-key={}", pki("admin.key")),
            "--kubelet-preferred-address-types=InternalIP".to_owned(),
            // For aggregated APIs: how it tells them who asks.
            format!("--proxy-client-cert-file={}", pki("front-proxy.crt")),
            format!("--proxy-client-key-file={}", pki("front-proxy.key")),
            format!("--requestheader-client-ca-file={}", pki("ca.crt")),
            "--requestheader-allowed-names=front-proxy".to_owned(),
            "--requestheader-username-headers=X-Remote-User".to_owned(),
            "--requestheader-group-headers=X-Remote-Group".to_owned(),
            "--requestheader-extra-headers-prefix=X-Remote-Extra-".to_owned(),
        ],
        "kube-controller-manager" => vec![
            format!("--kubeconfig={config}"),
            format!("--authentication-kubeconfig={config}"),
            format!("--authorization-kubeconfig={config}"),
            format!("--service-account-private-key-file={}", pki("sa.key")),
            format!("--root-ca-file={}", pki("ca.crt")),
            "--use-service-account-credentials=true".to_owned(),
            "--leader-elect=false".to_owned(),
            "--secure-port=0".to_owned(),
        ],
        _ => vec![
            format!("--kubeconfig={config}"),
            format!("--authentication-kubeconfig={config}"),
            format!("--authorization-kubeconfig={config}"),
            "--leader-elect=false".to_owned(),
            "--secure-port=0".to_owned(),
        ],
    }
}

/// Starts a part of the cluster as a process of its own, unless it runs. A program that is not in `programs` is one of
/// this host.
pub(super) fn launch(
    dir: &Path,
    programs: &Path,
    part: &'static str,
    arguments: &[String],
) -> Result<(), Error> {
    if running(dir, part).is_some() {
        return Ok(());
    }
    let path = log(dir, part);
    let file = File::options().create(true).append(true).open(&path).map_err(at("write", &path))?;
    let again = file.try_clone().map_err(at("write", &path))?;
    let built = programs.join(part);
    let program = if built.exists() { built } else { PathBuf::from(part) };
    let mut command = Command::new(program);
    command.args(arguments).current_dir(dir);
    // A group of its own: it outlives this command, and the terminal's Ctrl-C is not meant for it.
    command.process_group(0).stdin(Stdio::null()).stdout(file).stderr(again);
    let child = command.spawn().map_err(|source| Error::Start { program: part, source })?;
    let pid = i32::try_from(child.id()).unwrap_or_default();
    let note = format!("{pid} {}", process_start(pid).unwrap_or_default());
    let path = dir.join("run").join(part);
    fs::write(&path, note).map_err(at("write", &path))
}

/// The process of a part, if it is still that one.
pub(super) fn running(dir: &Path, part: &str) -> Option<Pid> {
    let note = fs::read_to_string(dir.join("run").join(part)).ok()?;
    let (pid, started) = note.trim().split_once(' ')?;
    let pid: i32 = pid.parse().ok()?;
    (process_start(pid)?.to_string() == started).then(|| Pid::from_raw(pid))
}

/// What a part says.
pub(super) fn log(dir: &Path, part: &str) -> PathBuf {
    dir.join("log").join(part)
}

fn ready(dir: &Path, programs: &Path, step: &Step) -> Result<(), Error> {
    let end = Instant::now() + READY;
    loop {
        let mut ask = Command::new(programs.join("kubectl"));
        ask.arg("--kubeconfig").arg(dir.join("admin.conf")).args(["get", "--raw", "/readyz"]);
        if ask.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success()) {
            return Ok(());
        }
        for part in ["etcd", "kube-apiserver"] {
            if running(dir, part).is_none() {
                let log = log(dir, part);
                return Err(Error::Ended { program: part, said: tail(&log), log });
            }
        }
        if Instant::now() > end {
            return Err(Error::Late { seconds: READY.as_secs(), log: log(dir, "kube-apiserver") });
        }
        step.detail("waiting for the API server");
        thread::sleep(Duration::from_millis(200));
    }
}

/// The end of a log.
pub(super) fn tail(path: &Path) -> String {
    let read = || -> io::Result<String> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(2000)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    read().unwrap_or_default()
}

/// Ends all parts, the last started first.
pub(super) fn stop(dir: &Path) -> Result<(), Error> {
    for part in PARTS.iter().rev() {
        end(dir, part);
    }
    Ok(())
}

/// Ends one part by SIGTERM; a process that does not go is killed.
pub(super) fn end(dir: &Path, part: &str) {
    let late = Instant::now() + ENDS;
    while let Some(pid) = running(dir, part) {
        let signal = if Instant::now() > late { Signal::SIGKILL } else { Signal::SIGTERM };
        // Gone in between is what is wanted.
        kill(pid, signal).ok();
        // Our own child, if this command has started it.
        nix::sys::wait::waitpid(pid, Some(nix::sys::wait::WaitPidFlag::WNOHANG)).ok();
        thread::sleep(Duration::from_millis(50));
    }
    fs::remove_file(dir.join("run").join(part)).ok();
}
