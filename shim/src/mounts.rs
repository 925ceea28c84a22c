//! Mounting what containerd's snapshotter describes at the bundle's `rootfs`, and taking it away again.
//!
//! The options are understood as containerd itself does (`core/mount/mount_linux.go`). Mounts are made in the
//! namespace that the shim shares with containerd, which later reads through them.

use std::io;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use cryopod_checkpoint::kind::Kind;
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::CloneFlags;

use crate::rpc::Failure;

/// One mount as containerd describes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mount {
    /// `zfs`, `overlay`, `bind`, …
    pub kind: String,
    /// Dataset, directory or device.
    pub source: String,
    /// Sub-directory of `rootfs`; usually empty.
    pub target: String,
    /// fstab options.
    pub options: Vec<String>,
}

/// The root file system cannot be mounted or unmounted.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// mount(2) failed.
    #[error("mount {source_name} ({kind}) at {target}: {errno}", target = .target.display())]
    Mount {
        /// Type.
        kind: String,
        /// What was to be mounted.
        source_name: String,
        /// Where.
        target: PathBuf,
        /// What the kernel said.
        errno: Errno,
    },
    /// umount(2) failed for good.
    #[error("unmount {target}: {errno}", target = .target.display())]
    Unmount {
        /// Where.
        target: PathBuf,
        /// What the kernel said.
        errno: Errno,
    },
    /// An option that needs something we do not have.
    #[error("mount option {0} is not served by this runtime")]
    Option(String),
    /// A target outside of rootfs.
    #[error("mount target {0:?} leaves the root file system")]
    Target(String),
    /// The helper thread could not be used.
    #[error("prepare the mount at {target}: {source}", target = .target.display())]
    Prepare {
        /// Where.
        target: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

impl Failure for MountError {
    fn kind(&self) -> Kind {
        match self {
            MountError::Mount { errno: Errno::ENOENT, .. } => Kind::NotFound,
            MountError::Mount { errno: Errno::EPERM | Errno::EACCES, .. } => Kind::PermissionDenied,
            MountError::Option(_) => Kind::Unimplemented,
            MountError::Target(_) => Kind::InvalidArgument,
            _ => Kind::Internal,
        }
    }
}

/// What mount(2) gets.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    flags: MsFlags,
    data: String,
}

fn plan(options: &[String]) -> Result<Plan, MountError> {
    let mut flags = MsFlags::empty();
    let mut data: Vec<&str> = Vec::new();
    for option in options {
        let (set, flag) = match option.as_str() {
            "defaults" => continue,
            "async" => (false, MsFlags::MS_SYNCHRONOUS),
            "sync" => (true, MsFlags::MS_SYNCHRONOUS),
            "atime" => (false, MsFlags::MS_NOATIME),
            "noatime" => (true, MsFlags::MS_NOATIME),
            "bind" => (true, MsFlags::MS_BIND),
            "rbind" => (true, MsFlags::MS_BIND.union(MsFlags::MS_REC)),
            "dev" => (false, MsFlags::MS_NODEV),
            "nodev" => (true, MsFlags::MS_NODEV),
            "diratime" => (false, MsFlags::MS_NODIRATIME),
            "nodiratime" => (true, MsFlags::MS_NODIRATIME),
            "dirsync" => (true, MsFlags::MS_DIRSYNC),
            "exec" => (false, MsFlags::MS_NOEXEC),
            "noexec" => (true, MsFlags::MS_NOEXEC),
            "relatime" => (true, MsFlags::MS_RELATIME),
            "norelatime" => (false, MsFlags::MS_RELATIME),
            "strictatime" => (true, MsFlags::MS_STRICTATIME),
            "nostrictatime" => (false, MsFlags::MS_STRICTATIME),
            "suid" => (false, MsFlags::MS_NOSUID),
            "nosuid" => (true, MsFlags::MS_NOSUID),
            "remount" => (true, MsFlags::MS_REMOUNT),
            "ro" => (true, MsFlags::MS_RDONLY),
            "rw" => (false, MsFlags::MS_RDONLY),
            "loop" => return Err(MountError::Option(option.clone())),
            other
                if ["uidmap=", "gidmap=", "X-containerd."].iter().any(|prefix| other.starts_with(prefix)) =>
            {
                return Err(MountError::Option(option.clone()));
            }
            other => {
                data.push(other);
                continue;
            }
        };
        flags.set(flag, set);
    }
    Ok(Plan { flags, data: data.join(",") })
}

