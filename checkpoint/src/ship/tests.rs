use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use cryopod_zfs::Zfs as _;
use cryopod_zfs::fake::Fault;
use proptest::prelude::*;

use super::format::{Reader, Tag, Writer};
use super::*;
use crate::digest;
use crate::fault::{self, test_hook};
use crate::manifest::{DiskContent, FileRecord, Manifest, samples};
use crate::progress::Silent;
use crate::store::StoreKind;
use crate::target::DiskSource;
use crate::testing::{World, cut, name, none};

fn exported(world: &World, id: &CheckpointId, options: ExportOptions) -> Vec<u8> {
    let mut stream = Vec::new();
    let exported = export(&world.store, id, &mut stream, options, &Silent, &none()).unwrap();
    assert_eq!(exported.bytes, stream.len() as u64);
    stream
}

fn import_into(world: &World, stream: &[u8], trusted: bool) -> Result<CheckpointId, ShipError> {
    import(&world.store, &world.journal, &mut &stream[..], ImportOptions { trusted }, &Silent, &none())
}

/// A stream of a checkpoint with memory, disks and a volume.
fn stream(kind: StoreKind) -> (Vec<u8>, Manifest) {
    let world = World::new(kind);
    let id = world.capture();
    let stream = exported(&world, &id, ExportOptions::default());
    (stream, world.store.manifest(&id, &none()).unwrap())
}

#[test]
fn a_checkpoint_comes_out_on_another_node_as_it_went_in() {
    for kind in [StoreKind::Zfs, StoreKind::Dir] {
        for trusted in [false, true] {
            let (stream, manifest) = stream(kind);
            let there = World::new(kind);
            let id = import_into(&there, &stream, trusted).unwrap();
            assert_eq!(there.store.manifest(&id, &none()).unwrap(), manifest);
            let info = there.store.info(&id, &none()).unwrap();
            assert!(info.settled && info.imported, "{info:?}");
            let error = import_into(&there, &stream, trusted).unwrap_err();
            assert_eq!(error.kind(), Kind::AlreadyExists, "{error}");
            there.store.verify(&id, &Silent, &none()).unwrap();
            there.recovered("imported");
            // And out again, the same.
            let again = exported(&there, &id, ExportOptions::default());
            if kind == StoreKind::Dir {
                assert!(again == stream, "the second export differs");
            }
            there.store.delete(&id, &none()).unwrap();
            there.recovered("imported and deleted");
        }
    }
}

#[test]
fn a_base_of_a_stranger_is_not_shared_and_one_of_our_nodes_is() {
    let (stream, _) = stream(StoreKind::Zfs);
    let bases = |world: &World| {
        let bases = world.zfs_store().children(&name("tank/cryopod/bases"), Default::default(), &none());
        bases.unwrap().len()
    };
    let world = World::new(StoreKind::Zfs);
    import_into(&world, &stream, false).unwrap();
    assert_eq!(bases(&world), 0);
    let world = World::new(StoreKind::Zfs);
    import_into(&world, &stream, true).unwrap();
    assert_eq!(bases(&world), 1);
}

#[test]
fn half_a_base_that_settling_left_is_in_no_import_s_way() {
    let (stream, manifest) = stream(StoreKind::Zfs);
    let bases = manifest.stored_disks().filter_map(|(_, _, disk)| match &disk.content {
        DiskContent::Zfs { base, .. } => *base,
        _ => None,
    });
    let base = bases.map(|guid| name(&format!("tank/cryopod/bases/{guid}"))).next().unwrap();
    for trusted in [false, true] {
        let there = World::new(StoreKind::Zfs);
        let image = "tank/snaps/1@snapshot".parse().unwrap();
        cut(&there, &cryopod_zfs::SendRequest::full(&image), &base, None);
        import_into(&there, &stream, trusted).unwrap();
        there.recovered("half a base");
    }
}

