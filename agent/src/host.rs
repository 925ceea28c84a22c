//! `cryopod-agent host`: from a container onto its node.
//!
//! A DaemonSet's container begins with this verb. It puts the programs of its image on the node ([`programs`]), enters the
//! namespaces of the node's first process, and becomes the node's own copy of the agent there: with the node's `zfs`, `criu`,
//! sockets and paths, in the pod's cgroup and with the pod's signals (ADR 13). What the container alone has, the pod's access
//! to the API server, is found again on the node by its device number.

pub(crate) mod at_work;
pub mod programs;

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use nix::sched::{CloneFlags, setns};
use serde_json::json;

/// Where pods find their access.
const ACCOUNT: &[&str] =
    &["/var/run/secrets/kubernetes.io/serviceaccount", "/run/secrets/kubernetes.io/serviceaccount"];
const KUBECONFIG: &str = "/run/cryopod/agent/kubeconfig";
/// Where packages put the agent.
const INSTALLED: &[&str] = &["/usr/bin/cryopod-agent", "/usr/local/bin/cryopod-agent"];

/// Goes on as a process of the node. For containers with hostPID and CAP_SYS_ADMIN, CAP_SYS_CHROOT and CAP_SYS_PTRACE.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Use the programs that a package has put on the node.
    #[arg(long, conflicts_with_all = ["bin_dir", "lib_dir"])]
    installed: bool,
    /// Folder of the node that gets links to the programs.
    #[arg(long, default_value = "/usr/local/bin", value_name = "DIR")]
    bin_dir: PathBuf,
    /// Folder of the node that gets a folder per version.
    #[arg(long, default_value = "/usr/local/lib/cryopod", value_name = "DIR")]
    lib_dir: PathBuf,
    /// Verb and arguments for the agent there.
    #[arg(last = true, required = true)]
    arguments: Vec<String>,
}

/// Why it did not get there.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Process 1 is the container's own, or we are on the node already.
    #[error(
        "the first process here is not a node's: a container needs hostPID; on a node itself, call the verb without `host`"
    )]
    NoHost,
    /// No package.
    #[error(
        "no cryopod-agent in {0} of the node: install the package cryopod-agent, or let the chart do it (install.binaries)"
    )]
    NotInstalled(String),
    /// A namespace.
    #[error("cannot enter the node's {what} namespace ({errno}): the container has to be privileged")]
    Enter {
        /// Which one.
        what: &'static str,
        /// What the kernel said.
        errno: nix::Error,
    },
    /// A file.
    #[error("cannot {what} {}: {source}", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The programs.
    #[error(transparent)]
    Programs(#[from] programs::Error),
}

/// The verb; returns only if it fails.
pub fn run(options: &Options) -> ExitCode {
    match execute(options) {
        Ok(never) => match never {},
        Err(error) => {
            eprintln!("cryopod-agent host: {error}");
            ExitCode::FAILURE
        }
    }
}

fn execute(options: &Options) -> Result<std::convert::Infallible, Error> {
    let same = |link: &str| fs::read_link(link).ok();
    if same("/proc/1/ns/mnt").is_none_or(|host| Some(host) == same("/proc/self/ns/mnt")) {
        return Err(Error::NoHost);
    }
    let own = read("/proc/self/mountinfo")?;
    let account = service_account(&own, &read("/proc/1/mountinfo")?);
    let own = std::env::current_exe().map_err(at("find", "/proc/self/exe"))?;
    let payload = own.parent().unwrap_or(Path::new("/")).to_owned();
    let payload = File::open(&payload).map_err(at("open", &payload))?;
    enter()?;
    let agent = if options.installed {
        let there = INSTALLED.iter().map(Path::new).find(|path| path.exists());
        there.ok_or_else(|| Error::NotInstalled(INSTALLED.join(" or ")))?.to_owned()
    } else {
        // By descriptor: the folder of the image has no path here.
        let payload = PathBuf::from(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&payload)));
        programs::install(&payload, &options.lib_dir, &options.bin_dir)?.join("cryopod-agent")
    };
    let mut command = Command::new(&agent);
    command.args(&options.arguments);
    if let Some(account) = account {
        let server = std::env::var("KUBERNETES_SERVICE_HOST").unwrap_or_default();
        let port = std::env::var("KUBERNETES_SERVICE_PORT").unwrap_or_else(|_| "443".into());
        write_kubeconfig(&kubeconfig(&server, &port, &account))?;
        command.arg(format!("--kubeconfig={KUBECONFIG}"));
    }
    Err(at("start", &agent)(command.exec()))
}

