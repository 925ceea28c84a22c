//! The mounts of the spec, made in the container's own mount namespace after its root has been changed: no path can lead
//! out of it any more, whatever links an image has.

use std::fs::{self, File};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::mount::{
    self, FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags,
};

use crate::error::{Context, Error};
use crate::options::{Bind, Options};
use crate::plan::{Files, Mount, What};
use crate::sys;

/// The file systems that have to be made before the root is changed, in the order of the mounts.
///
/// # Errors
/// At the first that fails, by its destination.
pub fn early(files: &Files) -> Result<Vec<OwnedFd>, Error> {
    let fstype = |mount: &Mount| match &mount.what {
        What::Early { fstype } => Some(fstype.clone()),
        What::Tree { .. } | What::Filesystem { .. } => None,
    };
    let early = files.mounts.iter().filter_map(|mount| Some((mount, fstype(mount)?)));
    early
        .map(|(mount, fstype)| {
            detached(&fstype, &mount.options.data)
                .on("mount", format!("{fstype} at {}", mount.destination.display()))
        })
        .collect()
}

/// A new file system that is mounted nowhere yet.
fn detached(fstype: &str, data: &str) -> rustix::io::Result<OwnedFd> {
    let context = mount::fsopen(fstype, FsOpenFlags::FSOPEN_CLOEXEC)?;
    // As mount(8) names what has no device.
    mount::fsconfig_set_string(context.as_fd(), "source", fstype)?;
    for option in data.split(',').filter(|option| !option.is_empty()) {
        match option.split_once('=') {
            Some((key, value)) => mount::fsconfig_set_string(context.as_fd(), key, value)?,
            None => mount::fsconfig_set_flag(context.as_fd(), option)?,
        }
    }
    mount::fsconfig_create(context.as_fd())?;
    mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
}

/// Makes them in order; `early` is what [`early`] answered.
///
/// # Errors
/// At the first that fails, by its destination.
pub fn make(files: &Files, early: Vec<OwnedFd>) -> Result<(), Error> {
    let mut early = early.into_iter();
    files.mounts.iter().try_for_each(|mount| one(mount, &mut early))
}

/// What may only be done when nothing has to be written any more.
///
/// # Errors
/// See [`Error`].
pub fn finish(files: &Files) -> Result<(), Error> {
    if files.readonly_root {
        let root = tree("/", OpenTreeFlags::empty()).step("open the root")?;
        sys::mount_setattr(
            root.as_fd(),
            false,
            &libc::mount_attr { attr_set: crate::options::attr::RDONLY, ..sys::SAME },
        )
        .step("make the root read-only")?;
    }
    if files.root_propagation != 0 {
        propagate(Path::new("/"), files.root_propagation)?;
    }
    Ok(())
}

fn one(mount: &Mount, early: &mut impl Iterator<Item = OwnedFd>) -> Result<(), Error> {
    let at = mount.destination.as_path();
    let options = &mount.options;
    match &mount.what {
        What::Early { .. } => {
            let made =
                early.next().ok_or(rustix::io::Errno::BADF).on("find what was made for", at.display())?;
            place(at, true)?;
            attach(made.as_fd(), at)?;
            let copy = renew(made.as_fd(), at)?;
            set(copy.as_fd(), at, options)?;
        }
        What::Tree { fd, directory } => {
            let tree = sys::inherited(*fd).on("take over the tree for", at.display())?;
            place(at, *directory)?;
            attach(tree.as_fd(), at)?;
            let tree = renew(tree.as_fd(), at)?;
            set(tree.as_fd(), at, options)?;
        }
        What::Filesystem { fstype, source } => {
            place(at, true)?;
            let kept = if options.copy_up { Some(Kept::open(at)?) } else { None };
            let flags = MountFlags::from_bits_retain(u32::try_from(options.flags).unwrap_or_default());
            let data = std::ffi::CString::new(options.data.as_str()).on("mount at", at.display())?;
            mount::mount(source.as_str(), at, fstype.as_str(), flags, Some(data.as_c_str()))
                .on("mount", format!("{fstype} at {}", at.display()))?;
            if let Some(kept) = kept {
                kept.copy_to(at)?;
            }
            attributes(at, options)?;
        }
    }
    if options.propagation != 0 {
        propagate(at, options.propagation)?;
    }
    Ok(())
}

/// A copy of a mount or subtree, or with no flag, the mount itself.
pub(crate) fn tree(path: impl AsRef<Path>, flags: OpenTreeFlags) -> rustix::io::Result<OwnedFd> {
    mount::open_tree(rustix::fs::CWD, path.as_ref(), flags | OpenTreeFlags::OPEN_TREE_CLOEXEC)
}