#[test]
fn an_export_without_bases_needs_them_on_the_other_side() {
    let world = World::new(StoreKind::Zfs);
    let (first, second) = (world.capture(), world.capture());
    let whole = exported(&world, &first, ExportOptions::default());
    let small = exported(&world, &second, ExportOptions { bases: false });
    assert!(small.len() < whole.len());
    let there = World::new(StoreKind::Zfs);
    let error = import_into(&there, &small, true).unwrap_err();
    assert!(matches!(error, ShipError::BaseMissing { .. }), "{error}");
    there.recovered("base missing");
    import_into(&there, &whole, true).unwrap();
    import_into(&there, &small, true).unwrap();
    there.recovered("base there");
}

#[test]
fn a_zfs_checkpoint_needs_a_zfs_store_and_says_so_before_anything_is_written() {
    let (stream, _) = stream(StoreKind::Zfs);
    let there = World::new(StoreKind::Dir);
    let error = import_into(&there, &stream, false).unwrap_err();
    assert!(matches!(error, ShipError::NeedsZfs { .. }), "{error}");
    there.check("needs zfs");
}

#[test]
fn a_directory_checkpoint_goes_into_a_zfs_store() {
    let (stream, manifest) = stream(StoreKind::Dir);
    let there = World::new(StoreKind::Zfs);
    let id = import_into(&there, &stream, false).unwrap();
    assert_eq!(there.store.manifest(&id, &none()).unwrap(), manifest);
    there.same_instant(&id, "from a directory");
}

fn refused(there: &World, stream: &[u8], what: &str) {
    let error = match import_into(there, stream, false) {
        Err(error) => error,
        Ok(id) => panic!("{what}: accepted as {id}"),
    };
    assert!(!error.to_string().is_empty());
    // Without any recovery.
    there.check(what);
}

#[test]
fn a_stream_that_ends_early_is_refused_and_nothing_is_left() {
    for kind in [StoreKind::Zfs, StoreKind::Dir] {
        let (stream, _) = stream(kind);
        let there = World::new(kind);
        // Every byte of the head and the tail, and a spread between.
        let cuts = (0..40)
            .chain((40..stream.len()).step_by(stream.len() / 60))
            .chain(stream.len() - 40..stream.len());
        for cut in cuts {
            refused(&there, &stream[..cut], &format!("{kind:?} cut at {cut} of {}", stream.len()));
        }
        import_into(&there, &stream, false).unwrap();
    }
}

#[test]
fn a_flipped_bit_is_refused_and_nothing_is_left() {
    for kind in [StoreKind::Zfs, StoreKind::Dir] {
        let (stream, _) = stream(kind);
        let there = World::new(kind);
        for (number, at) in (0..stream.len()).step_by(stream.len() / 120).enumerate() {
            let mut changed = stream.clone();
            changed[at] ^= 1 << (number % 8);
            refused(&there, &changed, &format!("{kind:?} bit flipped at {at}"));
        }
        import_into(&there, &stream, false).unwrap();
    }
}

#[test]
fn a_stream_goes_on_behind_its_end_mark_and_only_what_is_before_counts() {
    let (mut stream, _) = stream(StoreKind::Dir);
    stream.extend_from_slice(b"another stream");
    let there = World::new(StoreKind::Dir);
    let mut input = &stream[..];
    import(&there.store, &there.journal, &mut input, ImportOptions::default(), &Silent, &none()).unwrap();
    assert_eq!(input, b"another stream", "the reader took more than its own");
}

/// A well-formed stream around any manifest and sections.
fn built(manifest: &[u8], sections: &[(Tag, &str, &[u8])]) -> Vec<u8> {
    use std::io::Write as _;
    let mut stream = Vec::new();
    let mut writer = Writer::new(&mut stream).unwrap();
    let mut put = |tag, name: &str, data: &[u8]| {
        writer
            .section(tag, name, |section| -> Result<(), ShipError> {
                section.write_all(data).map_err(|source| ShipError::Io { action: "write", source })
            })
            .unwrap();
    };
    put(Tag::Manifest, "", manifest);
    for (tag, name, data) in sections {
        put(*tag, name, data);
    }
    writer.finish().unwrap();
    stream
}

