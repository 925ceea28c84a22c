//! From a process of the host into the namespaces and the root of a container.
//!
//! Whoever makes the container has made the process with the namespaces that are new, by one clone3(2), in the container's
//! cgroup. Not all namespaces can be had so: a PID namespace that is joined holds for children only, as does a time namespace
//! with clocks of its own, and a user namespace has to be joined before others are made in it. Then a second process is made
//! here, beside this one (`CLONE_PARENT`), and this one ends.

use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::io::Errno;
use rustix::mount::{self, MountPropagationFlags, UnmountFlags};
use rustix::process::{DumpableBehavior, Gid, Uid};
use rustix::thread;

use crate::error::{Context, Error};
use crate::hooks::run_all;
use crate::plan::Enter;
use crate::report::Report;
use crate::sys::{self, Fork};

const NEW_USER: u32 = libc::CLONE_NEWUSER.unsigned_abs();
const NEW_CGROUP: u32 = libc::CLONE_NEWCGROUP.unsigned_abs();
const NEW_TIME: u32 = libc::CLONE_NEWTIME.unsigned_abs();
/// A cgroup namespace begins at the cgroup in which its maker is, and clone3(2) takes that of the parent.
const AFTERWARDS: u32 = NEW_CGROUP | NEW_TIME;

/// Namespaces that a process can have from the moment on in which it is made.
#[must_use]
pub fn at_once(enter: &Enter) -> u32 {
    if enter.second { 0 } else { enter.new & !AFTERWARDS }
}

/// Gets into the namespaces; `host` is whoever makes the container, who has to write the mappings of a new user namespace.
///
/// # Errors
/// See [`Error`].
pub fn namespaces(enter: &Enter, host: &mut UnixStream) -> Result<(), Error> {
    if enter.new & NEW_TIME != 0 {
        sys::unshare(NEW_TIME).step("make a time namespace")?;
        let path = "/proc/self/timens_offsets";
        std::fs::write(path, &enter.clocks).on("set clocks in", path)?;
    }
    for fd in &enter.join {
        let namespace = sys::inherited(*fd).on("take over the namespace", fd)?;
        thread::move_into_link_name_space(namespace.as_fd(), None).on("join the namespace", fd)?;
    }
    if enter.second {
        match sys::beside(enter.new & !AFTERWARDS).step("make the first process")? {
            Fork::Parent(_) => std::process::exit(0),
            Fork::Child => {}
        }
    }
    // Its own session, as every runtime gives it: no signal of a terminal of ours reaches it.
    rustix::process::setsid().step("begin a session")?;
    if enter.keyring {
        match sys::own_keyring() {
            // A kernel without keys has none that could be seen, and a filter around us may forbid the call.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {}
            result => result.step("make a session keyring")?,
        }
    }
    if enter.new & NEW_USER != 0 {
        ask(host, &Report::Unmapped).step("wait for the mappings of ids")?;
    }
    if enter.new & NEW_CGROUP != 0 {
        sys::unshare(NEW_CGROUP).step("make a cgroup namespace")?;
    }
    Ok(())
}

/// Says something and waits for the word of the other side.
fn ask(host: &mut UnixStream, report: &Report) -> std::io::Result<u32> {
    report.say(host)?;
    let mut word = [0; 4];
    host.read_exact(&mut word)?;
    Ok(u32::from_ne_bytes(word))
}

/// Changes the root. Until then the process is root of the host, who may reach the root's path; in a user namespace it then
/// becomes that one's root.
///
/// # Errors
/// See [`Error`].
pub fn root(enter: &Enter, host: &mut UnixStream) -> Result<(), Error> {
    let root = enter.root.as_path();
    let private = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    mount::mount_change("/", private).step("part from the mounts of the host")?;
    mount::mount_bind_recursive(root, root).on("mount", root.display())?;
    std::env::set_current_dir(root).on("enter the root", root.display())?;
    if enter.user {
        become_root()?;
    }
    if enter.gate {
        // The hooks of the host, then those that run here with the host's files.
        let pid = ask(host, &Report::Entered).step("wait for the hooks of the host")?;
        if !enter.hooks.is_empty() {
            run_all(&enter.hooks, pid)?;
            Report::Hooked.say(host).step("say that the hooks have run")?;
        }
        // A hook may have mounted something over it.
        std::env::set_current_dir(root).on("enter the root", root.display())?;
    }
    // The old root comes to lie on the new one, and is taken away (pivot_root(2), "pivot_root(".", ".")").
    rustix::process::pivot_root(".", ".").on("change the root to", root.display())?;
    mount::unmount(".", UnmountFlags::DETACH).step("leave the root of the host")?;
    std::env::set_current_dir(Path::new("/")).step("enter the root")
}

/// Root of the user namespace in which this process is.
fn become_root() -> Result<(), Error> {
    match thread::set_thread_groups(&[]) {
        // It may forbid that.
        Ok(()) | Err(Errno::PERM) => {}
        Err(error) => return Err(error).step("leave the groups of the host"),
    }
    thread::set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT).step("become group 0")?;
    thread::set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT).step("become user 0")?;
    // Or its own files in /proc belong to the root of the host. Nothing of this process is secret: its program cannot be
    // written through it, and its memory is the spec.
    rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable).step("own the files in /proc")
}
