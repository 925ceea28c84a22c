//! Device nodes and the links that every `/dev` has (OCI runtime spec, "Default Devices" and "Dev symbolic links").

use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{chown, symlink};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

use crate::error::{Context, Error};
use crate::mounts::{attach, place};
use crate::plan::{Device, Files};
use crate::sys;

const LINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
    ("pts/ptmx", "/dev/ptmx"),
];

/// Makes nodes and links, if `/dev` is the container's own.
///
/// # Errors
/// At the first that fails, by its path.
pub fn make(files: &Files) -> Result<(), Error> {
    // The mode of a node is the one that the spec says, whatever mask we were started with.
    let mask = rustix::process::umask(Mode::empty());
    let made = files.devices.iter().try_for_each(|device| node(device, files.bind_devices));
    rustix::process::umask(mask);
    made?;
    if !files.own_dev {
        return Ok(());
    }
    for (target, link) in LINKS {
        match symlink(target, link) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            result => result.on("make the link", link)?,
        }
    }
    Ok(())
}

fn node(device: &Device, bind: bool) -> Result<(), Error> {
    let at = device.path.as_path();
    if let (true, Some(fd)) = (bind, device.fd) {
        let tree = sys::inherited(fd).on("take over the device for", at.display())?;
        place(at, false)?;
        return attach(tree.as_fd(), at);
    }
    if let Some(parent) = at.parent() {
        std::fs::create_dir_all(parent).on("make the directory", parent.display())?;
    }
    let (kind, mode) = (FileType::from_raw_mode(device.mode), Mode::from_raw_mode(device.mode));
    match mknodat(CWD, at, kind, mode, makedev(device.major, device.minor)) {
        // An image's own, or a mount of the spec.
        Err(rustix::io::Errno::EXIST) if is_that(at, device) => {}
        result => result.on("make the device", at.display())?,
    }
    chown(at, Some(device.uid), Some(device.gid)).on("give an owner to", at.display())
}

fn is_that(at: &Path, device: &Device) -> bool {
    use std::os::unix::fs::MetadataExt;
    let Ok(meta) = std::fs::symlink_metadata(at) else { return false };
    meta.rdev() == makedev(device.major, device.minor)
        && meta.mode() & libc::S_IFMT == device.mode & libc::S_IFMT
}
