//! Makes entries again below a directory. The entries may come from a foreign stream and the directory may be seen
//! by a running container, so every name is one plain component below a directory that this writer holds open.
//!
//! Order matters and is kept here: contents, then owner, then attributes (a change of owner drops file
//! capabilities), then mode (it drops set-id bits too), then times; directories after everything in them.

use std::collections::HashSet;
use std::ffi::{CStr, CString, OsStr};
use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, fstat, fstatat, mkdirat, mknodat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchownat, linkat, symlinkat};

use super::walk::{DIR_FLAGS, clear_dir, failed, open_root, remove_at};
use super::{Entry, EntryKind, MAX_DEPTH, MAX_PATH, TreeError};
use crate::sys;

/// What happens when something is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Existing {
    /// It is an error: the tree is made anew.
    Refuse,
    /// Directories are merged, all else is replaced.
    Merge,
}

/// Builds a tree entry by entry, in canonical order.
pub(crate) struct Writer {
    root: PathBuf,
    existing: Existing,
    /// Open directories from the root to the present one, each with what is still to be set on it.
    stack: Vec<(Dir, Entry)>,
    /// What was made so far and is no directory: what hard links may name.
    made: HashSet<Vec<u8>>,
}

impl Writer {
    /// Writes below `root`, an existing directory; the first entry describes it.
    pub(crate) fn new(root: &Path, existing: Existing) -> Self {
        Self { root: root.to_owned(), existing, stack: Vec::new(), made: HashSet::new() }
    }

    /// Makes an entry. For a regular file the result is to be filled and handed to [`Writer::filled`].
    pub(crate) fn add(&mut self, entry: &Entry) -> Result<Option<File>, TreeError> {
        let shown = self.shown(&entry.path);
        if entry.path.is_empty() {
            if !self.stack.is_empty() || entry.kind != EntryKind::Dir {
                return Err(TreeError::Encoding("the root is not the first entry"));
            }
            let dir = open_root(&self.root)?;
            self.stack.push((dir, entry.clone()));
            return Ok(None);
        }
        let name = self.go_to_parent(&entry.path)?;
        let (dir, _) = self.stack.last().ok_or(TreeError::Encoding("the root is missing"))?;
        let merged = self.make_room(dir, &name, entry, &shown)?;
        match &entry.kind {
            EntryKind::Dir => {
                if !merged {
                    mkdirat(dir, &*name, Mode::S_IRWXU).map_err(|e| failed("create", &shown, e))?;
                }
                let below = Dir::openat(dir, &*name, DIR_FLAGS, Mode::empty())
                    .map_err(|e| failed("open", &shown, e))?;
                self.stack.push((below, entry.clone()));
                return Ok(None);
            }
            EntryKind::File { .. } => {
                let flags =
                    OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                let file = openat(dir, &*name, flags, Mode::S_IRUSR | Mode::S_IWUSR)
                    .map_err(|e| failed("create", &shown, e))?;
                self.made.insert(entry.path.clone());
                return Ok(Some(File::from(file)));
            }
            EntryKind::Hardlink { first } => {
                self.link(dir, &name, first, &shown)?;
                return Ok(None);
            }
            EntryKind::Symlink { target } => symlinkat(OsStr::from_bytes(target), dir, &*name),
            EntryKind::Char { device } => mknodat(dir, &*name, SFlag::S_IFCHR, Mode::empty(), *device),
            EntryKind::Block { device } => mknodat(dir, &*name, SFlag::S_IFBLK, Mode::empty(), *device),
            EntryKind::Fifo => mknodat(dir, &*name, SFlag::S_IFIFO, Mode::empty(), 0),
            EntryKind::Socket => mknodat(dir, &*name, SFlag::S_IFSOCK, Mode::empty(), 0),
        }
        .map_err(|e| failed("create", &shown, e))?;
        set_by_name(dir, &name, entry, &shown)?;
        self.made.insert(entry.path.clone());
        Ok(None)
    }

    /// Sets what is left to set on a file whose contents are complete.
    pub(crate) fn filled(&self, entry: &Entry, file: &File) -> Result<(), TreeError> {
        set_open(file, entry, &self.shown(&entry.path))
    }

    /// Removes what is at `path`, if its directory exists in this tree: the meaning of a whiteout.
    pub(crate) fn remove(&mut self, path: &[u8]) -> Result<(), TreeError> {
        let shown = self.shown(path);
        let name = self.go_to_parent(path)?;
        match self.stack.last() {
            Some((dir, _)) => remove_at(dir, &name, &shown, 0),
            None => Err(TreeError::Encoding("the root is missing")),
        }
    }

    /// Empties the directory that was added last: the meaning of an opaque directory.
    pub(crate) fn clear_last(&mut self) -> Result<(), TreeError> {
        let root = self.root.clone();
        match self.stack.last_mut() {
            Some((dir, entry)) => clear_dir(dir, &root.join(OsStr::from_bytes(&entry.path)), 0),
            None => Err(TreeError::Encoding("the root is missing")),
        }
    }

    /// Sets what is left to set on the open directories; without it the tree is unfinished.
    pub(crate) fn finish(mut self) -> Result<(), TreeError> {
        while self.leave()? {}
        Ok(())
    }

