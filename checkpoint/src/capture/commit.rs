//! From "captured" to "committed": hashes, the manifest, the marker.

use std::collections::BTreeMap;
use std::fmt;

use cryopod_command::Limits;
use jiff::Timestamp;

use super::disks;
use super::draft::{Draft, Frozen};
use super::memory::Rounds;
use super::plan::Plan;
use super::{CaptureError, CaptureOptions, Captured};
use crate::audit::{self, Entry};
use crate::facts::NodeFacts;
use crate::fault;
use crate::id::CheckpointId;
use crate::journal::CaptureStage;
use crate::manifest::{
    CapturedMode, DiskContent, DiskRecord, Manifest, MemberRecord, MemoryRecord, VERSION, stored_name,
};
use crate::progress::Progress;
use crate::refusal::Refusal;
use crate::store::StoreError;
use crate::store::content::Content;
use crate::target::{Member, PodIdentity, Target, TcpPolicy};
use crate::timeline::{Recorder, Timeline};
use crate::tree;

/// Program and version, for the manifest.
const TOOL: &str = concat!("cryopod ", env!("CARGO_PKG_VERSION"));

/// A captured pod whose checkpoint is not visible yet. The pod runs again, unless its end was asked for: then it stays
/// frozen until the commit, and is thawed if that fails. Dropping it removes everything that was captured.
pub struct Taken {
    // First, so that a drop thaws before it removes.
    frozen: Option<Frozen>,
    draft: Draft,
    content: Content,
    recorder: Recorder,
    parts: Parts,
}

/// What goes into the manifest and is known by now.
pub(super) struct Parts {
    created: Timestamp,
    mode: CapturedMode,
    refused: Option<Refusal>,
    labels: BTreeMap<String, String>,
    requested_by: Option<String>,
    tcp: TcpPolicy,
    node: NodeFacts,
    pod: PodIdentity,
    members: Vec<Member>,
    memory: Vec<Rounds>,
    disks: Vec<disks::Taken>,
}

impl Parts {
    pub(super) fn new(
        created: Timestamp,
        options: &CaptureOptions<'_>,
        plan: &Plan,
        target: &dyn Target,
        memory: Vec<Rounds>,
        disks: Vec<disks::Taken>,
    ) -> Self {
        Self {
            created,
            mode: plan.mode,
            refused: plan.refused.clone(),
            labels: options.labels.clone(),
            requested_by: options.requested_by.clone(),
            tcp: options.tcp,
            node: options.node.clone(),
            pod: target.pod().clone(),
            members: target.members().to_vec(),
            memory,
            disks,
        }
    }
}

impl fmt::Debug for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Taken").field("id", self.draft.id()).finish_non_exhaustive()
    }
}

impl Taken {
    pub(super) fn new(
        draft: Draft,
        content: Content,
        recorder: Recorder,
        frozen: Option<Frozen>,
        parts: Parts,
    ) -> Self {
        Self { frozen, draft, content, recorder, parts }
    }

    /// The checkpoint to be.
    pub fn id(&self) -> &CheckpointId {
        self.draft.id()
    }

    /// Where the time went so far.
    pub fn timeline(&self) -> Timeline {
        self.recorder.snapshot()
    }

    /// Image directory of a member's memory, for callers that hand the files on (the CRI archive). None in mode disk.
    pub fn images(&self, member: &str) -> Option<std::path::PathBuf> {
        let index = self.parts.members.iter().position(|known| known.name == member)?;
        let last = self.parts.memory.get(index)?.names.last()?;
        Some(self.content.round(member, last))
    }

    /// Hashes, writes the manifest and makes the checkpoint visible.
    pub fn commit(self, progress: &dyn Progress, limits: &Limits) -> Result<Captured, CaptureError> {
        let (id, pod, labels) = (self.draft.id().clone(), self.parts.pod.clone(), self.parts.labels.clone());
        let user = self.parts.requested_by.clone();
        let committed = self.commit_it(progress, limits);
        let entry = Entry::new(audit::Operation::Capture).checkpoint(&id).pod(&pod).labels(&labels);
        let mut entry = entry.asked_by(user.as_deref());
        if let Ok(Captured { manifest, .. }) = &committed {
            let (summary, timeline) = (manifest.summary(), &manifest.timeline);
            let bytes = summary.memory_bytes.saturating_add(summary.disk_bytes);
            entry = entry.figures(timeline.total(), timeline.freeze(), bytes);
        }
        audit::note(entry.result(&committed));
        committed
    }

