//! A set of containers as the [`Target`] of a capture.
//!
//! All members are told to freeze before any is waited for, so the pod stops within one kernel round instead of one per
//! container. What an administrator (or containerd, before Task.Checkpoint) had paused stays paused on every path.

use std::sync::Arc;
use std::time::Duration;

use cryopod_checkpoint::target::{
    AtInstant, DumpOptions, DumpStats, ImageDir, Member, PodIdentity, Repair, Target, TargetError,
};
use cryopod_command::Limits;

use crate::backend::Backend;
use crate::cgroup::Cgroup;
use crate::criu::orphans;
use crate::error::Error;
use crate::repair::OciRepair;

/// How long the kernel may take to thaw; thawing has no caller's limit, because it must happen.
const THAW: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 30 });
/// How long the kernel may take to freeze when the caller sets no limit.
const FREEZE: Duration = Duration::from_secs(30);

/// Containers that are frozen, dumped and thawed together.
pub struct PodTarget {
    pod: PodIdentity,
    members: Vec<Member>,
    backend: Arc<dyn Backend>,
}

impl PodTarget {
    /// Members as [`crate::members::describe`] gives them.
    pub fn new(pod: PodIdentity, members: Vec<Member>, backend: Arc<dyn Backend>) -> Self {
        Self { pod, members, backend }
    }

    fn ours(&self) -> impl Iterator<Item = (&Member, Cgroup)> {
        self.members.iter().filter(|m| !m.was_paused).map(|m| (m, Cgroup::at(&m.cgroup)))
    }
}

pub(crate) fn target_error(step: &'static str, container: &str, error: impl Into<Error>) -> TargetError {
    let error = error.into();
    let refused = error.refused_dump(container).map(Box::new);
    TargetError {
        step,
        container: container.to_owned(),
        kind: error.kind(),
        refused,
        source: Box::new(error),
    }
}

impl Target for PodTarget {
    fn pod(&self) -> &PodIdentity {
        &self.pod
    }

    fn members(&self) -> &[Member] {
        &self.members
    }

    fn freeze(&self, limits: &Limits) -> Result<(), TargetError> {
        let limits = limits.at_most(FREEZE);
        let freeze = || {
            for (member, cgroup) in self.ours() {
                cgroup.begin_freeze().map_err(|error| target_error("freeze", &member.id, error))?;
            }
            for (member, cgroup) in self.ours() {
                cgroup.wait_frozen(&limits).map_err(|error| target_error("freeze", &member.id, error))?;
            }
            Ok(())
        };
        let result = freeze();
        if result.is_err()
            && let Err(error) = self.thaw()
        {
            tracing::error!(%error, "a failed freeze is not taken back");
        }
        result
    }

    fn thaw(&self) -> Result<(), TargetError> {
        let limits = Limits::within(THAW);
        let mut first = None;
        let mut note = |member: &Member, result: Result<(), _>| {
            if let Err(error) = result {
                tracing::error!(container = member.id, %error, "container is not thawed");
                first.get_or_insert(target_error("thaw", &member.id, error));
            }
        };
        self.ours().for_each(|(member, cgroup)| note(member, cgroup.begin_thaw()));
        self.ours().for_each(|(member, cgroup)| note(member, cgroup.wait_thawed(&limits)));
        first.map_or(Ok(()), Err)
    }

    fn put_right(&self, member: &Member, frozen_by_us: bool) -> Result<(), TargetError> {
        OciRepair.repair(member, frozen_by_us, orphans::PATIENCE)
    }

    fn pre_dump(
        &self,
        member: &Member,
        images: &ImageDir,
        limits: &Limits,
    ) -> Result<DumpStats, TargetError> {
        let result = self.backend.pre_dump(member, images, limits);
        result.map_err(|error| target_error("pre-dump", &member.id, error))
    }

    fn dump(
        &self,
        member: &Member,
        images: &ImageDir,
        options: &DumpOptions,
        at_instant: &AtInstant<'_>,
        limits: &Limits,
    ) -> Result<DumpStats, TargetError> {
        let result = self.backend.dump(member, images, options, at_instant, limits);
        result.map_err(|error| target_error("dump", &member.id, error))
    }
}

#[cfg(test)]
#[path = "pod_target/tests.rs"]
mod tests;
