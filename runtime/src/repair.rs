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