/// One member with one image file and no disk.
fn small() -> Manifest {
    let mut manifest = samples::full();
    manifest.members.truncate(1);
    manifest.members[0].member.disks.clear();
    manifest.members[0].disks.clear();
    let memory = manifest.members[0].memory.as_mut().unwrap();
    memory.rounds = vec!["dump".into()];
    memory.files =
        vec![FileRecord { path: "dump/pages-1.img".into(), size: 5, sha256: digest::of(b"pages") }];
    manifest
}

const IMAGE: (Tag, &str, &[u8]) = (Tag::Image, "web/dump/pages-1.img", b"pages");

#[test]
fn a_manifest_with_path_tricks_creates_nothing() {
    let there = World::new(StoreKind::Dir);
    let good = small().to_bytes().unwrap();
    let text = String::from_utf8(good.clone()).unwrap();
    for (from, to) in [
        ("dump/pages-1.img", "../../../../etc/cron.d/x"),
        ("dump/pages-1.img", "/etc/cron.d/x"),
        ("dump/pages-1.img", "dump/parent/x"),
        ("\"dump\"", "\"..\""),
        ("\"name\": \"web\",\n        \"id\"", "\"name\": \"../../web\",\n        \"id\""),
        ("\"id\": \"web-2026", "\"id\": \"../web-2026"),
        ("\"id\": \"web-2026", "\"id\": \"/web-2026"),
    ] {
        assert!(text.contains(from), "{from} is not in the manifest");
        let bad = text.replace(from, to);
        refused(&there, &built(bad.as_bytes(), &[IMAGE]), to);
    }
    import_into(&there, &built(&good, &[IMAGE]), false).unwrap();
}

#[test]
fn sections_that_the_manifest_does_not_ask_for_are_refused() {
    let there = World::new(StoreKind::Dir);
    let manifest = small().to_bytes().unwrap();
    let other = (Tag::Image, "web/dump/other.img", &b"pages"[..]);
    let long = (IMAGE.0, IMAGE.1, &b"pages and more"[..]);
    let short = (IMAGE.0, IMAGE.1, &b"page"[..]);
    let wrong = (IMAGE.0, IMAGE.1, &b"pAges"[..]);
    let tree = (Tag::Tree, "web-rootfs", &b"E"[..]);
    let base = (Tag::Base, "1", &b""[..]);
    let named_manifest = (Tag::Manifest, "", &manifest[..]);
    let cases: [&[(Tag, &str, &[u8])]; 10] = [
        &[],
        &[IMAGE, IMAGE],
        &[other],
        &[other, IMAGE],
        &[long],
        &[short],
        &[wrong],
        &[IMAGE, tree],
        &[IMAGE, base],
        &[named_manifest, IMAGE],
    ];
    for (number, case) in cases.iter().enumerate() {
        refused(&there, &built(&manifest, case), &format!("case {number}"));
    }
}

#[test]
fn a_disk_that_lies_about_its_contents_is_refused() {
    let there = World::new(StoreKind::Zfs);
    let world = World::new(StoreKind::Zfs);
    let (first, second) = (world.capture(), world.capture());
    let manifest = |id| world.store.manifest(id, &none()).unwrap();
    // The stream of one checkpoint under the manifest of another: every hash of the framing is right.
    let one = exported(&world, &first, ExportOptions::default());
    let mut claimed = manifest(&first);
    for (ours, theirs) in claimed.members.iter_mut().zip(manifest(&second).members) {
        for (disk, other) in ours.disks.iter_mut().zip(theirs.disks) {
            if let (DiskContent::Zfs { guid, .. }, DiskContent::Zfs { guid: other, .. }) =
                (&mut disk.content, other.content)
            {
                *guid = other;
            }
        }
    }
    let sections = rebuilt(&one, &claimed.to_bytes().unwrap());
    let error = import_into(&there, &sections, true).unwrap_err();
    assert!(matches!(error, ShipError::WrongGuid { .. }), "{error}");
    there.recovered("wrong guid");
}