    fn commit_it(mut self, progress: &dyn Progress, limits: &Limits) -> Result<Captured, CaptureError> {
        let records = self.records(progress, limits)?;
        limits.check().map_err(CaptureError::Stopped)?;
        fault::step("capture.manifest")?;
        progress.step("commit");
        let manifest = Manifest {
            version: VERSION,
            id: self.draft.id().clone(),
            created: self.parts.created,
            tool: TOOL.to_owned(),
            mode: self.parts.mode,
            memory_refused: self.parts.refused.clone(),
            pod: self.parts.pod.clone(),
            labels: self.parts.labels.clone(),
            tcp: self.parts.tcp,
            node: self.parts.node.clone(),
            timeline: self.recorder.snapshot(),
            members: records,
        };
        self.draft.stage(CaptureStage::Committing)?;
        let settled =
            !manifest.stored_disks().any(|(_, _, disk)| matches!(disk.content, DiskContent::Zfs { .. }));
        let Self { draft, recorder, .. } = &mut self;
        let store = std::sync::Arc::clone(draft.store());
        recorder.phase("commit", |_| store.commit(&manifest, settled, limits))?;
        fault::step("capture.committed")?;
        let exit = self.frozen.take().map(Frozen::keep).is_some();
        let timeline = self.recorder.snapshot();
        let id = self.draft.id().clone();
        Ok(Captured { id, manifest, timeline, ending: self.draft.committed(exit) })
    }

    fn records(
        &mut self,
        progress: &dyn Progress,
        limits: &Limits,
    ) -> Result<Vec<MemberRecord>, CaptureError> {
        let Self { content, recorder, parts, .. } = self;
        let mut records = Vec::new();
        for (index, member) in parts.members.iter().enumerate() {
            let memory = match parts.memory.get(index) {
                None => None,
                Some(rounds) => {
                    progress.step(&format!("hash {}", member.name));
                    fault::step("capture.hash")?;
                    let files = recorder.phase(format!("hash {}", member.name), |_| {
                        content.record(&member.name, &rounds.names, progress, limits)
                    })?;
                    recorder.memory(files.iter().map(|file| file.size).sum());
                    Some(MemoryRecord {
                        rounds: rounds.names.clone(),
                        files,
                        frozen_us: rounds.frozen_us,
                        connected: rounds.connected.clone(),
                    })
                }
            };
            let mut disks = Vec::new();
            for taken in parts.disks.iter().filter(|taken| taken.plan.member == index) {
                let name = taken.plan.name.clone();
                disks.push(DiskRecord { content: hashed(content, &member.name, taken, limits)?, name });
            }
            records.push(MemberRecord { member: member.clone(), disks, memory });
        }
        Ok(records)
    }
}

/// The content of a disk with the hash that had to wait until after the thaw.
fn hashed(
    content: &Content,
    member: &str,
    taken: &disks::Taken,
    limits: &Limits,
) -> Result<DiskContent, CaptureError> {
    match &taken.content {
        Some(DiskContent::Tree { layer, .. }) => {
            let dir = content.disk(&stored_name(member, &taken.plan.name));
            let (sha256, copied) = tree::codec::digest(&dir, limits)?;
            Ok(DiskContent::Tree { bytes: copied.bytes, entries: copied.entries, sha256, layer: *layer })
        }
        Some(content) => Ok(content.clone()),
        None => {
            let source = std::io::Error::new(std::io::ErrorKind::NotFound, "not captured");
            let path = std::path::Path::new(&taken.plan.name);
            Err(StoreError::io("find disk", path)(source).into())
        }
    }
}