/// The namespaces of the node that its files and processes are seen by; network and process ids are the node's already.
fn enter() -> Result<(), Error> {
    let spaces = [
        ("cgroup", CloneFlags::CLONE_NEWCGROUP),
        ("uts", CloneFlags::CLONE_NEWUTS),
        ("ipc", CloneFlags::CLONE_NEWIPC),
        // Last, since it takes the container's /proc away.
        ("mnt", CloneFlags::CLONE_NEWNS),
    ];
    for (what, flag) in spaces {
        let path = format!("/proc/1/ns/{what}");
        let space = File::open(&path).map_err(at("open", &path))?;
        setns(&space, flag).map_err(|errno| Error::Enter { what, errno })?;
    }
    Ok(())
}

/// The folder of the node that is mounted as the pod's access, by both mount tables.
fn service_account(own: &str, host: &str) -> Option<PathBuf> {
    fn fields(line: &str) -> Option<(&str, &str, &str)> {
        let mut words = line.split(' ').skip(2);
        Some((words.next()?, words.next()?, words.next()?))
    }
    let mut mounts = own.lines().filter_map(fields);
    let (device, root, _) = mounts.find(|(_, _, point)| ACCOUNT.contains(point))?;
    let mut there = host.lines().filter_map(fields).filter(|it| (it.0, it.1) == (device, root));
    there.next().map(|(_, _, point)| PathBuf::from(point))
}

/// JSON, which is YAML. Token and certificate are named, not copied: kubelet renews them.
fn kubeconfig(server: &str, port: &str, account: &Path) -> String {
    let server = if server.contains(':') { format!("[{server}]") } else { server.to_owned() };
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "node",
        "clusters": [{"name": "cluster", "cluster": {
            "server": format!("https://{server}:{port}"),
            "certificate-authority": account.join("ca.crt"),
        }}],
        "users": [{"name": "agent", "user": {"tokenFile": account.join("token")}}],
        "contexts": [{"name": "node", "context": {"cluster": "cluster", "user": "agent"}}],
    })
    .to_string()
}

fn write_kubeconfig(text: &str) -> Result<(), Error> {
    let path = Path::new(KUBECONFIG);
    let dir = path.parent().unwrap_or(Path::new("/"));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(at("create", dir))?;
    // Renamed, since the agent of another pod may be reading it; each has a file of its own until then.
    let half = path.with_extension(std::process::id().to_string());
    let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&half);
    file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(at("write", &half))?;
    fs::rename(&half, path).map_err(at("write", path))
}

fn read(path: &str) -> Result<String, Error> {
    fs::read_to_string(path).map_err(at("read", path))
}

fn at(what: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Error {
    let path = path.as_ref().to_owned();
    move |source| Error::File { what, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "\
        1 0 0:50 / / ro - overlay overlay rw\n\
        2 1 0:51 / /proc rw - proc proc rw\n\
        3 1 0:99 / /var/run/secrets/kubernetes.io/serviceaccount ro - tmpfs tmpfs rw\n";
    const HOST: &str = "\
        1 0 8:1 / / rw - ext4 /dev/sda1 rw\n\
        2 1 0:98 / /var/lib/kubelet/pods/a/volumes/kubernetes.io~projected/kube-api-access-x rw - tmpfs tmpfs rw\n\
        3 1 0:99 / /var/lib/kubelet/pods/b/volumes/kubernetes.io~projected/kube-api-access-y rw - tmpfs tmpfs rw\n";

    #[test]
    fn the_access_of_the_pod_is_found_on_the_node() {
        let found = service_account(OWN, HOST).unwrap();
        assert!(found.ends_with("pods/b/volumes/kubernetes.io~projected/kube-api-access-y"), "{found:?}");
        assert_eq!(service_account(HOST, OWN), None);
        assert_eq!(service_account(OWN, ""), None);
        assert_eq!(service_account("short line\n", "\n"), None);
    }

    #[test]
    fn the_file_names_token_and_server() {
        let text = kubeconfig("fd00::1", "443", Path::new("/a"));
        let file = kube::config::Kubeconfig::from_yaml(&text).unwrap();
        let server = file.clusters[0].cluster.as_ref().unwrap().server.clone();
        assert_eq!(server.as_deref(), Some("https://[fd00::1]:443"));
        assert_eq!(file.auth_infos[0].auth_info.as_ref().unwrap().token_file.as_deref(), Some("/a/token"));
    }
}