/// mount(2) takes at most one page of options, its ending zero included.
const PAGE: usize = 4096;

/// Overlay options with many layers exceed a page; relative to the layers' common directory they fit.
fn shorten(data: &str) -> Option<(PathBuf, String)> {
    let layers = data.split(',').find_map(|option| option.strip_prefix("lowerdir="))?;
    let mut layers_iter = layers.split(':').map(Path::new);
    let mut common = layers_iter.next()?.parent()?.to_owned();
    for layer in layers_iter {
        while !layer.starts_with(&common) {
            common = common.parent()?.to_owned();
        }
    }
    let relative: Option<Vec<&str>> =
        layers.split(':').map(|layer| Path::new(layer).strip_prefix(&common).ok()?.to_str()).collect();
    let shorter = data.replacen(layers, &relative?.join(":"), 1);
    (common != Path::new("/")).then_some((common, shorter))
}

/// Mounts all of `mounts`, in order, at `rootfs`. On error none of them is left. Blocks.
///
/// # Errors
/// See [`MountError`].
pub fn mount_all(mounts: &[Mount], rootfs: &Path) -> Result<(), MountError> {
    for each in mounts {
        if let Err(error) = mount_one(each, rootfs) {
            if let Err(second) = unmount_all(rootfs) {
                tracing::warn!(error = %second, "a half-mounted root file system is left");
            }
            return Err(error);
        }
    }
    Ok(())
}

fn mount_one(each: &Mount, rootfs: &Path) -> Result<(), MountError> {
    let inside = Path::new(each.target.trim_start_matches('/'));
    if inside.components().any(|part| !matches!(part, Component::Normal(_))) {
        return Err(MountError::Target(each.target.clone()));
    }
    let target = if each.target.is_empty() { rootfs.to_owned() } else { rootfs.join(inside) };
    let Plan { flags, data } = plan(&each.options)?;
    let failed = |errno| MountError::Mount {
        kind: each.kind.clone(),
        source_name: each.source.clone(),
        target: target.clone(),
        errno,
    };
    let call = |data: &str, flags: MsFlags| {
        let data = (!data.is_empty()).then_some(data);
        mount(Some(each.source.as_str()), &target, Some(each.kind.as_str()), flags, data)
    };
    if data.len() >= PAGE
        && each.kind == "overlay"
        && let Some((dir, shorter)) = shorten(&data)
    {
        return in_directory(&dir, &target, || call(&shorter, flags))?.map_err(failed);
    }
    call(&data, flags).map_err(failed)?;
    // The kernel ignores everything but MS_REC when a bind mount is made; read-only comes by a second call.
    if flags.contains(MsFlags::MS_BIND) && flags.intersects(MsFlags::MS_RDONLY) {
        call("", MsFlags::MS_BIND | MsFlags::MS_REMOUNT | (flags - MsFlags::MS_REC)).map_err(failed)?;
    }
    Ok(())
}

