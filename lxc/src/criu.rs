//! The command lines of CRIU, which is called directly: liblxc's own way in (`lxc-checkpoint`) captures the pod's network
//! as if it were the container's and restores into the cgroup of the original (docs/adr).
//!
//! What the caller has put into `CRIU_CONFIG_FILE` (action script, ghost limit, network lock …) reaches CRIU by the
//! environment. What crun and runc decide for CRIU is decided here.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Name by which CRIU is found in PATH.
pub const PROGRAM: &str = "criu";
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

/// Arguments in the making.
#[derive(Debug, Default)]
struct Argv(Vec<OsString>);

impl Argv {
    fn word(&mut self, word: impl Into<OsString>) -> &mut Self {
        self.0.push(word.into());
        self
    }

    fn pair(&mut self, name: &str, value: impl Into<OsString>) -> &mut Self {
        self.word(name).word(value)
    }

    fn when(&mut self, given: bool, word: &str) -> &mut Self {
        if given {
            self.word(word);
        }
        self
    }

    fn places(&mut self, images: &Path, work: &Path, log: &str) -> &mut Self {
        self.pair("--images-dir", images).pair("--work-dir", work).pair("--log-file", log).word("-v4")
    }
}

/// Arguments of a dump, or of one round before it.
#[must_use]
pub fn dump(pid: u32, cgroup: &Path, externals: &Externals, options: &DumpOptions) -> Vec<OsString> {
    let mut argv = Argv::default();
    argv.word(if options.pre_dump { "pre-dump" } else { "dump" }).pair("--tree", pid.to_string());
    argv.places(&options.images, &options.work, DUMP_LOG);
    // Also for a group that is frozen already: CRIU thaws it while it works, and leaves it frozen.
    argv.pair("--freeze-cgroup", cgroup).word("--manage-cgroups=soft");
    argv.when(options.leave_running && !options.pre_dump, "--leave-running")
        .when(options.tcp_established, "--tcp-established")
        .when(options.file_locks, "--file-locks")
        .when(options.external_sockets, "--ext-unix-sk")
        .when(options.shell_job, "--shell-job");
    if let Some(parent) = &options.parent {
        argv.pair("--prev-images-dir", parent);
    }
    argv.when(options.pre_dump || options.parent.is_some(), "--track-mem");
    for (kind, inode, name) in [("net", externals.network, NETWORK), ("pid", externals.pids, PIDS)] {
        if let Some(inode) = inode {
            argv.pair("--external", format!("{kind}[{inode}]:{name}"));
        }
    }
    for (point, name) in &externals.mounts {
        argv.pair("--external", format!("mnt[{}]:{name}", point.display()));
    }
    argv.0
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
    /// File for the PID of its first process.
    pub pid_file: PathBuf,
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
}

/// Arguments of a restore. The first process becomes the caller's child (`--restore-sibling`).
#[must_use]
pub fn restore(target: &Target, options: &RestoreOptions) -> Vec<OsString> {
    let mut argv = Argv::default();
    argv.word("restore").places(&options.images, &options.work, RESTORE_LOG);
    argv.pair("--root", &target.root).pair("--pidfile", &target.pid_file);
    argv.word("--restore-detached").word("--restore-sibling").word("--manage-cgroups=soft");
    argv.pair("--cgroup-root", Path::new("/").join(&target.cgroup));
    argv.when(options.tcp_established, "--tcp-established")
        .when(options.file_locks, "--file-locks")
        .when(options.external_sockets, "--ext-unix-sk")
        .when(options.shell_job, "--shell-job");
    for (fd, name) in [(target.network, NETWORK), (target.pids, PIDS)] {
        if let Some(fd) = fd {
            argv.pair("--inherit-fd", format!("fd[{fd}]:{name}"));
        }
    }
    for (fd, pipe) in &target.streams {
        argv.pair("--inherit-fd", format!("fd[{fd}]:{pipe}"));
    }
    for (kind, path) in &target.join {
        argv.pair("--join-ns", format!("{kind}:{}", path.display()));
    }
    for (name, source) in &target.mounts {
        argv.pair("--external", format!("mnt[{name}]:{}", source.display()));
    }
    argv.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(argv: &[OsString]) -> String {
        argv.iter().map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
    }

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
            images: "/i".into(),
            work: "/w".into(),
            ..DumpOptions::default()
        };
        assert_eq!(
            text(&dump(7, Path::new("/sys/fs/cgroup/pod/c"), &externals, &options)),
            "dump --tree 7 --images-dir /i --work-dir /w --log-file dump.log -v4 \
             --freeze-cgroup /sys/fs/cgroup/pod/c --manage-cgroups=soft --leave-running --tcp-established \
             --file-locks --external net[4026]:extRootNetNS --external mnt[/run/secrets]:/var/run/secrets"
        );
    }

    #[test]
    fn rounds_before_a_dump_track_memory_and_so_does_the_dump() {
        let round = DumpOptions { pre_dump: true, leave_running: true, ..DumpOptions::default() };
        let line = text(&dump(7, Path::new("/c"), &Externals::default(), &round));
        assert!(line.starts_with("pre-dump ") && line.ends_with("--track-mem"), "{line}");
        assert!(!line.contains("--leave-running"), "{line}");
        let last = DumpOptions { parent: Some("../1".into()), ..DumpOptions::default() };
        let line = text(&dump(7, Path::new("/c"), &Externals::default(), &last));
        assert!(line.ends_with("--prev-images-dir ../1 --track-mem"), "{line}");
        let only = text(&dump(7, Path::new("/c"), &Externals::default(), &DumpOptions::default()));
        assert!(!only.contains("--track-mem"), "{only}");
    }

    #[test]
    fn a_restore_says_where_everything_goes() {
        let target = Target {
            root: "/r".into(),
            pid_file: "/w/pid".into(),
            cgroup: "pod/c".into(),
            network: Some(9),
            join: vec![("uts", "/proc/5/ns/uts".into())],
            mounts: vec![("/data".into(), "/srv/data".into())],
            streams: vec![(10, "pipe:[77]".into())],
            ..Target::default()
        };
        let options =
            RestoreOptions { images: "/i".into(), work: "/w".into(), file_locks: true, ..Default::default() };
        assert_eq!(
            text(&restore(&target, &options)),
            "restore --images-dir /i --work-dir /w --log-file restore.log -v4 --root /r --pidfile /w/pid \
             --restore-detached --restore-sibling --manage-cgroups=soft --cgroup-root /pod/c --file-locks \
             --inherit-fd fd[9]:extRootNetNS --inherit-fd fd[10]:pipe:[77] --join-ns uts:/proc/5/ns/uts \
             --external mnt[/data]:/srv/data"
        );
    }
}
