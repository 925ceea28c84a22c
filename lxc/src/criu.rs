//! What CRIU is asked for, which is called directly: liblxc's own way in (`lxc-checkpoint`) captures the pod's network
//! as if it were the container's and restores into the cgroup of the original (docs/adr).
//!
//! What the caller has put into `CRIU_CONFIG_FILE` (action script, ghost limit, network lock …) reaches CRIU by the
//! environment. What crun and runc decide for CRIU is decided here.

mod message;
mod worker;

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use message::{Kind, Options};
use worker::Done;

/// Its log in the working directory; where callers of runc and crun look.
pub const DUMP_LOG: &str = "dump.log";
/// Likewise.
pub const RESTORE_LOG: &str = "restore.log";
/// Where the container's streams led, in the images: as runc and crun have it.
pub const STREAMS: &str = "descriptors.json";

/// Names that CRIU gives to namespaces that are not the container's own.
const NETWORK: &str = "extRootNetNS";
const PIDS: &str = "extRootPidNS";

/// What `checkpoint` says besides the container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DumpOptions {
    /// Only the memory that changed, while the container runs on.
    pub pre_dump: bool,
    /// The container lives on.
    pub leave_running: bool,
    /// Established TCP connections are captured.
    pub tcp_established: bool,
    /// File locks.
    pub file_locks: bool,
    /// Unix sockets with a peer outside.
    pub external_sockets: bool,
    /// A session whose leader is outside.
    pub shell_job: bool,
    /// Directory of images.
    pub images: PathBuf,
    /// Working directory: log, statistics.
    pub work: PathBuf,
    /// Images of the round before, relative to `images`.
    pub parent: Option<PathBuf>,
}

/// What of a container is not its own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Externals {
    /// Inode of the network namespace that is given by path.
    pub network: Option<u64>,
    /// Of the PID namespace.
    pub pids: Option<u64>,
    /// Mounts from the host: mount point in the container, and the name that it has in the images.
    pub mounts: Vec<(PathBuf, String)>,
}

/// Dumps a tree of processes, or makes one round before a dump.
///
/// # Errors
/// When CRIU cannot be started, or fails; its log says why.
pub fn dump(pid: u32, cgroup: &Path, externals: &Externals, options: &DumpOptions) -> Result<(), Error> {
    let (images, work) = (opened(&options.images)?, opened(&options.work)?);
    let request = dump_request(pid, cgroup, externals, options, (images.as_raw_fd(), work.as_raw_fd()));
    let kind = if options.pre_dump { Kind::PreDump } else { Kind::Dump };
    let verb = if options.pre_dump { "pre-dump" } else { "dump" };
    done(verb, options.work.join(DUMP_LOG), worker::work(kind, request)).map(drop)
}

fn dump_request(
    pid: u32,
    cgroup: &Path,
    externals: &Externals,
    options: &DumpOptions,
    (images, work): (i32, i32),
) -> Options {
    let mut request = Options::new(images, work, DUMP_LOG);
    request.pid(pid);
    // Also for a group that is frozen already: CRIU thaws it while it works, and leaves it frozen.
    request.freeze_cgroup(cgroup.display().to_string());
    request.leave_running(options.leave_running && !options.pre_dump);
    request.tcp_established(options.tcp_established);
    request.file_locks(options.file_locks);
    request.external_sockets(options.external_sockets);
    request.shell_job(options.shell_job);
    // The master of a container's terminal is the shim's.
    request.orphan_terminals(true);
    if let Some(parent) = &options.parent {
        request.parent(parent.display().to_string());
    }
    request.track_memory(options.pre_dump || options.parent.is_some());
    for (kind, inode, name) in [("net", externals.network, NETWORK), ("pid", externals.pids, PIDS)] {
        if let Some(inode) = inode {
            request.external(format!("{kind}[{inode}]:{name}"));
        }
    }
    for (point, name) in &externals.mounts {
        request.external(format!("mnt[{}]:{name}", point.display()));
    }
    request
}

/// CRIU did not do it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It fails, and says why in its log.
    #[error("criu {verb} failed{said}; its log is {log}", log = log.display())]
    Failed {
        /// What it was to do.
        verb: &'static str,
        /// What it said besides its log.
        said: String,
        /// Where it has said more.
        log: PathBuf,
    },
    /// It cannot be asked.
    #[error("criu {verb}: {source}")]
    Unasked {
        /// What it was to do.
        verb: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// One of its directories.
    #[error("open {path}: {source}", path = path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

fn opened(path: &Path) -> Result<File, Error> {
    File::open(path).map_err(|source| Error::Directory { path: path.to_owned(), source })
}

fn done(verb: &'static str, log: PathBuf, done: io::Result<Done>) -> Result<Done, Error> {
    match done {
        Ok(done) if done.success => Ok(done),
        Ok(done) => {
            let said = if done.error.is_empty() { String::new() } else { format!(": {}", done.error.trim()) };
            Err(Error::Failed { verb, said, log })
        }
        Err(source) => Err(Error::Unasked { verb, source }),
    }
}

/// What `restore` says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RestoreOptions {
    /// Established TCP connections go on.
    pub tcp_established: bool,
    /// File locks.
    pub file_locks: bool,
    /// Unix sockets with a peer outside.
    pub external_sockets: bool,
    /// A session whose leader is outside.
    pub shell_job: bool,
    /// Directory of images.
    pub images: PathBuf,
    /// Working directory.
    pub work: PathBuf,
}

