//! Mount options as the OCI runtime spec and mount(8) spell them.

use serde::{Deserialize, Serialize};

/// Attributes of a mount, in the bits of `mount_setattr(2)`.
pub mod attr {
    /// No writing.
    pub const RDONLY: u64 = 0x1;
    /// No set-user-id.
    pub const NOSUID: u64 = 0x2;
    /// No devices.
    pub const NODEV: u64 = 0x4;
    /// No programs.
    pub const NOEXEC: u64 = 0x8;
    /// All bits of access times; 0 in it is `relatime`.
    pub const ATIME: u64 = 0x70;
    /// No access times.
    pub const NOATIME: u64 = 0x10;
    /// Every access.
    pub const STRICTATIME: u64 = 0x20;
    /// None for directories.
    pub const NODIRATIME: u64 = 0x80;
    /// Symbolic links are not followed.
    pub const NOSYMFOLLOW: u64 = 0x0020_0000;
}

/// What the options of one mount mean.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// Attributes to set on the mount.
    pub set: u64,
    /// Attributes to clear on the mount.
    pub clear: u64,
    /// Attributes to set on it and on all mounts below.
    pub set_below: u64,
    /// Attributes to clear on it and on all mounts below.
    pub clear_below: u64,
    /// MS_PRIVATE, MS_SLAVE, MS_SHARED or MS_UNBINDABLE, possibly with MS_REC; 0 leaves it.
    pub propagation: u64,
    /// Flags of the file system itself: MS_SYNCHRONOUS, MS_DIRSYNC, MS_MANDLOCK, MS_I_VERSION, MS_LAZYTIME, MS_SILENT.
    pub flags: u64,
    /// `bind` or `rbind`.
    pub bind: Option<Bind>,
    /// Files that an image has below the mount are copied into the new tmpfs (`tmpcopyup`).
    pub copy_up: bool,
    /// The mount is idmapped like the container, or below the mount as well.
    pub idmap: Option<Bind>,
    /// What only the file system understands, joined by commas.
    pub data: String,
}

/// How far down something reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bind {
    /// This mount alone.
    One,
    /// It and all below.
    Recursive,
}

/// What is no option of a file system: `mountOptions` of the runtime's features. containerd offers recursive read-only mounts
/// only with a runtime that names `rro`.
#[rustfmt::skip]
pub const KNOWN: &[&str] = &[
    "async", "atime", "bind", "defaults", "dev", "diratime", "dirsync", "exec", "idmap", "iversion",
    "lazytime", "loud", "mand", "noatime", "nodev", "nodiratime", "noexec", "noiversion", "nolazytime",
    "nomand", "norelatime", "nostrictatime", "nosuid", "nosymfollow", "private", "ratime", "rbind", "rdev",
    "rdiratime", "relatime", "rexec", "ridmap", "rnoatime", "rnodev", "rnodiratime", "rnoexec", "rnosuid",
    "rnosymfollow", "ro", "rprivate", "rrelatime", "rro", "rrw", "rshared", "rslave", "rstrictatime",
    "rsuid", "rsymfollow", "runbindable", "rw", "shared", "silent", "slave", "strictatime", "sync",
    "tmpcopyup",
];

/// An option that means something to a runtime, but not to us.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("mount option '{0}' is not supported")]
pub struct Unsupported(pub String);

impl Options {
    /// Reads the options of a mount in their order: a later one wins.
    ///
    /// # Errors
    /// When one cannot be had.
    pub fn parse<'a>(options: impl IntoIterator<Item = &'a str>) -> Result<Self, Unsupported> {
        let mut parsed = Self::default();
        let mut data = Vec::new();
        for option in options {
            if !parsed.known(option)? {
                data.push(option);
            }
        }
        parsed.data = data.join(",");
        Ok(parsed)
    }

    /// Whether it is one of those that do not go to the file system.
    fn known(&mut self, option: &str) -> Result<bool, Unsupported> {
        match option {
            "defaults" | "" | "async" | "nomand" | "noiversion" | "nolazytime" | "loud" => {}
            "bind" => self.bind = Some(Bind::One),
            "rbind" => self.bind = Some(Bind::Recursive),
            "private" => self.propagation = libc::MS_PRIVATE,
            "slave" => self.propagation = libc::MS_SLAVE,
            "shared" => self.propagation = libc::MS_SHARED,
            "unbindable" => self.propagation = libc::MS_UNBINDABLE,
            "rprivate" => self.propagation = libc::MS_PRIVATE | libc::MS_REC,
            "rslave" => self.propagation = libc::MS_SLAVE | libc::MS_REC,
            "rshared" => self.propagation = libc::MS_SHARED | libc::MS_REC,
            "runbindable" => self.propagation = libc::MS_UNBINDABLE | libc::MS_REC,
            "sync" => self.flags |= libc::MS_SYNCHRONOUS,
            "dirsync" => self.flags |= libc::MS_DIRSYNC,
            "mand" => self.flags |= libc::MS_MANDLOCK,
            "iversion" => self.flags |= libc::MS_I_VERSION,
            "lazytime" => self.flags |= libc::MS_LAZYTIME,
            "silent" => self.flags |= libc::MS_SILENT,
            "tmpcopyup" => self.copy_up = true,
            "idmap" => self.idmap = Some(Bind::One),
            "ridmap" => self.idmap = Some(Bind::Recursive),
            // What mount(8) needs and the kernel does not.
            _ if option.starts_with("x-")
                || option.starts_with("X-")
                || option == "nofail"
                || option == "_netdev" => {}
            "remount" | "loop" | "auto" | "noauto" | "user" | "users" | "group" | "owner" => {
                return Err(Unsupported(option.to_owned()));
            }
            _ => return Ok(self.attribute(option)),
        }
        Ok(true)
    }

    /// Whether it is an attribute of the mount, or with an `r` before it, of all mounts below as well.
    fn attribute(&mut self, option: &str) -> bool {
        if let Some((set, clear)) = attributes(option) {
            change(&mut self.set, &mut self.clear, set, clear);
            return true;
        }
        if let Some((set, clear)) = option.strip_prefix('r').and_then(attributes) {
            change(&mut self.set_below, &mut self.clear_below, set, clear);
            return true;
        }
        false
    }
}

