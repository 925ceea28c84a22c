//! Walks a tree in canonical order, reads what each entry is, and measures or clears trees.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use cryopod_command::Limits;
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::{Entry, EntryKind, MAX_DEPTH, MAX_PATH, MAX_XATTR_VALUE, MAX_XATTRS, TreeError, Xattr};
use crate::sys;

/// How directories are opened: never through a symlink.
pub(super) const DIR_FLAGS: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// Deleting needs one descriptor per level, and may meet what was never walked.
const DEEPEST: usize = 4 * MAX_DEPTH;

/// Labels and signatures that belong to the node's policy, not to the file.
const NODE_XATTRS: &[&[u8]] = &[b"security.selinux", b"security.ima", b"security.evm", b"system.nfs4_acl"];

/// Is told of each entry, in canonical order.
pub(super) trait Visitor {
    /// An entry; for a regular file also its contents.
    fn entry(&mut self, entry: &Entry, file: Option<&File>) -> Result<(), TreeError>;
}

struct Walk<'a> {
    root: &'a Path,
    mount: u64,
    limits: &'a Limits,
    /// First name of everything with more than one, directories and whiteouts apart.
    linked: HashMap<(u64, u64), Vec<u8>>,
}

/// Visits the root and everything below it, but nothing that is mounted on it: mount points appear as empty
/// directories.
pub(super) fn walk(root: &Path, limits: &Limits, visitor: &mut dyn Visitor) -> Result<(), TreeError> {
    let dir = open_root(root)?;
    let mount = sys::mount_id(&dir).map_err(TreeError::io("examine", root))?;
    let stat = fstat(&dir).map_err(|e| failed("examine", root, e))?;
    let path = CString::new(format!("/proc/self/fd/{}/.", dir.as_fd().as_raw_fd())).unwrap_or_default();
    let mut walk = Walk { root, mount, limits, linked: HashMap::new() };
    let entry = walk.describe(Vec::new(), &stat, EntryKind::Dir, &path)?;
    visitor.entry(&entry, None)?;
    walk.below(dir, &entry.path, 0, visitor)
}

