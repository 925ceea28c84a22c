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
    let manifest = Manifest::parse(include_bytes!("../v1.json")).unwrap();
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
    for path in ["../../etc/passwd", "/etc/passwd", "dump/../x", "dump/a/b", "dump/", "dump", "dump/.x", ""] {
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
fn sizes_that_no_node_has_are_refused_alone_and_in_sum() {
    let file = |m: &mut Manifest, member: usize, size| {
        m.members[member].memory.as_mut().unwrap().files[0].size = size;
    };
    let disk = |m: &mut Manifest, at: usize, size| match &mut m.members[0].disks[at].content {
        DiskContent::Zfs { referenced_bytes: bytes, .. } | DiskContent::Tree { bytes, .. } => *bytes = size,
        DiskContent::Shared { .. } => panic!("shared"),
    };
    let too_large = |error: ManifestError| {
        assert!(matches!(&error, ManifestError::TooLarge { max: MAX_SIZE, .. }), "{error}");
        assert_eq!(error.kind(), crate::kind::Kind::DataLoss);
    };
    for size in [MAX_SIZE + 1, u64::MAX] {
        too_large(refused(|m| file(m, 0, size)));
        too_large(refused(|m| disk(m, 0, size)));
        too_large(refused(|m| disk(m, 1, size)));
    }
    too_large(refused(|m| {
        file(m, 0, MAX_SIZE / 2);
        file(m, 1, MAX_SIZE / 2);
    }));
    too_large(refused(|m| {
        file(m, 0, MAX_SIZE / 2);
        disk(m, 1, MAX_SIZE / 2);
    }));
}

#[test]
fn a_summary_of_what_was_never_checked_does_not_overflow() {
    let mut manifest = samples::full();
    for record in &mut manifest.members {
        record.memory.as_mut().unwrap().files[0].size = u64::MAX;
        if let DiskContent::Zfs { referenced_bytes, .. } = &mut record.disks[0].content {
            *referenced_bytes = u64::MAX;
        }
    }
    let summary = manifest.summary();
    assert_eq!((summary.memory_bytes, summary.disk_bytes), (u64::MAX, u64::MAX));
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