fn change(all_set: &mut u64, all_clear: &mut u64, set: u64, clear: u64) {
    *all_set = (*all_set & !clear) | set;
    // Access times are one value, not bits: it is set anew, which the kernel wants to see as a clear of all of them.
    let forgotten = if set & attr::ATIME == 0 { set } else { 0 };
    *all_clear = (*all_clear & !forgotten) | clear;
}

fn attributes(option: &str) -> Option<(u64, u64)> {
    Some(match option {
        "ro" => (attr::RDONLY, 0),
        "rw" => (0, attr::RDONLY),
        "nosuid" => (attr::NOSUID, 0),
        "suid" => (0, attr::NOSUID),
        "nodev" => (attr::NODEV, 0),
        "dev" => (0, attr::NODEV),
        "noexec" => (attr::NOEXEC, 0),
        "exec" => (0, attr::NOEXEC),
        "noatime" => (attr::NOATIME, attr::ATIME),
        "strictatime" => (attr::STRICTATIME, attr::ATIME),
        "relatime" | "atime" | "nostrictatime" | "norelatime" => (0, attr::ATIME),
        "nodiratime" => (attr::NODIRATIME, 0),
        "diratime" => (0, attr::NODIRATIME),
        "nosymfollow" => (attr::NOSYMFOLLOW, 0),
        "symfollow" => (0, attr::NOSYMFOLLOW),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &[&str]) -> Options {
        Options::parse(options.iter().copied()).unwrap()
    }

    #[test]
    fn what_is_said_to_be_known_is() {
        for option in KNOWN {
            assert!(Options::default().known(option).unwrap(), "{option}");
        }
        assert!(KNOWN.is_sorted());
    }

    #[test]
    fn what_the_file_system_understands_is_passed_on_in_order() {
        let tmpfs = parse(&["nosuid", "size=64k", "mode=1777", "noexec", "strictatime"]);
        assert_eq!(tmpfs.data, "size=64k,mode=1777");
        assert_eq!(tmpfs.set, attr::NOSUID | attr::NOEXEC | attr::STRICTATIME);
    }

    #[test]
    fn the_last_one_wins() {
        let last = parse(&["ro", "rw", "noatime", "relatime", "noexec"]);
        assert_eq!((last.set, last.clear), (attr::NOEXEC, attr::RDONLY | attr::ATIME));
        let again = parse(&["rw", "ro"]);
        assert_eq!((again.set, again.clear), (attr::RDONLY, 0));
        let times = parse(&["relatime", "noatime"]);
        assert_eq!((times.set, times.clear), (attr::NOATIME, attr::ATIME));
    }

    #[test]
    fn recursive_attributes_are_kept_apart() {
        let volume = parse(&["rbind", "rro", "rprivate", "rnosuid", "nodev"]);
        assert_eq!(volume.bind, Some(Bind::Recursive));
        assert_eq!(volume.set_below, attr::RDONLY | attr::NOSUID);
        assert_eq!(volume.set, attr::NODEV);
        assert_eq!(volume.propagation, libc::MS_PRIVATE | libc::MS_REC);
        assert_eq!(volume.data, "");
    }

    #[test]
    fn what_cannot_be_had_is_named() {
        assert_eq!(Options::parse(["bind", "loop"]), Err(Unsupported("loop".to_owned())));
        assert!(Options::parse(["remount", "ro"]).is_err());
    }
}