    /// Leaves directories until the one that holds `path` is open, and returns the name in it.
    fn go_to_parent(&mut self, path: &[u8]) -> Result<CString, TreeError> {
        if path.len() > MAX_PATH || path.split(|byte| *byte == b'/').count() > MAX_DEPTH {
            return Err(TreeError::TooDeep { path: self.shown(path) });
        }
        let (parent, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(0) => return Err(TreeError::Encoding("a path is absolute")),
            Some(at) => (path.get(..at).unwrap_or_default(), path.get(at + 1..).unwrap_or_default()),
            None => (&[][..], path),
        };
        if matches!(name, b"" | b"." | b"..") {
            return Err(TreeError::Encoding("a name is empty, '.' or '..'"));
        }
        let name = CString::new(name).map_err(|_| TreeError::Encoding("a name has a zero byte"))?;
        while let Some((_, last)) = self.stack.last() {
            if last.path == parent {
                return Ok(name);
            }
            self.leave()?;
        }
        Err(TreeError::Encoding("an entry comes before or long after its directory"))
    }

    /// Whether a directory is there to be merged; anything else in the way is removed or refused.
    fn make_room(&self, dir: &Dir, name: &CStr, entry: &Entry, shown: &Path) -> Result<bool, TreeError> {
        if self.existing == Existing::Refuse {
            return Ok(false);
        }
        match fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Err(Errno::ENOENT) => Ok(false),
            Err(error) => Err(failed("examine", shown, error)),
            Ok(stat) if entry.kind == EntryKind::Dir && is_dir(stat.st_mode) => Ok(true),
            Ok(_) => remove_at(dir, name, shown, 0).map(|()| false),
        }
    }

    /// The first name may be in a directory that was left already: it is opened again, step by step. What it names is
    /// linked as it is; a symlink there is not followed.
    fn link(&self, dir: &Dir, name: &CStr, first: &[u8], shown: &Path) -> Result<(), TreeError> {
        if !self.made.contains(first) {
            return Err(TreeError::Encoding(
                "a hard link to something that was not made before it, or to a directory",
            ));
        }
        let mut parts: Vec<&[u8]> = first.split(|byte| *byte == b'/').collect();
        let leaf = parts.pop().unwrap_or_default();
        let open = |at: &Dir, part: &[u8]| Dir::openat(at, OsStr::from_bytes(part), DIR_FLAGS, Mode::empty());
        let mut at = open_root(&self.root)?;
        for part in parts {
            at = open(&at, part).map_err(|e| failed("open a directory for", shown, e))?;
        }
        linkat(&at, OsStr::from_bytes(leaf), dir, name, AtFlags::empty())
            .map_err(|e| failed("link", shown, e))
    }

    fn leave(&mut self) -> Result<bool, TreeError> {
        let Some((dir, entry)) = self.stack.pop() else { return Ok(false) };
        set_open(&dir, &entry, &self.shown(&entry.path))?;
        Ok(true)
    }

    fn shown(&self, path: &[u8]) -> PathBuf {
        self.root.join(OsStr::from_bytes(path))
    }
}

fn is_dir(mode: u32) -> bool {
    mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits()
}

/// Owner, attributes, mode and times of an open file or directory.
fn set_open(file: &impl AsFd, entry: &Entry, shown: &Path) -> Result<(), TreeError> {
    let (uid, gid) = owner(entry);
    nix::unistd::fchown(file, uid, gid).map_err(|e| failed("set the owner of", shown, e))?;
    set_xattrs(entry, shown, |name, value| sys::fset_xattr(file, name, value))?;
    let mode = Mode::from_bits_truncate(entry.mode);
    nix::sys::stat::fchmod(file, mode).map_err(|e| failed("set the mode of", shown, e))?;
    let time = time(entry);
    nix::sys::stat::futimens(file, &time, &time).map_err(|e| failed("set the time of", shown, e))
}

/// The same for what cannot be opened: symlinks, devices, fifos, sockets.
fn set_by_name(dir: &Dir, name: &CStr, entry: &Entry, shown: &Path) -> Result<(), TreeError> {
    let (uid, gid) = owner(entry);
    fchownat(dir, name, uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW)
        .map_err(|e| failed("set the owner of", shown, e))?;
    let path = sys::path_at(dir, name);
    set_xattrs(entry, shown, |name, value| sys::set_xattr(&path, name, value))?;
    if !matches!(entry.kind, EntryKind::Symlink { .. }) {
        // By an O_PATH descriptor, since a container that sees the directory could put a symlink in its place.
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = openat(dir, name, flags, Mode::empty()).map_err(|e| failed("open", shown, e))?;
        let stat = fstat(&file).map_err(|e| failed("examine", shown, e))?;
        if stat.st_mode & SFlag::S_IFMT.bits() != SFlag::S_IFLNK.bits() {
            let path = format!("/proc/self/fd/{}", file.as_raw_fd());
            fs::set_permissions(path, Permissions::from_mode(entry.mode))
                .map_err(TreeError::io("set the mode of", shown))?;
        }
    }
    let time = time(entry);
    utimensat(dir, name, &time, &time, UtimensatFlags::NoFollowSymlink)
        .map_err(|e| failed("set the time of", shown, e))
}

fn set_xattrs(
    entry: &Entry,
    shown: &Path,
    set: impl Fn(&CStr, &[u8]) -> io::Result<()>,
) -> Result<(), TreeError> {
    for (name, value) in &entry.xattrs {
        let name =
            CString::new(name.as_slice()).map_err(|_| TreeError::Encoding("an attribute has a zero byte"))?;
        set(&name, value).map_err(TreeError::io("set an attribute of", shown))?;
    }
    Ok(())
}

fn owner(entry: &Entry) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)))
}

fn time(entry: &Entry) -> TimeSpec {
    TimeSpec::new(entry.mtime.0, i64::from(entry.mtime.1))
}
