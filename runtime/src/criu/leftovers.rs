//! `link_remap.*` files that a killed criu leaves in the root file system of a container.
//!
//! For a file that is open, has lost its name and still has another link, CRIU makes a link `link_remap.<n>` in the
//! directory of the lost name and removes it at the end of the dump. A second dump fails while one is there. They are
//! looked for where CRIU puts them: in the directories of the deleted files that the container's processes have open.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{SFlag, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::process;

const DELETED: &[u8] = b" (deleted)";

/// Removes them for the processes of a container; returns how many. Directories that cannot be reached are passed over:
/// then their process has ended.
pub fn remove(pids: &[u32]) -> usize {
    let mut removed = 0;
    for pid in pids {
        for directory in directories(*pid) {
            match clear(&PathBuf::from(format!("/proc/{pid}/root")), &directory) {
                Ok(count) => removed += count,
                Err(errno) => {
                    tracing::debug!(pid, directory = %directory.display(), %errno, "not looked through");
                }
            }
        }
    }
    removed
}

/// Directories of the deleted files that a process has open or mapped, as the process sees them.
fn directories(pid: u32) -> BTreeSet<PathBuf> {
    let mut targets = process::descriptors(pid);
    if let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/map_files")) {
        targets.extend(entries.flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok()));
    }
    targets.iter().filter_map(|target| deleted_in(target)).collect()
}

/// The directory of `/data/log (deleted)`; `None` for files that exist and for what is no file.
fn deleted_in(target: &Path) -> Option<PathBuf> {
    let path = target.as_os_str().as_bytes().strip_suffix(DELETED)?;
    let path = Path::new(std::ffi::OsStr::from_bytes(path));
    // `/memfd:x (deleted)` and shared memory have no directory to look in.
    if !path.is_absolute() || path.as_os_str().as_bytes().starts_with(b"/memfd:") {
        return None;
    }
    path.parent().map(Path::to_owned)
}

/// Removes `link_remap.<n>` from `directory` below `root`; links that the container planted do not lead out of it.
fn clear(root: &Path, directory: &Path) -> Result<usize, Errno> {
    let root = File::open(root).map_err(|error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))?;
    let relative = directory.strip_prefix("/").unwrap_or(directory);
    let relative = if relative.as_os_str().is_empty() { Path::new(".") } else { relative };
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let directory = openat2(root.as_fd(), relative, how)?;
    let mut names = Vec::new();
    for entry in Dir::from_fd(directory.try_clone().map_err(|_| Errno::EMFILE)?)?.iter() {
        let name = entry?.file_name().to_owned();
        if name.to_str().is_ok_and(is_link_remap) {
            names.push(name);
        }
    }
    let mut removed = 0;
    for name in names {
        let stat = fstatat(&directory, name.as_c_str(), nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW)?;
        if SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG {
            unlinkat(&directory, name.as_c_str(), UnlinkatFlags::NoRemoveDir)?;
            removed += 1;
        }
    }
    Ok(removed)
}

fn is_link_remap(name: &str) -> bool {
    name.strip_prefix("link_remap.")
        .is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn only_criu_s_own_names_match() {
        for (name, matches) in [
            ("link_remap.6", true),
            ("link_remap.", false),
            ("link_remap.6x", false),
            ("my.link_remap.6", false),
        ] {
            assert_eq!(is_link_remap(name), matches, "{name}");
        }
    }

    #[test]
    fn only_deleted_files_have_a_directory() {
        for (target, directory) in [
            ("/data/log (deleted)", Some("/data")),
            ("/data/log", None),
            ("pipe:[123]", None),
            ("/memfd:x (deleted)", None),
            ("/x (deleted)", Some("/")),
        ] {
            assert_eq!(deleted_in(Path::new(target)).as_deref(), directory.map(Path::new), "{target}");
        }
    }

    #[test]
    fn a_leftover_next_to_an_open_deleted_file_is_removed() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("log");
        let open = File::create(&path).expect("file");
        std::fs::hard_link(&path, dir.path().join("link_remap.6")).expect("link");
        std::fs::write(dir.path().join("link_remap.txt"), "mine").expect("file");
        std::fs::remove_file(&path).expect("removed");
        assert_eq!(remove(&[std::process::id()]), 1);
        assert!(!dir.path().join("link_remap.6").exists());
        assert!(dir.path().join("link_remap.txt").exists());
        assert_eq!(remove(&[std::process::id()]), 0, "a second time there is nothing to do");
        drop(open);
    }

    #[test]
    fn a_planted_link_does_not_lead_out_of_the_root() {
        let outside = tempfile::tempdir().expect("temporary directory");
        std::fs::write(outside.path().join("link_remap.1"), "host").expect("file");
        let root = tempfile::tempdir().expect("temporary directory");
        symlink(outside.path(), root.path().join("data")).expect("link");
        assert!(clear(root.path(), Path::new("/data")).is_err());
        assert!(outside.path().join("link_remap.1").exists());
    }
}