#[test]
fn deleting_an_import_destroys_nothing_outside_of_the_store_whatever_its_manifest_names() {
    let (stream, mut manifest) = stream(StoreKind::Zfs);
    let mut there = World::new(StoreKind::Zfs);
    // A replica of the disk, which has its guid and its name, as a sender may know them of any snapshot.
    let id = import_into(&there, &stream, false).unwrap();
    let stored = format!("tank/cryopod/checkpoints/{id}/web-rootfs@cryopod-{id}").parse().unwrap();
    let victim = name("tank/victim");
    let receive = cryopod_zfs::ReceiveRequest::new(&victim);
    there.fake.copy(&cryopod_zfs::SendRequest::full(&stored), &receive, &none()).unwrap();
    there.baseline.extend([victim.to_string(), format!("{victim}@cryopod-{id}")]);
    there.store.delete(&id, &none()).unwrap();
    for record in &mut manifest.members {
        let DiskSource::Zfs { dataset, .. } = &mut record.member.disks[0].source else { panic!() };
        *dataset = victim.clone();
    }
    import_into(&there, &rebuilt(&stream, &manifest.to_bytes().unwrap()), false).unwrap();
    there.store.delete(&id, &none()).unwrap();
    there.recovered("the replica stays");
}

/// The same sections behind another manifest, with all hashes made right.
fn rebuilt(stream: &[u8], manifest: &[u8]) -> Vec<u8> {
    use std::io::Read as _;
    let limits = none();
    let mut input = stream;
    let mut reader = Reader::new(&mut input, &limits).unwrap();
    let mut sections: Vec<(Tag, String, Vec<u8>)> = Vec::new();
    loop {
        let (tag, name) = reader.next().unwrap();
        if tag == Tag::End {
            break;
        }
        let mut data = reader.data();
        let mut bytes = Vec::new();
        data.read_to_end(&mut bytes).unwrap();
        data.finish().unwrap();
        if tag != Tag::Manifest {
            sections.push((tag, name, bytes));
        }
    }
    let sections: Vec<(Tag, &str, &[u8])> =
        sections.iter().map(|(tag, name, bytes)| (*tag, name.as_str(), bytes.as_slice())).collect();
    built(manifest, &sections)
}

#[test]
fn every_step_of_an_import_may_fail_or_be_its_last() {
    let steps =
        fault::STEPS.iter().copied().filter(|step| step.starts_with("import.")).chain(["capture.commit"]);
    for step in steps {
        for kind in [StoreKind::Zfs, StoreKind::Dir] {
            let (stream, _) = stream(kind);
            let world = World::new(kind);
            let hooked = test_hook::fail_at(step, 0);
            import_into(&world, &stream, true).unwrap_err();
            drop(hooked);
            world.recovered(step);

            let world = Arc::new(World::new(kind));
            let (died, met) = mpsc::channel();
            let theirs = Arc::clone(&world);
            thread::spawn(move || {
                let _hooked = test_hook::die_at(step, died);
                import_into(&theirs, &stream, true)
            });
            met.recv_timeout(Duration::from_secs(20)).unwrap_or_else(|_| panic!("{step} was not met"));
            world.process_died();
            world.recovered(&format!("killed at {step}"));
            std::mem::forget(world);
        }
    }
}