/// Runs `call` in a thread with a working directory of its own.
fn in_directory<T: Send>(
    dir: &Path,
    target: &Path,
    call: impl FnOnce() -> T + Send,
) -> Result<T, MountError> {
    let prepare = |source| MountError::Prepare { target: target.to_owned(), source };
    std::thread::scope(|scope| {
        let work = move || {
            nix::sched::unshare(CloneFlags::CLONE_FS)?;
            nix::unistd::chdir(dir)?;
            Ok::<T, Errno>(call())
        };
        let thread =
            std::thread::Builder::new().stack_size(128 * 1024).spawn_scoped(scope, work).map_err(prepare)?;
        match thread.join() {
            Ok(result) => result.map_err(|errno| prepare(errno.into())),
            Err(_) => Err(prepare(io::Error::other("the mounting thread panicked"))),
        }
    })
}

/// How often and how long a busy mount is tried before it is detached: a process that just died may hold it for
/// some milliseconds. Far below the 5 s of containerd's `delete`.
const BUSY_TRIES: u32 = 50;
const BUSY_PAUSE: Duration = Duration::from_millis(20);

/// Unmounts everything at `rootfs`; nothing mounted, or no such directory, is success. Blocks.
///
/// A mount that stays busy is detached: it disappears now, and its file system is released with its last user.
///
/// # Errors
/// When even detaching fails.
pub fn unmount_all(rootfs: &Path) -> Result<(), MountError> {
    let mut busy = 0;
    loop {
        let flags = if busy < BUSY_TRIES {
            MntFlags::UMOUNT_NOFOLLOW
        } else {
            MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW
        };
        match umount2(rootfs, flags) {
            Ok(()) if busy >= BUSY_TRIES => {
                tracing::warn!(path = %rootfs.display(), "the root file system stayed busy and was detached");
            }
            Ok(()) | Err(Errno::EINTR) => {}
            // Not a mount point any more.
            Err(Errno::EINVAL | Errno::ENOENT) => return Ok(()),
            Err(Errno::EBUSY) if busy < BUSY_TRIES => {
                busy += 1;
                std::thread::sleep(BUSY_PAUSE);
            }
            Err(errno) => return Err(MountError::Unmount { target: rootfs.to_owned(), errno }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn flags_and_data_are_told_apart() {
        let read = plan(&options("rbind ro nosuid index=off workdir=/w")).unwrap();
        assert_eq!(read.flags, MsFlags::MS_BIND | MsFlags::MS_REC | MsFlags::MS_RDONLY | MsFlags::MS_NOSUID);
        assert_eq!(read.data, "index=off,workdir=/w");
        assert_eq!(
            plan(&options("ro rw defaults")).unwrap(),
            Plan { flags: MsFlags::empty(), data: String::new() }
        );
    }

    #[test]
    fn what_cannot_be_served_is_refused_by_name() {
        for option in ["loop", "uidmap=0:1000:1", "X-containerd.mkfs"] {
            let error = plan(&options(option)).unwrap_err();
            assert_eq!(error.kind(), Kind::Unimplemented, "{error}");
        }
    }

    #[test]
    fn many_layers_are_named_relative_to_their_common_directory() {
        let layers: Vec<String> = (0..120).map(|n| format!("/var/lib/containerd/snapshots/{n}/fs")).collect();
        let data = format!("index=off,lowerdir={},upperdir=/u", layers.join(":"));
        assert!(data.len() > PAGE);
        let (dir, shorter) = shorten(&data).unwrap();
        assert_eq!(dir, Path::new("/var/lib/containerd/snapshots"));
        assert!(
            shorter.len() < PAGE
                && shorter.contains("lowerdir=0/fs:1/fs:")
                && shorter.ends_with(",upperdir=/u")
        );
    }

    #[test]
    fn a_target_outside_of_the_rootfs_is_refused() {
        let mount = Mount { target: "../../etc".to_owned(), ..Mount::default() };
        assert!(matches!(mount_one(&mount, Path::new("/nonexistent")), Err(MountError::Target(_))));
    }

    #[test]
    fn nothing_mounted_is_nothing_to_unmount() {
        let dir = tempfile::tempdir().unwrap();
        unmount_all(dir.path()).unwrap();
        unmount_all(&dir.path().join("gone")).unwrap();
    }
}
