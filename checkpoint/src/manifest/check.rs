//! What a manifest must fulfil beyond its shape: bounds, plain names, no contradiction.

use std::collections::BTreeSet;

use super::{CapturedMode, Contradiction, DiskContent, Manifest, ManifestError, MemberRecord, stored_name};
use crate::id::check_component;
use crate::store::SNAPSHOT_PREFIX;
use crate::target::DiskRole;
use crate::timeline::MAX_PHASES;

/// Kubernetes allows no useful pod beyond this; each costs a dump.
const MAX_MEMBERS: usize = 256;
/// Volumes of one container, rootfs included.
const MAX_DISKS: usize = 256;
/// CRIU writes about five files per process and one per memory mapping file.
const MAX_FILES: usize = 200_000;
/// Pre-dump rounds and the dump.
const MAX_ROUNDS: usize = 16;
/// Labels, as annotations of one object could carry.
const MAX_LABELS: usize = 256;
/// All bytes that a checkpoint says it has: the largest file of Linux. Below it, no sum of sizes overflows.
const MAX_SIZE: u64 = i64::MAX as u64;
/// Longest label key or value, identity or node fact.
const MAX_TEXT: usize = 4096;

impl Manifest {
    /// Fails on the first thing that is wrong.
    pub(super) fn check(&self) -> Result<(), ManifestError> {
        bound("members", self.members.len(), MAX_MEMBERS)?;
        bound("labels", self.labels.len(), MAX_LABELS)?;
        bound("phases", self.timeline.phases.len(), MAX_PHASES)?;
        for (key, value) in &self.labels {
            bound("characters in a label", key.len().max(value.len()), MAX_TEXT)?;
        }
        let pod = &self.pod;
        for text in [&pod.id, &pod.name, &pod.namespace, &pod.uid, &self.tool] {
            bound("characters in an identity", text.len(), MAX_TEXT)?;
        }
        if self.members.is_empty() {
            return Err(ManifestError::Contradiction(Contradiction::Empty));
        }
        let mut members = BTreeSet::new();
        let mut stored = BTreeSet::new();
        for record in &self.members {
            let name = &record.member.name;
            component("a member", name)?;
            self.disks(record, &members, &mut stored)?;
            self.memory(record)?;
            if !members.insert(name.as_str()) {
                return Err(ManifestError::Contradiction(Contradiction::MemberTwice(name.clone())));
            }
        }
        self.sizes()
    }

    fn sizes(&self) -> Result<(), ManifestError> {
        let mut left = MAX_SIZE;
        for record in &self.members {
            let name = || record.member.name.clone();
            let files = record.memory.iter().flat_map(|memory| &memory.files).map(|file| file.size);
            let disks = record.disks.iter().map(|disk| match disk.content {
                DiskContent::Zfs { referenced_bytes: bytes, .. } | DiskContent::Tree { bytes, .. } => bytes,
                DiskContent::Shared { .. } => 0,
            });
            for size in files.chain(disks) {
                left = left.checked_sub(size).ok_or_else(|| ManifestError::TooLarge {
                    member: name(),
                    size,
                    max: MAX_SIZE,
                })?;
            }
        }
        Ok(())
    }

    fn disks(
        &self,
        record: &MemberRecord,
        before: &BTreeSet<&str>,
        stored: &mut BTreeSet<String>,
    ) -> Result<(), ManifestError> {
        let member = &record.member;
        bound("disks", record.disks.len(), MAX_DISKS)?;
        let same = member.disks.len() == record.disks.len()
            && member.disks.iter().zip(&record.disks).all(|(disk, content)| disk.name == content.name);
        let roots = member.disks.iter().filter(|disk| disk.role == DiskRole::Rootfs).count();
        if !same || roots > 1 {
            return Err(ManifestError::Contradiction(Contradiction::Disks(member.name.clone())));
        }
        for disk in &record.disks {
            component("a disk", &disk.name)?;
            let name = stored_name(&member.name, &disk.name);
            if let DiskContent::Zfs { snapshot, .. } = &disk.content {
                component("a snapshot", snapshot)?;
                // Deleting destroys it at its source too, so it must not be able to name one of somebody else.
                if snapshot.strip_prefix(SNAPSHOT_PREFIX) != Some(self.id.as_str()) {
                    return Err(ManifestError::Contradiction(Contradiction::Snapshot(snapshot.clone())));
                }
            }
            if let DiskContent::Shared { member, disk } = &disk.content {
                let held = self.member(member).and_then(|record| record.disk(disk));
                let fine = before.contains(member.as_str())
                    && held.is_some_and(|disk| !matches!(disk.content, DiskContent::Shared { .. }));
                if !fine {
                    return Err(ManifestError::Contradiction(Contradiction::Shared(name)));
                }
            }
            // `a-b` + `c` and `a` + `b-c` would be stored in one place; `memory` is taken by the images.
            if name == "memory" || !stored.insert(name.clone()) {
                return Err(ManifestError::Contradiction(Contradiction::DiskTwice(name)));
            }
        }
        Ok(())
    }

    fn memory(&self, record: &MemberRecord) -> Result<(), ManifestError> {
        let name = || record.member.name.clone();
        if record.memory.is_some() != (self.mode == CapturedMode::Full) {
            return Err(ManifestError::Contradiction(Contradiction::Memory(name())));
        }
        let Some(memory) = &record.memory else { return Ok(()) };
        bound("rounds", memory.rounds.len(), MAX_ROUNDS)?;
        bound("image files", memory.files.len(), MAX_FILES)?;
        if memory.rounds.is_empty() {
            return Err(ManifestError::Contradiction(Contradiction::NoRounds(name())));
        }
        for round in &memory.rounds {
            component("a round", round)?;
        }
        let mut paths = BTreeSet::new();
        for file in &memory.files {
            let (round, leaf) = file.path.split_once('/').unwrap_or(("", &file.path));
            component("an image file", leaf)?;
            if !memory.rounds.iter().any(|known| known == round) {
                return Err(ManifestError::Contradiction(Contradiction::Stray(file.path.clone())));
            }
            if !paths.insert(&file.path) {
                return Err(ManifestError::Contradiction(Contradiction::FileTwice(file.path.clone())));
            }
        }
        Ok(())
    }
}

fn bound(what: &'static str, count: usize, max: usize) -> Result<(), ManifestError> {
    if count > max { Err(ManifestError::TooMany { what, count, max }) } else { Ok(()) }
}

fn component(place: &str, name: &str) -> Result<(), ManifestError> {
    check_component(name).map_err(|source| ManifestError::Name { place: place.to_owned(), source })
}

#[cfg(test)]
mod tests;
