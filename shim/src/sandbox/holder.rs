//! The process that holds a pod's namespaces, in place of a pause container.
//!
//! The same binary, called with [`ACTION`] as its only word, the plan as JSON on descriptor 3. It enters or makes the
//! namespaces, writes `ok <pid>` (or `error <text>`) to descriptor 4 and waits for a byte on descriptor 5: until then a shim
//! that ends takes it along, since nobody knows of it. Then it sleeps until it is killed. In a shared PID namespace it
//! is PID 1: it reaps what containers orphan, and its end takes them all along.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{Gid, Uid, setgroups, sethostname, setresgid, setresuid};

use super::plan::HolderPlan;
use crate::spawn::own_path;
use crate::sys;

/// The word that makes the binary a holder; containerd never uses it.
pub const ACTION: &str = "hold-namespaces";

/// A plan is some hundred bytes; sysctls may add a few KiB.
const MAX_PLAN_BYTES: u64 = 1024 * 1024;

/// A holder that ends with this value unless it is told to stay.
#[derive(Debug)]
pub struct Held {
    /// As the host sees it.
    pub pid: u32,
    stay: OwnedFd,
}

impl Held {
    /// It stays, whatever becomes of the shim: its PID is noted.
    ///
    /// # Errors
    /// When it has ended.
    pub fn stay(self) -> std::io::Result<()> {
        File::from(self.stay).write_all(b"s")
    }
}

/// Starts a holder. Blocks until the namespaces are there.
///
/// # Errors
/// What the holder, or the kernel on the way to it, said.
pub fn spawn(plan: &HolderPlan) -> Result<Held, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let (plan_read, plan_write) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(|e| text(&e))?;
    let (answer_read, answer_write) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(|e| text(&e))?;
    let (stay_read, stay) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(|e| text(&e))?;
    let mut command = Command::new(own_path());
    command
        .arg0("cryopod-pause")
        .arg(ACTION)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let fds = [plan_read.as_fd(), answer_write.as_fd(), stay_read.as_fd()];
    sys::prepare_child(&mut command, &fds, sys::Session::Own);
    let mut child = command.spawn().map_err(|e| text(&e))?;
    drop((command, plan_read, answer_write, stay_read));
    let json = serde_json::to_vec(plan).map_err(|e| text(&e))?;
    let sent = File::from(plan_write).write_all(&json);
    let mut answer = String::new();
    let read = File::from(answer_read).read_to_string(&mut answer);
    if let Some(pid) = answer.trim().strip_prefix("ok ").and_then(|pid| pid.parse::<u32>().ok()) {
        if pid != child.id() {
            // The one that forked PID 1 has ended.
            child.wait().map_err(|e| text(&e))?;
        }
        return Ok(Held { pid, stay });
    }
    child.kill().and_then(|()| child.wait()).map_err(|e| text(&e))?;
    sent.map_err(|e| text(&e))?;
    read.map_err(|e| text(&e))?;
    Err(answer.trim().trim_start_matches("error ").to_owned())
}

/// The holder itself; returns only when it cannot hold.
pub fn main() -> ExitCode {
    let fds = (sys::inherited_fd(3), sys::inherited_fd(4), sys::inherited_fd(5));
    let (Ok(plan), Ok(answer), Ok(stay)) = fds else {
        return ExitCode::FAILURE;
    };
    let mut answer = File::from(answer);
    let mut json = Vec::new();
    let read = File::from(plan).take(MAX_PLAN_BYTES).read_to_end(&mut json);
    let plan = read
        .map_err(|e| e.to_string())
        .and_then(|_| serde_json::from_slice::<HolderPlan>(&json).map_err(|e| e.to_string()));
    drop(json);
    // Before anything can fail silently: signals are taken by `reap` only.
    SigSet::all().thread_block().ok();
    match plan.and_then(|plan| enter(&plan)) {
        Ok(Role::Holder(pid)) => {
            writeln!(answer, "ok {pid}").ok();
            drop(answer);
            if File::from(stay).read_exact(&mut [0]).is_err() {
                return ExitCode::FAILURE;
            }
            reap()
        }
        Ok(Role::Parent) => ExitCode::SUCCESS,
        Err(error) => {
            writeln!(answer, "error {error}").ok();
            ExitCode::FAILURE
        }
    }
}

