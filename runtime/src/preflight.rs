//! Reasons why the memory of a pod cannot be captured, found before anything is touched.
//!
//! Each refusal has a stable code, what is in the way, and what to do ([`CODES`] is the list for people; docs/ prints
//! it). A check that cannot look (a process that ends meanwhile) finds nothing: the dump itself would tell.

mod facts;
mod scan;
#[cfg(test)]
mod tests;

use std::path::Path;

use cryopod_checkpoint::refusal::Refusal;
use cryopod_checkpoint::target::Member;
use cryopod_command::Limits;

use crate::cgroup::Cgroup;
use crate::criu::{CriuError, version};
use crate::spec::Spec;
use facts::Facts;

/// Code and meaning of every refusal of this module, of its callers and of [`crate::disk`].
pub const CODES: &[(&str, &str)] = &[
    ("criu-missing", "CRIU is not installed"),
    ("criu-too-old", "CRIU is older than 4.1.1"),
    ("criu-broken", "CRIU does not answer"),
    ("kernel-unsupported", "the kernel lacks cgroup v2 or checkpoint support (CONFIG_CHECKPOINT_RESTORE)"),
    ("not-running", "a container is not running"),
    ("parent-frozen", "a cgroup above a container is frozen"),
    ("userns", "a container has a user namespace"),
    ("io-uring", "a process uses io_uring"),
    ("exec-session", "a process was started by exec and is not a child of the container's init"),
    ("traced", "a debugger is attached to a process"),
    ("device-file", "a process has a device open that CRIU cannot restore"),
    ("host-file", "a process has a file open that is outside the container's mounts"),
    ("unsupported-mount", "a file system is mounted inside that CRIU cannot capture"),
    ("backend-memory", "the runtime of the container cannot dump memory"),
    (crate::disk::VOLUME_REFUSED, "a writable volume for which neither annotation nor configuration decides"),
    (crate::disk::VOLUME_NOT_A_DIRECTORY, "a writable single file of the host is mounted"),
    (crate::disk::BAD_ANNOTATION, "an annotation has an unknown value"),
];

/// Whether the memory of all members can be captured on this node.
pub fn memory(members: &[Member], criu: &Path, limits: &Limits) -> Result<(), Refusal> {
    node(criu, limits)?;
    let facts = Facts::default();
    members.iter().try_for_each(|member| container(&facts, member))
}

/// Whether this node can capture memory at all.
pub fn node(criu: &Path, limits: &Limits) -> Result<(), Refusal> {
    version(criu, limits)?;
    kernel(&Facts::default())
}

fn version(criu: &Path, limits: &Limits) -> Result<(), Refusal> {
    match version::check(criu, limits) {
        Ok(_) => Ok(()),
        Err(error @ CriuError::Missing { .. }) => {
            Err(Refusal::new("criu-missing", error.to_string(), "install criu, or checkpoint the disk only"))
        }
        Err(error @ CriuError::TooOld { .. }) => Err(Refusal::new(
            "criu-too-old",
            error.to_string(),
            "install a newer criu, or checkpoint the disk only",
        )),
        Err(error) => Err(Refusal::new(
            "criu-broken",
            error.to_string(),
            "run `criu check`, or checkpoint the disk only",
        )),
    }
}

fn kernel(facts: &Facts) -> Result<(), Refusal> {
    // Both exist only with what CRIU needs: unified hierarchy, and /proc/<pid>/task/<tid>/children.
    for (path, needed) in [
        (facts.cgroups.join("cgroup.controllers"), "cgroup v2"),
        (facts.proc.join("thread-self/children"), "CONFIG_CHECKPOINT_RESTORE"),
    ] {
        if !path.exists() {
            return Err(Refusal::new(
                "kernel-unsupported",
                format!("this kernel has no {needed} ({} is missing)", path.display()),
                "boot a kernel with it, or checkpoint the disk only",
            ));
        }
    }
    Ok(())
}

fn container(facts: &Facts, member: &Member) -> Result<(), Refusal> {
    let spec = Spec::from_value(member.spec.clone());
    let name = &member.name;
    if facts.alive(member.pid).is_none() {
        return Err(Refusal::new(
            "not-running",
            format!("container {name} is not running"),
            "start it, or checkpoint a pod whose containers run",
        ));
    }
    // CRIU would wait for tasks that cannot stop at its call; what is frozen at the container's own level is fine.
    let above = std::iter::successors(Cgroup::at(&member.cgroup).parent(), Cgroup::parent);
    if let Some(frozen) = above.into_iter().find(|cgroup| cgroup.is_frozen().unwrap_or(false)) {
        return Err(Refusal::new(
            "parent-frozen",
            format!("cgroup {} above container {name} is frozen", frozen.path().display()),
            "thaw it (write 0 to its cgroup.freeze), and pause the containers instead",
        ));
    }
    if spec.has_namespace("user") {
        return Err(Refusal::new(
            "userns",
            format!("container {name} has a user namespace, which CRIU cannot restore into a pod's network"),
            "run the pod with hostUsers: true, or checkpoint the disk only",
        ));
    }
    let pids = Cgroup::at(&member.cgroup).processes().unwrap_or_default();
    scan::processes(facts, name, member.pid, &pids)?;
    scan::mounts(facts, name, member.pid, &spec)
}