impl Walk<'_> {
    fn below(
        &mut self,
        mut dir: Dir,
        path: &[u8],
        depth: usize,
        visitor: &mut dyn Visitor,
    ) -> Result<(), TreeError> {
        let names = names(&mut dir).map_err(|e| failed("list", &self.shown(path), e))?;
        for name in names {
            self.limits.check().map_err(TreeError::Stopped)?;
            let mut below = path.to_vec();
            if !below.is_empty() {
                below.push(b'/');
            }
            below.extend_from_slice(name.to_bytes());
            if below.len() > MAX_PATH || depth >= MAX_DEPTH {
                return Err(TreeError::TooDeep { path: self.shown(path) });
            }
            self.one(&dir, &name, below, depth, visitor)?;
        }
        Ok(())
    }

    fn one(
        &mut self,
        dir: &Dir,
        name: &CStr,
        path: Vec<u8>,
        depth: usize,
        visitor: &mut dyn Visitor,
    ) -> Result<(), TreeError> {
        let shown = self.shown(&path);
        let stat = match fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            // Trees outside of the frozen pod may change under us; what is gone was not there.
            Err(Errno::ENOENT) => return Ok(()),
            Err(error) => return Err(failed("examine", &shown, error)),
        };
        let at = sys::path_at(dir, name);
        let kind = SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits());
        if kind == SFlag::S_IFDIR {
            let below =
                Dir::openat(dir, name, DIR_FLAGS, Mode::empty()).map_err(|e| failed("open", &shown, e))?;
            let entry = self.describe(path, &stat, EntryKind::Dir, &at)?;
            visitor.entry(&entry, None)?;
            let mount = sys::mount_id(&below).map_err(TreeError::io("examine", &shown))?;
            return if mount == self.mount {
                self.below(below, &entry.path, depth + 1, visitor)
            } else {
                Ok(())
            };
        }
        // The whiteouts of an overlay share one inode since Linux 5.8. Each is a mark at its own name, which whoever
        // lays the layer over something has to know as one.
        let whiteout = kind == SFlag::S_IFCHR && stat.st_rdev == 0;
        if stat.st_nlink > 1 && !whiteout {
            if let Some(first) = self.linked.get(&(stat.st_dev, stat.st_ino)) {
                let kind = EntryKind::Hardlink { first: first.clone() };
                let entry = self.describe(path, &stat, kind, &at)?;
                return visitor.entry(&entry, None);
            }
            self.linked.insert((stat.st_dev, stat.st_ino), path.clone());
        }
        if kind == SFlag::S_IFREG {
            // Non-blocking, in case it was replaced by a fifo since.
            let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
            let file = openat(dir, name, flags, Mode::empty()).map_err(|e| failed("open", &shown, e))?;
            let stat = fstat(&file).map_err(|e| failed("examine", &shown, e))?;
            let size = u64::try_from(stat.st_size).unwrap_or(0);
            let entry = self.describe(path, &stat, EntryKind::File { size }, &at)?;
            return visitor.entry(&entry, Some(&File::from(file)));
        }
        let kind = match kind {
            SFlag::S_IFLNK => {
                let target = readlinkat(dir, name).map_err(|e| failed("read", &shown, e))?;
                EntryKind::Symlink { target: target.into_vec() }
            }
            SFlag::S_IFCHR => EntryKind::Char { device: stat.st_rdev },
            SFlag::S_IFBLK => EntryKind::Block { device: stat.st_rdev },
            SFlag::S_IFIFO => EntryKind::Fifo,
            _ => EntryKind::Socket,
        };
        let entry = self.describe(path, &stat, kind, &at)?;
        visitor.entry(&entry, None)
    }

    fn describe(
        &self,
        path: Vec<u8>,
        stat: &FileStat,
        kind: EntryKind,
        at: &CStr,
    ) -> Result<Entry, TreeError> {
        let shown = self.shown(&path);
        // Another name of something has the attributes of the first.
        let xattrs = match kind {
            EntryKind::Hardlink { .. } => Vec::new(),
            _ => read_xattrs(at, &shown)?,
        };
        Ok(Entry {
            path,
            kind,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0)),
            xattrs,
        })
    }

    fn shown(&self, path: &[u8]) -> PathBuf {
        self.root.join(std::ffi::OsString::from_vec(path.to_vec()))
    }
}

fn read_xattrs(at: &CStr, shown: &Path) -> Result<Vec<Xattr>, TreeError> {
    let mut found = Vec::new();
    for name in sys::list_xattrs(at).map_err(TreeError::io("list the attributes of", shown))? {
        if NODE_XATTRS.contains(&name.to_bytes()) {
            continue;
        }
        let value = sys::get_xattr(at, &name).map_err(TreeError::io("read an attribute of", shown))?;
        if value.len() > MAX_XATTR_VALUE || found.len() >= MAX_XATTRS {
            return Err(TreeError::Xattrs { path: shown.to_owned() });
        }
        found.push((name.into_bytes(), value));
    }
    found.sort();
    Ok(found)
}

/// Opens the root of a tree. Its own path is the caller's and may lead through links; what is below may not.
pub(super) fn open_root(root: &Path) -> Result<Dir, TreeError> {
    Dir::open(&root.join("."), DIR_FLAGS, Mode::empty()).map_err(|e| failed("open", root, e))
}

