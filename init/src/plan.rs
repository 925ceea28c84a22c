//! What the runtime asks of the container's first process, and of further ones: the OCI spec with everything resolved
//! that only the host can know. JSON over a descriptor; both sides come from one build.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Everything that the first process does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// How it gets into namespaces and root; `None` where it is started inside of them.
    pub enter: Option<Enter>,
    /// What the container sees where.
    pub files: Files,
    /// UTS name, if the container has a UTS namespace of its own.
    pub hostname: Option<String>,
    /// NIS name, likewise.
    pub domainname: Option<String>,
    /// `/proc/sys` entries by their dotted names.
    pub sysctl: BTreeMap<String, String>,
    /// OCI `startContainer` hooks, run right before the process.
    pub hooks: Vec<Hook>,
    /// What it becomes.
    pub process: Process,
}

/// How a process of the host gets into the container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enter {
    /// Absolute path of the root on the host.
    pub root: PathBuf,
    /// Namespaces that it joins: inherited descriptors, in this order.
    pub join: Vec<i32>,
    /// `CLONE_NEW*` of the namespaces that are the container's own.
    pub new: u32,
    /// Whether they can only be made by a process beside this one.
    pub second: bool,
    /// Whether it is in a user namespace, its own or another's.
    pub user: bool,
    /// Clocks of a time namespace, in the lines of `/proc/PID/timens_offsets`.
    pub clocks: String,
    /// Whether it gets a session keyring of its own.
    pub keyring: bool,
    /// Whether hooks are run before the root is changed.
    pub gate: bool,
    /// OCI `createContainer` hooks, run then, after those of the host.
    pub hooks: Vec<Hook>,
}

/// The file system of the container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Files {
    /// In the order of the spec.
    pub mounts: Vec<Mount>,
    /// Device nodes.
    pub devices: Vec<Device>,
    /// Whether `/dev` is the container's own, so that nodes and links belong into it.
    pub own_dev: bool,
    /// Whether nodes cannot be made and are bound from the descriptors in `devices`: in a user namespace.
    pub bind_devices: bool,
    /// Hidden paths.
    pub masked: Vec<PathBuf>,
    /// Paths that cannot be written.
    pub readonly: Vec<PathBuf>,
    /// Whether the root is read-only in the end.
    pub readonly_root: bool,
    /// Propagation of the root, as MS_* flags; 0 leaves it.
    pub root_propagation: u64,
}

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// Absolute path in the container.
    pub destination: PathBuf,
    /// What is mounted.
    pub what: What,
    /// How.
    pub options: crate::options::Options,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum What {
    /// A piece of the host's tree, cloned by the host (open_tree(2)) since the container may not reach its path.
    Tree {
        /// Inherited descriptor.
        fd: i32,
        /// Whether its root is a directory.
        directory: bool,
    },
    /// A new file system.
    Filesystem {
        /// Its type, e.g. `tmpfs`.
        fstype: String,
        /// Its source, mostly a name only.
        source: String,
    },
    /// A new `proc` or `sysfs`, made before the root is changed: a user namespace gets one only where it sees one.
    Early {
        /// Its type.
        fstype: String,
    },
}

/// A device node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// Absolute path in the container.
    pub path: PathBuf,
    /// `S_IFCHR`, `S_IFBLK` or `S_IFIFO`, with the permission bits.
    pub mode: u32,
    /// Of the node.
    pub major: u32,
    /// Of the node.
    pub minor: u32,
    /// Owner in the container.
    pub uid: u32,
    /// Group in the container.
    pub gid: u32,
    /// The host's node, cloned, where nodes cannot be made.
    pub fd: Option<i32>,
}

/// A program to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hook {
    /// Absolute path.
    pub path: PathBuf,
    /// With its name at first.
    pub args: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// In seconds.
    pub timeout: Option<u32>,
    /// Given on its standard input: OCI state, as JSON.
    pub state: String,
}

/// The process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Process {
    /// Exactly these, with no shell in between.
    pub args: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// Absolute.
    pub cwd: PathBuf,
    /// User, and what comes with it.
    pub user: User,
    /// The five sets.
    pub capabilities: Capabilities,
    /// Soft and hard, by resource number.
    pub rlimits: Vec<Rlimit>,
    /// `PR_SET_NO_NEW_PRIVS`.
    pub no_new_privileges: bool,
    /// `/proc/self/oom_score_adj`; `None` inherits.
    pub oom_score_adj: Option<i32>,
    /// AppArmor profile from `execve` on.
    pub apparmor: Option<String>,
    /// System call filter.
    pub seccomp: Option<Seccomp>,
    /// A terminal, whose master goes over a socket.
    pub terminal: Option<Terminal>,
    /// I/O class and priority as `ioprio_set` takes them.
    pub io_priority: Option<i32>,
    /// `personality(2)`.
    pub personality: Option<u64>,
}

/// Who it runs as, in the ids of the container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// Real, effective, saved.
    pub uid: u32,
    /// Real, effective, saved.
    pub gid: u32,
    /// And nothing but these.
    pub additional_gids: Vec<u32>,
    /// `None` is 022.
    pub umask: Option<u32>,
}

/// Capability sets, one bit each by the kernel's numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Capabilities {
    /// What can ever be had.
    pub bounding: u64,
    /// What counts.
    pub effective: u64,
    /// What can be made effective.
    pub permitted: u64,
    /// What survives `execve` of a file that has it.
    pub inheritable: u64,
    /// What survives any `execve`.
    pub ambient: u64,
}

/// A resource limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rlimit {
    /// `RLIMIT_*`.
    pub resource: u32,
    /// In the resource's unit; `u64::MAX` is none.
    pub soft: u64,
    /// Likewise.
    pub hard: u64,
}

/// A compiled filter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seccomp {
    /// `SECCOMP_FILTER_FLAG_*`.
    pub flags: u64,
    /// Instructions: code, jump if true, jump if false, operand.
    pub program: Vec<(u16, u8, u8, u32)>,
}

/// A terminal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Terminal {
    /// Connected unix socket that the master is sent over.
    pub socket: i32,
    /// Columns; 0 leaves it.
    pub width: u16,
    /// Rows.
    pub height: u16,
    /// Whether it is also `/dev/console`.
    pub console: bool,
}
