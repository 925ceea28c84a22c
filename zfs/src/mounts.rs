//! Mounts: mount(2) for legacy file systems, and who on this node sees or uses a mounted dataset.
//!
//! A mount leaked into another mount namespace keeps a dataset busy and shows up nowhere else, so every
//! namespace is looked into, through one process of each. Bounded, because it only explains an error.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::{Limits, MountHolder, MountOptions};

/// More than this many say nothing that the first ones do not.
const MOST: usize = 32;

/// One line of /proc/PID/mountinfo (proc_pid_mountinfo(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    pub(crate) mount_point: String,
    pub(crate) fs_type: String,
    pub(crate) source: String,
    pub(crate) device: (u32, u32),
}

/// Reads mountinfo; lines that do not have its form are left out.
pub(crate) fn parse_mountinfo(text: &str) -> Vec<Mount> {
    text.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<Mount> {
    let (fields, rest) = line.split_once(" - ")?;
    let mut fields = fields.split(' ');
    let (major, minor) = fields.nth(2)?.split_once(':')?;
    let mount_point = unescape(fields.nth(1)?);
    let mut rest = rest.split(' ');
    let fs_type = rest.next()?.to_owned();
    let source = unescape(rest.next()?);
    Some(Mount { mount_point, fs_type, source, device: (major.parse().ok()?, minor.parse().ok()?) })
}

/// Space, tab, line break and backslash are written as octal numbers.
fn unescape(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let octal =
            tail.get(..3).filter(|digits| byte == b'\\' && digits.iter().all(|d| (b'0'..=b'7').contains(d)));
        match octal {
            Some(&[a, b, c]) => {
                let value = u32::from(a - b'0') * 64 + u32::from(b - b'0') * 8 + u32::from(c - b'0');
                out.push(u8::try_from(value).unwrap_or(b'?'));
                rest = tail.get(3..).unwrap_or_default();
            }
            _ => {
                out.push(byte);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// All processes, with their directories in /proc; this one first.
pub(crate) fn processes() -> impl Iterator<Item = (u32, PathBuf)> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let own = std::process::id();
    // This process first: its view is the one that the caller expects.
    let others = entries.filter_map(move |entry| {
        let pid = entry.file_name().to_str()?.parse::<u32>().ok()?;
        (pid != own).then(|| (pid, entry.path()))
    });
    std::iter::once((own, PathBuf::from("/proc/self"))).chain(others)
}

fn process_name(dir: &Path) -> String {
    std::fs::read_to_string(dir.join("comm")).unwrap_or_default().trim().to_owned()
}

/// Where `matches` is mounted, in every mount namespace; stops at the limits with what was found.
fn find(limits: &Limits, matches: impl Fn(&Mount) -> bool) -> Vec<MountHolder> {
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    // The calling thread may have a namespace of its own.
    let thread = std::iter::once((std::process::id(), PathBuf::from("/proc/thread-self")));
    for (pid, dir) in thread.chain(processes()) {
        if found.len() >= MOST || limits.check().is_err() {
            break;
        }
        let Ok(namespace) = std::fs::metadata(dir.join("ns/mnt")).map(|meta| meta.ino()) else { continue };
        if !seen.insert(namespace) {
            continue;
        }
        // A process may end at any time, which is no error here.
        let Ok(text) = std::fs::read(dir.join("mountinfo")) else { continue };
        for mount in
            parse_mountinfo(&String::from_utf8_lossy(&text)).into_iter().filter(|mount| matches(mount))
        {
            found.push(MountHolder { pid, process: process_name(&dir), mount_point: mount.mount_point });
        }
    }
    found.truncate(MOST);
    found
}

/// Where a dataset, or one of its snapshots, is mounted.
pub(crate) fn of_dataset(dataset: &str, limits: &Limits) -> Vec<MountHolder> {
    find(limits, |mount| {
        mount.fs_type == "zfs" && (mount.source == dataset || mount.source.split('@').next() == Some(dataset))
    })
}

/// Processes that have a file open or work below a mount point of this namespace.
pub(crate) fn users_of(path: &Path, limits: &Limits) -> Vec<MountHolder> {
    let mut found = Vec::new();
    for (pid, dir) in processes() {
        if found.len() >= MOST || limits.check().is_err() {
            break;
        }
        let descriptors =
            std::fs::read_dir(dir.join("fd")).into_iter().flatten().flatten().map(|entry| entry.path());
        let links = [dir.join("cwd"), dir.join("root")].into_iter().chain(descriptors);
        let used =
            links.filter_map(|link| std::fs::read_link(link).ok()).find(|target| target.starts_with(path));
        if let Some(used) = used {
            let mount_point = used.display().to_string();
            found.push(MountHolder { pid, process: process_name(&dir), mount_point });
        }
    }
    found
}

/// mount(2) of a legacy file system.
pub(crate) fn mount_legacy(dataset: &str, path: &Path, options: MountOptions) -> io::Result<()> {
    let flags = [
        (options.read_only, MsFlags::MS_RDONLY),
        (options.nosuid, MsFlags::MS_NOSUID),
        (options.nodev, MsFlags::MS_NODEV),
        (options.noexec, MsFlags::MS_NOEXEC),
    ];
    let flags = flags.into_iter().filter(|(on, _)| *on).map(|(_, flag)| flag).collect::<MsFlags>();
    Ok(mount(Some(dataset), path, Some("zfs"), flags, None::<&str>)?)
}

/// umount2(2); false when nothing is mounted there.
pub(crate) fn unmount(path: &Path, detach: bool) -> io::Result<bool> {
    let how = if detach { MntFlags::MNT_DETACH } else { MntFlags::empty() };
    match umount2(path, how | MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) => Ok(true),
        Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOENT) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_is_read_with_its_escapes() {
        let text = "36 35 0:59 / /mnt/with\\040space rw,noatime shared:1 master:2 - zfs tank/a\\040b rw,xattr\n\
                    garbage\n21 1 8:1 / / rw - ext4 /dev/sda1 rw\n22 1 8:1 / /x rw unbindable - zfs tank/a@s rw\n";
        let mounts = parse_mountinfo(text);
        assert_eq!(mounts.len(), 3);
        assert_eq!(
            (mounts[0].mount_point.as_str(), mounts[0].source.as_str()),
            ("/mnt/with space", "tank/a b")
        );
        assert_eq!((mounts[0].device, mounts[1].fs_type.as_str()), ((0, 59), "ext4"));
        assert_eq!(unescape("a\\134b\\04"), "a\\b\\04");
    }

    #[test]
    fn the_root_of_this_namespace_is_found_through_this_process() {
        let found = find(&Limits::none(), |mount| mount.mount_point == "/");
        assert!(found.iter().any(|holder| holder.pid == std::process::id() && !holder.process.is_empty()));
    }

    #[test]
    fn a_process_with_an_open_file_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let _open = std::fs::File::create(dir.path().join("open")).unwrap();
        let users = users_of(dir.path(), &Limits::none());
        assert!(users.iter().any(|user| user.pid == std::process::id()), "{users:?}");
    }
}