/// Names in a directory, sorted as bytes.
pub(super) fn names(dir: &mut Dir) -> Result<Vec<CString>, Errno> {
    let mut names = Vec::new();
    for item in dir.iter() {
        let name = item?.file_name().to_owned();
        if !matches!(name.to_bytes(), b"." | b"..") {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// How large a tree is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Measured {
    /// Bytes of file contents that are allocated.
    pub(crate) bytes: u64,
    /// Entries of every kind.
    pub(crate) entries: u64,
}

struct Measure {
    root: PathBuf,
    limit: u64,
    seen: Measured,
}

impl Visitor for Measure {
    fn entry(&mut self, entry: &Entry, file: Option<&File>) -> Result<(), TreeError> {
        use std::os::unix::fs::MetadataExt;
        self.seen.entries += 1;
        if let (EntryKind::File { size }, Some(file)) = (&entry.kind, file) {
            let allocated = file.metadata().map_or(*size, |metadata| metadata.blocks() * 512);
            self.seen.bytes += (*size).min(allocated);
        }
        if self.seen.bytes > self.limit {
            return Err(TreeError::TooLarge { path: self.root.clone(), limit: self.limit });
        }
        Ok(())
    }
}

/// Measures a tree, stopping with an error as soon as it holds more than `limit` bytes.
pub(crate) fn measure(root: &Path, limit: u64, limits: &Limits) -> Result<Measured, TreeError> {
    let mut measure = Measure { root: root.to_owned(), limit, seen: Measured::default() };
    walk(root, limits, &mut measure)?;
    Ok(measure.seen)
}

/// Removes everything below a directory, not the directory itself; nothing at all if something is mounted below it.
pub(crate) fn clear(root: &Path) -> Result<(), TreeError> {
    refuse_mounts(root)?;
    let mut dir = open_root(root)?;
    clear_dir(&mut dir, root, 0)
}

/// Fails with the first thing that is mounted below a directory: a tree does not hold it, so nothing that stands in for
/// the tree may touch it.
pub(crate) fn refuse_mounts(root: &Path) -> Result<(), TreeError> {
    let mut dir = open_root(root)?;
    let mount = sys::mount_id(&dir).map_err(TreeError::io("examine", root))?;
    refuse_mounts_in(&mut dir, mount, root, 0)
}

fn refuse_mounts_in(dir: &mut Dir, mount: u64, shown: &Path, depth: usize) -> Result<(), TreeError> {
    if depth > DEEPEST {
        return Err(TreeError::TooDeep { path: shown.to_owned() });
    }
    for name in names(dir).map_err(|e| failed("list", shown, e))? {
        let path = shown.join(std::ffi::OsStr::from_bytes(name.to_bytes()));
        match sys::mount_id_at(&*dir, &name) {
            Ok(found) if found == mount => {}
            Ok(_) => return Err(TreeError::Mounted { path }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(TreeError::io("examine", &path)(error)),
        }
        match Dir::openat(&*dir, name.as_c_str(), DIR_FLAGS, Mode::empty()) {
            Ok(mut below) => refuse_mounts_in(&mut below, mount, &path, depth + 1)?,
            // No directory, or gone.
            Err(Errno::ENOTDIR | Errno::ELOOP | Errno::ENOENT) => {}
            Err(error) => return Err(failed("open", &path, error)),
        }
    }
    Ok(())
}

/// The same for an open directory.
pub(super) fn clear_dir(dir: &mut Dir, shown: &Path, depth: usize) -> Result<(), TreeError> {
    if depth > DEEPEST {
        return Err(TreeError::TooDeep { path: shown.to_owned() });
    }
    for name in names(dir).map_err(|e| failed("list", shown, e))? {
        let below = shown.join(std::ffi::OsString::from_vec(name.to_bytes().to_vec()));
        remove_at(dir, &name, &below, depth)?;
    }
    Ok(())
}

/// Removes one entry with everything below it; absent is success.
pub(super) fn remove_at(dir: &Dir, name: &CStr, shown: &Path, depth: usize) -> Result<(), TreeError> {
    match unlinkat(dir, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => return Ok(()),
        Err(Errno::EISDIR) => {}
        Err(error) => return Err(failed("remove", shown, error)),
    }
    let mut below = Dir::openat(dir, name, DIR_FLAGS, Mode::empty()).map_err(|e| failed("open", shown, e))?;
    // Mounted since somebody looked, or below what a layer replaces.
    let mounts = (sys::mount_id(dir), sys::mount_id(&below));
    match mounts {
        (Ok(ours), Ok(theirs)) if ours == theirs => {}
        (Ok(_), Ok(_)) => return Err(TreeError::Mounted { path: shown.to_owned() }),
        (Err(error), _) | (_, Err(error)) => return Err(TreeError::io("examine", shown)(error)),
    }
    clear_dir(&mut below, shown, depth + 1)?;
    drop(below);
    unlinkat(dir, name, UnlinkatFlags::RemoveDir).map_err(|e| failed("remove", shown, e))
}

pub(super) fn failed(action: &'static str, path: &Path, error: Errno) -> TreeError {
    TreeError::Io { action, path: path.to_owned(), source: io::Error::from(error) }
}
