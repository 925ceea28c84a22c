//! `start`: finds the shim of the pod, or starts one and waits until it serves.
//!
//! The long-lived server is this same binary, executed again with the listening socket as descriptor 3 and a pipe
//! as descriptor 4. It writes [`READY`] there once it accepts requests; an end of file instead means that it died,
//! and `start` fails with its exit status rather than hand out a dead address. Nothing of containerd's pipes
//! reaches the server: containerd reads `start`'s output until the last holder has closed it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use containerd_shim_protos::shim::oci::Options as RuncOptions;
use cryopod_runtime::config::Level;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use protobuf::Message;

use crate::args::Args;
use crate::backends;
use crate::bootstrap::{self, BootstrapError, MAX_INPUT_BYTES, StartParams};
use crate::bundle::{Brief, BundleError};
use crate::called;
use crate::socket::{self, Claim};
use crate::sys;

/// What the server writes to descriptor 4 when it serves.
pub const READY: &[u8] = b"ok\n";

/// Descriptor of the listening socket in the server.
pub const SOCKET_FD: i32 = 3;
/// Descriptor of the readiness pipe in the server.
pub const READY_FD: i32 = 4;

/// A server answers within milliseconds; a loaded node may need seconds, and kubelet gives RunPodSandbox minutes.
const READY_WITHIN: Duration = Duration::from_secs(20);

/// `start` cannot hand out an address.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// stdin could not be read.
    #[error("read containerd's parameters from stdin: {0}")]
    Stdin(io::Error),
    /// The parameters make no sense.
    #[error(transparent)]
    Params(#[from] BootstrapError),
    /// The bundle's `config.json` is unusable.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The socket cannot be made.
    #[error("listen on {path}: {source}", path = path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The server process cannot be started.
    #[error("start the shim server: {0}")]
    Spawn(io::Error),
    /// It ended before it served.
    #[error("the shim server ended before it served ({status}): {said}")]
    Died {
        /// Exit status.
        status: String,
        /// What it said.
        said: String,
    },
    /// It neither serves nor ends.
    #[error("the shim server (pid {0}) does not serve after {READY_WITHIN:?}")]
    Slow(u32),
    /// containerd closed our stdout.
    #[error("answer containerd on stdout: {0}")]
    Stdout(io::Error),
}

/// Runs `start` with the bundle as working directory, as containerd does.
///
/// # Errors
/// See [`StartError`]; then no process and no socket is left.
pub fn start(args: &Args) -> Result<(), StartError> {
    let mut input = Vec::new();
    io::stdin().take(MAX_INPUT_BYTES).read_to_end(&mut input).map_err(StartError::Stdin)?;
    let params = bootstrap::parse_start_params(&input, args)?;
    let bundle = std::env::current_dir().map_err(StartError::Spawn)?;
    let group = Brief::read(&bundle)?.group(&params.id).to_owned();
    let path = socket::socket_path(params.socket_dir.as_deref(), &params.address, &params.namespace, &group);
    let address = format!("unix://{}", path.display());
    let reply = bootstrap::encode_reply(params.protocol, &address)?;
    match socket::claim(&path).map_err(|source| StartError::Socket { path: path.clone(), source })? {
        Claim::Served => {}
        Claim::Bound(listener) => {
            if let Err(error) = spawn_server(&params, &group, &bundle, &address, listener.as_fd()) {
                std::fs::remove_file(&path).ok();
                return Err(error);
            }
        }
    }
    io::stdout().write_all(&reply).and_then(|()| io::stdout().flush()).map_err(StartError::Stdout)
}

fn spawn_server(
    params: &StartParams,
    group: &str,
    bundle: &Path,
    address: &str,
    socket: std::os::fd::BorrowedFd<'_>,
) -> Result<(), StartError> {
    let (ready, tell_ready) =
        nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(|e| StartError::Spawn(e.into()))?;
    let mut command = Command::new(own_path());
    command
        .arg0(called::name())
        .args(["-namespace", &params.namespace, "-id", group, "-address", &params.address])
        .args(["-socket", address, "-bundle"])
        .arg(bundle);
    command
        .args(["-log-level", log_level(params).as_str()])
        .arg("serve")
        .env("TTRPC_ADDRESS", &params.ttrpc_address)
        // containerd's own: with it crun and runc would wait for the workload to report READY to systemd.
        .env_remove("NOTIFY_SOCKET")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    sys::prepare_child(&mut command, &[socket, tell_ready.as_fd()], sys::Session::Own);
    let mut child = command.spawn().map_err(StartError::Spawn)?;
    drop((command, tell_ready));
    adjust_oom_score(child.id());
    if let Some(cgroup) = shim_cgroup(params) {
        join_cgroup(&cgroup, child.id());
    }
    let said = read_until_ready(ready);
    match said {
        Some(said) if said == READY => Ok(()),
        Some(said) => {
            let status = child.wait().map_or_else(|e| e.to_string(), |status| status.to_string());
            Err(StartError::Died { status, said: String::from_utf8_lossy(&said).trim().to_owned() })
        }
        None => {
            child.kill().and_then(|()| child.wait()).ok();
            Err(StartError::Slow(child.id()))
        }
    }
}

