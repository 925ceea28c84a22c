//! Bringing a container back from images: CRIU makes the processes and namespaces, and everything around them is made here,
//! as for a new one.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use cryopod_init::terminal::send_master;
use oci_spec::runtime::{LinuxNamespaceType, Spec};
use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
use rustix::io::FdFlags;
use rustix::mount::{MountPropagationFlags, mount_bind_recursive, mount_change};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::cgroup;
use crate::checkpoint::refuse;
use crate::create::finish;
use crate::criu::{self, RestoreOptions, Restored, Target};
use crate::directory::Directory;
use crate::making::{Error, Programs, Request, answer, host};
use crate::plan::{self, namespace};

/// Brings it back; answers the PID of its first process, a child of the nearest subreaper.
///
/// # Errors
/// See [`Error`]; nothing is left over then.
pub fn restore(request: &Request<'_>, options: &RestoreOptions, programs: &Programs) -> Result<u32, Error> {
    refuse(request.spec)?;
    host("make", options.work.display(), fs::create_dir_all(&options.work))?;
    let dir = Directory::make(request)?;
    let settings = dir.configure(request)?;
    let made = cgroup::make(request, &settings).and_then(|()| {
        cgroup::restrict_devices(request)?;
        let pid = run(request, options)?;
        let container = dir.record(request, pid)?;
        answer(&container, &programs.monitor)?;
        Ok(pid)
    });
    finish(request, dir, made)
}

fn run(request: &Request<'_>, options: &RestoreOptions) -> Result<u32, Error> {
    let spec = request.spec;
    let root = request.root()?;
    let streams = streams(&options.images)?;
    let network = opened(spec, LinuxNamespaceType::Network)?;
    let pids = opened(spec, LinuxNamespaceType::Pid)?;
    let join = [(LinuxNamespaceType::Uts, "uts"), (LinuxNamespaceType::Ipc, "ipc")];
    let join = join.into_iter().filter_map(|(kind, name)| Some((name, namespace(spec, kind)??.clone())));
    let mounts = plan::sources(spec, request.bundle);
    let target = Target {
        root: root.clone(),
        cgroup: request.cgroup.to_owned(),
        network: network.as_ref().map(AsRawFd::as_raw_fd),
        pids: pids.as_ref().map(AsRawFd::as_raw_fd),
        join: join.collect(),
        mounts: mounts.into_iter().map(|(at, source)| (at.display().to_string(), source)).collect(),
        terminal: request.console_socket.is_some(),
        streams: streams.iter().map(|(fd, pipe)| (fd.as_raw_fd(), pipe.clone())).collect(),
    };
    let given = streams.iter().map(|(fd, _)| fd.as_fd());
    for fd in given.chain(network.iter().map(AsFd::as_fd)).chain(pids.iter().map(AsFd::as_fd)) {
        let kept = rustix::io::fcntl_setfd(fd, FdFlags::empty()).map_err(io::Error::from);
        host("hand over", "a descriptor", kept)?;
    }
    let run = || Ok(criu::restore(&target, options)?);
    let restored = if is_mount_point(&root)? { run()? } else { with_mount_at(&root, run)? };
    hand_over(request, restored)
}

/// Gives the terminal to whoever asked for it. The container lives by then, and ends with the error.
fn hand_over(request: &Request<'_>, restored: Restored) -> Result<u32, Error> {
    match (request.console_socket, restored.terminal) {
        (Some(path), Some(master)) => {
            let socket = host("connect to the console socket", path.display(), UnixStream::connect(path))?;
            let sent = send_master(&OwnedFd::from(socket), &master);
            sent.map_err(|error| Error::Inside { message: error.to_string(), errno: None })?;
        }
        (Some(_), None) => {
            let none = io::Error::other("it was captured without a terminal");
            return host("take the terminal of", request.id, Err(none));
        }
        (None, _) => {}
    }
    Ok(restored.pid)
}

fn opened(spec: &Spec, kind: LinuxNamespaceType) -> Result<Option<File>, Error> {
    let Some(Some(path)) = namespace(spec, kind) else { return Ok(None) };
    host("open", path.display(), File::open(path)).map(Some)
}

/// Our streams under numbers that CRIU leaves alone, with the pipes whose places they take.
fn streams(images: &Path) -> Result<Vec<(OwnedFd, String)>, Error> {
    let path = images.join(criu::STREAMS);
    let text = host("read", path.display(), fs::read(&path))?;
    let links: Vec<String> =
        host("understand", path.display(), serde_json::from_slice(&text).map_err(io::Error::from))?;
    let own = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
    let mut streams: Vec<(OwnedFd, String)> = Vec::new();
    for (stream, link) in own.into_iter().zip(links) {
        // Two streams may be one pipe; a terminal or a device of the container's own comes back by itself.
        if link.starts_with("pipe:") && streams.iter().all(|(_, known)| *known != link) {
            let copy = rustix::io::fcntl_dupfd_cloexec(stream, 10).map_err(io::Error::from);
            streams.push((host("copy", "a standard stream", copy)?, link));
        }
    }
    Ok(streams)
}

/// CRIU wants a mount point for the root.
fn is_mount_point(root: &Path) -> Result<bool, Error> {
    let found = statx(CWD, root, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::empty()).map_err(io::Error::from);
    Ok(host("look at", root.display(), found)?.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

/// Runs `work` where the root is one, in a mount namespace of ours: the host never sees it, and no kill can leave it.
fn with_mount_at<T>(root: &Path, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    let own = "/proc/self/ns/mnt";
    let before = host("open", own, File::open(own))?;
    crate::sys::own_mounts().map_err(|source| Error::Host {
        step: "leave",
        object: "the mount namespace".to_owned(),
        source,
    })?;
    let flags = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    let mounted =
        mount_change("/", flags).and_then(|()| mount_bind_recursive(root, root)).map_err(io::Error::from);
    let done = host("mount", root.display(), mounted).and_then(|()| work());
    // The monitor outlives us, and must not keep this namespace.
    let back = move_into_link_name_space(before.as_fd(), Some(LinkNameSpaceType::Mount));
    host("return to", "the mount namespace", back.map_err(io::Error::from))?;
    done
}
