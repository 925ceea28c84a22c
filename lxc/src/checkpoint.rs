//! Writing the memory of a running container into images, by CRIU.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxNamespaceType, Spec};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

use crate::criu::{self, DumpOptions, Externals};
use crate::making::{Error, host};
use crate::plan::{self, namespace};
use crate::refusal::Refusal;
use crate::state::Container;

/// Dumps it, or makes one round before a dump.
///
/// # Errors
/// When CRIU fails: then the container is as before.
pub fn checkpoint(container: &Container, spec: &Spec, options: &DumpOptions) -> Result<(), Error> {
    let pid = container.record.pid;
    if container.process().is_none() {
        let ended = Err(io::Error::from_raw_os_error(libc::ESRCH));
        return host("capture", format!("container '{}', which has ended", container.record.id), ended);
    }
    refuse(spec)?;
    for dir in [&options.images, &options.work] {
        host("make", dir.display(), fs::create_dir_all(dir))?;
    }
    let externals = externals(pid, spec)?;
    if !options.pre_dump {
        write_streams(pid, &options.images)?;
    }
    Ok(criu::dump(pid, &container.record.cgroup, &externals, options)?)
}

/// What CRIU would capture and not bring back.
pub(crate) fn refuse(spec: &Spec) -> Result<(), Refusal> {
    if namespace(spec, LinuxNamespaceType::User).is_some() {
        let why = "has a user namespace, whose network CRIU cannot bring back: only the disk can be captured";
        return Err(Refusal::of("linux.namespaces", why));
    }
    Ok(())
}

fn externals(pid: u32, spec: &Spec) -> Result<Externals, Error> {
    let inode = |kind: LinuxNamespaceType, name: &str| {
        let path = format!("/proc/{pid}/ns/{name}");
        match namespace(spec, kind) {
            Some(Some(_)) => host("look at", &path, fs::metadata(&path)).map(|found| Some(found.ino())),
            _ => Ok(None),
        }
    };
    let root = format!("/proc/{pid}/root");
    let root = host("open", &root, File::open(&root))?;
    let mut mounts = Vec::new();
    for destination in plan::bound(spec) {
        let point = host("find", destination.display(), place(&root, &destination))?;
        mounts.push((point, destination.display().to_string()));
    }
    Ok(Externals {
        network: inode(LinuxNamespaceType::Network, "net")?,
        pids: inode(LinuxNamespaceType::Pid, "pid")?,
        mounts,
    })
}

/// Where a path of the spec leads in the container: an image may have a link there (`/var/run`), and the mount is behind it.
fn place(root: &File, destination: &Path) -> io::Result<PathBuf> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let found = openat2(root, destination, flags, Mode::empty(), ResolveFlags::IN_ROOT)?;
    fs::read_link(format!("/proc/self/fd/{}", found.as_raw_fd()))
}

/// Where its streams lead, by which a restore gives it others.
fn write_streams(pid: u32, images: &Path) -> Result<(), Error> {
    let link = |fd: u32| {
        let path = format!("/proc/{pid}/fd/{fd}");
        // A process may have closed one.
        fs::read_link(path).map_or_else(|_| String::new(), |target| target.display().to_string())
    };
    let text = serde_json::to_vec(&[link(0), link(1), link(2)]).map_err(io::Error::from);
    let path = images.join(criu::STREAMS);
    host("write", path.display(), text.and_then(|text| fs::write(&path, text)))
}
