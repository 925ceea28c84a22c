//! Puts a container right after a capture whose process died half-way, from nothing but the journalled [`Member`].
//!
//! Order: first whoever still works on it must end (criu rolls back by itself), then its network is unlocked and
//! leftover links are removed, last its freeze becomes what it was. Every step is idempotent; a container that has ended
//! is success, and then only its network namespace, which belongs to the pod, is cleaned.

use std::path::Path;
use std::time::Duration;

use cryopod_checkpoint::target::{Member, Repair, TargetError};
use cryopod_command::Limits;

use crate::cgroup::{Cgroup, CgroupError};
use crate::criu::{operation, orphans};
use crate::error::Error;
use crate::oci::settle_container;
use crate::pod_target::target_error;

/// Repairs containers of OCI runtimes.
#[derive(Debug, Clone, Copy, Default)]
pub struct OciRepair;

impl Repair for OciRepair {
    fn repair(&self, member: &Member, frozen_by_us: bool, patience: Duration) -> Result<(), TargetError> {
        repair(member, frozen_by_us, patience).map_err(|error| target_error("repair", &member.id, error))
    }

    fn end(&self, member: &Member, patience: Duration) -> Result<bool, TargetError> {
        end(member, patience).map_err(|error| target_error("end", &member.id, error))
    }
}

/// Kills what the capture left frozen. Another init in that cgroup is another container under the old name, and one that
/// is not frozen was let run by somebody who wants it.
fn end(member: &Member, patience: Duration) -> Result<bool, Error> {
    orphans::wait_for_end(&member.id, patience)?;
    operation::sweep(Path::new(operation::BASE), &member.id);
    let cgroup = Cgroup::at(&member.cgroup);
    let ours = cgroup.is_frozen().and_then(|frozen| Ok(frozen && cgroup.processes()?.contains(&member.pid)));
    match ours {
        Ok(true) => cgroup.kill()?,
        Ok(false) | Err(CgroupError::Gone { .. }) => return Ok(false),
        Err(error) => return Err(error.into()),
    }
    Ok(true)
}

fn repair(member: &Member, frozen_by_us: bool, patience: Duration) -> Result<(), Error> {
    orphans::wait_for_end(&member.id, patience)?;
    operation::sweep(Path::new(operation::BASE), &member.id);
    settle_container(member, member.was_paused)?;
    let cgroup = Cgroup::at(&member.cgroup);
    if frozen_by_us && !member.was_paused {
        match cgroup.thaw(&Limits::within(patience)) {
            Err(CgroupError::Gone { .. }) => {}
            result => result?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(cgroup: &Path, pid: u32) -> Member {
        Member {
            name: "web".into(),
            id: format!("end-{pid}-{}", std::process::id()),
            image: String::new(),
            runtime: "oci/crun".into(),
            pid,
            rss_bytes: 0,
            cgroup: cgroup.to_owned(),
            was_paused: false,
            terminal: false,
            rootfs: "/r".into(),
            spec: serde_json::Value::Null,
            disks: vec![],
        }
    }

    #[test]
    fn only_the_init_that_was_captured_is_ended_and_only_while_it_is_frozen() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let write = |file: &str, text: &str| std::fs::write(dir.path().join(file), text).expect("file");
        let killed = || std::fs::read_to_string(dir.path().join("cgroup.kill")).expect("file") == "1";
        let end = |pid| OciRepair.end(&member(dir.path(), pid), Duration::from_secs(1)).expect("answer");
        write("cgroup.kill", "");
        write("cgroup.procs", "4000000\n4000001\n");
        for (freeze, pid) in [("0", 4_000_000), ("1", 4_000_009)] {
            write("cgroup.freeze", freeze);
            assert!(!end(pid) && !killed(), "freeze {freeze}, pid {pid}");
        }
        assert!(end(4_000_000) && killed());
        let gone = member(&dir.path().join("gone"), 4_000_000);
        assert!(!OciRepair.end(&gone, Duration::from_secs(1)).expect("a cgroup that has gone is no error"));
    }
}
