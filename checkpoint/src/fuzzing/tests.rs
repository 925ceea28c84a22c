use std::hash::{DefaultHasher, Hasher as _};
use std::sync::OnceLock;

use proptest::prelude::*;

use super::*;
use crate::ship::ExportOptions;
use crate::store::StoreKind;
use crate::testing::{World, none};

/// The stream of a pod on ZFS: two disks and their base.
fn of_zfs() -> &'static [u8] {
    static STREAM: OnceLock<Vec<u8>> = OnceLock::new();
    STREAM.get_or_init(|| {
        let world = World::new(StoreKind::Zfs);
        let id = world.capture();
        let mut stream = Vec::new();
        ship::export(&world.store, &id, &mut stream, ExportOptions::default(), &Silent, &none()).unwrap();
        stream
    })
}

/// `zfs send` of an empty dataset whose snapshot has that guid.
fn sent(snapshot: &str, guid: u64) -> Vec<u8> {
    let header = serde_json::json!({
        "snapshot": format!("x@{snapshot}"), "guid": guid, "from": null, "clone": false, "payload": 0, "offset": 0
    });
    let header = header.to_string().into_bytes();
    let mut bytes = b"cryopod-fake-stream\n".to_vec();
    bytes.extend_from_slice(&u32::try_from(header.len()).unwrap().to_le_bytes());
    bytes.extend_from_slice(&header);
    // The checksum of no payload.
    bytes.extend_from_slice(&DefaultHasher::new().finish().to_le_bytes());
    bytes
}

/// A section of one chunk whose hash is right.
fn section(tag: u8, name: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag];
    bytes.extend_from_slice(&u16::try_from(name.len()).unwrap().to_le_bytes());
    bytes.extend_from_slice(name.as_bytes());
    if !data.is_empty() {
        bytes.extend_from_slice(&u32::try_from(data.len()).unwrap().to_le_bytes());
        bytes.extend_from_slice(data);
    }
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&digest::of(data).0);
    bytes
}

#[test]
fn the_sections_of_zfs_are_reached() {
    for trusted in [false, true] {
        assert!(into_zfs(of_zfs(), ImportOptions { trusted }), "a good stream is refused");
        assert!(!into_zfs(&of_zfs()[..of_zfs().len() - 1], ImportOptions { trusted }));
    }
    // What the property test below is made of, as a whole.
    let head = ship::head(&sample(true)).unwrap();
    let snapshot = "cryopod-web-20260304-050607-00ff";
    let mut stream = [head, section(b'Z', "web-rootfs@", &sent(snapshot, 7)), vec![b'E']].concat();
    let hash = digest::of(&stream).0;
    stream.extend_from_slice(&hash);
    assert!(into_zfs(&stream, ImportOptions::default()), "a disk without a base is refused");
    // What needs ZFS does not come into a directory.
    assert!(!into_dir(of_zfs(), ImportOptions::default()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn what_the_fuzz_targets_assert_holds_for_arbitrary_bytes(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        manifest(&bytes);
        journal(&bytes);
        export_stream(&bytes);
    }

    #[test]
    fn and_for_sections_that_almost_fit(name in "(web|side)/(dump|1|\\.\\.)/[a-z./-]{0,12}", data in prop::collection::vec(any::<u8>(), 0..64)) {
        let mut bytes = vec![1];
        bytes.extend_from_slice(&section(b'I', &name, &data));
        export_stream(&bytes);
    }

    #[test]
    fn and_for_disks_that_almost_fit(
        trusted: bool,
        base in prop::option::of(prop_oneof![Just(u64::MAX), any::<u64>()]),
        name in "(web-rootfs|side-rootfs|\\.\\.)@(|7|18446744073709551615|x)",
        guid in prop_oneof![Just(7), any::<u64>()],
        data in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let mut bytes = vec![if trusted { 7 } else { 3 }];
        if let Some(base) = base {
            bytes.extend_from_slice(&section(b'B', &base.to_string(), &sent("snapshot", base)));
        }
        bytes.extend_from_slice(&section(b'Z', &name, &sent("cryopod-web-20260304-050607-00ff", guid)));
        bytes.extend_from_slice(&section(b'Z', &name, &data));
        export_stream(&bytes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_stream_of_zfs_that_was_changed_is_refused_without_a_trace(
        at in any::<prop::sample::Index>(), bit in 0..8u8, trusted: bool,
    ) {
        let mut stream = of_zfs().to_vec();
        let at = at.index(stream.len());
        stream[at] ^= 1 << bit;
        let accepted = into_zfs(&stream, ImportOptions { trusted });
        prop_assert!(!accepted);
    }
}