/// Puts a detached tree where it belongs.
pub(crate) fn attach(tree: BorrowedFd<'_>, at: &Path) -> Result<(), Error> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_SYMLINKS;
    mount::move_mount(tree, "", rustix::fs::CWD, at, flags).on("mount at", at.display())
}

/// Puts a copy in the place of a mount at `at` that is older than its turn in the list, because the host cloned it, or
/// it was made before the root was changed. Since Linux 6.8 mounts are listed by age, and who reads `/proc/self/mountinfo` expects the order of the spec.
fn renew(mount: BorrowedFd<'_>, at: &Path) -> Result<OwnedFd, Error> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH
        | OpenTreeFlags::AT_RECURSIVE;
    let copy = mount::open_tree(mount, "", flags).on("copy the mount at", at.display())?;
    // What is shared with the host would be unmounted there as well.
    sys::mount_setattr(mount, true, &libc::mount_attr { propagation: libc::MS_PRIVATE, ..sys::SAME })
        .on("part from the host the mount at", at.display())?;
    mount::unmount(at, UnmountFlags::DETACH).on("unmount", at.display())?;
    attach(copy.as_fd(), at)?;
    Ok(copy)
}

fn attributes(at: &Path, options: &Options) -> Result<(), Error> {
    if options.set | options.clear | options.set_below | options.clear_below == 0 {
        return Ok(());
    }
    let mount = tree(at, OpenTreeFlags::empty()).on("open the mount at", at.display())?;
    set(mount.as_fd(), at, options)
}

fn set(mount: BorrowedFd<'_>, at: &Path, options: &Options) -> Result<(), Error> {
    let change = |below, set, clear| {
        if set | clear == 0 {
            return Ok(());
        }
        sys::mount_setattr(mount, below, &libc::mount_attr { attr_set: set, attr_clr: clear, ..sys::SAME })
            .on("set the options of the mount at", at.display())
    };
    change(true, options.set_below, options.clear_below)?;
    change(false, options.set, options.clear)
}

fn propagate(at: &Path, flags: u64) -> Result<(), Error> {
    let flags = MountPropagationFlags::from_bits_retain(u32::try_from(flags).unwrap_or_default());
    mount::mount_change(at, flags).on("set the propagation of", at.display())
}

/// As many as the kernel follows.
const LINKS: usize = 40;

/// Makes the place of a mount where an image has none. A link that leads to nothing is followed: images have their
/// resolv.conf where systemd would put it.
pub(crate) fn place(at: &Path, directory: bool) -> Result<(), Error> {
    let mut at = at.to_owned();
    for _ in 0..LINKS {
        if at.exists() {
            return Ok(());
        }
        match fs::read_link(&at) {
            // Relative to the link's own directory; an absolute one replaces it.
            Ok(target) => at = at.parent().unwrap_or(&at).join(target),
            Err(_) => break,
        }
    }
    let at = at.as_path();
    if directory {
        return fs::create_dir_all(at).on("make the mount point", at.display());
    }
    if let Some(parent) = at.parent() {
        fs::create_dir_all(parent).on("make the directory", parent.display())?;
    }
    File::create_new(at).map(drop).on("make the mount point", at.display())
}

/// What an image has below a new tmpfs.
struct Kept(OwnedFd);

impl Kept {
    fn open(at: &Path) -> Result<Self, Error> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE;
        tree(at, flags).map(Self).on("keep the files below", at.display())
    }

    fn copy_to(&self, at: &Path) -> Result<(), Error> {
        use std::os::fd::AsRawFd;
        let from = format!("/proc/self/fd/{}", self.0.as_raw_fd());
        copy(Path::new(&from), at).on("copy the files of the image into", at.display())
    }
}

/// Copies a tree with owners and modes; what is neither file, directory nor link is not in images' directories.
fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{MetadataExt, lchown, symlink};
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (meta, target) = (entry.metadata()?, to.join(entry.file_name()));
        if meta.is_dir() {
            fs::create_dir_all(&target)?;
            copy(&entry.path(), &target)?;
        } else if meta.is_symlink() {
            symlink(fs::read_link(entry.path())?, &target)?;
        } else if meta.is_file() {
            fs::copy(entry.path(), &target)?;
        } else {
            continue;
        }
        lchown(&target, Some(meta.uid()), Some(meta.gid()))?;
        if !meta.is_symlink() {
            fs::set_permissions(&target, meta.permissions())?;
        }
    }
    Ok(())
}

/// How much of a tree the host clones for the container.
#[must_use]
pub fn clone_flags(bind: Bind) -> u32 {
    let all = match bind {
        Bind::One => 0,
        Bind::Recursive => libc::AT_RECURSIVE.unsigned_abs(),
    };
    all | OpenTreeFlags::OPEN_TREE_CLONE.bits()
}