/// Where a container is put that comes back.
#[derive(Debug, Clone, Default)]
pub struct Target {
    /// Its root, a mount point.
    pub root: PathBuf,
    /// Its cgroup, below the root of the hierarchy.
    pub cgroup: PathBuf,
    /// Descriptors of namespaces given by path.
    pub network: Option<i32>,
    /// Likewise.
    pub pids: Option<i32>,
    /// Namespaces that are joined, by their paths: CRIU writes what the images hold into them.
    pub join: Vec<(&'static str, PathBuf)>,
    /// Mounts from the host: the name in the images, and the source now.
    pub mounts: Vec<(String, PathBuf)>,
    /// Streams: a descriptor of ours, and the name of the pipe in the images.
    pub streams: Vec<(i32, String)>,
    /// Whether it has a terminal, whose master is to come back.
    pub terminal: bool,
}

/// A container that is back.
#[derive(Debug)]
pub struct Restored {
    /// Its first process: a child of this one.
    pub pid: u32,
    /// Master of its terminal, if it has one.
    pub terminal: Option<OwnedFd>,
}

/// Restores a tree of processes.
///
/// # Errors
/// When CRIU cannot be started, or fails; its log says why.
pub fn restore(target: &Target, options: &RestoreOptions) -> Result<Restored, Error> {
    let (images, work) = (opened(&options.images)?, opened(&options.work)?);
    let request = restore_request(target, options, (images.as_raw_fd(), work.as_raw_fd()));
    let log = options.work.join(RESTORE_LOG);
    let done = done("restore", log.clone(), worker::work(Kind::Restore, request))?;
    let said = ": it names no process".to_owned();
    let pid = done.pid.ok_or(Error::Failed { verb: "restore", said, log })?;
    Ok(Restored { pid, terminal: done.terminal })
}

fn restore_request(target: &Target, options: &RestoreOptions, (images, work): (i32, i32)) -> Options {
    let mut request = Options::new(images, work, RESTORE_LOG);
    request.root(target.root.display().to_string());
    request.sibling();
    request.cgroup_root(Path::new("/").join(&target.cgroup).display().to_string());
    request.tcp_established(options.tcp_established);
    request.file_locks(options.file_locks);
    request.external_sockets(options.external_sockets);
    request.shell_job(options.shell_job);
    request.orphan_terminals(target.terminal);
    // It is handed over by a notification.
    request.notify(target.terminal);
    for (fd, name) in [(target.network, NETWORK), (target.pids, PIDS)] {
        if let Some(fd) = fd {
            request.inherit(name.to_owned(), fd);
        }
    }
    for (fd, pipe) in &target.streams {
        request.inherit(pipe.clone(), *fd);
    }
    for (kind, path) in &target.join {
        request.join(kind, path.display().to_string());
    }
    for (name, source) in &target.mounts {
        request.external(format!("mnt[{name}]:{}", source.display()));
    }
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dump_names_what_is_not_the_containers_own() {
        let externals = Externals {
            network: Some(4026),
            pids: None,
            mounts: vec![("/run/secrets".into(), "/var/run/secrets".into())],
        };
        let options = DumpOptions {
            leave_running: true,
            tcp_established: true,
            file_locks: true,
            ..DumpOptions::default()
        };
        let shown = dump_request(7, Path::new("/sys/fs/cgroup/pod/c"), &externals, &options, (5, 6)).shown();
        for (number, value) in [
            (1, "5"),
            (2, "7"),
            (3, "true"),
            (5, "true"),
            (8, "true"),
            (10, "dump.log"),
            (17, "6"),
            (34, "3"),
            (37, "net[4026]:extRootNetNS"),
            (37, "mnt[/run/secrets]:/var/run/secrets"),
            (44, "/sys/fs/cgroup/pod/c"),
        ] {
            assert!(shown.contains(&(number, value.to_owned())), "{number}={value} is not in {shown:?}");
        }
        assert!(!shown.iter().any(|(number, _)| [4, 7, 14, 15].contains(number)), "{shown:?}");
    }

    #[test]
    fn rounds_before_a_dump_track_memory_and_so_does_the_dump() {
        let of = |options: &DumpOptions| {
            dump_request(7, Path::new("/c"), &Externals::default(), options, (5, 6)).shown()
        };
        let yes = "true".to_owned();
        let round = of(&DumpOptions { pre_dump: true, leave_running: true, ..DumpOptions::default() });
        assert!(round.contains(&(15, yes.clone())) && !round.contains(&(3, yes.clone())), "{round:?}");
        let last = of(&DumpOptions { parent: Some("../1".into()), ..DumpOptions::default() });
        assert!(last.contains(&(15, yes)) && last.contains(&(14, "../1".to_owned())), "{last:?}");
    }

    #[test]
    fn a_restore_says_where_everything_goes() {
        let target = Target {
            root: "/r".into(),
            cgroup: "pod/c".into(),
            network: Some(9),
            join: vec![("uts", "/proc/5/ns/uts".into())],
            mounts: vec![("/data".into(), "/srv/data".into())],
            streams: vec![(10, "pipe:[77]".into())],
            terminal: true,
            ..Target::default()
        };
        let shown = restore_request(&target, &RestoreOptions::default(), (5, 6)).shown();
        for (number, value) in [
            (12, "true"),
            (13, "/r"),
            (25, "2=/pod/c"),
            (26, "true"),
            (27, "1=extRootNetNS 2=9"),
            (27, "1=pipe:[77] 2=10"),
            (37, "mnt[/data]:/srv/data"),
            (39, "1=uts 2=/proc/5/ns/uts"),
            (50, "true"),
        ] {
            assert!(shown.contains(&(number, value.to_owned())), "{number}={value} is not in {shown:?}");
        }
    }
}