/// Our own binary under its own name (`/proc/self/exe` would show as `exe` in ps), unless it was replaced.
pub fn own_path() -> PathBuf {
    std::env::current_exe().ok().filter(|path| path.exists()).unwrap_or_else(|| "/proc/self/exe".into())
}

/// Everything the server says up to [`READY`] or its end; `None` when it says nothing in time.
fn read_until_ready(pipe: std::os::fd::OwnedFd) -> Option<Vec<u8>> {
    let mut pipe = File::from(pipe);
    let mut said = Vec::new();
    let until = std::time::Instant::now() + READY_WITHIN;
    loop {
        let left = until.saturating_duration_since(std::time::Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, timeout) {
            Ok(0) => return None,
            Ok(_) => {}
            Err(nix::errno::Errno::EINTR) => continue,
            Err(_) => return Some(said),
        }
        let mut piece = [0; 512];
        match pipe.read(&mut piece) {
            Ok(0) | Err(_) => return Some(said),
            Ok(read) => said.extend_from_slice(piece.get(..read).unwrap_or_default()),
        }
        if said == READY {
            return Some(said);
        }
    }
}

/// One more than containerd's own: under memory pressure a shim goes before containerd, but after the workloads.
fn adjust_oom_score(pid: u32) {
    let parent = std::os::unix::process::parent_id();
    let Ok(score) = std::fs::read_to_string(format!("/proc/{parent}/oom_score_adj")) else { return };
    let Ok(score) = score.trim().parse::<i32>() else { return };
    // Without rights to lower it the inherited score stays, which is containerd's.
    std::fs::write(format!("/proc/{pid}/oom_score_adj"), (score + 1).min(1000).to_string()).ok();
}

/// As the configuration says, unless containerd asked for more.
fn log_level(params: &StartParams) -> Level {
    let configured = backends::log_level(params.options.as_ref());
    if params.debug { configured.max(Level::Debug) } else { configured }
}

/// `shim_cgroup` of runc's options, the only one that concerns the shim itself.
fn shim_cgroup(params: &StartParams) -> Option<String> {
    let any = params.options.as_ref().filter(|any| any.type_url.ends_with("runc.v1.Options"))?;
    RuncOptions::parse_from_bytes(&any.value).ok().map(|o| o.shim_cgroup).filter(|cgroup| !cgroup.is_empty())
}

fn join_cgroup(cgroup: &str, pid: u32) {
    let dir = Path::new("/sys/fs/cgroup").join(cgroup.trim_start_matches('/'));
    if dir.components().any(|part| part == std::path::Component::ParentDir) {
        return;
    }
    // Best effort as in containerd's shim: a shim outside of the wanted cgroup still serves.
    std::fs::create_dir_all(&dir)
        .and_then(|()| std::fs::write(dir.join("cgroup.procs"), pid.to_string()))
        .ok();
}

#[cfg(test)]
mod tests {
    use protobuf::well_known_types::any::Any;

    use super::*;
    use crate::bootstrap::Protocol;
    use crate::proto::cri::RuntimeOptions;

    fn params(debug: bool, body: &str) -> StartParams {
        let options = RuntimeOptions { config_body: body.into(), ..RuntimeOptions::default() };
        let mut any = Any::new();
        any.type_url = "runtimeoptions.v1.Options".to_owned();
        any.value = options.write_to_bytes().unwrap();
        StartParams {
            protocol: Protocol::Legacy,
            id: "x".to_owned(),
            namespace: "k8s.io".to_owned(),
            debug,
            address: String::new(),
            ttrpc_address: String::new(),
            socket_dir: None,
            options: Some(any),
        }
    }

    #[test]
    fn the_configuration_decides_how_much_is_logged_unless_containerd_debugs() {
        for (debug, body, expected) in [
            (false, "[log]\nlevel = \"warn\"\n", Level::Warn),
            (false, "[log]\nlevel = \"trace\"\n", Level::Trace),
            (true, "[log]\nlevel = \"warn\"\n", Level::Debug),
            (true, "[log]\nlevel = \"trace\"\n", Level::Trace),
            // What is wrong with it is said where it is needed.
            (false, "[log]\nlevel = \"loud\"\n", Level::Info),
        ] {
            assert_eq!(log_level(&params(debug, body)), expected, "{debug} {body}");
        }
    }
}