#[test]
fn every_call_to_zfs_may_fail_while_exporting_and_importing() {
    let (stream, _) = stream(StoreKind::Zfs);
    for nth in 0.. {
        let world = World::new(StoreKind::Zfs);
        let before = world.fake.calls().len();
        world.fake.inject(
            None,
            nth,
            Fault::Fail(Box::new(|op| cryopod_zfs::Error::NoSpace { op, quota: false })),
        );
        let result = import_into(&world, &stream, nth % 2 == 0);
        let calls = world.fake.calls();
        let Some(call) = calls.get(before + nth) else {
            result.unwrap();
            break;
        };
        world.recovered(&format!("import, call {nth} ({call})"));
    }
    for nth in 0.. {
        let world = World::new(StoreKind::Zfs);
        let id = world.capture();
        let before = world.fake.calls().len();
        world.fake.inject(
            None,
            nth,
            Fault::Fail(Box::new(|op| cryopod_zfs::Error::NoSpace { op, quota: false })),
        );
        let result = export(&world.store, &id, &mut Vec::new(), ExportOptions::default(), &Silent, &none());
        let calls = world.fake.calls();
        let Some(call) = calls.get(before + nth) else {
            result.unwrap();
            break;
        };
        result.unwrap_err();
        world.recovered(&format!("export, call {nth} ({call})"));
    }
}

#[test]
fn what_was_changed_in_the_store_is_not_exported() {
    let flip = |path: std::path::PathBuf| {
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[0] ^= 1;
        std::fs::write(&path, bytes).unwrap();
    };
    for file in ["images/web/dump/inventory.img", "disks/web-rootfs/count"] {
        let world = World::new(StoreKind::Dir);
        let id = world.capture();
        exported(&world, &id, ExportOptions::default());
        flip(world.store.content(&id).dir().join(file));
        let mut stream = Vec::new();
        let error = export(&world.store, &id, &mut stream, ExportOptions::default(), &Silent, &none());
        let error = error.unwrap_err();
        assert_eq!(error.kind(), Kind::DataLoss, "{file}: {error}");
        refused(&World::new(StoreKind::Dir), &stream, file);
    }
}

#[test]
fn a_reader_that_goes_away_ends_the_export() {
    struct Full(usize);
    impl io::Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.0 < bytes.len() {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            self.0 -= bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let world = World::new(StoreKind::Zfs);
    let id = world.capture();
    let whole = exported(&world, &id, ExportOptions::default()).len();
    // Small steps: in whichever section it is.
    for room in (0..whole).step_by(whole / 200) {
        let result = export(&world.store, &id, &mut Full(room), ExportOptions::default(), &Silent, &none());
        assert!(matches!(result, Err(ShipError::Io { action: "write", .. })), "{result:?}");
    }
    world.recovered("reader gone");
}

#[test]
fn a_full_pool_refuses_and_keeps_nothing() {
    let (stream, _) = stream(StoreKind::Zfs);
    let there = World::new(StoreKind::Zfs);
    let used = there.fake.dataset(&name("tank"), &none()).unwrap().unwrap().used.0;
    there.fake.set_pool_size(&"tank".parse().unwrap(), cryopod_zfs::Bytes(used + 3000));
    let error = import_into(&there, &stream, false).unwrap_err();
    assert_eq!(error.kind(), Kind::ResourceExhausted, "{error}");
    there.fake.set_pool_size(&"tank".parse().unwrap(), cryopod_zfs::Bytes(1 << 30));
    there.recovered("full");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn arbitrary_bytes_are_refused_and_leave_nothing(bytes in prop::collection::vec(any::<u8>(), 0..300), head: bool) {
        thread_local! { static THERE: World = World::new(StoreKind::Dir); }
        let mut stream = Vec::new();
        if head {
            // Past the magic and a good manifest, so that the sections are reached.
            stream = built(&small().to_bytes().unwrap(), &[]);
            stream.truncate(stream.len() - 33);
        }
        stream.extend_from_slice(&bytes);
        THERE.with(|there| {
            assert!(import_into(there, &stream, false).is_err());
            there.check("arbitrary");
        });
    }
}