enum Role {
    /// This process holds; its PID for the shim.
    Holder(u32),
    /// It has forked the one that holds.
    Parent,
}

fn enter(plan: &HolderPlan) -> Result<Role, String> {
    // As low as containerd's pause container, so that the pod's namespaces outlive its workloads. First, since root of
    // another user namespace may not.
    std::fs::write("/proc/self/oom_score_adj", "-998").ok();
    if let Some(path) = &plan.netns {
        let netns = File::open(path).map_err(|e| format!("open {}: {e}", path.display()))?;
        if plan.user {
            join_owner(&netns).map_err(|e| format!("join the user namespace of {}: {e}", path.display()))?;
        }
        setns(netns, CloneFlags::CLONE_NEWNET).map_err(|e| format!("join {}: {e}", path.display()))?;
    }
    let mut fresh = CloneFlags::empty();
    fresh.set(CloneFlags::CLONE_NEWIPC, plan.ipc);
    fresh.set(CloneFlags::CLONE_NEWUTS, plan.hostname.is_some());
    fresh.set(CloneFlags::CLONE_NEWPID, plan.pid);
    unshare(fresh).map_err(|e| format!("make namespaces: {e}"))?;
    if let Some(hostname) = &plan.hostname {
        // Not by its sysctl, which belongs to root of the host.
        sethostname(hostname).map_err(|e| format!("set the host name {hostname}: {e}"))?;
    }
    for (name, value) in &plan.sysctls {
        set_sysctl(name, value)?;
    }
    if !plan.pid {
        return Ok(Role::Holder(std::process::id()));
    }
    // The new namespace is for children; the first is its PID 1. It learns its outer PID from a pipe.
    let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(|e| format!("pipe: {e}"))?;
    match sys::fork().map_err(|e| format!("fork: {e}"))? {
        Some(child) => {
            File::from(write).write_all(&child.to_ne_bytes()).map_err(|e| format!("tell PID 1: {e}"))?;
            Ok(Role::Parent)
        }
        None => {
            drop(write);
            let mut pid = [0; 4];
            File::from(read).read_exact(&mut pid).map_err(|e| format!("hear the PID: {e}"))?;
            Ok(Role::Holder(u32::from_ne_bytes(pid)))
        }
    }
}

/// Joins the user namespace that containerd has made the network namespace in, as its root.
fn join_owner(netns: &File) -> std::io::Result<()> {
    let owner = sys::owning_user_namespace(netns.as_fd())?;
    setns(owner, CloneFlags::CLONE_NEWUSER)?;
    setgroups(&[])?;
    setresgid(Gid::from_raw(0), Gid::from_raw(0), Gid::from_raw(0))?;
    setresuid(Uid::from_raw(0), Uid::from_raw(0), Uid::from_raw(0))?;
    Ok(())
}

/// `net.ipv4.ip_forward` → `/proc/sys/net/ipv4/ip_forward`; a `/` separates where names contain dots.
fn set_sysctl(name: &str, value: &str) -> Result<(), String> {
    let relative = if name.contains('/') { name.to_owned() } else { name.replace('.', "/") };
    let path = Path::new("/proc/sys").join(&relative);
    if relative.split('/').any(|part| part.is_empty() || part == "..") {
        return Err(format!("sysctl {name:?} is no name"));
    }
    std::fs::write(&path, value).map_err(|e| format!("set sysctl {name}={value}: {e}"))
}

/// Sleeps, and reaps orphans when it is PID 1. SIGTERM and SIGINT end it, as they end the pause program.
fn reap() -> ExitCode {
    let all = SigSet::all();
    loop {
        match all.wait() {
            Ok(Signal::SIGTERM | Signal::SIGINT) => return ExitCode::SUCCESS,
            Ok(Signal::SIGCHLD) => while let Ok(Some(_)) = sys::wait_any() {},
            Ok(_) => {}
            // Cannot happen with a valid set; sleeping beats spinning.
            Err(_) => std::thread::park(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sysctl_cannot_lead_out_of_proc_sys() {
        for name in ["../../etc/passwd", "net..x", "/etc/x", ""] {
            assert!(set_sysctl(name, "1").unwrap_err().contains("is no name"), "{name:?}");
        }
    }
}
