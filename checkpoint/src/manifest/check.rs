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
mod tests {
    use super::super::samples;
    use super::*;
    use proptest::prelude::*;

    fn refused(change: impl FnOnce(&mut Manifest)) -> ManifestError {
        let mut manifest = samples::full();
        change(&mut manifest);
        let bytes = serde_json::to_vec(&manifest).unwrap();
        Manifest::parse(&bytes).expect_err("accepted")
    }

    fn contradiction(error: ManifestError) -> Contradiction {
        match error {
            ManifestError::Contradiction(found) => found,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        for manifest in [samples::full(), samples::disk_only()] {
            let bytes = manifest.to_bytes().unwrap();
            assert_eq!(Manifest::parse(&bytes).unwrap(), manifest);
        }
    }

    #[test]
    fn a_manifest_of_version_1_as_it_was_first_written_still_reads() {
        let manifest = Manifest::parse(include_bytes!("v1.json")).unwrap();
        assert_eq!(manifest.id.as_str(), "web-20260304-050607-00ff");
        assert_eq!(manifest, samples::full());
    }

    #[test]
    fn a_newer_version_is_called_newer() {
        let error = Manifest::parse(br#"{"version": 2, "anything": {}}"#).unwrap_err();
        assert!(matches!(error, ManifestError::Version(2)), "{error}");
    }

    #[test]
    fn an_unknown_field_is_refused_at_every_level() {
        let good = serde_json::to_value(samples::full()).unwrap();
        for pointer in [
            "",
            "/pod",
            "/node",
            "/timeline",
            "/members/0",
            "/members/0/member",
            "/members/0/disks/0",
            "/members/0/disks/0/content",
            "/members/0/memory",
            "/members/0/memory/files/0",
        ] {
            let mut bad = good.clone();
            let object = bad.pointer_mut(pointer).and_then(|value| value.as_object_mut()).unwrap();
            object.insert("extra".into(), 1.into());
            let error = Manifest::parse(&serde_json::to_vec(&bad).unwrap()).unwrap_err();
            assert!(matches!(error, ManifestError::Json(_)), "{pointer}: {error}");
        }
    }

    #[test]
    fn a_path_that_leaves_its_directory_is_refused() {
        for path in
            ["../../etc/passwd", "/etc/passwd", "dump/../x", "dump/a/b", "dump/", "dump", "dump/.x", ""]
        {
            let error = refused(|m| m.members[0].memory.as_mut().unwrap().files[0].path = path.to_owned());
            assert!(
                matches!(error, ManifestError::Name { .. } | ManifestError::Contradiction(_)),
                "{path}: {error}"
            );
        }
        for name in ["..", "a/b", "/", "", ".hidden"] {
            refused(|m| m.members[0].member.name = name.to_owned());
            refused(|m| m.members[0].memory.as_mut().unwrap().rounds[0] = name.to_owned());
            refused(|m| {
                m.members[0].member.disks[0].name = name.to_owned();
                m.members[0].disks[0].name = name.to_owned();
            });
        }
    }

    #[test]
    fn contradictions_are_refused() {
        refused(|m| m.members.clear());
        refused(|m| m.members[1].member.name = m.members[0].member.name.clone());
        refused(|m| m.members[0].memory = None);
        refused(|m| m.mode = CapturedMode::Disk);
        refused(|m| m.members[0].disks.clear());
        for name in ["autosnap_daily", "cryopod-other-20260304-050607-00ff", "cryopod-", "web"] {
            let error = refused(|m| {
                let DiskContent::Zfs { snapshot, .. } = &mut m.members[0].disks[0].content else { panic!() };
                *snapshot = name.to_owned();
            });
            let Contradiction::Snapshot(named) = contradiction(error) else { panic!("{name}") };
            assert_eq!(named, name);
        }
        refused(|m| m.members[0].memory.as_mut().unwrap().rounds.clear());
        refused(|m| {
            let memory = m.members[0].memory.as_mut().unwrap();
            memory.files.push(memory.files[0].clone());
        });
        refused(|m| {
            let own = DiskContent::Shared { member: "web".into(), disk: "rootfs".into() };
            m.members[0].disks[0].content = own;
        });
    }

    #[test]
    fn an_endless_manifest_is_refused_before_it_is_parsed() {
        let bytes = vec![b' '; super::super::MAX_BYTES + 1];
        assert!(matches!(Manifest::parse(&bytes), Err(ManifestError::TooLong)));
        let deep = [vec![b'['; 100_000], vec![b']'; 100_000]].concat();
        assert!(matches!(Manifest::parse(&deep), Err(ManifestError::Json(_))));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(Manifest::parse(&bytes).is_err());
        }

        #[test]
        fn a_changed_byte_is_refused_or_gives_a_consistent_manifest(at in any::<prop::sample::Index>(), byte: u8) {
            let mut bytes = samples::full().to_bytes().unwrap();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if let Ok(manifest) = Manifest::parse(&bytes) {
                prop_assert!(manifest.to_bytes().is_ok());
            }
        }

        #[test]
        fn a_truncated_manifest_is_refused(at in any::<prop::sample::Index>()) {
            let bytes = samples::full().to_bytes().unwrap();
            prop_assert!(Manifest::parse(&bytes[..at.index(bytes.len())]).is_err());
        }
    }
}
