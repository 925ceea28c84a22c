//! What the host needs: missing packages are installed with apt, and it is said which and why.
//!
//! The emulator of Debian 12 itself (QEMU 7.2) crashes the node's kernel with a double fault, so a newer one is taken
//! from backports, through an apt source of our own on the mirror that the host uses anyway.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use cryopod_command as command;

use crate::cache::Cache;
use crate::process;
use crate::progress::{Step, say};

const SOURCES: &str = "/etc/apt/sources.list.d/cryopod.sources";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
const OLDEST_QEMU: u32 = 8;
/// From 1.21 on, a Go fetches the version that a go.mod asks for.
const OLDEST_GO: u32 = 21;

/// A program, and the package that has it.
const NEEDED: &[(&str, &str)] = &[
    ("mmdebstrap", "mmdebstrap"),
    ("mke2fs", "e2fsprogs"),
    ("ssh", "openssh-client"),
    ("scp", "openssh-client"),
    ("ssh-keygen", "openssh-client"),
    ("xz", "xz-utils"),
    ("gzip", "gzip"),
    ("cc", "gcc"),
    ("tar", "tar"),
];

/// Why the host could not be made ready.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(
        "missing on this host: {packages}; install them and try again (only root can do it here, with apt)"
    )]
    NotRoot { packages: String },
    #[error("cannot write {path}: {source}")]
    Write { path: PathBuf, source: io::Error },
    #[error(
        "no Debian archive found in apt's configuration; name one in CRYOPOD_DEBIAN_ARCHIVE: the node is built from its packages"
    )]
    NoMirror,
    #[error(transparent)]
    Process(#[from] process::Error),
    #[error(transparent)]
    Command(#[from] command::Error),
}

/// Whether `program` is in PATH.
pub(crate) fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
        || ["/usr/sbin", "/sbin"].iter().any(|dir| Path::new(dir).join(program).is_file())
}

/// Installs what is missing to build and run nodes.
pub(crate) fn prepare(cache: &Cache) -> Result<(), Error> {
    let mut packages: Vec<&str> = Vec::new();
    for (program, package) in NEEDED {
        if !has(program) && !packages.contains(package) {
            packages.push(package);
        }
    }
    if !Path::new("/usr/lib/x86_64-linux-gnu/libc.a").exists() {
        packages.push("libc6-dev");
    }
    // On a host of another distribution.
    if !Path::new(KEYRING).exists() {
        packages.push("debian-archive-keyring");
    }
    let mut newer: Vec<&str> = Vec::new();
    if qemu_major().is_none_or(|major| major < OLDEST_QEMU) {
        newer.extend(["qemu-system-x86", "qemu-utils"]);
    }
    if go_minor().is_none_or(|minor| minor < OLDEST_GO) {
        newer.push("golang-go");
    }
    if packages.is_empty() && newer.is_empty() {
        return Ok(());
    }
    if !nix::unistd::geteuid().is_root() {
        packages.extend(newer);
        return Err(Error::NotRoot { packages: packages.join(" ") });
    }
    let release = release();
    let backports = release.as_deref() == Some("bookworm") && !newer.is_empty();
    if backports {
        add_backports(&mirror()?)?;
    }
    let log = cache.root().join("log/host.log");
    let step =
        Step::begin(format!("installing on this host: {} {}", packages.join(" "), newer.join(" ")), None);
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive").args(["-q", "-y"]).args(arguments);
        process::logged(command, &step, "installing packages", &log)
    };
    apt(&["update"])?;
    let install = ["install", "--no-install-recommends"];
    if !packages.is_empty() {
        apt(&[&install[..], &packages].concat())?;
    }
    if backports {
        apt(&[&install[..], &["-t", "bookworm-backports"], &newer].concat())?;
    } else if !newer.is_empty() {
        apt(&[&install[..], &newer].concat())?;
    }
    step.done();
    Ok(())
}

/// Installs what the control plane of a test cluster needs beside the programs that are built for it.
pub(crate) fn prepare_cluster(cache: &Cache) -> Result<(), Error> {
    install(cache, &[("etcd", "etcd-server"), ("openssl", "openssl"), ("ip", "iproute2")])
}

/// Installs what watches a test cluster beside the programs that are built for it.
pub(crate) fn prepare_monitoring(cache: &Cache) -> Result<(), Error> {
    install(cache, &[("prometheus", "prometheus"), ("curl", "curl")])
}

/// Installs the packages of programs that are missing.
pub(crate) fn install(cache: &Cache, needed: &[(&str, &str)]) -> Result<(), Error> {
    let missing: Vec<&str> =
        needed.iter().filter(|(program, _)| !has(program)).map(|(_, package)| *package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !nix::unistd::geteuid().is_root() {
        return Err(Error::NotRoot { packages: missing.join(" ") });
    }
    let log = cache.root().join("log/host.log");
    let step = Step::begin(format!("installing on this host: {}", missing.join(" ")), None);
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        // Debian starts a server that it installs; the tests have their own.
        command
            .env("DEBIAN_FRONTEND", "noninteractive")
            .env("RUNLEVEL", "1")
            .args(["-q", "-y"])
            .args(arguments);
        process::logged(command, &step, "installing packages", &log)
    };
    apt(&["update"])?;
    apt(&[&["install", "--no-install-recommends"][..], &missing].concat())?;
    step.done();
    Ok(())
}

fn qemu_major() -> Option<u32> {
    if !has("qemu-img") {
        return None;
    }
    let output = Command::new("qemu-system-x86_64").arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split("version ").nth(1)?.split('.').next()?.parse().ok()
}

fn go_minor() -> Option<u32> {
    let output = Command::new("go").arg("version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split("go1.").nth(1)?.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

fn release() -> Option<String> {
    let text = fs::read_to_string("/etc/os-release").ok()?;
    text.lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
        .map(|name| name.trim_matches('"').to_owned())
}

/// Names Debian's archive where apt does not, as on a host of another distribution.
const ARCHIVE: &str = "CRYOPOD_DEBIAN_ARCHIVE";

/// The archive that apt takes Debian from on this host, a URL that ends in `/debian`.
pub(crate) fn mirror() -> Result<String, Error> {
    if let Some(named) = std::env::var(ARCHIVE).ok().filter(|named| !named.is_empty()) {
        return Ok(named.trim_end_matches('/').to_owned());
    }
    let targets = command::Command::new("apt-get")
        .args(["indextargets", "--no-release-info", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)"])
        .run(&command::Limits::none())
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        .unwrap_or_default();
    let found = targets.lines().filter_map(|line| line.split(' ').next()).find(|uri| {
        let path = uri.trim_end_matches('/');
        path.ends_with("/debian")
    });
    found.map(|uri| uri.trim_end_matches('/').to_owned()).ok_or(Error::NoMirror)
}

fn add_backports(mirror: &str) -> Result<(), Error> {
    let text = format!(
        "# Written by `cargo xtask node`: the emulator of bookworm itself crashes the test node's kernel.\n\
         Types: deb\nURIs: {mirror}\nSuites: bookworm-backports\nComponents: main\nSigned-By: {KEYRING}\n"
    );
    if fs::read_to_string(SOURCES).is_ok_and(|there| there == text) {
        return Ok(());
    }
    say(&format!("adding the apt source {SOURCES} (bookworm-backports, for QEMU)"));
    fs::write(SOURCES, text).map_err(|source| Error::Write { path: SOURCES.into(), source })
}
